//! No event comes twice, not even when a watch goes on at another member.

use std::collections::BTreeSet;

use crate::history::{History, Told};

pub fn check(history: &History) -> Result<(), String> {
    for watch in &history.watches {
        let name = watch.name();
        let mut seen = BTreeSet::new();
        for told in &watch.told {
            let Told::Events(events) = told else {
                continue;
            };
            for (revision, event) in events {
                if !seen.insert((*revision, &event.key)) {
                    return Err(format!("watch {name}: {event:?} of revision {revision} twice"));
                }
            }
        }
    }
    Ok(())
}
