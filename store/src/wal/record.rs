//! How a record looks on disk.
//!
//! ```text
//! length u32 | checksum u32 | kind u8 | payload
//! ```
//!
//! Little-endian. The length counts kind and payload and is never 0, so that the zeros of a preallocated
//! segment are its end. The checksum is CRC32C over the segment's sequence number, kind and payload: a record
//! left over from another file does not pass for one of this file.

use bytes::Bytes;
use raft::eraftpb::{Entry, EntryType, HardState};

use super::Mark;

const HEADER_BYTES: usize = 8;
const KIND_ENTRY: u8 = 1;
const KIND_HARD_STATE: u8 = 2;
const KIND_MARK: u8 = 3;
const KIND_RESET: u8 = 4;
const KIND_SYNCED: u8 = 5;

const ENTRY_FIXED: usize = 8 + 8 + 1 + 4;

/// Bytes a hard state takes.
pub const HARD_STATE_BYTES: usize = HEADER_BYTES + 1 + 24;
/// Bytes a mark takes.
pub const MARK_BYTES: usize = HEADER_BYTES + 1 + 16;

/// Bytes the note of a sync takes.
pub const SYNCED_BYTES: usize = HEADER_BYTES + 1 + 8;

/// What the log holds.
#[derive(Debug, PartialEq)]
pub enum Record {
    /// An entry of the Raft log.
    Entry(Entry),
    /// Raft's term, vote and commit index.
    HardState(HardState),
    /// The log begins after this.
    Mark(Mark),
    /// The log begins after this, and no entry before this record counts any more.
    Reset(Mark),
    /// Everything before this place in the segment was on disk when this was written.
    Synced(u64),
}

/// What stands at a place in a segment.
#[derive(Debug, PartialEq)]
pub enum Found {
    /// A record and the bytes it takes.
    Record(Record, usize),
    /// Zeros: nothing was written here.
    End,
    /// Something was written, but not wholly, or it changed since.
    Invalid(&'static str),
}

/// Bytes an entry takes.
#[must_use]
pub fn entry_bytes(entry: &Entry) -> usize {
    HEADER_BYTES + 1 + ENTRY_FIXED + entry.context.len() + entry.data.len()
}

/// Appends an entry.
pub fn encode_entry(buffer: &mut Vec<u8>, sequence: u64, entry: &Entry) {
    encode(buffer, sequence, KIND_ENTRY, |payload| {
        payload.extend_from_slice(&entry.index.to_le_bytes());
        payload.extend_from_slice(&entry.term.to_le_bytes());
        payload.push(entry.entry_type as u8);
        payload.extend_from_slice(&(entry.context.len() as u32).to_le_bytes());
        payload.extend_from_slice(&entry.context);
        payload.extend_from_slice(&entry.data);
    });
}

/// Appends a hard state.
pub fn encode_hard_state(buffer: &mut Vec<u8>, sequence: u64, state: &HardState) {
    encode(buffer, sequence, KIND_HARD_STATE, |payload| {
        for number in [state.term, state.vote, state.commit] {
            payload.extend_from_slice(&number.to_le_bytes());
        }
    });
}

/// Appends a mark.
pub fn encode_mark(buffer: &mut Vec<u8>, sequence: u64, mark: Mark) {
    encode(buffer, sequence, KIND_MARK, |payload| {
        payload.extend_from_slice(&mark.index.to_le_bytes());
        payload.extend_from_slice(&mark.term.to_le_bytes());
    });
}

/// Appends a mark that makes all entries before it void.
pub fn encode_reset(buffer: &mut Vec<u8>, sequence: u64, mark: Mark) {
    encode(buffer, sequence, KIND_RESET, |payload| {
        payload.extend_from_slice(&mark.index.to_le_bytes());
        payload.extend_from_slice(&mark.term.to_le_bytes());
    });
}

/// Appends the note that everything before `offset`, where this record stands itself, is on disk.
pub fn encode_synced(buffer: &mut Vec<u8>, sequence: u64, offset: u64) {
    encode(buffer, sequence, KIND_SYNCED, |payload| {
        payload.extend_from_slice(&offset.to_le_bytes());
    });
}

/// Whether `rest`, which begins at `at`, holds a note of a sync beyond `at`: then what stands at `at` was once
/// on disk, and is not the torn end of the last write.
#[must_use]
pub fn synced_beyond(sequence: u64, at: u64, rest: &[u8]) -> bool {
    let length = ((SYNCED_BYTES - HEADER_BYTES) as u32).to_le_bytes();
    rest.windows(SYNCED_BYTES).enumerate().any(|(offset, bytes)| {
        bytes[HEADER_BYTES] == KIND_SYNCED
            && bytes[..4] == length
            && match decode(sequence, bytes) {
                Found::Record(Record::Synced(place), _) => place > at && place == at + offset as u64,
                _ => false,
            }
    })
}

fn encode(buffer: &mut Vec<u8>, sequence: u64, kind: u8, payload: impl FnOnce(&mut Vec<u8>)) {
    let start = buffer.len();
    buffer.extend_from_slice(&[0; HEADER_BYTES]);
    buffer.push(kind);
    payload(buffer);
    let body = &buffer[start + HEADER_BYTES..];
    let length = (body.len() as u32).to_le_bytes();
    let checksum = checksum(sequence, body).to_le_bytes();
    buffer[start..start + 4].copy_from_slice(&length);
    buffer[start + 4..start + HEADER_BYTES].copy_from_slice(&checksum);
}

fn checksum(sequence: u64, body: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&sequence.to_le_bytes()), body)
}

