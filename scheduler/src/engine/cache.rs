//! What is known of the cluster: nodes, the pods on them, namespaces.
//!
//! Pods are put on their nodes as soon as they are placed, before they are bound ("assumed"), so that the next pod sees
//! them. One thread owns the cache, so that a cycle's snapshot of it is a borrow, not a copy.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use k8s_openapi::api::core::v1::Node;
use keelson_api::object::Object;

use crate::framework::NodeChanges;
use crate::model::{NodeInfo, PodId, PodInfo};

/// What is known of the cluster.
#[derive(Default)]
pub struct Cache {
    nodes: Vec<NodeInfo>,
    /// Each node's place in `nodes`.
    places: HashMap<Arc<str>, usize>,
    /// Every pod that is on a node, or should be.
    pods: HashMap<PodId, Placed>,
    namespaces: HashMap<String, BTreeMap<String, String>>,
    /// On how many nodes each image is.
    image_nodes: HashMap<String, usize>,
    generation: u64,
    layout: u64,
}

struct Placed {
    info: Arc<PodInfo>,
    /// The node's name; it may not exist (any more, or yet).
    node: Arc<str>,
}

/// The cluster during one cycle.
#[derive(Clone, Copy)]
pub struct Snapshot<'a> {
    cache: &'a Cache,
}

impl<'a> Snapshot<'a> {
    /// Every node; its place is its name for the length of the cycle.
    pub fn nodes(&self) -> &'a [NodeInfo] {
        &self.cache.nodes
    }

    /// The node of that name.
    pub fn node(&self, name: &str) -> Option<&'a NodeInfo> {
        self.cache.node(name)
    }

    /// The place of the node of that name.
    pub fn place(&self, name: &str) -> Option<usize> {
        self.cache.places.get(name).copied()
    }

    /// Changes when nodes come or go, or change in what is judged across nodes: their labels and images.
    pub fn layout(&self) -> u64 {
        self.cache.layout
    }

    /// The labels of a namespace.
    pub fn namespace_labels(&self, name: &str) -> Option<&'a BTreeMap<String, String>> {
        self.cache.namespaces.get(name)
    }

    /// On how many nodes an image is.
    pub fn nodes_with_image(&self, name: &str) -> usize {
        self.cache.image_nodes.get(name).copied().unwrap_or_default()
    }
}

