//! What can happen in the cluster that makes a waiting pod schedulable.

use crate::model::{NodeInfo, PodInfo};

/// Something happened.
#[derive(Clone, Copy, Debug)]
pub enum ClusterEvent<'a> {
    /// There is a new node.
    NodeAdded(&'a NodeInfo),
    /// A node changed in this respect.
    NodeChanged(&'a NodeInfo, NodeChanges),
    /// A node is gone.
    NodeRemoved,
    /// A pod was bound to a node, by whomever.
    PodAssigned(&'a PodInfo),
    /// A pod on a node has new labels, or holds less.
    AssignedPodChanged(&'a PodInfo),
    /// A pod is gone from its node.
    PodRemoved(&'a PodInfo),
    /// Namespaces were created or labelled anew.
    NamespaceChanged,
}

/// In which respects a node changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NodeChanges {
    /// What it offers.
    pub allocatable: bool,
    /// Its labels.
    pub labels: bool,
    /// Its taints, or whether it is cordoned.
    pub taints: bool,
}

impl NodeChanges {
    /// Whether anything that scheduling looks at changed.
    pub fn any(self) -> bool {
        self != NodeChanges::default()
    }
}

/// Whether a refused pod should be tried again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hint {
    /// It may fit now.
    Queue,
    /// Nothing changed for it.
    Skip,
}

impl Hint {
    /// [`Hint::Queue`] if so.
    pub fn queue_if(so: bool) -> Self {
        if so { Hint::Queue } else { Hint::Skip }
    }
}
