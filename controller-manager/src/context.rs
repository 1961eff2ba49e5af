//! What controllers share: the client, the configuration, and one informer per kind.

use std::sync::{Arc, OnceLock};

use k8s_openapi::api::apps::v1::{ControllerRevision, DaemonSet, Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::batch::v1::{CronJob, Job};
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{
    ConfigMap, Endpoints, Namespace, Node, PersistentVolume, PersistentVolumeClaim, Pod,
    ReplicationController, ResourceQuota, Secret, Service, ServiceAccount,
};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::{IPAddress, ServiceCIDR};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::api::rbac::v1::ClusterRole;
use keelson_api::labels;
use keelson_api::object::Kind;
use keelson_api::owners::controller_ref;
use keelson_client::{Client, EventRecorder, Indexer, Informer, InformerOptions};
use tokio_util::sync::CancellationToken;

use crate::common::trim;
use crate::config::Config;

/// Index: objects by the uid of their controller.
pub const BY_CONTROLLER: &str = "controller";
/// Index: objects without a controller, by namespace.
pub const ORPHANS: &str = "orphans";
/// Index: pods by the node they are bound to; those bound to none under the empty name.
pub const BY_NODE: &str = "node";
/// Index: endpoint slices by `namespace/service`.
pub const BY_SERVICE: &str = "service";

/// Handed to every controller. Cheap to clone.
#[derive(Clone)]
pub struct Context {
    shared: Arc<Shared>,
    /// What this controller calls the apiserver as.
    client: Client,
}

struct Shared {
    /// What informers watch as: they are everybody's.
    client: Client,
    config: Config,
    shutdown: CancellationToken,
    informers: Informers,
}

/// Declares informers that start with the first controller that asks for them.
macro_rules! informers {
    ($($(#[$doc:meta])* $name:ident: $kind:ty, $options:expr, [$($indexer:expr),*], $trim:expr;)*) => {
        #[derive(Default)]
        struct Informers {
            $($name: OnceLock<Informer<$kind>>,)*
        }

        impl Context {
            $(
                $(#[$doc])*
                #[must_use]
                pub fn $name(&self) -> Informer<$kind> {
                    let shared = &self.shared;
                    let start = || {
                        let indexers = vec![$($indexer),*];
                        Informer::start_trimmed(&shared.client, $options, indexers, $trim, &shared.shutdown)
                    };
                    shared.informers.$name.get_or_init(start).clone()
                }
            )*
        }
    };
}

informers! {
    /// Every pod, trimmed: to be patched, not written back.
    pods: Pod, all(), [by_controller(), orphans(), by_node()], trim::pod;
    /// Every node.
    nodes: Node, all(), [], whole;
    /// Every namespace.
    namespaces: Namespace, all(), [], whole;
    /// Every service.
    services: Service, all(), [], whole;
    /// Every Endpoints object.
    endpoints: Endpoints, all(), [], whole;
    /// Every endpoint slice.
    endpoint_slices: EndpointSlice, all(), [by_service()], whole;
    /// Every Deployment.
    deployments: Deployment, all(), [], whole;
    /// Every ReplicaSet.
    replica_sets: ReplicaSet, all(), [by_controller(), orphans()], whole;
    /// Every ReplicationController.
    replication_controllers: ReplicationController, all(), [by_controller(), orphans()], whole;
    /// Every DaemonSet.
    daemon_sets: DaemonSet, all(), [], whole;
    /// Every StatefulSet.
    stateful_sets: StatefulSet, all(), [], whole;
    /// Every ControllerRevision.
    controller_revisions: ControllerRevision, all(), [by_controller(), orphans()], whole;
    /// Every CronJob.
    cron_jobs: CronJob, all(), [], whole;
    /// Every Job.
    jobs: Job, all(), [by_controller()], whole;
    /// Every claim of a volume.
    persistent_volume_claims: PersistentVolumeClaim, all(), [], whole;
    /// Every volume.
    persistent_volumes: PersistentVolume, all(), [], whole;
    /// Every range of service addresses.
    service_cidrs: ServiceCIDR, all(), [], whole;
    /// Every address that is taken, whose name and manager are all that is kept.
    ip_addresses: IPAddress, all(), [], trim::address;
    /// Every disruption budget.
    pod_disruption_budgets: PodDisruptionBudget, all(), [], whole;
    /// Every quota.
    resource_quotas: ResourceQuota, all(), [], whole;
    /// Every service account.
    service_accounts: ServiceAccount, all(), [], whole;
    /// Secrets with tokens of service accounts.
    token_secrets: Secret, of_type("", crate::serviceaccounttoken::TYPE), [], whole;
    /// Secrets with bootstrap tokens.
    bootstrap_secrets: Secret, of_type(crate::bootstraptokens::NAMESPACE, crate::bootstraptokens::TYPE), [], whole;
    /// What machines that join learn the cluster from.
    cluster_info: ConfigMap, cluster_info_only(), [], whole;
    /// The service accounts named `default`.
    default_service_accounts: ServiceAccount, named("default"), [], whole;
    /// The config maps that carry the cluster's root certificate.
    root_ca_config_maps: ConfigMap, named(crate::rootca::NAME), [], whole;
    /// Every role of the cluster.
    cluster_roles: ClusterRole, all(), [], whole;
    /// Every request for a certificate.
    certificate_signing_requests: CertificateSigningRequest, all(), [], whole;
    /// The nodes' heartbeats.
    node_leases: Lease, within("kube-node-lease"), [], whole;
}

/// Keeps objects as they are.
fn whole<K>(_: &mut K) {}

fn all() -> InformerOptions {
    InformerOptions::default()
}

fn named(name: &str) -> InformerOptions {
    InformerOptions {
        field_selector: format!("metadata.name={name}"),
        ..InformerOptions::default()
    }
}

fn of_type(namespace: &str, kind: &str) -> InformerOptions {
    InformerOptions {
        namespace: namespace.into(),
        field_selector: format!("type={kind}"),
        ..InformerOptions::default()
    }
}

fn cluster_info_only() -> InformerOptions {
    InformerOptions {
        namespace: crate::bootstraptokens::signer::NAMESPACE.into(),
        ..named(crate::bootstraptokens::signer::NAME)
    }
}

fn within(namespace: &str) -> InformerOptions {
    InformerOptions {
        namespace: namespace.into(),
        ..InformerOptions::default()
    }
}

fn by_controller<K: Kind>() -> Indexer<K> {
    Indexer {
        name: BY_CONTROLLER,
        keys: |object| {
            controller_ref(object.meta())
                .map(|owner| owner.uid.clone())
                .into_iter()
                .collect()
        },
    }
}

fn orphans<K: Kind>() -> Indexer<K> {
    Indexer {
        name: ORPHANS,
        keys: |object| match controller_ref(object.meta()) {
            Some(_) => Vec::new(),
            None => vec![object.namespace().to_owned()],
        },
    }
}

fn by_node() -> Indexer<Pod> {
    Indexer {
        name: BY_NODE,
        keys: |pod| vec![crate::common::pods::node_name(pod).to_owned()],
    }
}

fn by_service() -> Indexer<EndpointSlice> {
    Indexer {
        name: BY_SERVICE,
        keys: |slice| {
            let labels = slice.metadata.labels.as_ref();
            let service = labels.and_then(|labels| labels.get(labels::SERVICE_NAME));
            let namespace = slice.metadata.namespace.as_deref().unwrap_or_default();
            service
                .map(|service| format!("{namespace}/{service}"))
                .into_iter()
                .collect()
        },
    }
}

impl Context {
    /// A context whose informers stop with `shutdown`.
    #[must_use]
    pub fn new(client: Client, config: Config, shutdown: CancellationToken) -> Self {
        Self {
            client: client.clone(),
            shared: Arc::new(Shared {
                client,
                config,
                shutdown,
                informers: Informers::default(),
            }),
        }
    }

    /// The same for a controller that calls the apiserver as somebody else.
    #[must_use]
    pub fn calling_as(&self, client: Client) -> Self {
        Self {
            client,
            ..self.clone()
        }
    }

    /// The apiserver.
    #[must_use]
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// The flags.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.shared.config
    }

    /// Cancelled when controllers have to stop: at the end of the process or of leadership.
    #[must_use]
    pub fn shutdown(&self) -> &CancellationToken {
        &self.shared.shutdown
    }

    /// Records events in the name of a controller.
    #[must_use]
    pub fn recorder(&self, component: &str) -> EventRecorder {
        EventRecorder::new(&self.client, component, "", &self.shared.shutdown)
    }
}
