//! Who owns whom: every object of the cluster by uid, with its owners and its dependents.
//!
//! The graph is told what the informers see and answers with what has to be looked at. An owner that is named but
//! was never seen is in the graph as well, as a ghost: it is looked up, and is either seen later or declared absent.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use keelson_api::deletion::{FOREGROUND_FINALIZER, ORPHAN_FINALIZER, has_finalizer};
use keelson_api::object::ObjectKey;

use super::resources::Resource;

/// Uids are shared between an object's node, its owners and its dependents.
pub type Uid = Arc<str>;

/// Uids of owners known not to exist, so that each of a thousand dependents need not ask again.
const ABSENT_MEMORY: usize = 500;

/// Something to look at.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Work {
    /// Does this object still have a reason to exist?
    Judge(Uid),
    /// Release the dependents of this object, then let it go.
    Orphan(Uid),
}

/// One object.
#[derive(Debug, Clone)]
pub struct Node {
    /// What it is; unknown kinds stay ghosts.
    pub resource: Option<Arc<Resource>>,
    /// Namespace and name.
    pub key: ObjectKey,
    /// As last seen; empty for a ghost.
    pub resource_version: String,
    /// Its owners.
    pub owners: Vec<OwnerReference>,
    /// What it owns.
    pub dependents: HashSet<Uid>,
    /// Being deleted.
    pub deleting: bool,
    /// Being deleted after its dependents.
    pub foreground: bool,
    /// Being deleted without its dependents.
    pub orphan: bool,
    /// Named as an owner and never seen, or seen no more.
    pub ghost: bool,
}

/// The graph.
#[derive(Debug, Default)]
pub struct Graph {
    nodes: HashMap<Uid, Node>,
    absent: HashSet<Uid>,
    absent_order: VecDeque<Uid>,
}

/// Whether an owner exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Presence {
    /// It does.
    Present,
    /// It does, and waits for its dependents to be deleted.
    Waiting,
    /// It does not.
    Absent,
    /// Nobody has looked.
    Unknown,
}

impl Graph {
    /// The node of an object.
    #[must_use]
    pub fn get(&self, uid: &str) -> Option<&Node> {
        self.nodes.get(uid)
    }

    /// Whether an object exists, as far as the graph knows.
    #[must_use]
    pub fn presence(&self, uid: &str) -> Presence {
        match self.nodes.get(uid) {
            Some(node) if node.ghost => Presence::Unknown,
            Some(node) if node.deleting && node.foreground => Presence::Waiting,
            Some(_) => Presence::Present,
            None if self.absent.contains(uid) => Presence::Absent,
            None => Presence::Unknown,
        }
    }

    /// Dependents whose owner reference holds the owner's deletion up.
    #[must_use]
    pub fn blocking_dependents(&self, uid: &str) -> Vec<Uid> {
        let Some(node) = self.nodes.get(uid) else {
            return Vec::new();
        };
        let blocks = |dependent: &&Uid| {
            self.nodes.get(*dependent).is_some_and(|dependent| {
                dependent
                    .owners
                    .iter()
                    .any(|owner| &*owner.uid == uid && owner.block_owner_deletion == Some(true))
            })
        };
        node.dependents.iter().filter(blocks).cloned().collect()
    }

    /// An object is there, or has changed. `find` knows the resource of a group and kind.
    pub fn observe(
        &mut self,
        resource: &Arc<Resource>,
        meta: &ObjectMeta,
        find: impl Fn(&OwnerReference) -> Option<Arc<Resource>>,
    ) -> Vec<Work> {
        let Some(uid) = meta.uid.as_deref() else {
            return Vec::new();
        };
        let owners = meta.owner_references.clone().unwrap_or_default();
        let uid: Uid = self
            .nodes
            .get_key_value(uid)
            .map_or_else(|| uid.into(), |(uid, _)| uid.clone());
        let mut work = Vec::new();
        let old = self.nodes.remove(&uid);
        let (was_orphan, was_foreground) = old
            .as_ref()
            .map_or((false, false), |old| (old.orphan, old.foreground));
        let deleting = meta.deletion_timestamp.is_some();
        let old_owners = old.as_ref().map(|old| old.owners.clone()).unwrap_or_default();
        let node = Node {
            resource: Some(resource.clone()),
            key: ObjectKey::of(meta),
            resource_version: meta.resource_version.clone().unwrap_or_default(),
            owners,
            dependents: old.map(|old| old.dependents).unwrap_or_default(),
            deleting,
            foreground: deleting && has_finalizer(meta, FOREGROUND_FINALIZER),
            orphan: deleting && has_finalizer(meta, ORPHAN_FINALIZER),
            ghost: false,
        };
        if node.orphan && !was_orphan {
            work.push(Work::Orphan(uid.clone()));
        }
        if node.foreground && !was_foreground {
            work.extend(node.dependents.iter().cloned().map(Work::Judge));
            work.push(Work::Judge(uid.clone()));
        }
        if old_owners != node.owners {
            self.relink(&uid, &node, &old_owners, find, &mut work);
        }
        self.nodes.insert(uid, node);
        work
    }

