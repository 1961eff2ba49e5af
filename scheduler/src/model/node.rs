//! A node as scheduling sees it: the object, and the sum of the pods on it.

use std::collections::HashMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, Taint};
use keelson_api::object::Object;
use keelson_api::pods::HostPort;

use super::{NonZero, PodInfo, Resources};

/// An image that is on a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ImageState {
    /// Bytes.
    pub size: i64,
}

/// A node and what is on it.
#[derive(Debug)]
pub struct NodeInfo {
    /// The object.
    pub node: Arc<Node>,
    /// Its name.
    pub name: Arc<str>,
    /// What it offers.
    pub allocatable: Resources,
    /// What its pods ask for.
    pub requested: Resources,
    /// The same for comparing nodes.
    pub nonzero_requested: NonZero,
    /// The pods bound to it, or about to be.
    pub pods: Vec<Arc<PodInfo>>,
    /// The ports its pods occupy.
    pub used_ports: Vec<HostPort>,
    /// The images on it, under each of their names.
    pub images: HashMap<String, ImageState>,
    /// How many of its pods have affinity or anti-affinity to others.
    pub pods_with_affinity: usize,
    /// How many of its pods refuse others beside them.
    pub pods_with_required_anti_affinity: usize,
    /// Different after every change; equal to no other node's.
    pub generation: u64,
}

impl NodeInfo {
    /// A node without pods.
    pub fn new(node: Arc<Node>) -> Self {
        let mut info = NodeInfo {
            name: node.name().into(),
            allocatable: Resources::default(),
            requested: Resources::default(),
            nonzero_requested: NonZero::default(),
            pods: Vec::new(),
            used_ports: Vec::new(),
            images: HashMap::new(),
            pods_with_affinity: 0,
            pods_with_required_anti_affinity: 0,
            generation: 0,
            node: node.clone(),
        };
        info.set_node(node);
        info
    }

    /// Takes over a newer state of the object.
    pub fn set_node(&mut self, node: Arc<Node>) {
        let status = node.status.as_ref();
        self.allocatable = Resources::allocatable(status.and_then(|status| status.allocatable.as_ref()));
        self.images.clear();
        for image in status
            .and_then(|status| status.images.as_ref())
            .into_iter()
            .flatten()
        {
            let state = ImageState {
                size: image.size_bytes.unwrap_or_default(),
            };
            for name in image.names.iter().flatten() {
                self.images.insert(name.clone(), state);
            }
        }
        self.node = node;
    }

    /// The node's taints.
    pub fn taints(&self) -> &[Taint] {
        self.node
            .spec
            .as_ref()
            .and_then(|spec| spec.taints.as_deref())
            .unwrap_or_default()
    }

    /// Whether it is cordoned.
    pub fn is_unschedulable(&self) -> bool {
        self.node
            .spec
            .as_ref()
            .and_then(|spec| spec.unschedulable)
            .unwrap_or_default()
    }

    /// The value of a label.
    pub fn label(&self, key: &str) -> Option<&str> {
        self.node.labels().get(key).map(String::as_str)
    }

    /// Adds a pod.
    pub fn add_pod(&mut self, pod: Arc<PodInfo>) {
        self.requested.add(&pod.requests);
        self.nonzero_requested.add(pod.nonzero);
        self.used_ports.extend(pod.host_ports.iter().cloned());
        self.pods_with_affinity += usize::from(pod.affinity.is_some());
        self.pods_with_required_anti_affinity += usize::from(pod.has_required_anti_affinity());
        self.pods.push(pod);
    }

    /// Removes a pod, if it is there.
    pub fn remove_pod(&mut self, id: &str) -> Option<Arc<PodInfo>> {
        let place = self.pods.iter().position(|pod| &*pod.id == id)?;
        let pod = self.pods.swap_remove(place);
        self.requested.subtract(&pod.requests);
        self.nonzero_requested.subtract(pod.nonzero);
        for port in &pod.host_ports {
            if let Some(place) = self.used_ports.iter().position(|used| used == port) {
                self.used_ports.swap_remove(place);
            }
        }
        self.pods_with_affinity -= usize::from(pod.affinity.is_some());
        self.pods_with_required_anti_affinity -= usize::from(pod.has_required_anti_affinity());
        Some(pod)
    }
}
