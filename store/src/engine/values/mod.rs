//! Values beside sled, in files that are only ever appended to.
//!
//! sled reads and writes whole leaves: for one value of some KiB it would decompress and, in a flush, compress all its
//! neighbours. Sled therefore keeps keys and short values, and for a longer value where it is: reading it is one
//! `pread`, writing it one append and a share of one sync.
//!
//! - [`record`]: how a value looks in a file, and what sled holds instead
//! - [`append`]: what one batch adds and makes superfluous
//! - [`Values`]: the files, and how much of each is still wanted
//!
//! A batch's values are on disk before sled is told where they are, in one atomic batch with the tally of every file
//! they changed. What stands in a file beyond its tally was never committed and is cut off at the next opening. A file
//! of which less than half is wanted is emptied into the newest one, a piece at a time, and deleted.

pub mod append;
pub mod record;

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use parking_lot::{Mutex, RwLock};

use record::{Place, damaged};

/// A file that has reached this length is followed by a new one.
const FILE_BYTES: u64 = 16 << 20;

/// Read at a time from a file that is emptied.
const PIECE_BYTES: u64 = 1 << 20;

/// Values no further apart than this are read together.
const GAP_BYTES: u64 = 4 << 10;
/// Most that is read together.
const RUN_BYTES: u64 = 128 << 10;

/// In sled, tallies stand behind everything else.
pub const TALLIES: [u8; 8] = [0xff; 8];

/// The files.
pub struct Values {
    folder: PathBuf,
    files: RwLock<BTreeMap<u32, ValueFile>>,
    emptying: Mutex<Option<Emptying>>,
}

struct ValueFile {
    file: Arc<File>,
    tally: Tally,
}

/// What is known of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tally {
    /// Bytes of the records that are still wanted.
    wanted: u64,
    /// Where the last record ends.
    end: u64,
}

/// A file that is being emptied.
#[derive(Debug, Clone, Copy)]
struct Emptying {
    file: u32,
    /// Everything before this has been looked at.
    next: u64,
}

/// Some records of a file that is being emptied.
pub struct Piece {
    /// The file.
    pub file: u32,
    /// Keys, values and where they are.
    pub records: Vec<(Bytes, Bytes, Place)>,
    /// Whether these are the last.
    pub last: bool,
    next: u64,
}

impl Tally {
    /// As sled holds it.
    #[must_use]
    pub fn encode(self) -> Vec<u8> {
        [self.wanted.to_be_bytes(), self.end.to_be_bytes()].concat()
    }

    /// The file and its tally, as sled held them.
    ///
    /// # Errors
    /// When they are not what was written.
    pub fn decode(key: &[u8], value: &[u8]) -> io::Result<(u32, Self)> {
        let read = || {
            let file = u32::from_be_bytes(key.get(TALLIES.len()..)?.try_into().ok()?);
            let wanted = u64::from_be_bytes(value.get(..8)?.try_into().ok()?);
            let end = u64::from_be_bytes(value.get(8..)?.try_into().ok()?);
            Some((file, Self { wanted, end }))
        };
        read().ok_or_else(|| damaged("the tally of a file of values"))
    }
}

/// Where sled holds a file's tally.
#[must_use]
pub fn tally_key(file: u32) -> Vec<u8> {
    [&TALLIES[..], &file.to_be_bytes()].concat()
}

impl Values {
    /// Opens the files that the tallies name; others were never committed, or were to be deleted.
    ///
    /// # Errors
    /// When one is missing or too short, or the system refuses.
    pub fn open(folder: &Path, tallies: &BTreeMap<u32, Tally>) -> io::Result<Self> {
        std::fs::create_dir_all(folder)?;
        for entry in std::fs::read_dir(folder)? {
            let entry = entry?;
            let number = entry.file_name().to_str().and_then(|name| name.parse().ok());
            if number.is_none_or(|number: u32| !tallies.contains_key(&number)) {
                std::fs::remove_file(entry.path())?;
            }
        }
        let mut files = BTreeMap::new();
        for (&number, &tally) in tallies {
            let file = OpenOptions::new()
                .read(true)
                .write(true)
                .open(folder.join(number.to_string()))?;
            let length = file.metadata()?.len();
            if length < tally.end {
                return Err(damaged("a file of values is too short"));
            }
            if length > tally.end {
                file.set_len(tally.end)?;
            }
            files.insert(
                number,
                ValueFile {
                    file: Arc::new(file),
                    tally,
                },
            );
        }
        Ok(Self {
            folder: folder.to_owned(),
            files: RwLock::new(files),
            emptying: Mutex::new(None),
        })
    }

