//! Events come in the order of their revisions.

use crate::history::{History, Told};

pub fn check(history: &History) -> Result<(), String> {
    for watch in &history.watches {
        let name = watch.name();
        let mut last = 0;
        for told in &watch.told {
            let Told::Events(events) = told else {
                continue;
            };
            for (revision, event) in events {
                if *revision < last {
                    return Err(format!(
                        "watch {name}: {event:?} of revision {revision} after {last}"
                    ));
                }
                last = *revision;
            }
        }
    }
    Ok(())
}
