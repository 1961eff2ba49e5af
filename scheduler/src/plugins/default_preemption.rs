//! DefaultPreemption, as far as it exists: says for which nodes removing pods could have helped. It removes none yet.

use std::sync::Arc;

use crate::engine::histogram;
use crate::framework::{ClusterEvent, Cycle, Hint, Permanence, Plugin, PostFilter, PostFiltered, Refusal};
use crate::model::PodInfo;

/// The plugin.
pub struct DefaultPreemption;

impl Plugin for DefaultPreemption {
    fn name(&self) -> &'static str {
        "DefaultPreemption"
    }

    fn hint(&self, _: &ClusterEvent<'_>, _: &PodInfo) -> Hint {
        Hint::Skip
    }
}

impl PostFilter for DefaultPreemption {
    fn post_filter(&self, cycle: &Cycle<'_>, refusals: &[(usize, Arc<Refusal>)]) -> PostFiltered {
        let spec = cycle.pod.pod.spec.as_ref();
        if spec.and_then(|spec| spec.preemption_policy.as_deref()) == Some("Never") {
            let message = "preemption: not eligible due to preemptionPolicy=Never.".to_owned();
            return PostFiltered {
                nominated: None,
                message,
            };
        }
        let nodes = cycle.snapshot.nodes();
        let reasons = refusals.iter().map(|(place, refusal)| {
            let victims = nodes[*place]
                .pods
                .iter()
                .any(|pod| pod.priority < cycle.pod.priority);
            match refusal.permanence {
                Permanence::Resolvable if !victims => "No preemption victims found for incoming pod",
                Permanence::Resolvable | Permanence::Unresolvable => {
                    "Preemption is not helpful for scheduling"
                }
            }
        });
        let message = format!(
            "preemption: 0/{} nodes are available: {}.",
            nodes.len(),
            histogram(reasons)
        );
        PostFiltered {
            nominated: None,
            message,
        }
    }
}