    fn relink(
        &mut self,
        uid: &Uid,
        node: &Node,
        old_owners: &[OwnerReference],
        find: impl Fn(&OwnerReference) -> Option<Arc<Resource>>,
        work: &mut Vec<Work>,
    ) {
        for old in old_owners {
            let kept = node.owners.iter().find(|owner| owner.uid == old.uid);
            let unblocks = kept.is_none_or(|kept| {
                old.block_owner_deletion == Some(true) && kept.block_owner_deletion != Some(true)
            });
            if let Some(owner) = self.nodes.get_mut(&*old.uid) {
                if kept.is_none() {
                    owner.dependents.remove(uid);
                }
                if unblocks && owner.foreground {
                    work.push(Work::Judge(old.uid.as_str().into()));
                }
            }
        }
        for owner in &node.owners {
            if old_owners.iter().any(|old| old.uid == owner.uid) {
                continue;
            }
            if let Some(known) = self.nodes.get_mut(&*owner.uid) {
                known.dependents.insert(uid.clone());
                continue;
            }
            if self.absent.contains(&*owner.uid) {
                work.push(Work::Judge(uid.clone()));
                continue;
            }
            let owner_uid: Uid = owner.uid.as_str().into();
            self.nodes.insert(
                owner_uid.clone(),
                ghost(owner, &node.key.namespace, find(owner), uid.clone()),
            );
            work.push(Work::Judge(owner_uid));
        }
    }

    /// An object is gone, or was found never to have been.
    pub fn remove(&mut self, uid: &str) -> Vec<Work> {
        let Some((uid, node)) = self.nodes.remove_entry(uid) else {
            return Vec::new();
        };
        let mut work: Vec<Work> = node.dependents.into_iter().map(Work::Judge).collect();
        for owner in &node.owners {
            if let Some(owner_node) = self.nodes.get_mut(&*owner.uid) {
                owner_node.dependents.remove(&uid);
                if owner_node.foreground {
                    work.push(Work::Judge(owner.uid.as_str().into()));
                }
            }
        }
        if !work.is_empty() {
            self.note_absent(uid);
        }
        work
    }

    /// Remembers that an owner does not exist.
    pub fn note_absent(&mut self, uid: Uid) {
        if self.absent.insert(uid.clone()) {
            self.absent_order.push_back(uid);
            if self.absent_order.len() > ABSENT_MEMORY
                && let Some(oldest) = self.absent_order.pop_front()
            {
                self.absent.remove(&oldest);
            }
        }
    }

    /// Objects of a resource that is watched no longer are not seen to go: they are there for all anybody knows, until
    /// they are looked up as what their kind is served as now.
    pub fn lose_sight(&mut self, resource: &Resource, again: Option<&Arc<Resource>>) -> Vec<Work> {
        let owns = |uid: &Uid| {
            self.nodes
                .get(uid)
                .is_some_and(|node| !node.dependents.is_empty())
        };
        // Nobody asks for what is served no more and owns nothing.
        let (kept, dropped): (Vec<Uid>, Vec<Uid>) = self
            .seen(|own| own.gvr == resource.gvr)
            .into_iter()
            .partition(|uid| again.is_some() || owns(uid));
        for uid in &kept {
            if let Some(node) = self.nodes.get_mut(uid) {
                node.resource = again.cloned();
                node.ghost = true;
                (node.deleting, node.foreground, node.orphan) = (false, false, false);
            }
        }
        let mut work: Vec<Work> = dropped.iter().flat_map(|uid| self.remove(uid)).collect();
        work.extend(kept.into_iter().map(Work::Judge));
        work
    }

    /// A definition is gone, and so are all objects of it.
    pub fn withdraw(&mut self, group: &str, plural: &str) -> Vec<Work> {
        let gone = self.seen(|own| (&*own.gvr.group, &*own.gvr.resource) == (group, plural));
        gone.iter().flat_map(|uid| self.remove(uid)).collect()
    }

    /// There are other resources than before: owners of kinds that nobody knew can be looked up.
    pub fn recognize(&mut self, find: impl Fn(&OwnerReference) -> Option<Arc<Resource>>) -> Vec<Work> {
        let unknown = self.nodes.iter().filter(|(_, node)| node.resource.is_none());
        let recognized: Vec<(Uid, Arc<Resource>)> = unknown
            .filter_map(|(uid, node)| {
                let dependents = node.dependents.iter().filter_map(|one| self.nodes.get(one));
                let mut named =
                    dependents.flat_map(|one| one.owners.iter().filter(|owner| *owner.uid == **uid));
                Some((uid.clone(), named.find_map(&find)?))
            })
            .collect();
        for (uid, resource) in &recognized {
            if let Some(node) = self.nodes.get_mut(uid) {
                if !resource.namespaced {
                    node.key.namespace.clear();
                }
                node.resource = Some(resource.clone());
            }
        }
        recognized.into_iter().map(|(uid, _)| Work::Judge(uid)).collect()
    }

    /// What is of such a resource and not only named.
    fn seen(&self, of: impl Fn(&Resource) -> bool) -> Vec<Uid> {
        let nodes = self.nodes.iter();
        let seen = nodes.filter(|(_, node)| !node.ghost && node.resource.as_ref().is_some_and(|own| of(own)));
        seen.map(|(uid, _)| uid.clone()).collect()
    }
}

fn ghost(owner: &OwnerReference, namespace: &str, resource: Option<Arc<Resource>>, dependent: Uid) -> Node {
    let namespace = match &resource {
        Some(resource) if !resource.namespaced => "",
        _ => namespace,
    };
    Node {
        key: ObjectKey::new(namespace, owner.name.as_str()),
        resource,
        resource_version: String::new(),
        owners: Vec::new(),
        dependents: HashSet::from([dependent]),
        deleting: false,
        foreground: false,
        orphan: false,
        ghost: true,
    }
}

#[cfg(test)]
#[path = "graph_tests.rs"]
mod tests;
