//! Pod ranges for nodes, out of the cluster's.

mod ranges;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use k8s_openapi::api::core::v1::Node;
use keelson_api::object::{Object as _, ObjectKey};
use keelson_client::{
    Event, EventKind, EventRecorder, Informer, Patch, ReconcileError, ResourceClient, WorkQueue, run_workers,
};
use parking_lot::Mutex;
use serde_json::json;

use crate::common::answers::unless_gone;
use crate::config::Config;
use crate::context::Context;
use ranges::{Network, Ranges};

/// Checks that the flags describe ranges that nodes can be given.
///
/// # Errors
/// Says which flag does not work.
pub fn check(config: &Config) -> Result<(), String> {
    if config.allocate_node_cidrs {
        pools(config)?;
    }
    Ok(())
}

fn pools(config: &Config) -> Result<Vec<Ranges>, String> {
    if config.cluster_cidr.is_empty() {
        return Err("--allocate-node-cidrs needs --cluster-cidr".into());
    }
    let parse = |flag: &str, text: &String| {
        text.parse::<Network>()
            .map_err(|error| format!("{flag}: {error}"))
    };
    let mut pools = Vec::new();
    for text in &config.cluster_cidr {
        let network = parse("--cluster-cidr", text)?;
        let prefix = if network.is_v4() {
            config.node_cidr_mask_size
        } else {
            config.node_cidr_mask_size_ipv6
        };
        let mut ranges = Ranges::new(network, prefix).map_err(|error| format!("--cluster-cidr: {error}"))?;
        for service in &config.service_cluster_ip_range {
            ranges.occupy(&parse("--service-cluster-ip-range", service)?);
        }
        pools.push(ranges);
    }
    if pools.len() > 2 || (pools.len() == 2 && pools[0].is_v4() == pools[1].is_v4()) {
        return Err("--cluster-cidr: want one network, or one of each family".into());
    }
    Ok(pools)
}

/// Runs the controller until shutdown, if it is asked for.
pub async fn run(context: Context) {
    if !context.config().allocate_node_cidrs {
        return;
    }
    let pools = match pools(context.config()) {
        Ok(pools) => pools,
        Err(error) => return tracing::error!(error, "node ranges"),
    };
    let controller = Arc::new(Controller {
        nodes: context.nodes(),
        client: context.client().resource(),
        events: context.recorder("cidrAllocator"),
        allocations: Mutex::new(Allocations {
            pools,
            by_node: HashMap::new(),
        }),
        written: Mutex::default(),
    });
    let queue: WorkQueue<String> = WorkQueue::new("nodeipam");
    // Ranges that nodes have already are taken before any is given: the first list comes before the first worker.
    let (this, to) = (controller.clone(), queue.clone());
    controller.nodes.subscribe(move |event| match event {
        Event::Added(node) | Event::Updated { new: node, .. } => {
            if this.allocations.lock().note(node) {
                this.written.lock().remove(node.name());
            } else {
                to.add(node.name().to_owned());
            }
        }
        Event::Deleted(node) => {
            this.written.lock().remove(node.name());
            this.allocations.lock().release(node.name());
        }
    });
    controller.nodes.synced().await;
    // One worker: it waits for the server, not the other way round.
    run_workers(queue, 1, context.shutdown().clone(), move |name| {
        let controller = controller.clone();
        async move { controller.sync(&name).await }
    })
    .await;
}

struct Controller {
    nodes: Informer<Node>,
    client: ResourceClient<Node>,
    events: EventRecorder,
    allocations: Mutex<Allocations>,
    /// Nodes that have been written and are not in the cache like that yet.
    written: Mutex<HashSet<String>>,
}

struct Allocations {
    pools: Vec<Ranges>,
    by_node: HashMap<String, Vec<Network>>,
}

impl Allocations {
    /// Takes note of the ranges a node has. Returns whether it has any.
    fn note(&mut self, node: &Node) -> bool {
        let ranges = ranges_of(node);
        if ranges.is_empty() {
            return false;
        }
        for range in &ranges {
            for pool in &mut self.pools {
                pool.occupy(range);
            }
        }
        self.by_node.insert(node.name().to_owned(), ranges);
        true
    }

    fn take(&mut self, node: &str) -> Option<Vec<Network>> {
        if let Some(ranges) = self.by_node.get(node) {
            return Some(ranges.clone());
        }
        let mut taken = Vec::new();
        for pool in &mut self.pools {
            taken.push(pool.take());
        }
        if taken.iter().any(Option::is_none) {
            self.give_back(&taken.into_iter().flatten().collect::<Vec<_>>());
            return None;
        }
        let taken: Vec<Network> = taken.into_iter().flatten().collect();
        self.by_node.insert(node.to_owned(), taken.clone());
        Some(taken)
    }

    fn release(&mut self, node: &str) {
        if let Some(ranges) = self.by_node.remove(node) {
            self.give_back(&ranges);
        }
    }

    fn give_back(&mut self, ranges: &[Network]) {
        for range in ranges {
            for pool in &mut self.pools {
                pool.release(range);
            }
        }
    }
}

fn ranges_of(node: &Node) -> Vec<Network> {
    let Some(spec) = &node.spec else { return Vec::new() };
    let many = spec.pod_cidrs.as_deref().unwrap_or_default();
    let single = spec.pod_cidr.iter().filter(|_| many.is_empty());
    many.iter()
        .chain(single)
        .filter_map(|text| text.parse().ok())
        .collect()
}

impl Controller {
    async fn sync(&self, name: &str) -> Result<(), ReconcileError> {
        let Some(node) = self.nodes.store().get(&ObjectKey::cluster(name)) else {
            self.allocations.lock().release(name);
            return Ok(());
        };
        if !ranges_of(&node).is_empty() || self.written.lock().contains(name) {
            return Ok(());
        }
        let Some(ranges) = self.allocations.lock().take(name) else {
            let message = format!("Node {name} status is now: CIDRNotAvailable");
            self.events
                .event(&*node, EventKind::Normal, "CIDRNotAvailable", message);
            return Err(ReconcileError::other(format!("no range is left for node {name}")));
        };
        let texts: Vec<String> = ranges.iter().map(Network::to_string).collect();
        let patch = json!({
            "metadata": {"uid": node.metadata.uid},
            "spec": {"podCIDR": texts.first(), "podCIDRs": texts},
        });
        // A refused patch leaves the ranges with the node's name, for the next attempt or its deletion.
        unless_gone(self.client.patch(&node.key(), Patch::Merge(patch)).await)?;
        self.written.lock().insert(name.to_owned());
        tracing::info!(node = name, ranges = ?texts, "pod ranges given");
        Ok(())
    }
}
