//! Routes to other nodes' pods, and to service addresses where the node has no default route.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};

use futures::TryStreamExt;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use rtnetlink::packet_route::route::{RouteAddress, RouteAttribute, RouteMessage, RouteProtocol, RouteScope};
use rtnetlink::{Handle, RouteMessageBuilder};

use super::Nodes;

/// Marks routes as ours, so that we remove no others. Not assigned in rtnetlink(7) or iproute2's rt_protos.
const PROTOCOL: RouteProtocol = RouteProtocol::Other(107);
/// The loopback interface is the first of every network namespace.
const LOOPBACK: u32 = 1;

/// Why routes are not as wanted.
#[derive(Debug, thiserror::Error)]
pub enum RouteError {
    /// The kernel does not answer.
    #[error("opening a route socket: {0}")]
    Open(#[from] std::io::Error),
    /// The kernel's routes cannot be read.
    #[error("listing routes: {0}")]
    List(rtnetlink::Error),
    /// A route was refused. A node in another subnet cannot be reached directly.
    #[error("adding the route to {to}: {source}")]
    Add {
        /// Its destination.
        to: IpNet,
        /// What the kernel said.
        source: rtnetlink::Error,
    },
    /// A route could not be removed.
    #[error("removing the route to {to}: {source}")]
    Remove {
        /// Its destination.
        to: IpNet,
        /// What the kernel said.
        source: rtnetlink::Error,
    },
}

/// A route of ours. Both addresses of one are of the same family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Route {
    /// To another node's pods, through the node.
    Via(IpNet, IpAddr),
    /// To service addresses: rules rewrite the destination before anything leaves, but the kernel wants to know a
    /// way, and the source address, first.
    Services(IpNet, IpAddr),
}

impl Route {
    fn to(self) -> IpNet {
        match self {
            Self::Via(to, _) | Self::Services(to, _) => to,
        }
    }
}

/// Brings our routes to what the nodes say.
///
/// # Errors
/// The first route that could not be added or removed; the others are as wanted.
pub async fn apply(nodes: &Nodes, service_cidrs: &[IpNet]) -> Result<(), RouteError> {
    let (connection, handle, _) = rtnetlink::new_connection()?;
    let driver = tokio::spawn(connection);
    let result = bring(&handle, nodes, service_cidrs).await;
    driver.abort();
    result
}

/// Removes all our routes.
///
/// # Errors
/// When a route could not be removed.
pub async fn remove_all() -> Result<(), RouteError> {
    apply(&Nodes::default(), &[]).await
}

fn wanted(nodes: &Nodes, service_cidrs: &[IpNet]) -> BTreeSet<Route> {
    let mut wanted: BTreeSet<Route> = nodes
        .others
        .iter()
        .map(|(range, node)| Route::Via(range.trunc(), *node))
        .collect();
    for range in service_cidrs {
        let own = nodes
            .own_addresses
            .iter()
            .find(|own| own.is_ipv6() == range.addr().is_ipv6());
        if let Some(own) = own
            && !has_default_route(range)
        {
            wanted.insert(Route::Services(range.trunc(), *own));
        }
    }
    wanted
}

/// Whether addresses outside of everything we make routes for have a way.
fn has_default_route(range: &IpNet) -> bool {
    // Documentation ranges: routed by nothing but a default route. Connecting a datagram socket sends nothing.
    let (any, far): (IpAddr, IpAddr) = match range {
        IpNet::V4(_) => (
            Ipv4Addr::UNSPECIFIED.into(),
            Ipv4Addr::new(198, 51, 100, 1).into(),
        ),
        IpNet::V6(_) => (
            Ipv6Addr::UNSPECIFIED.into(),
            Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1).into(),
        ),
    };
    UdpSocket::bind((any, 0))
        .and_then(|socket| socket.connect((far, 9)))
        .is_ok()
}

async fn bring(handle: &Handle, nodes: &Nodes, service_cidrs: &[IpNet]) -> Result<(), RouteError> {
    let wanted = wanted(nodes, service_cidrs);
    let mut present = BTreeSet::new();
    for message in [
        RouteMessageBuilder::<Ipv4Addr>::new().build(),
        RouteMessageBuilder::<Ipv6Addr>::new().build(),
    ] {
        let listed: Vec<RouteMessage> = handle
            .route()
            .get(message)
            .execute()
            .try_collect()
            .await
            .map_err(RouteError::List)?;
        present.extend(listed.iter().filter_map(read));
    }
    let mut first_error = Ok(());
    for route in present.difference(&wanted) {
        // Another route to the same place replaces it below.
        if wanted.iter().any(|other| other.to() == route.to()) {
            continue;
        }
        tracing::info!(to = %route.to(), "route removed");
        if let Err(source) = handle.route().del(message(*route)).execute().await {
            first_error = first_error.and(Err(RouteError::Remove {
                to: route.to(),
                source,
            }));
        }
    }
    for route in wanted.difference(&present) {
        match handle.route().add(message(*route)).replace().execute().await {
            Ok(()) => tracing::info!(?route, "route added"),
            Err(source) => {
                first_error = first_error.and(Err(RouteError::Add {
                    to: route.to(),
                    source,
                }))
            }
        }
    }
    first_error
}

fn message(route: Route) -> RouteMessage {
    match route.to() {
        IpNet::V4(to) => {
            let builder = RouteMessageBuilder::<Ipv4Addr>::new()
                .destination_prefix(to.network(), to.prefix_len())
                .protocol(PROTOCOL);
            match route {
                Route::Via(_, IpAddr::V4(node)) => builder.gateway(node),
                Route::Services(_, IpAddr::V4(own)) => builder
                    .pref_source(own)
                    .output_interface(LOOPBACK)
                    .scope(RouteScope::Link),
                Route::Via(..) | Route::Services(..) => builder,
            }
            .build()
        }
        IpNet::V6(to) => {
            let builder = RouteMessageBuilder::<Ipv6Addr>::new()
                .destination_prefix(to.network(), to.prefix_len())
                .protocol(PROTOCOL);
            match route {
                Route::Via(_, IpAddr::V6(node)) => builder.gateway(node),
                Route::Services(_, IpAddr::V6(own)) => builder.pref_source(own).output_interface(LOOPBACK),
                Route::Via(..) | Route::Services(..) => builder,
            }
            .build()
        }
    }
}

/// A route of ours, from the kernel's list.
fn read(message: &RouteMessage) -> Option<Route> {
    if message.header.protocol != PROTOCOL {
        return None;
    }
    let length = message.header.destination_prefix_length;
    let (mut to, mut via, mut source) = (None, None, None);
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Destination(address) => to = ip(address),
            RouteAttribute::Gateway(address) => via = ip(address),
            RouteAttribute::PrefSource(address) => source = ip(address),
            _ => {}
        }
    }
    let to = match to? {
        IpAddr::V4(address) => IpNet::V4(Ipv4Net::new(address, length).ok()?),
        IpAddr::V6(address) => IpNet::V6(Ipv6Net::new(address, length).ok()?),
    };
    match (via, source) {
        (Some(via), _) => Some(Route::Via(to, via)),
        (None, Some(source)) => Some(Route::Services(to, source)),
        (None, None) => None,
    }
}

fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(address) => Some((*address).into()),
        RouteAddress::Inet6(address) => Some((*address).into()),
        _ => None,
    }
}
