//! A watch that begins before the last compaction is refused, and told where the history begins; no other is.

use crate::history::{History, Told};

pub fn check(history: &History) -> Result<(), String> {
    for watch in &history.watches {
        let name = watch.name();
        // The first revision that it was not told of.
        let mut next = 0;
        let mut refusal_due = None;
        for told in &watch.told {
            if let Some(compacted) = refusal_due.take()
                && !matches!(told, Told::Compacted(revision) if *revision >= compacted)
                // It left before it was told.
                && !matches!(told, Told::Begun { .. })
            {
                return Err(format!(
                    "watch {name} begun at {next} was told {told:?}, though history begins at {compacted}"
                ));
            }
            match told {
                Told::Begun { at, compacted } => {
                    next = *at;
                    refusal_due = (at < compacted).then_some(*compacted);
                }
                Told::Compacted(revision) if *revision <= next => {
                    return Err(format!(
                        "watch {name} wanted {next} and was refused for a compaction at {revision}"
                    ));
                }
                Told::Compacted(revision) => next = *revision,
                Told::Progress(revision) => next = next.max(revision + 1),
                Told::Events(events) => next = events.last().map_or(next, |(revision, _)| revision + 1),
            }
        }
    }
    Ok(())
}
