//! Services and EndpointSlices → service ports with their endpoints.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use k8s_openapi::api::core::v1::{Service, ServicePort as ApiPort, ServiceSpec};
use k8s_openapi::api::discovery::v1::{EndpointConditions, EndpointSlice};
use keelson_api::object::{Object, ObjectKey};

/// Names the Service a slice belongs to.
const SERVICE_NAME: &str = "kubernetes.io/service-name";
/// Services so labelled are another proxy's business.
const PROXY_NAME: &str = "service.kubernetes.io/service-proxy-name";
/// How long a client keeps its endpoint where the Service does not say, as the API's default.
const DEFAULT_AFFINITY: i32 = 10_800;

/// Transport protocols services have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// The default.
    Tcp,
    /// Connectionless: the kernel's memory of it must be corrected by hand, see `conntrack`.
    Udp,
    /// As TCP here.
    Sctp,
}

impl Protocol {
    fn parse(text: Option<&str>) -> Option<Self> {
        match text {
            None | Some("TCP" | "") => Some(Self::Tcp),
            Some("UDP") => Some(Self::Udp),
            Some("SCTP") => Some(Self::Sctp),
            Some(_) => None,
        }
    }

    /// As nft and conntrack write it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        }
    }
}

/// Which endpoints may answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Policy {
    /// All of the cluster's.
    Cluster,
    /// Only this node's.
    Local,
}

impl Policy {
    fn parse(text: Option<&str>) -> Self {
        if text == Some("Local") {
            Self::Local
        } else {
            Self::Cluster
        }
    }
}

/// One pod's port behind a service port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Endpoint {
    /// Where it listens.
    pub address: SocketAddr,
    /// Whether it runs on this node.
    pub local: bool,
    /// Takes new connections.
    pub ready: bool,
    /// On its way out, but still answers: used when nothing is ready.
    pub draining: bool,
}

/// One port of one Service, for all its addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServicePort {
    /// The Service's namespace.
    pub namespace: String,
    /// The Service's name.
    pub name: String,
    /// The transport protocol.
    pub protocol: Protocol,
    /// The port at the service's addresses.
    pub port: u16,
    /// Addresses inside the cluster.
    pub cluster_ips: Vec<IpAddr>,
    /// The port at every node's addresses.
    pub node_port: Option<u16>,
    /// Addresses that somebody else brings to the nodes.
    pub external_ips: Vec<IpAddr>,
    /// Addresses of its load balancer.
    pub load_balancer_ips: Vec<IpAddr>,
    /// Who may use the load balancer; empty: everybody.
    pub source_ranges: Vec<IpNet>,
    /// How long a client keeps its endpoint; none: every connection may go elsewhere.
    pub affinity: Option<Duration>,
    /// Who answers clients inside the cluster.
    pub internal: Policy,
    /// Who answers clients outside of it.
    pub external: Policy,
    /// Everything behind it.
    pub endpoints: Vec<Endpoint>,
}

impl ServicePort {
    /// What takes connections of one family: what is ready, or if nothing is, what drains.
    #[must_use]
    pub fn usable(&self, policy: Policy, v6: bool) -> Vec<Endpoint> {
        let mine = || {
            self.endpoints
                .iter()
                .filter(|endpoint| endpoint.address.is_ipv6() == v6)
                .filter(|endpoint| policy == Policy::Cluster || endpoint.local)
        };
        let ready: Vec<_> = mine().filter(|endpoint| endpoint.ready).copied().collect();
        if ready.is_empty() {
            mine().filter(|endpoint| endpoint.draining).copied().collect()
        } else {
            ready
        }
    }
}

/// All ports of all Services that this proxy serves, in a fixed order.
#[must_use]
pub fn service_ports(
    services: &[Arc<Service>],
    slices: &[Arc<EndpointSlice>],
    node_name: &str,
) -> Vec<ServicePort> {
    let endpoints = Endpoints::collect(slices, node_name);
    let mut ports: Vec<ServicePort> = services
        .iter()
        .flat_map(|service| ports_of(service, &endpoints))
        .collect();
    ports.sort_by(|a, b| {
        (&a.namespace, &a.name, a.protocol, a.port).cmp(&(&b.namespace, &b.name, b.protocol, b.port))
    });
    ports
}

