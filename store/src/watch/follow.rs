//! A watch from within the process, for a service that waits for a change.

use std::sync::Arc;

use super::catch_up::{self, CatchUpError};
use super::hub::{Filter, Wanted};
use super::mailbox::{Mail, Mailbox};
use crate::error::StoreError;
use crate::mvcc::key_range::KeyRange;
use crate::mvcc::recent::Record;
use crate::state::State;

/// Changes of some keys, in order and without a gap, for as long as it is there.
pub struct Follow {
    state: Arc<State>,
    wanted: Arc<Wanted>,
    mailbox: Arc<Mailbox>,
    /// The first revision that was not seen, while out of step.
    behind: Option<i64>,
}

impl Follow {
    /// Follows from revision `next`, which is greater than 0, on.
    #[must_use]
    pub fn new(state: Arc<State>, range: KeyRange, next: i64) -> Self {
        Self {
            state,
            wanted: Arc::new(Wanted {
                id: 0,
                range,
                filter: Filter::default(),
            }),
            mailbox: Arc::default(),
            behind: Some(next),
        }
    }

    /// Waits for the next changes. When the wait is given up, none is lost.
    ///
    /// # Errors
    /// [`StoreError::Compacted`] when it was out of step and what it missed is gone, and when that cannot be read.
    pub async fn next(&mut self) -> Result<Vec<Record>, StoreError> {
        loop {
            let records = match self.behind {
                Some(next) => self.catch_up(next).await?,
                None => {
                    self.mailbox.arrived().await;
                    self.take()
                }
            };
            if !records.is_empty() {
                return Ok(records);
            }
        }
    }

    async fn catch_up(&mut self, next: i64) -> Result<Vec<Record>, StoreError> {
        if self.state.hub.join(&self.wanted, next, &self.mailbox).is_some() {
            self.behind = None;
            return Ok(Vec::new());
        }
        let (state, wanted) = (self.state.clone(), self.wanted.clone());
        let read = tokio::task::spawn_blocking(move || catch_up::read(&state, &wanted, next)).await;
        match read {
            Ok(Ok(piece)) => {
                self.behind = Some(piece.next);
                Ok(piece.records)
            }
            Ok(Err(CatchUpError::Compacted(_))) => Err(StoreError::Compacted),
            Ok(Err(CatchUpError::Store(error))) => Err(error),
            Err(_) => Err(StoreError::Stopped),
        }
    }

    fn take(&mut self) -> Vec<Record> {
        let mut records = Vec::new();
        for mail in self.mailbox.take() {
            match mail {
                Mail::Change { change, .. } => {
                    let wanted = change.records.iter().filter(|record| self.wanted.wants(record));
                    records.extend(wanted.cloned());
                }
                Mail::Behind { next, .. } => self.behind = Some(next),
            }
        }
        records
    }
}

impl Drop for Follow {
    fn drop(&mut self) {
        self.state.hub.leave(&self.wanted);
    }
}
