//! What must hold, one file each. `live` and `leases` look at the run itself, `logs` and `pledges` at the disks of members
//! that start or are elected. Three more are looked at while a run goes on (`observe.rs`, `users.rs`): at most one member
//! leads in a term, every member makes the same changes of the same log, and what is read at an old revision is what
//! was there then.

pub mod leases;
pub mod linearizable;
pub mod live;
pub mod logs;
pub mod pledges;
pub mod revisions;
pub mod watch_atomic;
pub mod watch_bookmarkable;
pub mod watch_ordered;
pub mod watch_refused;
pub mod watch_reliable;
pub mod watch_resumable;
pub mod watch_unique;

use crate::history::History;

/// An invariant: what is wrong, if anything is.
type Check = fn(&History) -> Result<(), String>;

const CHECKS: [(&str, Check); 9] = [
    ("linearizable", linearizable::check),
    ("revisions", revisions::check),
    ("watch: ordered", watch_ordered::check),
    ("watch: unique", watch_unique::check),
    ("watch: reliable", watch_reliable::check),
    ("watch: atomic", watch_atomic::check),
    ("watch: resumable", watch_resumable::check),
    ("watch: bookmarkable", watch_bookmarkable::check),
    ("watch: refused", watch_refused::check),
];

/// Everything that is wrong with a history.
pub fn check(history: &History) -> Vec<String> {
    let mut wrong = history.violations.clone();
    for (name, check) in CHECKS {
        if let Err(error) = check(history) {
            wrong.push(format!("{name}: {error}"));
        }
    }
    wrong
}
