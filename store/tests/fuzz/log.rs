//! The write-ahead log.

use keelson_store::wal::disk::Disk;
use keelson_store::wal::record::{self, Found, Record};
use keelson_store::wal::{Mark, Wal};
use raft::eraftpb::{Entry, HardState};

use super::{fuzz, joined, pieces};
use crate::disk::SimDisk;

const SEQUENCE: u64 = 3;

/// A record with this kind and payload whose length and checksum are right: what mutations never hit upon.
fn framed(sequence: u64, body: &[u8]) -> Vec<u8> {
    let checksum = crc32c::crc32c_append(crc32c::crc32c(&sequence.to_le_bytes()), body);
    let length = (body.len() as u32).to_le_bytes();
    [&length[..], &checksum.to_le_bytes(), body].concat()
}

/// The kind and payload of a record.
fn body(encode: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut record = Vec::new();
    encode(&mut record);
    record.split_off(8)
}

fn entry(index: u64, term: u64) -> Entry {
    Entry {
        index,
        term,
        data: b"what was proposed".to_vec().into(),
        ..Entry::default()
    }
}

fn bodies() -> Vec<Vec<u8>> {
    let mark = Mark { index: 3, term: 1 };
    let hard_state = HardState {
        term: 2,
        vote: 1,
        commit: 4,
        ..HardState::default()
    };
    vec![
        body(|buffer| record::encode_mark(buffer, SEQUENCE, mark)),
        body(|buffer| record::encode_hard_state(buffer, SEQUENCE, &hard_state)),
        body(|buffer| record::encode_entry(buffer, SEQUENCE, &entry(4, 1))),
        body(|buffer| record::encode_entry(buffer, SEQUENCE, &entry(5, 2))),
        body(|buffer| record::encode_reset(buffer, SEQUENCE, Mark { index: 9, term: 2 })),
        body(|buffer| record::encode_synced(buffer, SEQUENCE, 0)),
    ]
}

/// What reads as a record reads the same when it is written again.
#[test]
fn wal_record() {
    fuzz("wal_record").examples(bodies()).run(|bytes| {
        let _ = record::decode(SEQUENCE, bytes);
        let _ = record::claimed_bytes(bytes);
        let _ = record::synced_beyond(SEQUENCE, 0, bytes);
        let record = framed(SEQUENCE, bytes);
        let Found::Record(found, length) = record::decode(SEQUENCE, &record) else {
            return;
        };
        assert_eq!(length, record.len());
        let mut again = Vec::new();
        match &found {
            Record::Entry(entry) => record::encode_entry(&mut again, SEQUENCE, entry),
            Record::HardState(state) => record::encode_hard_state(&mut again, SEQUENCE, state),
            Record::Mark(mark) => record::encode_mark(&mut again, SEQUENCE, *mark),
            Record::Reset(mark) => record::encode_reset(&mut again, SEQUENCE, *mark),
            Record::Synced(offset) => record::encode_synced(&mut again, SEQUENCE, *offset),
        }
        assert_eq!(
            record::decode(SEQUENCE, &again),
            Found::Record(found, again.len())
        );
    });
}

/// A segment with any records opens and can be gone on with, or is refused.
#[test]
fn wal_segment() {
    fuzz("wal_segment")
        .examples([joined(&bodies())])
        .rounds(2000)
        .run(|bytes| {
            let whole: Vec<u8> = pieces(bytes)
                .into_iter()
                .flat_map(|body| framed(1, body))
                .collect();
            for content in [bytes, &whole] {
                open_and_go_on(content);
            }
        });
}

fn open_and_go_on(content: &[u8]) {
    let disk = SimDisk::new(0, 16 << 10);
    let written = disk.create(1).and_then(|file| file.write_and_sync(content, 0));
    assert!(written.is_ok());
    let Ok((mut wal, replay)) = Wal::open(Box::new(disk.clone())) else {
        return;
    };
    let last = replay.last_index();
    if last == u64::MAX {
        return;
    }
    let next = entry(last + 1, replay.term(last).unwrap_or(0));
    wal.append(&next).and_then(|()| wal.sync()).expect("appending");
    let (_, mut again) = Wal::open(Box::new(disk)).expect("opening it again");
    assert_eq!(again.entries.pop_back(), Some(next));
    assert_eq!(again.entries, replay.entries);
    assert_eq!((again.mark, &again.hard_state), (replay.mark, &replay.hard_state));
}