impl Cache {
    /// What a cycle sees.
    pub fn snapshot(&self) -> Snapshot<'_> {
        Snapshot { cache: self }
    }

    /// See [`Snapshot::layout`].
    pub fn layout(&self) -> u64 {
        self.layout
    }

    /// Every node.
    pub fn nodes(&self) -> &[NodeInfo] {
        &self.nodes
    }

    /// The node of that name.
    pub fn node(&self, name: &str) -> Option<&NodeInfo> {
        self.nodes.get(*self.places.get(name)?)
    }

    /// Whether the node is known.
    pub fn has_node(&self, name: &str) -> bool {
        self.places.contains_key(name)
    }

    /// The pod, if it is on a node.
    pub fn pod(&self, id: &str) -> Option<&Arc<PodInfo>> {
        self.pods.get(id).map(|placed| &placed.info)
    }

    /// Adds a node, or takes over its newer state. Returns what changed, of what scheduling looks at.
    pub fn set_node(&mut self, node: Arc<Node>) -> NodeChanges {
        if let Some(place) = self.places.get(node.name()).copied() {
            return self.update_node(place, node);
        }
        let mut info = NodeInfo::new(node);
        // Pods may be known before their node is.
        let name = info.name.clone();
        for placed in self.pods.values().filter(|placed| placed.node == name) {
            info.add_pod(placed.info.clone());
        }
        self.count_images(&info, 1);
        self.places.insert(info.name.clone(), self.nodes.len());
        self.nodes.push(info);
        self.layout += 1;
        self.touch(self.nodes.len() - 1);
        NodeChanges {
            allocatable: true,
            labels: true,
            taints: true,
        }
    }

    fn update_node(&mut self, place: usize, node: Arc<Node>) -> NodeChanges {
        let old = self.nodes[place].node.clone();
        if old.status.as_ref().and_then(|s| s.images.as_ref())
            != node.status.as_ref().and_then(|s| s.images.as_ref())
        {
            let mut info = NodeInfo::new(old.clone());
            self.count_images(&info, -1);
            info.set_node(node.clone());
            self.count_images(&info, 1);
            self.layout += 1;
        }
        let known = &mut self.nodes[place];
        let (offered, taints) = (known.allocatable.clone(), known.taints().to_vec());
        let cordoned = known.is_unschedulable();
        known.set_node(node);
        let changes = NodeChanges {
            allocatable: known.allocatable != offered,
            labels: known.node.labels() != old.labels(),
            taints: known.taints() != taints || known.is_unschedulable() != cordoned,
        };
        if changes.labels {
            // Labels say which nodes belong together.
            self.layout += 1;
        }
        if changes.any() {
            self.touch(place);
        }
        changes
    }

    fn count_images(&mut self, info: &NodeInfo, by: isize) {
        for name in info.images.keys() {
            let count = self.image_nodes.entry(name.clone()).or_default();
            *count = count.saturating_add_signed(by);
            if *count == 0 {
                self.image_nodes.remove(name);
            }
        }
    }

    /// Forgets a node; its pods are remembered until they are gone too.
    pub fn remove_node(&mut self, name: &str) -> bool {
        let Some(place) = self.places.remove(name) else {
            return false;
        };
        let info = self.nodes.swap_remove(place);
        self.count_images(&info, -1);
        if let Some(moved) = self.nodes.get(place) {
            self.places.insert(moved.name.clone(), place);
        }
        self.layout += 1;
        true
    }

    /// A pod is on the node it names: takes over its newer state, and confirms it if it was assumed.
    pub fn set_pod(&mut self, info: Arc<PodInfo>) {
        if let Some(node) = info.node_name().map(Arc::<str>::from) {
            self.put(info, node);
        }
    }

    /// A pod goes to this node.
    pub fn assume(&mut self, info: Arc<PodInfo>, node: &Arc<str>) {
        self.put(info, node.clone());
    }

    fn put(&mut self, info: Arc<PodInfo>, node: Arc<str>) {
        if let Some(known) = self.pods.get_mut(&info.id)
            && known.node == node
            && known.info.requests == info.requests
            && known.info.host_ports == info.host_ports
            && known.info.pod.labels() == info.pod.labels()
            && known.info.is_terminating() == info.is_terminating()
        {
            // Nothing that scheduling looks at is different: verdicts about the node stay good.
            if let Some(place) = self.places.get(&node).copied() {
                let pods = &mut self.nodes[place].pods;
                if let Some(entry) = pods.iter_mut().find(|pod| pod.id == info.id) {
                    *entry = info.clone();
                }
            }
            known.info = info;
            return;
        }
        self.remove_pod(&info.id.clone());
        if let Some(place) = self.places.get(&node).copied() {
            self.nodes[place].add_pod(info.clone());
            self.touch(place);
        }
        self.pods.insert(info.id.clone(), Placed { info, node });
    }

    /// Forgets a pod, assumed or not.
    pub fn remove_pod(&mut self, id: &str) -> Option<Arc<PodInfo>> {
        let placed = self.pods.remove(id)?;
        if let Some(place) = self.places.get(&placed.node).copied() {
            self.nodes[place].remove_pod(id);
            self.touch(place);
        }
        Some(placed.info)
    }

    /// Takes over a namespace's labels. Returns whether they are new.
    pub fn set_namespace(&mut self, name: &str, labels: &BTreeMap<String, String>) -> bool {
        self.namespaces.insert(name.to_owned(), labels.clone()).as_ref() != Some(labels)
    }

    /// Forgets a namespace.
    pub fn remove_namespace(&mut self, name: &str) {
        self.namespaces.remove(name);
    }

    fn touch(&mut self, place: usize) {
        self.generation += 1;
        self.nodes[place].generation = self.generation;
    }
}
