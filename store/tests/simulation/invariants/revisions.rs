//! Revisions grow with time, and what a client was told of a write is what happened at its revision.

use crate::history::{Asked, History};

pub fn check(history: &History) -> Result<(), String> {
    let mut ends: Vec<(u64, i64)> = Vec::new();
    for operation in &history.operations {
        let (Some(returned), Some(revision)) = (operation.returned, operation.revision) else {
            continue;
        };
        ends.push((returned, revision));
        let written = match &operation.asked {
            Asked::Put(value) => *value,
            Asked::Swap {
                new,
                outcome: Some(Ok(())),
                ..
            } => *new,
            Asked::Delete { found: Some(true) } => 0,
            _ => continue,
        };
        let happened = history.truth.get(&revision).is_some_and(|events| {
            events
                .iter()
                .any(|event| event.key == operation.key && event.value == written)
        });
        if !happened {
            return Err(format!(
                "{operation:?} was acknowledged, but revision {revision} is {:?}",
                history.truth.get(&revision)
            ));
        }
    }
    ends.sort_unstable();
    // The highest revision anyone had been told of by then.
    let mut highest: Vec<(u64, i64)> = Vec::new();
    for (end, revision) in ends {
        let before = highest.last().map_or(0, |(_, highest)| *highest);
        highest.push((end, before.max(revision)));
    }
    for operation in &history.operations {
        let Some(revision) = operation.revision else {
            continue;
        };
        let before = highest.partition_point(|(end, _)| *end < operation.called);
        if let Some((_, known)) = before.checked_sub(1).and_then(|at| highest.get(at))
            && revision < *known
        {
            return Err(format!(
                "{operation:?} is older than revision {known}, which was known before"
            ));
        }
    }
    Ok(())
}
