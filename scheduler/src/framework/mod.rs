//! The scheduling framework: the points at which plugins have a say, in the order of a pod's way.
//!
//! ```text
//! queue:            PreEnqueue → QueueSort
//! scheduling cycle: PreFilter → Filter → (PostFilter) → PreScore → Score → normalize → Reserve → Permit
//! binding:          PreBind → Bind → PostBind
//! ```
//!
//! The scheduling cycle does no I/O and is one thread's; what must wait for something happens in binding.

mod events;
mod profile;
mod refusal;
mod state;

use std::time::Duration;

use futures::future::BoxFuture;
use keelson_api::ApiError;

pub use events::{ClusterEvent, Hint, NodeChanges};
pub use profile::{Points, Profile};
pub use refusal::{Permanence, Refusal};
pub use state::CycleState;

use crate::engine::Snapshot;
use crate::model::{NodeInfo, PodInfo};

/// The best score a node can get from one plugin.
pub const MAX_SCORE: i64 = 100;

/// What the extension points of one cycle look at.
pub struct Cycle<'a> {
    /// The pod to place.
    pub pod: &'a PodInfo,
    /// The cluster as it is during this cycle.
    pub snapshot: Snapshot<'a>,
    /// What plugins keep from one point to the next.
    pub state: CycleState,
}

/// What a plugin's judgement of a node depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// On the pod's [requirements](PodInfo::requirements) and this node alone: it is kept, and shared between pods
    /// with equal requirements, until the node changes.
    Node,
    /// On other nodes and pods too: it is made anew in every cycle.
    Cluster,
}

/// Every plugin.
pub trait Plugin: Send + Sync + 'static {
    /// Its name, as upstream's configuration and messages have it.
    fn name(&self) -> &'static str;

    /// Whether `event` may make a pod schedulable that this plugin refused. Saying yes too often costs attempts, saying
    /// no wrongly leaves pods waiting for minutes.
    fn hint(&self, event: &ClusterEvent<'_>, pod: &PodInfo) -> Hint {
        let _ = (event, pod);
        Hint::Queue
    }
}

/// May keep a pod out of the queue.
pub trait PreEnqueue: Plugin {
    /// Refuses pods that are not to be tried yet.
    fn pre_enqueue(&self, pod: &PodInfo) -> Result<(), Refusal>;
}

/// A place in the queue: the smaller goes first.
pub type Rank = (i64, u64);

/// Orders the queue. There is one per scheduler.
pub trait QueueSort: Plugin {
    /// The pod's place; `arrival` grows with every pod that is queued.
    fn rank(&self, pod: &PodInfo, arrival: u64) -> Rank;
}

/// What a [`PreFilter`] found.
pub enum PreFiltered {
    /// The plugin's filter has to be asked.
    Filter,
    /// The plugin's filter has nothing against any node.
    Skip,
    /// Only these nodes can fit; the plugin's filter has to be asked about them.
    Only(Vec<String>),
}

