//! PrioritySort: higher priority first, then first come, first served.

use crate::framework::{Plugin, QueueSort, Rank};
use crate::model::PodInfo;

/// The plugin.
pub struct PrioritySort;

impl Plugin for PrioritySort {
    fn name(&self) -> &'static str {
        "PrioritySort"
    }
}

impl QueueSort for PrioritySort {
    fn rank(&self, pod: &PodInfo, arrival: u64) -> Rank {
        (-i64::from(pod.priority), arrival)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::pod;

    #[test]
    fn priority_counts_more_than_age() {
        let rank = |pod: crate::testing::PodBuilder, arrival| PrioritySort.rank(&pod.info(), arrival);
        assert!(rank(pod("a").priority(5), 2) < rank(pod("b"), 1));
        assert!(rank(pod("a"), 1) < rank(pod("b"), 2));
        assert!(rank(pod("a").priority(-5), 1) > rank(pod("b"), 2));
    }
}
