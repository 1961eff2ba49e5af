//! How fast nodes are given up: one by one where few are lost, slowly or not at all where many are.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Node;
use keelson_api::labels::{REGION, ZONE};
use keelson_api::object::Object as _;
use parking_lot::Mutex;

use super::taints::{Readiness, readiness};

/// Limits, from the flags.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Nodes a second in a healthy zone.
    pub rate: f32,
    /// Nodes a second in an unhealthy zone of a large cluster.
    pub secondary_rate: f32,
    /// The share of lost nodes that makes a zone unhealthy.
    pub threshold: f32,
    /// Zones up to this size give no node up while they are unhealthy.
    pub large: usize,
}

/// How a zone does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Health {
    Normal,
    Partial {
        large: bool,
    },
    /// No node is ready.
    Full,
}

/// Hands out the right to give a node up.
#[derive(Debug)]
pub struct Zones {
    limits: Limits,
    /// When each zone may give up its next node.
    next: Mutex<HashMap<String, Instant>>,
}

/// The answer to a wish to give a node up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Permission {
    /// Go ahead.
    Granted,
    /// Ask again then.
    Wait(Duration),
    /// Too many are lost: ask when that has changed.
    Suspended,
}

impl Zones {
    /// With these limits.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            next: Mutex::new(HashMap::new()),
        }
    }

    /// Asks to give up `node`, one of `nodes`.
    pub fn ask(&self, node: &Node, nodes: &[Arc<Node>], now: Instant) -> Permission {
        let zone = zone_of(node);
        let rate = match self.health(&zone, nodes) {
            Health::Normal | Health::Full => self.limits.rate,
            Health::Partial { large: true } => self.limits.secondary_rate,
            Health::Partial { large: false } => 0.0,
        };
        if rate <= 0.0 {
            return Permission::Suspended;
        }
        let mut next = self.next.lock();
        let free = next.entry(zone).or_insert(now);
        if *free > now {
            return Permission::Wait(*free - now);
        }
        *free = now + Duration::from_secs_f32(1.0 / rate);
        Permission::Granted
    }

    fn health(&self, zone: &str, nodes: &[Arc<Node>]) -> Health {
        let own = nodes.iter().filter(|node| zone_of(node) == zone);
        let (ready, lost) = own.fold((0_usize, 0_usize), |(ready, lost), node| match readiness(node) {
            Some(Readiness::Ready) => (ready + 1, lost),
            _ => (ready, lost + 1),
        });
        #[expect(clippy::cast_precision_loss, reason = "a share")]
        let share = lost as f32 / (ready + lost).max(1) as f32;
        if ready == 0 && lost > 0 {
            Health::Full
        } else if lost > 2 && share >= self.limits.threshold {
            Health::Partial {
                large: ready + lost > self.limits.large,
            }
        } else {
            Health::Normal
        }
    }
}

/// Whether no node at all is ready.
#[must_use]
pub fn all_lost(nodes: &[Arc<Node>]) -> bool {
    !nodes.is_empty() && nodes.iter().all(|node| readiness(node) != Some(Readiness::Ready))
}

fn zone_of(node: &Node) -> String {
    let label = |key: &str| node.labels().get(key).map(String::as_str).unwrap_or_default();
    format!("{}/{}", label(REGION), label(ZONE))
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::{NodeCondition, NodeStatus};

    fn nodes(ready: usize, lost: usize) -> Vec<Arc<Node>> {
        let node = |status: &str| {
            let condition = NodeCondition {
                type_: "Ready".into(),
                status: status.into(),
                ..NodeCondition::default()
            };
            let status = NodeStatus {
                conditions: Some(vec![condition]),
                ..NodeStatus::default()
            };
            Arc::new(Node {
                status: Some(status),
                ..Node::default()
            })
        };
        let mut nodes = vec![node("True"); ready];
        nodes.extend(vec![node("Unknown"); lost]);
        nodes
    }

    fn zones() -> Zones {
        Zones::new(Limits {
            rate: 0.1,
            secondary_rate: 0.01,
            threshold: 0.55,
            large: 50,
        })
    }

    #[test]
    fn one_node_in_ten_seconds() {
        let zones = zones();
        let all = nodes(8, 2);
        let now = Instant::now();
        assert_eq!(zones.ask(&all[9], &all, now), Permission::Granted);
        let Permission::Wait(wait) = zones.ask(&all[8], &all, now + Duration::from_secs(1)) else {
            panic!("the second has to wait");
        };
        assert!(wait > Duration::from_secs(8) && wait < Duration::from_secs(10));
        assert_eq!(
            zones.ask(&all[8], &all, now + Duration::from_secs(11)),
            Permission::Granted
        );
    }

    #[test]
    fn an_unhealthy_zone_gives_up_few_or_none() {
        let small = nodes(3, 7);
        assert_eq!(
            zones().ask(&small[9], &small, Instant::now()),
            Permission::Suspended
        );
        let large = nodes(30, 70);
        assert_eq!(
            zones().ask(&large[99], &large, Instant::now()),
            Permission::Granted
        );
        assert!(!all_lost(&small) && all_lost(&nodes(0, 3)) && !all_lost(&[]));
    }
}
