//! Labels, annotations and taints that components agree on.

/// The node's host name.
pub const HOSTNAME: &str = "kubernetes.io/hostname";
/// The node's operating system.
pub const OS: &str = "kubernetes.io/os";
/// The node's processor architecture, as Go names it.
pub const ARCH: &str = "kubernetes.io/arch";
/// The zone of a node or volume.
pub const ZONE: &str = "topology.kubernetes.io/zone";
/// The region of a node or volume.
pub const REGION: &str = "topology.kubernetes.io/region";
/// The node's instance type.
pub const INSTANCE_TYPE: &str = "node.kubernetes.io/instance-type";
/// What precedes a node's role.
pub const NODE_ROLE_PREFIX: &str = "node-role.kubernetes.io/";
/// The taint and role of control plane nodes.
pub const CONTROL_PLANE: &str = "node-role.kubernetes.io/control-plane";

/// The service an endpoint slice belongs to.
pub const SERVICE_NAME: &str = "kubernetes.io/service-name";
/// Who manages an endpoint slice.
pub const ENDPOINT_SLICE_MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
/// Marks endpoints that slices are not to mirror.
pub const SKIP_MIRROR: &str = "endpointslice.kubernetes.io/skip-mirror";
/// Set on a service (or its endpoints, slices) without a cluster IP.
pub const HEADLESS: &str = "service.kubernetes.io/headless";
/// Set on a service that another proxy serves.
pub const SERVICE_PROXY_NAME: &str = "service.kubernetes.io/service-proxy-name";

/// Who manages an `IPAddress`.
pub const IP_ADDRESS_MANAGED_BY: &str = "ipaddress.kubernetes.io/managed-by";
/// The family of an `IPAddress`: `IPv4` or `IPv6`.
pub const IP_ADDRESS_FAMILY: &str = "ipaddress.kubernetes.io/ip-family";
/// The manager of the addresses that services have.
pub const IP_ALLOCATOR: &str = "ipallocator.k8s.io";

/// The hash of a Deployment's pod template.
pub const POD_TEMPLATE_HASH: &str = "pod-template-hash";
/// The revision of a controlled pod template.
pub const CONTROLLER_REVISION_HASH: &str = "controller-revision-hash";
/// The hash of the template that a revision of a StatefulSet remembers.
pub const STATEFUL_SET_HASH: &str = "controller.kubernetes.io/hash";
/// The revision of a Deployment or ReplicaSet.
pub const DEPLOYMENT_REVISION: &str = "deployment.kubernetes.io/revision";
/// Earlier revisions a ReplicaSet stood for.
pub const DEPLOYMENT_REVISION_HISTORY: &str = "deployment.kubernetes.io/revision-history";
/// How many replicas a ReplicaSet's Deployment wanted when it was last scaled.
pub const DESIRED_REPLICAS: &str = "deployment.kubernetes.io/desired-replicas";
/// How many replicas a ReplicaSet's Deployment allows during a rollout.
pub const MAX_REPLICAS: &str = "deployment.kubernetes.io/max-replicas";
/// Why a rollout was made.
pub const CHANGE_CAUSE: &str = "kubernetes.io/change-cause";
/// How readily a ReplicaSet gives up a pod when it shrinks.
pub const POD_DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";

/// The namespace's own name, set on every namespace.
pub const NAMESPACE_NAME: &str = "kubernetes.io/metadata.name";
/// What `kubectl apply` remembers of the last manifest.
pub const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";
/// When `kubectl rollout restart` was last used.
pub const RESTARTED_AT: &str = "kubectl.kubernetes.io/restartedAt";
/// Where a pod comes from: `api` or `file`.
pub const CONFIG_SOURCE: &str = "kubernetes.io/config.source";
/// The hash of a static pod's manifest.
pub const CONFIG_HASH: &str = "kubernetes.io/config.hash";
/// On the API's copy of a static pod: the hash of its manifest.
pub const CONFIG_MIRROR: &str = "kubernetes.io/config.mirror";

/// The node does not report ready.
pub const TAINT_NOT_READY: &str = "node.kubernetes.io/not-ready";
/// The node does not report at all.
pub const TAINT_UNREACHABLE: &str = "node.kubernetes.io/unreachable";
/// The node takes no new pods.
pub const TAINT_UNSCHEDULABLE: &str = "node.kubernetes.io/unschedulable";
/// The node is short of memory.
pub const TAINT_MEMORY_PRESSURE: &str = "node.kubernetes.io/memory-pressure";
/// The node is short of disk.
pub const TAINT_DISK_PRESSURE: &str = "node.kubernetes.io/disk-pressure";
/// The node is short of process numbers.
pub const TAINT_PID_PRESSURE: &str = "node.kubernetes.io/pid-pressure";
/// The node's network is not set up.
pub const TAINT_NETWORK_UNAVAILABLE: &str = "node.kubernetes.io/network-unavailable";
/// The node is out of service, by an administrator's word.
pub const TAINT_OUT_OF_SERVICE: &str = "node.kubernetes.io/out-of-service";
