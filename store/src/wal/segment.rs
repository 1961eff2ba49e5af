//! One file of the log.

use std::path::PathBuf;

use super::WalError;
use super::disk::{Disk, SegmentFile};
use super::record::{self, Found, Record};

/// Read at a time.
const WINDOW_BYTES: usize = 128 << 10;

/// An open segment.
pub struct Segment {
    /// Number of the segment, counted from 1.
    pub sequence: u64,
    /// What it is called.
    pub path: PathBuf,
    /// Bytes written so far.
    pub bytes: u64,
    /// Index of the last entry in it or before it.
    pub last_index: u64,
    file: Box<dyn SegmentFile>,
}

impl Segment {
    /// Begins a segment.
    ///
    /// # Errors
    /// When the disk has no room for it.
    pub fn create(disk: &dyn Disk, sequence: u64) -> Result<Self, WalError> {
        let path = disk.path(sequence);
        let file = disk
            .create(sequence)
            .map_err(io("beginning the segment", &path))?;
        Ok(Self {
            sequence,
            path,
            bytes: 0,
            last_index: 0,
            file,
        })
    }

    /// Reads a segment from its start. In the `last` one, what is not a whole record and was never synced is
    /// cut off.
    ///
    /// # Errors
    /// When it cannot be read, or is damaged where it was once synced.
    pub fn replay(
        disk: &dyn Disk,
        sequence: u64,
        last: bool,
        take: &mut dyn FnMut(Record),
    ) -> Result<Self, WalError> {
        let path = disk.path(sequence);
        let file = disk.open(sequence).map_err(io("opening the segment", &path))?;
        let length = file.length().map_err(io("reading the segment", &path))?;
        let mut window = Window {
            file: file.as_ref(),
            buffer: Vec::new(),
            taken: 0,
            start: 0,
            length,
        };
        let mut last_index = 0;
        let torn = loop {
            window.fill(8).map_err(io("reading the segment", &path))?;
            // A record that claims to be longer than the file is found invalid with what there is.
            let want = record::claimed_bytes(window.bytes());
            window.fill(want).map_err(io("reading the segment", &path))?;
            match record::decode(sequence, window.bytes()) {
                Found::Record(record, bytes) => {
                    if let Record::Entry(entry) = &record {
                        last_index = entry.index;
                    }
                    take(record);
                    window.advance(bytes);
                }
                Found::End => break None,
                Found::Invalid(reason) => break Some(reason),
            }
        };
        let at = window.start;
        let damaged = |reason: &str| WalError::Damaged {
            path: path.clone(),
            offset: at,
            reason: reason.into(),
        };
        if let Some(reason) = torn
            && !last
        {
            return Err(damaged(reason));
        }
        if last {
            let rest = window.rest().map_err(io("reading the segment", &path))?;
            // A later write only began when this place was on disk: this is no torn end.
            if record::synced_beyond(sequence, at, &rest) {
                return Err(damaged(torn.unwrap_or("zeros where records were")));
            }
            if let Some(reason) = torn {
                tracing::warn!(segment = %path.display(), offset = at, reason, "cutting off the torn end of the log");
            }
            // Zeros behind the last record, whatever stood there, so that it stays the last.
            if !rest.is_empty() || length < disk.segment_bytes() {
                file.clear_from(at).map_err(io("cutting the segment", &path))?;
            } else {
                // What a process that was killed wrote last is here, but maybe not on disk.
                file.write_and_sync(&[], at)
                    .map_err(io("syncing the segment", &path))?;
            }
        }
        Ok(Self {
            sequence,
            path,
            bytes: at,
            last_index,
            file,
        })
    }

    /// Whether nothing has been written yet.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    /// Appends and waits for the disk.
    ///
    /// # Errors
    /// When the system refused.
    pub fn write(&mut self, data: &[u8]) -> Result<(), WalError> {
        self.file
            .write_and_sync(data, self.bytes)
            .map_err(io("writing the segment", &self.path))?;
        self.bytes += data.len() as u64;
        Ok(())
    }
}

/// A segment being read, a piece in memory at a time.
struct Window<'a> {
    file: &'a dyn SegmentFile,
    buffer: Vec<u8>,
    /// Where in the buffer the part begins that was not taken yet.
    taken: usize,
    /// Where in the file that is.
    start: u64,
    length: u64,
}

impl Window<'_> {
    fn bytes(&self) -> &[u8] {
        &self.buffer[self.taken..]
    }

    /// Has at least `want` bytes in memory, or all there are.
    fn fill(&mut self, want: usize) -> std::io::Result<()> {
        let have = self.bytes().len();
        let end = self.start + have as u64;
        if have >= want || end >= self.length {
            return Ok(());
        }
        self.buffer.drain(..self.taken);
        self.taken = 0;
        let missing = (want - have).max(WINDOW_BYTES) as u64;
        let more = missing.min(self.length - end) as usize;
        self.buffer.resize(have + more, 0);
        self.file.read_exact_at(&mut self.buffer[have..], end)
    }

    fn advance(&mut self, bytes: usize) {
        self.taken += bytes;
        self.start += bytes as u64;
    }

    /// What was not taken yet, without the zeros at its end (but for less than a block of them).
    fn rest(&mut self) -> std::io::Result<Vec<u8>> {
        const ZEROS: [u8; 4096] = [0; 4096];
        self.fill((self.length - self.start) as usize)?;
        let mut rest = self.bytes();
        while let Some((before, end)) = rest.split_at_checked(rest.len().saturating_sub(ZEROS.len()))
            && !end.is_empty()
            && *end == ZEROS[..end.len()]
        {
            rest = before;
        }
        Ok(rest.to_vec())
    }
}

fn io<'a>(attempt: &'static str, path: &'a std::path::Path) -> impl FnOnce(std::io::Error) -> WalError + 'a {
    move |source| WalError::Io {
        attempt,
        path: path.to_owned(),
        source,
    }
}
