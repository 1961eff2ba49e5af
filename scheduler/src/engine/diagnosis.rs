//! Why a pod fits nowhere, in upstream's words.

use std::collections::BTreeMap;

use crate::framework::Refusal;

/// `0/3 nodes are available: 1 Insufficient cpu, 2 node(s) were unschedulable.`
pub fn message<'a>(nodes: usize, refusals: impl Iterator<Item = &'a Refusal>) -> String {
    if nodes == 0 {
        return "no nodes available to schedule pods".into();
    }
    format!(
        "0/{nodes} nodes are available: {}.",
        histogram(
            refusals
                .flat_map(|refusal| &refusal.reasons)
                .map(|reason| &**reason)
        )
    )
}

/// `1 Insufficient cpu, 2 node(s) were unschedulable`: how often each reason was given, in the order of the texts.
pub fn histogram<'a>(reasons: impl Iterator<Item = &'a str>) -> String {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for reason in reasons {
        *counts.entry(reason).or_default() += 1;
    }
    let mut texts: Vec<_> = counts
        .into_iter()
        .map(|(reason, count)| format!("{count} {reason}"))
        .collect();
    texts.sort_unstable();
    texts.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_counted_and_sorted() {
        let mut both = Refusal::resolvable("NodeResourcesFit", "Insufficient cpu");
        both.reasons.push("Insufficient memory".into());
        let taint = Refusal::unresolvable("TaintToleration", "node(s) had untolerated taint(s)");
        let all = [taint.clone(), both, taint];
        assert_eq!(
            message(3, all.iter()),
            "0/3 nodes are available: 1 Insufficient cpu, 1 Insufficient memory, 2 node(s) had untolerated taint(s)."
        );
        assert_eq!(message(0, [].iter()), "no nodes available to schedule pods");
    }
}
