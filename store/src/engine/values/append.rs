//! What one batch does to the files of values.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use super::record::{self, Place, damaged};
use super::{Emptying, FILE_BYTES, Piece, Tally, ValueFile, Values, tally_key};

/// Records are handed to the system once there are so many bytes of them.
const SPILL_BYTES: usize = 1 << 20;

/// Keys of sled and what they become; `None` removes one.
pub type News = Vec<(Vec<u8>, Option<Vec<u8>>)>;

/// The changes of a batch, gathered. They are on disk when [`Append::sync`] has returned, and count from
/// [`Append::settle`] on.
pub struct Append<'v> {
    values: &'v Values,
    /// Tallies as they will be, of the files that change.
    tallies: BTreeMap<u32, Tally>,
    /// Records that go to the newest file next, from `buffer_start` on.
    buffer: Vec<u8>,
    buffer_start: u64,
    /// Files that were written to, and those of them that are new.
    written: BTreeMap<u32, Arc<File>>,
    created: BTreeSet<u32>,
    newest: Option<u32>,
    gone: BTreeSet<u32>,
    emptying: Option<Option<Emptying>>,
}

impl Values {
    /// Begins to gather a batch. One caller at a time.
    #[must_use]
    pub fn begin(&self) -> Append<'_> {
        let newest = self.files.read().last_key_value().map(|(number, _)| *number);
        Append {
            values: self,
            tallies: BTreeMap::new(),
            buffer: Vec::new(),
            buffer_start: 0,
            written: BTreeMap::new(),
            created: BTreeSet::new(),
            newest,
            gone: BTreeSet::new(),
            emptying: None,
        }
    }
}

impl Append<'_> {
    fn tally(&mut self, file: u32) -> &mut Tally {
        let values = self.values;
        self.tallies.entry(file).or_insert_with(|| {
            values
                .files
                .read()
                .get(&file)
                .map_or_else(Tally::default, |file| file.tally)
        })
    }

    /// Adds a value; it will be at the place returned.
    ///
    /// # Errors
    /// When it is longer than a record can be, or the system refuses.
    pub fn add(&mut self, key: &[u8], value: &[u8]) -> io::Result<Place> {
        let bytes =
            record::record_bytes(key, value).ok_or_else(|| damaged("a value is longer than possible"))?;
        let newest = self.newest;
        let file = match newest {
            Some(newest) if self.tally(newest).end < FILE_BYTES => newest,
            _ => {
                self.spill()?;
                let next = newest.map_or(1, |newest| newest + 1);
                self.newest = Some(next);
                self.tallies.insert(next, Tally::default());
                next
            }
        };
        let tally = self.tally(file);
        let offset = u32::try_from(tally.end).map_err(|_| damaged("a file of values is too long"))?;
        tally.end += u64::from(bytes);
        tally.wanted += u64::from(bytes);
        if self.buffer.is_empty() {
            self.buffer_start = u64::from(offset);
        }
        record::encode(&mut self.buffer, key, value);
        if self.buffer.len() >= SPILL_BYTES {
            self.spill()?;
        }
        Ok(Place { file, offset, bytes })
    }

    /// Hands the gathered records to the system.
    fn spill(&mut self) -> io::Result<()> {
        let (Some(number), false) = (self.newest, self.buffer.is_empty()) else {
            return Ok(());
        };
        let file = match self.written.get(&number) {
            Some(file) => file.clone(),
            None => {
                let known = self
                    .values
                    .files
                    .read()
                    .get(&number)
                    .map(|file| file.file.clone());
                let file = match known {
                    Some(file) => file,
                    None => {
                        self.created.insert(number);
                        let path = self.values.folder.join(number.to_string());
                        let file = OpenOptions::new()
                            .read(true)
                            .write(true)
                            .create(true)
                            .truncate(true)
                            .open(path)?;
                        Arc::new(file)
                    }
                };
                self.written.insert(number, file.clone());
                file
            }
        };
        file.write_all_at(&self.buffer, self.buffer_start)?;
        self.buffer.clear();
        Ok(())
    }

    /// A value is not wanted any more.
    pub fn release(&mut self, place: Place) {
        let tally = self.tally(place.file);
        tally.wanted = tally.wanted.saturating_sub(u64::from(place.bytes));
    }

    /// Everything that was wanted of a piece has been added again.
    pub fn emptied(&mut self, piece: &Piece) {
        if piece.last {
            // Nothing points there any more, whatever was counted.
            self.tally(piece.file).wanted = 0;
            self.emptying = Some(None);
        } else {
            self.emptying = Some(Some(Emptying {
                file: piece.file,
                next: piece.next,
            }));
        }
    }

    /// Brings the added values to the disk. Returns what sled has to know in the same batch in which it is told where
    /// they are; `None` removes the key.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn sync(&mut self) -> io::Result<News> {
        self.spill()?;
        for file in self.written.values() {
            file.sync_data()?;
        }
        if !self.created.is_empty() {
            File::open(&self.values.folder)?.sync_all()?;
            // Readers hear of the places in them as soon as sled does, which is before all of it is on disk.
            let mut files = self.values.files.write();
            for number in &self.created {
                if let Some(file) = self.written.get(number).cloned() {
                    let tally = Tally::default();
                    files.insert(*number, ValueFile { file, tally });
                }
            }
        }
        let mut news = Vec::with_capacity(self.tallies.len());
        for (number, tally) in &self.tallies {
            if tally.wanted == 0 && Some(*number) != self.newest {
                self.gone.insert(*number);
                news.push((tally_key(*number), None));
            } else {
                news.push((tally_key(*number), Some(tally.encode())));
            }
        }
        Ok(news)
    }

    /// Sled has it on disk: it counts from now on.
    pub fn settle(self) {
        {
            let mut files = self.values.files.write();
            for (number, tally) in self.tallies {
                if let Some(file) = files.get_mut(&number) {
                    file.tally = tally;
                }
            }
            for number in &self.gone {
                files.remove(number);
            }
        }
        if let Some(emptying) = self.emptying {
            *self.values.emptying.lock() = emptying;
        }
        for number in self.gone {
            let path = self.values.folder.join(number.to_string());
            if let Err(error) = std::fs::remove_file(&path) {
                // The next opening tries again.
                tracing::warn!(%error, file = %path.display(), "deleting a file of values");
            }
        }
    }
}
