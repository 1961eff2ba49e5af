//! SchedulingGates: a pod with gates is not tried until somebody has removed all of them.

use crate::framework::{ClusterEvent, Hint, Plugin, PreEnqueue, Refusal};
use crate::model::PodInfo;

const NAME: &str = "SchedulingGates";

/// The plugin.
pub struct SchedulingGates;

impl Plugin for SchedulingGates {
    fn name(&self) -> &'static str {
        NAME
    }

    fn hint(&self, _: &ClusterEvent<'_>, _: &PodInfo) -> Hint {
        // Only a change of the pod itself helps.
        Hint::Skip
    }
}

impl PreEnqueue for SchedulingGates {
    fn pre_enqueue(&self, pod: &PodInfo) -> Result<(), Refusal> {
        let gates = pod
            .pod
            .spec
            .as_ref()
            .and_then(|spec| spec.scheduling_gates.as_deref())
            .unwrap_or_default();
        if gates.is_empty() {
            return Ok(());
        }
        let names: Vec<_> = gates.iter().map(|gate| gate.name.as_str()).collect();
        Err(Refusal::unresolvable(
            NAME,
            format!("waiting for scheduling gates: [{}]", names.join(" ")),
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::pod;

    #[test]
    fn gates_are_named() {
        assert!(SchedulingGates.pre_enqueue(&pod("a").info()).is_ok());
        let refusal = SchedulingGates
            .pre_enqueue(&pod("a").gate("x/one").gate("x/two").info())
            .unwrap_err();
        assert_eq!(refusal.reasons, ["waiting for scheduling gates: [x/one x/two]"]);
    }
}
