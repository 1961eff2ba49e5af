//! The scheduler's core: what is known of the cluster, which pods wait, and where each goes.
//!
//! Pure: changes of the cluster and the time go in, [`Decision`]s come out. The driver does the I/O.

mod cache;
mod cycle;
mod diagnosis;
mod queue;
mod shared;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Instant;

use k8s_openapi::api::core::v1::{Namespace, Node, Pod};
use keelson_api::object::Object;
use keelson_client::Event;

pub use cache::{Cache, Snapshot};
pub use diagnosis::histogram;
pub use queue::{Places, Queue, QueuedPod};

use crate::framework::{Binding, ClusterEvent, Hint, Permission, Profile};
use crate::model::{PodId, PodInfo};
use cycle::Placement;
use shared::SharedVerdicts;

/// A change of the cluster.
#[derive(Debug)]
pub enum Change {
    /// Of a node.
    Node(Event<Node>),
    /// Of a pod that is not finished.
    Pod(Event<Pod>),
    /// Of a namespace.
    Namespace(Event<Namespace>),
}

/// What to do for a pod.
pub enum Decision {
    /// Bind it, once every permission is there. The outcome must be told with [`Engine::bound`].
    Bind {
        /// The pod and its node.
        binding: Binding,
        /// What to wait for first.
        waits: Vec<Permission>,
    },
    /// It fits nowhere now: say so in its status and in an event. It waits for the cluster to change.
    Unschedulable {
        /// The pod.
        pod: Arc<PodInfo>,
        /// Why.
        message: String,
        /// The node that preemption is making room on.
        nominated: Option<String>,
    },
}

/// The core of the scheduler.
pub struct Engine {
    profiles: BTreeMap<String, Profile>,
    cache: Cache,
    queue: Queue,
    shared: SharedVerdicts,
    /// Pods being bound: they are in the cache already, and come back to the queue if binding fails.
    binding: HashMap<PodId, QueuedPod>,
}

impl Engine {
    /// An engine that knows nothing yet and schedules the pods that name one of the profiles.
    pub fn new(profiles: Vec<Profile>) -> Self {
        Engine {
            profiles: profiles
                .into_iter()
                .map(|profile| (profile.name.clone(), profile))
                .collect(),
            cache: Cache::default(),
            queue: Queue::default(),
            shared: SharedVerdicts::default(),
            binding: HashMap::new(),
        }
    }

    /// The profile for a pod, if its scheduler is this one.
    pub fn profile(&self, pod: &PodInfo) -> Option<&Profile> {
        self.profiles.get(pod.scheduler_name())
    }

    /// How many pods wait where.
    pub fn places(&self) -> Places {
        self.queue.places()
    }

    /// What is known of the cluster.
    pub fn cache(&self) -> &Cache {
        &self.cache
    }

    /// Takes note of a change.
    pub fn apply(&mut self, change: Change, now: Instant) {
        match change {
            Change::Node(Event::Added(node) | Event::Updated { new: node, .. }) => {
                self.node_changed(node, now)
            }
            Change::Node(Event::Deleted(node)) => {
                if self.cache.remove_node(node.name()) {
                    self.wake(&Wake::NodeRemoved, now);
                }
            }
            Change::Pod(Event::Added(pod) | Event::Updated { new: pod, .. }) => {
                if keelson_api::pods::is_terminal(&pod) {
                    self.pod_removed(&pod, now);
                } else {
                    self.pod_changed(pod, now);
                }
            }
            Change::Pod(Event::Deleted(pod)) => self.pod_removed(&pod, now),
            Change::Namespace(Event::Added(namespace) | Event::Updated { new: namespace, .. }) => {
                if self.cache.set_namespace(namespace.name(), namespace.labels()) {
                    self.wake(&Wake::Namespace, now);
                }
            }
            Change::Namespace(Event::Deleted(namespace)) => self.cache.remove_namespace(namespace.name()),
        }
    }

    fn node_changed(&mut self, node: Arc<Node>, now: Instant) {
        let name = node.name().to_owned();
        let is_new = !self.cache.has_node(&name);
        let changes = self.cache.set_node(node);
        if is_new {
            self.wake(&Wake::NodeAdded(name), now);
        } else if changes.any() {
            self.wake(&Wake::NodeChanged(name, changes), now);
        }
    }