    /// Length of all files.
    #[must_use]
    pub fn disk_bytes(&self) -> u64 {
        self.files.read().values().map(|file| file.tally.end).sum()
    }

    /// The values at `wanted`, each with its key and where it goes in `found`. What stays `None` there is not where it
    /// was: it was moved meanwhile, and sled knows where to.
    ///
    /// # Errors
    /// When a value cannot be read or is not what was written.
    pub fn read(
        &self,
        wanted: &mut [(Place, usize)],
        keys: &[Vec<u8>],
        found: &mut [Option<Bytes>],
    ) -> io::Result<()> {
        wanted.sort_unstable();
        let mut rest = &*wanted;
        while let Some((first, _)) = rest.first() {
            let start = u64::from(first.offset);
            let mut end = first.end();
            let mut run = 1;
            for (place, _) in &rest[1..] {
                if place.file != first.file
                    || u64::from(place.offset) > end + GAP_BYTES
                    || place.end() > start + RUN_BYTES
                {
                    break;
                }
                end = end.max(place.end());
                run += 1;
            }
            let (together, others) = rest.split_at(run);
            rest = others;
            let Some(bytes) = self.read_at(first.file, start, end - start)? else {
                continue;
            };
            for (place, position) in together {
                let from = (u64::from(place.offset) - start) as usize;
                let (key, value) = record::decode(&bytes.slice(from..from + place.bytes as usize))?;
                if key != keys[*position] {
                    return Err(damaged("a value is another key's"));
                }
                found[*position] = Some(value);
            }
        }
        Ok(())
    }

    fn read_at(&self, file: u32, start: u64, bytes: u64) -> io::Result<Option<Bytes>> {
        let Some(file) = self.files.read().get(&file).map(|file| file.file.clone()) else {
            return Ok(None);
        };
        let mut buffer = BytesMut::zeroed(bytes as usize);
        file.read_exact_at(&mut buffer, start)?;
        Ok(Some(buffer.freeze()))
    }

    /// The next records of a file of which too little is wanted, if there is such a file.
    ///
    /// # Errors
    /// When it cannot be read or is damaged.
    pub fn next_piece(&self) -> io::Result<Option<Piece>> {
        let mut emptying = self.emptying.lock();
        let (current, file, tally) = loop {
            let current = match *emptying {
                Some(current) => current,
                None => match self.least_wanted() {
                    Some(file) => *emptying.insert(Emptying { file, next: 0 }),
                    None => return Ok(None),
                },
            };
            if let Some(file) = self.files.read().get(&current.file) {
                break (current, file.file.clone(), file.tally);
            }
            // Nothing in it was wanted any more.
            *emptying = None;
        };
        let mut piece = Piece {
            file: current.file,
            records: Vec::new(),
            last: false,
            next: current.next,
        };
        let mut length = PIECE_BYTES;
        loop {
            let length_now = length.min(tally.end.saturating_sub(current.next));
            let mut buffer = BytesMut::zeroed(length_now as usize);
            file.read_exact_at(&mut buffer, current.next)?;
            let mut bytes = buffer.freeze();
            let mut claimed = record::claimed_bytes(&bytes);
            while let Some(whole) = claimed.filter(|claimed| *claimed <= bytes.len() as u64) {
                let place = Place {
                    file: current.file,
                    offset: piece.next as u32,
                    bytes: whole as u32,
                };
                let (key, value) = record::decode(&bytes.split_to(whole as usize))?;
                piece.records.push((key, value, place));
                piece.next += whole;
                claimed = record::claimed_bytes(&bytes);
            }
            piece.last = piece.next == tally.end;
            if !piece.records.is_empty() || piece.last {
                return Ok(Some(piece));
            }
            // The first record alone is longer than a piece.
            match claimed {
                Some(claimed) if claimed > length_now && current.next + claimed <= tally.end => {
                    length = claimed
                }
                _ => return Err(damaged("a file of values ends within a record")),
            }
        }
    }

    /// The file with the least in it that is wanted, if it is less than half and the file is not the newest.
    fn least_wanted(&self) -> Option<u32> {
        let files = self.files.read();
        let newest = files.last_key_value().map(|(number, _)| *number);
        files
            .iter()
            .filter(|(number, file)| Some(**number) != newest && file.tally.wanted < file.tally.end / 2)
            .min_by_key(|(_, file)| file.tally.wanted)
            .map(|(number, _)| *number)
    }
}
