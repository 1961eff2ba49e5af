//! NodePorts: a port of a node is one pod's.

use crate::framework::{ClusterEvent, Cycle, Filter, Hint, Plugin, PreFilter, PreFiltered, Refusal, Scope};
use crate::model::{NodeInfo, PodInfo};

const NAME: &str = "NodePorts";

/// The plugin.
pub struct NodePorts;

impl Plugin for NodePorts {
    fn name(&self) -> &'static str {
        NAME
    }

    fn hint(&self, event: &ClusterEvent<'_>, pod: &PodInfo) -> Hint {
        match event {
            ClusterEvent::PodRemoved(gone) => {
                let mut freed = gone.host_ports.iter();
                Hint::queue_if(
                    freed.any(|port| pod.host_ports.iter().any(|wanted| wanted.conflicts_with(port))),
                )
            }
            ClusterEvent::NodeAdded(node) => Hint::queue_if(fits(pod, node)),
            _ => Hint::Skip,
        }
    }
}

fn fits(pod: &PodInfo, node: &NodeInfo) -> bool {
    !pod.host_ports
        .iter()
        .any(|wanted| node.used_ports.iter().any(|used| wanted.conflicts_with(used)))
}

impl PreFilter for NodePorts {
    fn pre_filter(&self, cycle: &mut Cycle<'_>) -> Result<PreFiltered, Refusal> {
        Ok(if cycle.pod.host_ports.is_empty() {
            PreFiltered::Skip
        } else {
            PreFiltered::Filter
        })
    }
}

impl Filter for NodePorts {
    fn scope(&self) -> Scope {
        Scope::Node
    }

    fn filter(&self, cycle: &Cycle<'_>, node: &NodeInfo) -> Result<(), Refusal> {
        if fits(cycle.pod, node) {
            return Ok(());
        }
        Err(Refusal::resolvable(
            NAME,
            "node(s) didn't have free ports for the requested pod ports",
        ))
    }
}

#[cfg(test)]
mod tests {
    use keelson_api::pods::HostPort;

    use super::*;
    use crate::testing::{cluster, cycle, node, pod};

    #[test]
    fn a_taken_port_refuses_until_it_is_free() {
        let mut info = node("a").info();
        let holder = pod("holder").host_port(80).info();
        info.add_pod(holder.clone());
        let wants = pod("p").host_port(80).info();
        let cache = cluster(vec![], vec![]);
        assert!(NodePorts.filter(&cycle(&wants, &cache), &info).is_err());
        assert_eq!(
            NodePorts.hint(&ClusterEvent::PodRemoved(&holder), &wants),
            Hint::Queue
        );
        assert_eq!(
            NodePorts.hint(&ClusterEvent::PodRemoved(&pod("x").info()), &wants),
            Hint::Skip
        );
        info.remove_pod("holder");
        assert!(NodePorts.filter(&cycle(&wants, &cache), &info).is_ok());
    }

    #[test]
    fn addresses_and_protocols_tell_ports_apart() {
        let port = |protocol: &str, address: &str| HostPort {
            port: 53,
            protocol: protocol.into(),
            address: address.into(),
        };
        assert!(port("TCP", "0.0.0.0").conflicts_with(&port("TCP", "10.0.0.1")));
        assert!(!port("TCP", "10.0.0.2").conflicts_with(&port("TCP", "10.0.0.1")));
        assert!(!port("UDP", "0.0.0.0").conflicts_with(&port("TCP", "0.0.0.0")));
    }
}
