//! Which plugins have a say where, for the pods of one scheduler name.

use std::sync::Arc;

use super::{
    Bind, Filter, Permit, Plugin, PostBind, PostFilter, PreBind, PreEnqueue, PreFilter, PreScore, QueueSort,
    Reserve, Score,
};

/// The plugins of each extension point, in the order in which they are asked.
#[derive(Default)]
pub struct Points {
    /// Asked before a pod is queued.
    pub pre_enqueue: Vec<Arc<dyn PreEnqueue>>,
    /// Asked before nodes are filtered.
    pub pre_filter: Vec<Arc<dyn PreFilter>>,
    /// Asked about each node, until one refuses.
    pub filter: Vec<Arc<dyn Filter>>,
    /// Asked when no node fits.
    pub post_filter: Vec<Arc<dyn PostFilter>>,
    /// Asked before nodes are scored.
    pub pre_score: Vec<Arc<dyn PreScore>>,
    /// Asked about each node that fits; the weight multiplies the normalized score.
    pub score: Vec<(Arc<dyn Score>, i64)>,
    /// Asked when a node is chosen.
    pub reserve: Vec<Arc<dyn Reserve>>,
    /// Asked before binding starts.
    pub permit: Vec<Arc<dyn Permit>>,
    /// Asked while binding.
    pub pre_bind: Vec<Arc<dyn PreBind>>,
    /// The first one binds.
    pub bind: Vec<Arc<dyn Bind>>,
    /// Told when bound.
    pub post_bind: Vec<Arc<dyn PostBind>>,
}

/// How the pods that name one scheduler are scheduled.
pub struct Profile {
    /// The scheduler's name, as in `spec.schedulerName`.
    pub name: String,
    /// The order of the queue.
    pub queue_sort: Arc<dyn QueueSort>,
    /// Everything else.
    pub points: Points,
}

impl Profile {
    /// The plugin of that name, wherever it has a say.
    pub fn plugin(&self, name: &str) -> Option<&dyn Plugin> {
        let points = &self.points;
        let all = (points.pre_enqueue.iter().map(|p| &**p as &dyn Plugin))
            .chain(points.pre_filter.iter().map(|p| &**p as &dyn Plugin))
            .chain(points.filter.iter().map(|p| &**p as &dyn Plugin))
            .chain(points.reserve.iter().map(|p| &**p as &dyn Plugin))
            .chain(points.permit.iter().map(|p| &**p as &dyn Plugin))
            .chain(points.pre_bind.iter().map(|p| &**p as &dyn Plugin));
        let mut all = all;
        all.find(|plugin| plugin.name() == name)
    }
}