    fn pod_changed(&mut self, pod: Arc<Pod>, now: Instant) {
        let info = Arc::new(PodInfo::new(pod));
        if info.node_name().is_some() {
            // Bound, by us or by somebody else.
            self.queue.remove(&info.id);
            self.binding.remove(&info.id);
            let known = self.cache.pod(&info.id);
            let is_new = known.is_none();
            let eased = known
                .is_some_and(|old| old.pod.labels() != info.pod.labels() || old.requests != info.requests);
            self.cache.set_pod(info.clone());
            if is_new {
                self.wake(&Wake::PodAssigned(info), now);
            } else if eased {
                self.wake(&Wake::AssignedPodChanged(info), now);
            }
            return;
        }
        if info.is_terminating() || !self.profiles.contains_key(info.scheduler_name()) {
            self.queue.remove(&info.id);
            return;
        }
        if let Some(queued) = self.binding.get_mut(&info.id) {
            queued.info = info;
            return;
        }
        if let Some(profile) = self.profiles.get(info.scheduler_name()) {
            self.queue.offer(info, profile, now);
        }
    }

    fn pod_removed(&mut self, pod: &Pod, now: Instant) {
        let id = pod.uid();
        self.queue.remove(id);
        self.binding.remove(id);
        if let Some(info) = self.cache.remove_pod(id) {
            self.wake(&Wake::PodRemoved(info), now);
        }
    }

    /// Puts waiting pods back in the queue that the event may help.
    fn wake(&mut self, wake: &Wake, now: Instant) {
        let Some(event) = wake.event(&self.cache) else {
            return;
        };
        let profiles = &self.profiles;
        self.queue.wake(now, profiles, |plugin, profile, pod| {
            profile
                .plugin(plugin)
                .is_none_or(|plugin| plugin.hint(&event, pod) == Hint::Queue)
        });
    }

    /// Moves pods whose back-off is over to where they are tried. Returns when to call again.
    pub fn tick(&mut self, now: Instant) -> Option<Instant> {
        self.queue.tick(now, &self.profiles)
    }

    /// Places the next pod. `None`: nobody waits to be tried.
    pub fn next(&mut self, now: Instant) -> Option<Decision> {
        let mut queued = self.queue.pop()?;
        let info = queued.info.clone();
        let profile = self.profiles.get(info.scheduler_name())?;
        queued.attempts += 1;
        match cycle::schedule(profile, &info, &self.cache, &mut self.shared) {
            Placement::Node { node, waits } => {
                self.cache.assume(info.clone(), &node);
                self.binding.insert(info.id.clone(), queued);
                Some(Decision::Bind {
                    binding: Binding { pod: info, node },
                    waits,
                })
            }
            Placement::Nowhere {
                message,
                plugins,
                nominated,
            } => {
                self.queue.park(queued, plugins, now);
                Some(Decision::Unschedulable {
                    pod: info,
                    message,
                    nominated,
                })
            }
        }
    }

    /// A pod was bound. (The watch will say so too.)
    pub fn bound(&mut self, pod: &PodInfo) {
        self.binding.remove(&pod.id);
    }

    /// A pod could not be bound to the node it was given: that room is free again, and the pod is tried again later.
    pub fn not_bound(&mut self, binding: &Binding, now: Instant) {
        let pod = &binding.pod;
        if let Some(profile) = self.profiles.get(pod.scheduler_name()) {
            for plugin in &profile.points.reserve {
                plugin.unreserve(pod, &binding.node);
            }
        }
        // If it is not here any more, the watch was faster: the pod is gone, or bound after all.
        let Some(queued) = self.binding.remove(&pod.id) else {
            return;
        };
        if let Some(info) = self.cache.remove_pod(&pod.id) {
            self.wake(&Wake::PodRemoved(info), now);
        }
        self.queue.back_off(queued, now);
    }
}

/// An event that owns what it tells of, so that the cache can change meanwhile.
enum Wake {
    NodeAdded(String),
    NodeChanged(String, crate::framework::NodeChanges),
    NodeRemoved,
    PodAssigned(Arc<PodInfo>),
    AssignedPodChanged(Arc<PodInfo>),
    PodRemoved(Arc<PodInfo>),
    Namespace,
}

impl Wake {
    fn event<'a>(&'a self, cache: &'a Cache) -> Option<ClusterEvent<'a>> {
        Some(match self {
            Wake::NodeAdded(name) => ClusterEvent::NodeAdded(cache.node(name)?),
            Wake::NodeChanged(name, changes) => ClusterEvent::NodeChanged(cache.node(name)?, *changes),
            Wake::NodeRemoved => ClusterEvent::NodeRemoved,
            Wake::PodAssigned(pod) => ClusterEvent::PodAssigned(pod),
            Wake::AssignedPodChanged(pod) => ClusterEvent::AssignedPodChanged(pod),
            Wake::PodRemoved(pod) => ClusterEvent::PodRemoved(pod),
            Wake::Namespace => ClusterEvent::NamespaceChanged,
        })
    }
}