/// How many bytes the record at the start of `bytes` says it takes.
#[must_use]
pub fn claimed_bytes(bytes: &[u8]) -> usize {
    HEADER_BYTES + read_u32(bytes, 0).map_or(0, |length| length as usize)
}

/// Reads what stands at the start of `bytes`.
#[must_use]
pub fn decode(sequence: u64, bytes: &[u8]) -> Found {
    let Some(length) = read_u32(bytes, 0) else {
        return Found::End;
    };
    if length == 0 {
        return Found::End;
    }
    let length = length as usize;
    let (Some(want), Some(body)) = (read_u32(bytes, 4), bytes.get(HEADER_BYTES..HEADER_BYTES + length))
    else {
        return Found::Invalid("the record is longer than its segment");
    };
    if checksum(sequence, body) != want {
        return Found::Invalid("the checksum does not match");
    }
    match decode_body(body) {
        Some(record) => Found::Record(record, HEADER_BYTES + length),
        None => Found::Invalid("the record's kind or shape is unknown"),
    }
}

fn decode_body(body: &[u8]) -> Option<Record> {
    let (kind, payload) = body.split_first()?;
    match *kind {
        KIND_ENTRY => {
            let context_bytes = read_u32(payload, 17)? as usize;
            let entry_type = match payload.get(16)? {
                0 => EntryType::EntryNormal,
                1 => EntryType::EntryConfChange,
                2 => EntryType::EntryConfChangeV2,
                _ => return None,
            };
            let entry = Entry {
                index: read_u64(payload, 0)?,
                term: read_u64(payload, 8)?,
                entry_type,
                context: Bytes::copy_from_slice(payload.get(ENTRY_FIXED..ENTRY_FIXED + context_bytes)?),
                data: Bytes::copy_from_slice(payload.get(ENTRY_FIXED + context_bytes..)?),
                ..Entry::default()
            };
            Some(Record::Entry(entry))
        }
        KIND_HARD_STATE => Some(Record::HardState(HardState {
            term: read_u64(payload, 0)?,
            vote: read_u64(payload, 8)?,
            commit: read_u64(payload, 16)?,
            ..HardState::default()
        })),
        KIND_MARK => Some(Record::Mark(read_mark(payload)?)),
        KIND_RESET => Some(Record::Reset(read_mark(payload)?)),
        KIND_SYNCED => Some(Record::Synced(read_u64(payload, 0)?)),
        _ => None,
    }
}

fn read_mark(payload: &[u8]) -> Option<Mark> {
    Some(Mark {
        index: read_u64(payload, 0)?,
        term: read_u64(payload, 8)?,
    })
}

fn read_u32(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn read_u64(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}
