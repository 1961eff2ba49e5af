//! The logs of all members tell one story: terms never fall along a log, entries of one index and term are the same
//! everywhere, what one member has applied no other has otherwise, and who is elected has all of it.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use keelson_store::state::Applied;
use keelson_store::wal::Replay;

/// What is known of all logs.
#[derive(Debug, Default)]
pub struct Logs {
    /// By index and term, a checksum of what is proposed.
    entries: BTreeMap<(u64, u64), u64>,
    /// Terms of applied entries by their index.
    applied: BTreeMap<u64, u64>,
}

impl Logs {
    /// A member has applied an entry.
    pub fn applied(&mut self, applied: Applied) -> Result<(), String> {
        let term = *self.applied.entry(applied.index).or_insert(applied.term);
        if term != applied.term {
            return Err(format!(
                "entry {} was applied of term {term} and of term {}",
                applied.index, applied.term
            ));
        }
        Ok(())
    }

    /// A log as a member finds it at a start.
    pub fn found(&mut self, replay: &Replay, applied: Applied) -> Result<(), String> {
        let mut last = replay.mark.term;
        for entry in &replay.entries {
            let (index, term) = (entry.index, entry.term);
            if term < last {
                return Err(format!(
                    "its log has entry {index} of term {term} behind one of term {last}"
                ));
            }
            last = term;
            let mut hasher = DefaultHasher::new();
            (&entry.data[..], &entry.context[..], entry.entry_type as u8).hash(&mut hasher);
            let hash = hasher.finish();
            if *self.entries.entry((index, term)).or_insert(hash) != hash {
                return Err(format!(
                    "its log has entry {index} of term {term} otherwise than others"
                ));
            }
            if index <= applied.index
                && let Some(known) = self.applied.get(&index)
                && *known != term
            {
                return Err(format!(
                    "it has applied entry {index}, but its log has it of term {term}, not {known}"
                ));
            }
        }
        Ok(())
    }

    /// The log of a member that has just been elected in `elected`.
    pub fn leads(&self, elected: u64, replay: &Replay) -> Result<(), String> {
        let before = self.applied.iter().rev().find(|(_, term)| **term < elected);
        let Some((index, term)) = before else {
            return Ok(());
        };
        if *index <= replay.mark.index || replay.term(*index) == Some(*term) {
            return Ok(());
        }
        Err(format!(
            "it leads in term {elected}, but lacks entry {index} of term {term}, which was applied"
        ))
    }
}
