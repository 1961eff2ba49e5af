//! Numbers that only one service may have at a time: cluster addresses and node ports.
//!
//! Each taken number has a record of its own in the store (of addresses: an `IPAddress`), created only if it is not
//! there: that is what keeps two servers, or one server before and after a restart, from giving the same number twice.
//! The set in memory only helps to find a free one quickly and may be behind; the store decides.

pub mod range;
pub mod records;

use std::collections::HashSet;
use std::time::Duration;

use keelson_api::status::ApiResult;
use parking_lot::Mutex;
use rand::Rng;
use tokio::sync::OnceCell;

use crate::storage::store::{Store, Stored, Written};
pub use range::Range;
pub use records::{Record, Records};

/// A record without a service is left alone for so long: its service may be just about to be written.
const GRACE: Duration = Duration::from_secs(60);
/// How many free-looking numbers are tried before the memory is refreshed.
const TRIES: usize = 64;

/// Why a number was not given.
#[derive(Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Somebody has it.
    Taken,
    /// Somebody took it a while ago, and may have left it behind.
    Old {
        /// Who.
        owner: String,
        /// The record's revision, for [`Allocator::take_over`].
        revision: i64,
    },
    /// All numbers are taken.
    Full,
}

/// What came of asking for a number.
pub type Outcome<T> = ApiResult<Result<T, Refusal>>;

/// The numbers of one range.
pub struct Allocator {
    /// Where the records lie below the store's prefix.
    prefix: &'static str,
    records: Records,
    taken: Mutex<HashSet<u128>>,
    loaded: OnceCell<()>,
}

impl Allocator {
    /// An allocator whose records lie below `prefix`.
    pub fn new(prefix: &'static str, records: Records) -> Self {
        Self {
            prefix,
            records,
            taken: Mutex::default(),
            loaded: OnceCell::new(),
        }
    }

    /// Whether [`Allocator::load`] has been done.
    pub fn is_loaded(&self) -> bool {
        self.loaded.initialized()
    }

    fn key(&self, store: &Store, range: &Range, number: u128) -> String {
        store.key(self.prefix, &range.text(number))
    }

    /// Before the first use: learns what is taken. `in_use` lists the numbers services have, with their services:
    /// missing records are written, old ones without a service removed.
    pub async fn load(
        &self,
        store: &Store,
        range: &Range,
        in_use: &[(u128, String)],
        now: i64,
    ) -> ApiResult<()> {
        self.loaded
            .get_or_try_init(|| async {
                self.repair(store, range, in_use, now).await?;
                Ok::<(), keelson_api::ApiError>(())
            })
            .await
            .map(|_| ())
    }

    async fn repair(
        &self,
        store: &Store,
        range: &Range,
        in_use: &[(u128, String)],
        now: i64,
    ) -> ApiResult<()> {
        let mut recorded = HashSet::new();
        for (number, stored) in self.records(store, range).await? {
            let owned = in_use.iter().any(|(one, _)| *one == number);
            if !owned && self.is_stale(&stored, now) {
                store
                    .delete(&self.key(store, range, number), stored.revision)
                    .await?;
            } else {
                recorded.insert(number);
            }
        }
        for (number, owner) in in_use {
            if recorded.insert(*number) {
                let record = Record {
                    owner: owner.clone(),
                    since: now,
                };
                let record = self.records.encode(&range.text(*number), &record)?;
                store.create(&self.key(store, range, *number), record, 0).await?;
            }
        }
        *self.taken.lock() = recorded;
        Ok(())
    }

    async fn records(&self, store: &Store, range: &Range) -> ApiResult<Vec<(u128, Stored)>> {
        let root = store.key(self.prefix, "");
        let answer = store.page(&root, &root, 0, 0).await?;
        let mut found = Vec::new();
        for kv in answer.kvs {
            let text = kv
                .key
                .get(root.len()..)
                .and_then(|text| std::str::from_utf8(text).ok());
            let Some(number) = text.and_then(|text| range.number(text)) else {
                continue;
            };
            let opened = store.open(&kv.key, kv.value).await?;
            let stored = Stored {
                value: opened.value,
                revision: kv.mod_revision,
                stale: opened.stale,
            };
            found.push((number, stored));
        }
        Ok(found)
    }

