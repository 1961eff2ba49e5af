//! A watch that begins at a revision is told of the first event from there on, and of nothing before it.

use super::watch_reliable::expected;
use crate::history::{History, Told};

pub fn check(history: &History) -> Result<(), String> {
    for watch in &history.watches {
        let name = watch.name();
        let mut begun = None;
        for told in &watch.told {
            match told {
                Told::Begun { at, .. } => begun = Some(*at),
                Told::Compacted(_) => begun = None,
                Told::Progress(_) => {}
                Told::Events(events) => {
                    let Some((at, (first, event))) = begun.take().zip(events.first()) else {
                        continue;
                    };
                    let wanted = expected(history, watch, at - 1, *first);
                    if wanted.first().is_none_or(|(revision, truth)| {
                        revision != first || truth.key != event.key || truth.value != event.value
                    }) {
                        return Err(format!(
                            "watch {name} begun at {at} was first told of {event:?} at {first}, not of {:?}",
                            wanted.first()
                        ));
                    }
                }
            }
        }
    }
    Ok(())
}
