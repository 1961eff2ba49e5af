//! A watch misses nothing, and hears nothing that did not happen; but for history that was compacted away.

use crate::history::{Event, History, Told, Watched};

/// What a watch should have been told in `(after, until]`.
pub fn expected<'h>(history: &'h History, watch: &Watched, after: i64, until: i64) -> Vec<(i64, &'h Event)> {
    let (from, to) = (watch.from.as_str(), watch.end.as_str());
    history
        .truth
        .range(after + 1..until.max(after) + 1)
        .flat_map(|(revision, events)| events.iter().map(|event| (*revision, event)))
        .filter(|(_, event)| {
            if to.is_empty() {
                event.key == from
            } else {
                event.key.as_str() >= from && (to == "\0" || event.key.as_str() < to)
            }
        })
        .collect()
}

/// The last revision before the watch's first.
pub fn begun_after(watch: &Watched) -> i64 {
    match watch.told.first() {
        Some(Told::Begun { at, .. }) => at - 1,
        _ => 0,
    }
}

pub fn check(history: &History) -> Result<(), String> {
    for watch in &history.watches {
        let name = watch.name();
        // Everything up to here is accounted for.
        let mut seen = begun_after(watch);
        for told in &watch.told {
            match told {
                Told::Events(events) => {
                    let last = events.last().map_or(seen, |(revision, _)| *revision);
                    let expected = expected(history, watch, seen, last);
                    let same = expected.len() == events.len()
                        && expected
                            .iter()
                            .zip(events)
                            .all(|((revision, truth), (told, event))| {
                                revision == told
                                    && truth.key == event.key
                                    && truth.value == event.value
                                    && (event.value == 0
                                        || (truth.version, truth.created) == (event.version, event.created))
                            });
                    if !same {
                        return Err(format!(
                            "watch {name}: after {seen} came {events:?}, not {expected:?}"
                        ));
                    }
                    seen = last;
                }
                Told::Compacted(revision) => seen = seen.max(revision - 1),
                Told::Begun { .. } | Told::Progress(_) => {}
            }
        }
        // The run ended quietly: by then it must have heard of everything.
        if !watch.stayed {
            continue;
        }
        let newest = history
            .truth
            .last_key_value()
            .map_or(0, |(revision, _)| *revision);
        let missed = expected(history, watch, seen, newest);
        if let Some((revision, event)) = missed.first() {
            return Err(format!(
                "watch {name} was never told of {event:?} of revision {revision}; at last it was told {:?}",
                watch.told.last_chunk::<3>()
            ));
        }
    }
    Ok(())
}
