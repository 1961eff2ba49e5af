//! Descriptions of types and fields, from `k8s-openapi`.

use std::collections::BTreeMap;

use k8s_openapi::api::{
    admissionregistration::v1 as admissionregistration, apps::v1 as apps,
    authentication::v1 as authentication, authorization::v1 as authorization, autoscaling::v1 as autoscaling,
    autoscaling::v2 as autoscaling_v2, batch::v1 as batch, certificates::v1 as certificates,
    coordination::v1 as coordination, core::v1 as core, discovery::v1 as discovery, events::v1 as events,
    flowcontrol::v1 as flowcontrol, networking::v1 as networking, node::v1 as node, policy::v1 as policy,
    rbac::v1 as rbac, resource::v1 as resource, scheduling::v1 as scheduling, storage::v1 as storage,
};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1 as apiextensions;
use k8s_openapi::apimachinery::pkg::runtime::RawExtension;
use k8s_openapi::apimachinery::pkg::{apis::meta::v1 as meta, version};
use k8s_openapi::kube_aggregator::pkg::apis::apiregistration::v1 as apiregistration;
use schemars::{JsonSchema, SchemaGenerator};
use serde_json::{Map, Value};

/// Describes a type and all it is made of.
type Describe = fn(&mut SchemaGenerator);

fn describe<T: JsonSchema>(generator: &mut SchemaGenerator) {
    generator.subschema_for::<T>();
}

macro_rules! roots {
    ($($kind:path),+ $(,)?) => {
        /// The types that all others hang from, and how each is described.
        fn roots() -> Vec<(std::borrow::Cow<'static, str>, Describe)> {
            vec![$((<$kind as JsonSchema>::schema_name(), describe::<$kind> as Describe)),+]
        }
    };
}

roots! {
    admissionregistration::MutatingAdmissionPolicy, admissionregistration::MutatingAdmissionPolicyBinding, admissionregistration::MutatingWebhookConfiguration, admissionregistration::ValidatingAdmissionPolicy, admissionregistration::ValidatingAdmissionPolicyBinding, admissionregistration::ValidatingWebhookConfiguration,
    apps::ControllerRevision, apps::DaemonSet, apps::Deployment, apps::ReplicaSet, apps::StatefulSet,
    authentication::SelfSubjectReview, authentication::TokenRequest, authentication::TokenReview,
    authorization::LocalSubjectAccessReview, authorization::SelfSubjectAccessReview, authorization::SelfSubjectRulesReview, authorization::SubjectAccessReview,
    autoscaling::HorizontalPodAutoscaler, autoscaling::Scale,
    autoscaling_v2::HorizontalPodAutoscaler,
    batch::CronJob, batch::Job,
    certificates::CertificateSigningRequest,
    coordination::Lease,
    core::Binding, core::ComponentStatus, core::ConfigMap, core::Endpoints, core::Event, core::LimitRange, core::Namespace, core::Node, core::PersistentVolume, core::PersistentVolumeClaim, core::Pod, core::PodTemplate, core::ReplicationController, core::ResourceQuota, core::Secret, core::Service, core::ServiceAccount,
    discovery::EndpointSlice,
    events::Event,
    flowcontrol::FlowSchema, flowcontrol::PriorityLevelConfiguration,
    networking::IPAddress, networking::Ingress, networking::IngressClass, networking::NetworkPolicy, networking::ServiceCIDR,
    node::RuntimeClass,
    policy::Eviction, policy::PodDisruptionBudget,
    rbac::ClusterRole, rbac::ClusterRoleBinding, rbac::Role, rbac::RoleBinding,
    resource::DeviceClass, resource::ResourceClaim, resource::ResourceClaimTemplate, resource::ResourceSlice,
    scheduling::PriorityClass,
    storage::CSIDriver, storage::CSINode, storage::CSIStorageCapacity, storage::StorageClass, storage::VolumeAttachment, storage::VolumeAttributesClass,
    apiextensions::CustomResourceDefinition,
    apiregistration::APIService,
    meta::APIGroup, meta::APIGroupList, meta::APIResourceList, meta::APIVersions, meta::DeleteOptions, meta::ListMeta, meta::Patch, meta::Status,
    meta::WatchEvent<RawExtension>,
    version::Info,
}

/// The descriptions of some types.
pub(super) struct Descriptions(Map<String, Value>);

impl Descriptions {
    /// Describes the types of these names and what they are made of.
    pub(super) fn of<'a>(names: impl Iterator<Item = &'a String>) -> Self {
        let roots: BTreeMap<_, _> = roots().into_iter().collect();
        let mut generator = SchemaGenerator::default();
        for name in names {
            if let Some(describe) = roots.get(name.as_str()) {
                describe(&mut generator);
            }
        }
        Self(generator.take_definitions(false))
    }

    /// What a type is.
    pub(super) fn of_type(&self, name: &str) -> Option<String> {
        match self.0.get(name) {
            Some(schema) => Some(schema.get("description")?.as_str()?.to_owned()),
            // Lists are one generic type in the library.
            None => Some(format!(
                "{} is a list of {} objects.",
                last(name),
                last(name.strip_suffix("List")?)
            )),
        }
    }

    /// What a field is.
    pub(super) fn of_field(&self, name: &str, field: &str) -> Option<&str> {
        if let Some(schema) = self.0.get(name) {
            return schema.get("properties")?.get(field)?.get("description")?.as_str();
        }
        name.strip_suffix("List")?;
        match field {
            "items" => Some("The objects."),
            "metadata" => Some("Standard list metadata."),
            // The same for every kind: the library's words.
            _ => self.of_field(&format!("{}Status", super::operations::META), field),
        }
    }
}

fn last(name: &str) -> &str {
    name.rsplit('.').next().unwrap_or(name)
}