/// Looks at the pod and the whole cluster before nodes are filtered.
pub trait PreFilter: Plugin {
    /// Prepares filtering, or refuses the pod for every node.
    fn pre_filter(&self, cycle: &mut Cycle<'_>) -> Result<PreFiltered, Refusal>;
}

/// Says which nodes cannot run the pod.
pub trait Filter: Plugin {
    /// What the judgement depends on.
    fn scope(&self) -> Scope;
    /// Refuses the node, or does not.
    fn filter(&self, cycle: &Cycle<'_>, node: &NodeInfo) -> Result<(), Refusal>;
}

/// What a [`PostFilter`] achieved for a pod that fits nowhere.
pub struct PostFiltered {
    /// The node that will fit soon, if one was made to.
    pub nominated: Option<String>,
    /// For the pod's condition and event.
    pub message: String,
}

/// Tries to help a pod that fits nowhere.
pub trait PostFilter: Plugin {
    /// `refusals` has the refusal of every node, by its place in the snapshot.
    fn post_filter(&self, cycle: &Cycle<'_>, refusals: &[(usize, std::sync::Arc<Refusal>)]) -> PostFiltered;
}

/// What a [`PreScore`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PreScored {
    /// The plugin's score has to be asked.
    Score,
    /// The plugin prefers no node.
    Skip,
}

/// Looks at the nodes that fit before they are scored.
pub trait PreScore: Plugin {
    /// `feasible` has the places in the snapshot of the nodes that fit.
    fn pre_score(&self, cycle: &mut Cycle<'_>, feasible: &[usize]) -> PreScored;
}

/// Says which nodes are better.
pub trait Score: Plugin {
    /// What the judgement depends on. Normalizing is not part of it.
    fn scope(&self) -> Scope;
    /// A raw score, which [`Score::normalize`] brings to 0..=[`MAX_SCORE`].
    fn score(&self, cycle: &Cycle<'_>, node: &NodeInfo) -> i64;
    /// Brings the raw scores of all nodes that fit to 0..=[`MAX_SCORE`].
    fn normalize(&self, cycle: &Cycle<'_>, feasible: &[usize], scores: &mut [i64]) {
        let _ = (cycle, feasible, scores);
    }
}

/// Sets something aside for a pod on its node.
pub trait Reserve: Plugin {
    /// Sets it aside, or refuses the node after all.
    fn reserve(&self, cycle: &mut Cycle<'_>, node: &NodeInfo) -> Result<(), Refusal>;
    /// Undoes [`Reserve::reserve`], or the failed attempt at it. Must not fail, and may be called twice.
    fn unreserve(&self, pod: &PodInfo, node: &str);
}

/// What a [`Permit`] says.
pub enum Permission {
    /// Go on.
    Allow,
    /// Go on when this is ready with `Ok`; after the time it is a refusal.
    Wait(BoxFuture<'static, Result<(), Refusal>>, Duration),
}

/// Can hold back a pod that has its node, until others have theirs.
pub trait Permit: Plugin {
    /// Allows, delays or refuses the binding.
    fn permit(&self, cycle: &Cycle<'_>, node: &NodeInfo) -> Result<Permission, Refusal>;
}

/// Does what has to be done in the cluster before a pod is bound.
pub trait PreBind: Plugin {
    /// Whether there is anything to do for this pod: if not, it need not be waited for.
    fn concerns(&self, pod: &PodInfo) -> bool;
    /// Does it.
    fn pre_bind<'a>(&'a self, pod: &'a PodInfo, node: &'a str) -> BoxFuture<'a, Result<(), Refusal>>;
}

/// A pod and the node it goes to.
#[derive(Clone, Debug)]
pub struct Binding {
    /// The pod.
    pub pod: std::sync::Arc<PodInfo>,
    /// The node's name.
    pub node: std::sync::Arc<str>,
}

/// Binds pods to nodes.
pub trait Bind: Plugin {
    /// Binds many at once; the results are in the order of the bindings.
    fn bind<'a>(&'a self, bindings: &'a [Binding]) -> BoxFuture<'a, Vec<Result<(), ApiError>>>;
}

/// Is told of bindings that were made.
pub trait PostBind: Plugin {
    /// The pod is bound.
    fn post_bind(&self, binding: &Binding);
}

/// Brings raw scores to 0..=[`MAX_SCORE`] in proportion to the largest.
pub fn normalize_to_max(scores: &mut [i64]) {
    let max = scores.iter().copied().max().unwrap_or_default();
    if max > 0 {
        scores
            .iter_mut()
            .for_each(|score| *score = *score * MAX_SCORE / max);
    }
}

/// Like [`normalize_to_max`], for scores of which the smallest is best.
pub fn normalize_to_max_reversed(scores: &mut [i64]) {
    let max = scores.iter().copied().max().unwrap_or_default();
    for score in scores {
        *score = if max > 0 {
            MAX_SCORE - *score * MAX_SCORE / max
        } else {
            MAX_SCORE
        };
    }
}