    /// Takes a certain number.
    pub async fn take(&self, store: &Store, range: &Range, number: u128, record: &Record) -> Outcome<()> {
        match store
            .create(
                &self.key(store, range, number),
                self.encode(range, number, record)?,
                0,
            )
            .await?
        {
            Written::Done(_) => {
                self.taken.lock().insert(number);
                Ok(Ok(()))
            }
            Written::Conflict(found) => {
                self.taken.lock().insert(number);
                Ok(Err(match found {
                    Some(stored) if self.is_stale(&stored, record.since) => {
                        let before = self.records.decode(&stored.value);
                        let owner = before.map(|b| b.owner).unwrap_or_default();
                        Refusal::Old {
                            owner,
                            revision: stored.revision,
                        }
                    }
                    _ => Refusal::Taken,
                }))
            }
        }
    }

    /// Takes a number whose owner, as the caller has made sure, is gone or has it no more.
    pub async fn take_over(
        &self,
        store: &Store,
        range: &Range,
        number: u128,
        revision: i64,
        record: &Record,
    ) -> Outcome<()> {
        match store
            .update(
                &self.key(store, range, number),
                revision,
                self.encode(range, number, record)?,
                0,
            )
            .await?
        {
            Written::Done(_) => Ok(Ok(())),
            Written::Conflict(_) => Ok(Err(Refusal::Taken)),
        }
    }

    /// Takes any free number. Numbers people choose by hand are usually low ones: those come last.
    pub async fn take_any(&self, store: &Store, range: &Range, record: &Record) -> Outcome<u128> {
        for refreshed in [false, true] {
            if refreshed {
                let found = self
                    .records(store, range)
                    .await?
                    .into_iter()
                    .map(|(number, _)| number)
                    .collect();
                *self.taken.lock() = found;
            }
            for _ in 0..TRIES {
                let Some(number) = self.candidate(range) else {
                    break;
                };
                let written = store
                    .create(
                        &self.key(store, range, number),
                        self.encode(range, number, record)?,
                        0,
                    )
                    .await?;
                self.taken.lock().insert(number);
                if let Written::Done(_) = written {
                    return Ok(Ok(number));
                }
            }
        }
        Ok(Err(Refusal::Full))
    }

    /// A number that looks free, without taking it: what a dry run shows.
    pub fn candidate(&self, range: &Range) -> Option<u128> {
        let taken = self.taken.lock();
        let start: u64 = rand::rng().random();
        range.search(start, |number| !taken.contains(&number))
    }

    /// Whether a certain number is free, without taking it.
    pub async fn is_free(&self, store: &Store, range: &Range, number: u128) -> ApiResult<bool> {
        Ok(store.get(&self.key(store, range, number)).await?.is_none())
    }

    /// Gives a number back, if `owner` has it.
    pub async fn release(&self, store: &Store, range: &Range, number: u128, owner: &str) -> ApiResult<()> {
        let key = self.key(store, range, number);
        if let Some(stored) = store.get(&key).await? {
            let whose = match self.records.decode(&stored.value) {
                Some(record) => record.owner == self.records.owner(owner),
                None => self.records.unreadable_is_garbage(),
            };
            if !whose {
                return Ok(());
            }
            store.delete(&key, stored.revision).await?;
        }
        self.taken.lock().remove(&number);
        Ok(())
    }

    fn is_stale(&self, stored: &Stored, now: i64) -> bool {
        let grace = i64::try_from(GRACE.as_secs()).unwrap_or(i64::MAX);
        match self.records.decode(&stored.value) {
            Some(record) => now - record.since > grace,
            None => self.records.unreadable_is_garbage(),
        }
    }

    fn encode(&self, range: &Range, number: u128, record: &Record) -> ApiResult<bytes::Bytes> {
        self.records.encode(&range.text(number), record)
    }
}
