//! Forgetting connections to endpoints that are gone.
//!
//! The kernel chooses an endpoint once a connection and remembers it. TCP ends its connections; a UDP client may go
//! on sending from one port for ever, and would never reach another endpoint.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use tokio::process::Command;

use crate::rules::ServicePort;
use crate::rules::services::{Policy, Protocol};

/// What the kernel must forget.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Stale {
    protocol: Protocol,
    /// Where clients send to: an address, or any address with this node port.
    to: To,
    port: u16,
    /// The endpoint that is gone; none: everything, since it was sent to nobody so far.
    endpoint: Option<IpAddr>,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum To {
    Address(IpAddr),
    NodePort,
}

type Flow = (Protocol, To, u16, SocketAddr);

/// What is to be forgotten when `old` turns into `new`.
pub(crate) fn stale(old: &[ServicePort], new: &[ServicePort]) -> BTreeSet<Stale> {
    let (before, after) = (flows(old), flows(new));
    let fronts = |flows: &BTreeSet<Flow>| -> BTreeSet<(Protocol, To, u16)> {
        flows
            .iter()
            .map(|(protocol, to, port, _)| (*protocol, to.clone(), *port))
            .collect()
    };
    let served_before = fronts(&before);
    let gone = before
        .difference(&after)
        .map(|(protocol, to, port, endpoint)| Stale {
            protocol: *protocol,
            to: to.clone(),
            port: *port,
            endpoint: Some(endpoint.ip()),
        });
    let served_now = fronts(&after);
    let come = served_now
        .difference(&served_before)
        .map(|(protocol, to, port)| Stale {
            protocol: *protocol,
            to: to.clone(),
            port: *port,
            endpoint: None,
        });
    gone.chain(come).collect()
}

fn flows(services: &[ServicePort]) -> BTreeSet<Flow> {
    let mut flows = BTreeSet::new();
    for service in services
        .iter()
        .filter(|service| service.protocol == Protocol::Udp)
    {
        let addresses = service
            .cluster_ips
            .iter()
            .chain(&service.external_ips)
            .chain(&service.load_balancer_ips);
        let fronts: Vec<(To, u16)> = addresses
            .map(|ip| (To::Address(*ip), service.port))
            .chain(service.node_port.map(|port| (To::NodePort, port)))
            .collect();
        for endpoint in [false, true]
            .into_iter()
            .flat_map(|v6| service.usable(Policy::Cluster, v6))
        {
            for (to, port) in &fronts {
                if matches!(to, To::Address(ip) if ip.is_ipv6() != endpoint.address.is_ipv6()) {
                    continue;
                }
                flows.insert((service.protocol, to.clone(), *port, endpoint.address));
            }
        }
    }
    flows
}

/// Makes the kernel forget. Without the conntrack program it says so, once a change.
pub(crate) async fn forget(stale: BTreeSet<Stale>) {
    for flow in stale {
        let mut command = Command::new("conntrack");
        command.args([
            "--delete",
            "--proto",
            flow.protocol.name(),
            "--orig-port-dst",
            &flow.port.to_string(),
        ]);
        if let To::Address(ip) = &flow.to {
            command.args(["--orig-dst", &ip.to_string()]);
        }
        let v6 = match flow.to {
            To::Address(ip) => ip.is_ipv6(),
            To::NodePort => flow.endpoint.is_some_and(|ip| ip.is_ipv6()),
        };
        command.args(["--family", if v6 { "ipv6" } else { "ipv4" }]);
        if let Some(ip) = flow.endpoint {
            command.args(["--reply-src", &ip.to_string()]);
        }
        match command.kill_on_drop(true).output().await {
            // Exit code 1 without an entry that matches: there was nothing to forget.
            Ok(_) => {}
            Err(error) => {
                tracing::warn!(%error, "running conntrack (Debian package conntrack): UDP clients may keep sending to endpoints that are gone");
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::Endpoint;

    fn service(endpoints: &[&str]) -> ServicePort {
        ServicePort {
            namespace: "kube-system".into(),
            name: "dns".into(),
            protocol: Protocol::Udp,
            port: 53,
            cluster_ips: vec![IpAddr::from([10, 96, 0, 10])],
            node_port: None,
            external_ips: vec![],
            load_balancer_ips: vec![],
            source_ranges: vec![],
            affinity: None,
            internal: Policy::Cluster,
            external: Policy::Cluster,
            endpoints: endpoints
                .iter()
                .filter_map(|text| text.parse().ok())
                .map(|address| Endpoint {
                    address,
                    local: true,
                    ready: true,
                    draining: false,
                })
                .collect(),
        }
    }

    #[test]
    fn only_what_is_gone_or_was_never_answered_is_forgotten() {
        let (one, two) = (
            service(&["10.1.0.1:53"]),
            service(&["10.1.0.1:53", "10.1.0.2:53"]),
        );
        assert!(
            stale(std::slice::from_ref(&one), std::slice::from_ref(&two)).is_empty(),
            "one more endpoint"
        );
        let gone: Vec<_> = stale(&[two], std::slice::from_ref(&one))
            .into_iter()
            .map(|flow| flow.endpoint)
            .collect();
        assert_eq!(gone, [Some(IpAddr::from([10, 1, 0, 2]))]);
        let first: Vec<_> = stale(&[service(&[])], &[one])
            .into_iter()
            .map(|flow| flow.endpoint)
            .collect();
        assert_eq!(first, [None], "the first endpoint");
    }
}