fn ports_of(service: &Service, endpoints: &Endpoints) -> Vec<ServicePort> {
    let key = service.key();
    let labels = service.metadata.labels.as_ref();
    let Some(spec) = &service.spec else {
        return Vec::new();
    };
    let cluster_ips = cluster_ips(spec);
    if cluster_ips.is_empty()
        || spec.type_.as_deref() == Some("ExternalName")
        || labels.is_some_and(|labels| labels.contains_key(PROXY_NAME))
    {
        return Vec::new();
    }
    let affinity = (spec.session_affinity.as_deref() == Some("ClientIP")).then(|| {
        let seconds = spec
            .session_affinity_config
            .as_ref()
            .and_then(|config| config.client_ip.as_ref()?.timeout_seconds)
            .unwrap_or(DEFAULT_AFFINITY);
        Duration::from_secs(u64::try_from(seconds).unwrap_or_default())
    });
    let load_balancer_ips = load_balancer_ips(service);
    let source_ranges = spec
        .load_balancer_source_ranges
        .iter()
        .flatten()
        .filter_map(|range| range.trim().parse().ok())
        .collect::<Vec<IpNet>>();
    let make = |port: &ApiPort| {
        Some(ServicePort {
            namespace: key.namespace.clone(),
            name: key.name.clone(),
            protocol: Protocol::parse(port.protocol.as_deref())?,
            port: u16::try_from(port.port).ok()?,
            cluster_ips: cluster_ips.clone(),
            node_port: port
                .node_port
                .and_then(|port| u16::try_from(port).ok())
                .filter(|port| *port != 0),
            external_ips: addresses(spec.external_ips.iter().flatten()),
            load_balancer_ips: load_balancer_ips.clone(),
            source_ranges: source_ranges.clone(),
            affinity,
            internal: Policy::parse(spec.internal_traffic_policy.as_deref()),
            external: Policy::parse(spec.external_traffic_policy.as_deref()),
            endpoints: endpoints.of(&key, port),
        })
    };
    spec.ports.iter().flatten().filter_map(make).collect()
}

/// Empty for headless services.
fn cluster_ips(spec: &ServiceSpec) -> Vec<IpAddr> {
    match &spec.cluster_ips {
        Some(all) if !all.is_empty() => addresses(all),
        _ => addresses(&spec.cluster_ip),
    }
}

fn load_balancer_ips(service: &Service) -> Vec<IpAddr> {
    let ingress = service
        .status
        .as_ref()
        .and_then(|status| status.load_balancer.as_ref()?.ingress.as_deref())
        .unwrap_or_default();
    // With `Proxy`, the balancer's own address must not be answered here: it wants to see the traffic.
    addresses(
        ingress
            .iter()
            .filter(|point| point.ip_mode.as_deref() != Some("Proxy"))
            .filter_map(|point| point.ip.as_ref()),
    )
}

fn addresses<'a>(texts: impl IntoIterator<Item = &'a String>) -> Vec<IpAddr> {
    texts.into_iter().filter_map(|text| text.parse().ok()).collect()
}

/// Endpoints by the Service, port name and protocol they stand behind.
struct Endpoints(BTreeMap<(ObjectKey, String, Protocol), BTreeSet<Endpoint>>);

impl Endpoints {
    fn collect(slices: &[Arc<EndpointSlice>], node_name: &str) -> Self {
        let mut found: BTreeMap<_, BTreeSet<Endpoint>> = BTreeMap::new();
        for slice in slices {
            let Some(service) = slice
                .metadata
                .labels
                .as_ref()
                .and_then(|labels| labels.get(SERVICE_NAME))
            else {
                continue;
            };
            let key = ObjectKey::new(slice.key().namespace, service.clone());
            for port in slice.ports.iter().flatten() {
                let (Some(protocol), Some(number)) = (
                    Protocol::parse(port.protocol.as_deref()),
                    port.port.and_then(|port| u16::try_from(port).ok()),
                ) else {
                    continue;
                };
                let name = port.name.clone().unwrap_or_default();
                let behind = found.entry((key.clone(), name, protocol)).or_default();
                for endpoint in slice.endpoints.iter().flatten() {
                    let (ready, draining) = conditions(endpoint.conditions.as_ref());
                    // All addresses of one endpoint are the same pod; the API says to use the first.
                    let Some(ip) = endpoint
                        .addresses
                        .first()
                        .and_then(|text| text.parse::<IpAddr>().ok())
                    else {
                        continue;
                    };
                    if ready || draining {
                        behind.insert(Endpoint {
                            address: SocketAddr::new(ip, number),
                            local: endpoint.node_name.as_deref() == Some(node_name),
                            ready,
                            draining,
                        });
                    }
                }
            }
        }
        Self(found)
    }

    fn of(&self, service: &ObjectKey, port: &ApiPort) -> Vec<Endpoint> {
        let Some(protocol) = Protocol::parse(port.protocol.as_deref()) else {
            return Vec::new();
        };
        let key = (service.clone(), port.name.clone().unwrap_or_default(), protocol);
        let mut endpoints: Vec<Endpoint> = self.0.get(&key).into_iter().flatten().copied().collect();
        // While a pod moves between slices it may stand in two of them, in two states: the ready one counts.
        endpoints.sort_by_key(|endpoint| (endpoint.address, !endpoint.ready));
        endpoints.dedup_by_key(|endpoint| endpoint.address);
        endpoints
    }
}

/// Ready, and draining; what is not known counts as the API says.
fn conditions(conditions: Option<&EndpointConditions>) -> (bool, bool) {
    let ready = conditions.and_then(|c| c.ready).unwrap_or(true);
    let serving = conditions.and_then(|c| c.serving).unwrap_or(ready);
    let terminating = conditions.and_then(|c| c.terminating).unwrap_or(false);
    (ready, serving && terminating)
}
