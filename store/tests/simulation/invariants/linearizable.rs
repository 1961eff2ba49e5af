//! Every key behaves as if operations happened one after the other, each between its call and its answer.
//!
//! An operation whose client never learned what became of it would have to be tried at every later place. Values
//! are unique, so what the members applied says whether it happened at all; where it belongs is left open.

use std::collections::BTreeMap;

use crate::history::{Asked, History, Operation, Value};
use crate::linearizable::{self, Verdict};

/// The operation as it is to be explained; `None` if it is known never to have had an effect.
fn settled(history: &History, operation: &Operation) -> Option<Operation> {
    if operation.returned.is_some() {
        return Some(operation.clone());
    }
    let happened = |value: Value| {
        let mut events = history.truth.values().flatten();
        events.any(|event| event.key == operation.key && event.value == value)
    };
    let mut operation = operation.clone();
    match &mut operation.asked {
        Asked::Get(_) => return None,
        Asked::Put(value) if !happened(*value) => return None,
        Asked::Swap { new, .. } if !happened(*new) => return None,
        Asked::Swap { outcome, .. } => *outcome = Some(Ok(())),
        Asked::Delete { .. } if !has_unclaimed_deletion(history, &operation.key) => return None,
        Asked::Put(_) | Asked::Delete { .. } => {}
    }
    Some(operation)
}

/// Whether the key was deleted more often than clients were told.
fn has_unclaimed_deletion(history: &History, key: &str) -> bool {
    let claimed = history.operations.iter().filter(|operation| {
        operation.key == key && matches!(operation.asked, Asked::Delete { found: Some(true) })
    });
    let happened = history.truth.values().flatten();
    let happened = happened.filter(|event| event.key == key && event.value == 0);
    happened.count() > claimed.count()
}

pub fn check(history: &History) -> Result<(), String> {
    let mut keys: BTreeMap<&str, Vec<Operation>> = BTreeMap::new();
    for operation in &history.operations {
        if let Some(settled) = settled(history, operation) {
            keys.entry(&operation.key).or_default().push(settled);
        }
    }
    for (key, operations) in keys {
        match linearizable::check(&operations) {
            Verdict::Linearizable => {}
            Verdict::Not(at) => {
                let near = operations[at.saturating_sub(6)..(at + 7).min(operations.len())]
                    .iter()
                    .map(|operation| format!("\n  {operation:?}"))
                    .collect::<String>();
                return Err(format!("no order explains {key} around operation {at}:{near}"));
            }
            Verdict::Unknown => return Err(format!("{key} has too many orders to try")),
        }
    }
    Ok(())
}
