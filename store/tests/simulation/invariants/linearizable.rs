//! Every key behaves as if operations happened one after the other, each between its call and its answer.

use std::collections::BTreeMap;

use crate::history::{Asked, History, Operation};
use crate::linearizable::{self, Verdict};

pub fn check(history: &History) -> Result<(), String> {
    let mut keys: BTreeMap<&str, Vec<Operation>> = BTreeMap::new();
    for operation in &history.operations {
        if matches!(operation.asked, Asked::Get(_)) && operation.returned.is_none() {
            continue;
        }
        keys.entry(&operation.key).or_default().push(operation.clone());
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
