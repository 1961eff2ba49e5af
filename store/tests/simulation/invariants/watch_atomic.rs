//! All events of one revision come in one response.

use crate::history::{History, Told};

pub fn check(history: &History) -> Result<(), String> {
    for watch in &history.watches {
        let name = watch.name();
        let mut last = 0;
        for told in &watch.told {
            let Told::Events(events) = told else {
                continue;
            };
            if let Some((first, event)) = events.first()
                && *first == last
            {
                return Err(format!(
                    "watch {name}: revision {first} is split before {event:?}"
                ));
            }
            last = events.last().map_or(last, |(revision, _)| *revision);
        }
    }
    Ok(())
}
