//! A progress notification is true: everything up to its revision has been told, nothing before it follows.

use super::watch_reliable::{begun_after, expected};
use crate::history::{History, Told};

pub fn check(history: &History) -> Result<(), String> {
    for watch in &history.watches {
        let name = watch.name();
        let mut seen = begun_after(watch);
        let mut marked = 0;
        for told in &watch.told {
            match told {
                Told::Begun { .. } => {}
                Told::Compacted(revision) => seen = seen.max(revision - 1),
                Told::Events(events) => {
                    if let Some((revision, event)) = events.first()
                        && *revision <= marked
                    {
                        return Err(format!(
                            "watch {name} was told of {event:?} of revision {revision} after a progress of {marked}"
                        ));
                    }
                    seen = events.last().map_or(seen, |(revision, _)| *revision);
                }
                Told::Progress(revision) => {
                    if let Some((missed, event)) = expected(history, watch, seen, *revision).first() {
                        return Err(format!(
                            "watch {name} had a progress of {revision} but was not told of {event:?} of {missed}"
                        ));
                    }
                    marked = marked.max(*revision);
                }
            }
        }
    }
    Ok(())
}
