//! Shuffle sharding: which few of a level's queues a flow may wait in.
//!
//! Two flows seldom are dealt the same hand, so that a flow that fills every queue of its own leaves others at least one.

/// The queues a flow is dealt, none twice: the digits of its hash in falling bases, each counting those not dealt yet.
pub fn hand(flow: u64, queues: usize, size: usize) -> Vec<usize> {
    let mut rest = flow;
    // In rising order: a card moves up past each one that was dealt before it.
    let mut dealt: Vec<usize> = Vec::with_capacity(size.min(queues));
    for already in 0..size.min(queues) {
        let left = (queues - already) as u64;
        let mut card = usize::try_from(rest % left).unwrap_or_default();
        rest /= left;
        let mut at = 0;
        while dealt.get(at).is_some_and(|before| *before <= card) {
            card += 1;
            at += 1;
        }
        dealt.insert(at, card);
    }
    dealt
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hand_has_no_queue_twice() {
        for flow in [0, 1, u64::MAX, 0x1234_5678_9abc_def0] {
            let mut dealt = hand(flow, 64, 6);
            assert!(
                dealt.len() == 6 && dealt.iter().all(|queue| *queue < 64),
                "{dealt:?}"
            );
            dealt.dedup();
            assert_eq!(dealt.len(), 6, "{flow}");
        }
        assert_eq!(hand(7, 3, 8), [0, 1, 2]);
        assert!(hand(7, 0, 8).is_empty());
    }

    #[test]
    fn every_hand_is_as_likely_as_every_other() {
        let mut counts = std::collections::BTreeMap::new();
        for flow in 0..12 {
            *counts.entry(hand(flow, 4, 2)).or_insert(0) += 1;
        }
        // Six ways to draw two of four, each in two orders.
        assert!(
            counts.len() == 6 && counts.values().all(|count| *count == 2),
            "{counts:?}"
        );
    }
}
