//! All events of one revision come in one response.

use crate::history::{History, Told};

pub fn check(history: &History) -> Result<(), String> {
    for (prefix, told) in &history.watches {
        let mut last = 0;
        for told in told {
            let Told::Events(events) = told else {
                continue;
            };
            if let Some((first, event)) = events.first()
                && *first == last
            {
                return Err(format!(
                    "watch {prefix}: revision {first} is split before {event:?}"
                ));
            }
            last = events.last().map_or(last, |(revision, _)| *revision);
        }
    }
    Ok(())
}
