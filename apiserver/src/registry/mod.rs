//! The resources the server has: one file a kind, one line here.

pub mod admissionregistration;
pub mod allocators;
pub mod apiextensions;
pub mod apiregistration;
pub mod apps;
pub mod authentication;
pub mod authorization;
pub mod autoscaling;
pub mod batch;
pub mod catalog;
pub mod certificates;
pub mod common;
pub mod coordination;
pub mod core;
pub mod discovery;
pub mod extensions;
pub mod flowcontrol;
pub mod info;
pub mod networking;
pub mod node;
pub mod policy;
pub mod rbac;
pub mod resource;
pub mod scheduling;
pub mod selected;
pub mod storage;
pub mod strategy;

use std::sync::Arc;

use admissionregistration::configuration::ConfigurationKind;
use admissionregistration::policies::PolicyKind;
use admissionregistration::policy_binding::BindingKind;
use k8s_openapi::api::admissionregistration::v1::{
    MutatingAdmissionPolicy, MutatingAdmissionPolicyBinding, MutatingWebhookConfiguration,
    ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding, ValidatingWebhookConfiguration,
};
use strategy::ErasedStrategy;

/// Every built-in resource.
pub fn all() -> Vec<Arc<dyn ErasedStrategy>> {
    vec![
        // core
        Arc::new(core::binding::BindingKind),
        Arc::new(core::component_status::ComponentStatusKind),
        Arc::new(core::namespace::NamespaceStrategy),
        Arc::new(core::node::NodeStrategy),
        Arc::new(core::pod::PodStrategy),
        Arc::new(core::service::ServiceStrategy::new()),
        Arc::new(core::endpoints::EndpointsStrategy),
        Arc::new(core::config_map::ConfigMapStrategy),
        Arc::new(core::secret::SecretStrategy),
        Arc::new(core::service_account::ServiceAccountStrategy),
        Arc::new(core::event::EventStrategy),
        Arc::new(core::replication_controller::ReplicationControllerStrategy),
        Arc::new(core::pod_template::PodTemplateStrategy),
        Arc::new(core::limit_range::LimitRangeStrategy),
        Arc::new(core::resource_quota::ResourceQuotaStrategy),
        Arc::new(core::persistent_volume::PersistentVolumeStrategy),
        Arc::new(core::persistent_volume_claim::PersistentVolumeClaimStrategy),
        // apps
        Arc::new(apps::deployment::DeploymentKind),
        Arc::new(apps::replica_set::ReplicaSetKind),
        Arc::new(apps::daemon_set::DaemonSetKind),
        Arc::new(apps::stateful_set::StatefulSetKind),
        Arc::new(apps::controller_revision::ControllerRevisionKind),
        // admissionregistration.k8s.io
        Arc::new(ConfigurationKind::<MutatingWebhookConfiguration>::strategy()),
        Arc::new(ConfigurationKind::<ValidatingWebhookConfiguration>::strategy()),
        Arc::new(PolicyKind::<ValidatingAdmissionPolicy>::strategy()),
        Arc::new(BindingKind::<ValidatingAdmissionPolicyBinding>::strategy()),
        Arc::new(PolicyKind::<MutatingAdmissionPolicy>::strategy()),
        Arc::new(BindingKind::<MutatingAdmissionPolicyBinding>::strategy()),
        // apiregistration.k8s.io
        Arc::new(apiregistration::api_service::ApiServiceKind),
        // apiextensions.k8s.io
        Arc::new(apiextensions::custom_resource_definition::CustomResourceDefinitionKind),
        // autoscaling
        Arc::new(autoscaling::horizontal_pod_autoscaler::HorizontalPodAutoscalerKind),
        // batch
        Arc::new(batch::job::JobKind),
        Arc::new(batch::cron_job::CronJobKind),
        // policy
        Arc::new(policy::pod_disruption_budget::PodDisruptionBudgetKind),
        // rbac.authorization.k8s.io
        Arc::new(rbac::role::RoleKind),
        Arc::new(rbac::cluster_role::ClusterRoleKind),
        Arc::new(rbac::role_binding::RoleBindingKind),
        Arc::new(rbac::cluster_role_binding::ClusterRoleBindingKind),
        // authentication.k8s.io
        Arc::new(authentication::token_review::TokenReviewKind),
        Arc::new(authentication::self_subject_review::SelfSubjectReviewKind),
        // authorization.k8s.io
        Arc::new(authorization::subject_access_review::SubjectAccessReviewKind),
        Arc::new(authorization::local_subject_access_review::LocalSubjectAccessReviewKind),
        Arc::new(authorization::self_subject_access_review::SelfSubjectAccessReviewKind),
        Arc::new(authorization::self_subject_rules_review::SelfSubjectRulesReviewKind),
        // certificates.k8s.io
        Arc::new(certificates::certificate_signing_request::CertificateSigningRequestKind),
        // networking.k8s.io
        Arc::new(networking::ingress::IngressKind),
        Arc::new(networking::ingress_class::IngressClassKind),
        Arc::new(networking::network_policy::NetworkPolicyKind),
        Arc::new(networking::ip_address::IpAddressKind),
        Arc::new(networking::service_cidr::ServiceCidrKind),
        // flowcontrol.apiserver.k8s.io
        Arc::new(flowcontrol::flow_schema::FlowSchemaKind),
        Arc::new(flowcontrol::priority_level::PriorityLevelConfigurationKind),
        // resource.k8s.io
        Arc::new(resource::device_class::DeviceClassKind),
        Arc::new(resource::resource_claim::ResourceClaimKind),
        Arc::new(resource::resource_claim_template::ResourceClaimTemplateKind),
        Arc::new(resource::resource_slice::ResourceSliceKind),
        // node.k8s.io, storage.k8s.io
        Arc::new(node::runtime_class::RuntimeClassKind),
        Arc::new(storage::csi_driver::CsiDriverKind),
        Arc::new(storage::csi_node::CsiNodeKind),
        Arc::new(storage::csi_storage_capacity::CsiStorageCapacityKind),
        Arc::new(storage::volume_attachment::VolumeAttachmentKind),
        Arc::new(storage::volume_attributes_class::VolumeAttributesClassKind),
        Arc::new(storage::storage_class::StorageClassKind),
        // scheduling.k8s.io
        Arc::new(scheduling::priority_class::PriorityClassKind),
        // discovery.k8s.io, coordination.k8s.io
        Arc::new(discovery::endpoint_slice::EndpointSliceKind),
        Arc::new(coordination::lease::LeaseKind),
    ]
}
