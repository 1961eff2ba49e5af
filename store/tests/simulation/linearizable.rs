//! Is there an order of the operations on a key that explains what every client saw?
//!
//! The search of Wing and Gong with Lowe's memory of what was tried, as in porcupine: take any operation that
//! begins before the first one ends, see whether the key would have answered as it did, go on; step back when
//! stuck. Operations whose outcome nobody knows may happen at any later time.

use std::collections::HashSet;

use crate::history::{Asked, Operation, Value};

/// More steps than this mean that the check, not the store, is at its end.
const MAX_STEPS: usize = 5_000_000;

/// What a check came to.
#[derive(Debug, PartialEq, Eq)]
pub enum Verdict {
    Linearizable,
    /// The longest explanation ends before this operation.
    Not(usize),
    Unknown,
}

/// What the key is after an operation, if it can have answered as it did.
fn step(state: Value, asked: &Asked) -> Option<Value> {
    match asked {
        Asked::Put(value) => Some(*value),
        Asked::Delete { found } => match found {
            Some(found) if *found != (state != 0) => None,
            _ => Some(0),
        },
        Asked::Get(value) => (*value == state).then_some(state),
        Asked::Swap {
            expected,
            new,
            outcome,
        } => match outcome {
            Some(Ok(())) => (state == *expected).then_some(*new),
            Some(Err(found)) => (state == *found && state != *expected).then_some(state),
            None if state == *expected => Some(*new),
            None => Some(state),
        },
    }
}

/// Checks the operations of one key, which begins as not there.
pub fn check(operations: &[Operation]) -> Verdict {
    let mut order: Vec<usize> = (0..operations.len()).collect();
    order.sort_by_key(|index| operations[*index].called);
    let calls: Vec<u64> = order.iter().map(|index| operations[*index].called).collect();
    let returns: Vec<u64> = order
        .iter()
        .map(|index| operations[*index].returned.unwrap_or(u64::MAX))
        .collect();
    let certain = returns.iter().filter(|end| **end != u64::MAX).count();

    let mut done = vec![0_u64; order.len().div_ceil(64)];
    let is_done = |done: &[u64], at: usize| done[at / 64] >> (at % 64) & 1 == 1;
    let mut tried: HashSet<(Vec<u64>, Value)> = HashSet::new();
    // What was taken, the state before it, and where the search goes on after stepping back.
    let mut taken: Vec<(usize, Value)> = Vec::new();
    let mut state = 0;
    let mut from = 0;
    let mut first = 0;
    let mut certain_done = 0;
    let mut furthest = (0, 0);
    for _ in 0..MAX_STEPS {
        if certain_done == certain {
            return Verdict::Linearizable;
        }
        while first < order.len() && is_done(&done, first) {
            first += 1;
        }
        // Whatever begins after the first end must wait.
        let mut end = u64::MAX;
        let mut next = None;
        for at in first..order.len() {
            if calls[at] > end {
                break;
            }
            if is_done(&done, at) {
                continue;
            }
            end = end.min(returns[at]);
        }
        for at in first.max(from)..order.len() {
            if calls[at] > end {
                break;
            }
            if is_done(&done, at) {
                continue;
            }
            let Some(after) = step(state, &operations[order[at]].asked) else {
                continue;
            };
            done[at / 64] |= 1 << (at % 64);
            if tried.insert((done.clone(), after)) {
                next = Some((at, after));
                break;
            }
            done[at / 64] &= !(1 << (at % 64));
        }
        if let Some((at, after)) = next {
            taken.push((at, state));
            state = after;
            from = 0;
            certain_done += usize::from(returns[at] != u64::MAX);
            if certain_done > furthest.0 {
                furthest = (certain_done, order[at]);
            }
            continue;
        }
        let Some((at, before)) = taken.pop() else {
            return Verdict::Not(furthest.1);
        };
        done[at / 64] &= !(1 << (at % 64));
        certain_done -= usize::from(returns[at] != u64::MAX);
        state = before;
        from = at + 1;
        first = 0;
    }
    Verdict::Unknown
}

fn operation(asked: Asked, called: u64, returned: Option<u64>) -> Operation {
    Operation {
        key: "k".into(),
        asked,
        called,
        returned,
        revision: None,
    }
}

#[test]
fn the_checker_tells_right_from_wrong() {
    let put = |value, called, returned| operation(Asked::Put(value), called, returned);
    let get = |value, called, returned| operation(Asked::Get(value), called, Some(returned));
    assert_eq!(check(&[put(1, 0, Some(5)), get(1, 6, 7)]), Verdict::Linearizable);
    assert_eq!(check(&[put(1, 0, Some(5)), get(0, 3, 7)]), Verdict::Linearizable);
    assert_eq!(check(&[put(1, 0, Some(5)), get(0, 6, 7)]), Verdict::Not(0));
    // A write whose outcome is unknown may come late, but it does not go away again.
    assert_eq!(
        check(&[put(1, 0, None), get(0, 3, 4), get(1, 9, 10)]),
        Verdict::Linearizable
    );
    assert!(matches!(
        check(&[put(1, 0, None), get(1, 3, 4), get(0, 9, 10)]),
        Verdict::Not(_)
    ));
    // Two may not both swap the same value.
    let swap = |expected, new, called, returned| {
        let outcome = Some(Ok(()));
        operation(
            Asked::Swap {
                expected,
                new,
                outcome,
            },
            called,
            Some(returned),
        )
    };
    assert!(matches!(
        check(&[put(1, 0, Some(1)), swap(1, 2, 2, 9), swap(1, 3, 2, 9)]),
        Verdict::Not(_)
    ));
}
