//! The applied state as it is kept, sent and backed up.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;

use bytes::Bytes;
use keelson_proto::etcd::{PutRequest, RangeRequest};
use keelson_store::backup::{self, Bump};
use keelson_store::bolt::read::Reader;
use keelson_store::cluster::Membership;
use keelson_store::dump::{self, Loader};
use keelson_store::engine::Engine;
use keelson_store::engine::memory::MemoryEngine;
use keelson_store::engine::values::{Tally, Values, record, tally_key};
use keelson_store::mvcc::schema;
use keelson_store::state::State;

use super::fuzz;

/// A small state with history, a deletion and a lease.
pub fn example() -> State {
    let engine: Arc<dyn Engine> = Arc::new(MemoryEngine::default());
    let state = State::founding(engine, Membership::default(), backup::FOUNDING);
    state.apply(|inner| {
        assert!(inner.mvcc.leases.grant(7, 60));
        for number in 0..6_i64 {
            let put = PutRequest {
                key: Bytes::from(format!("k{}", number % 3)),
                value: Bytes::from(format!("v{number}")),
                lease: if number == 4 { 7 } else { 0 },
                ..PutRequest::default()
            };
            inner.mvcc.put(put).expect("a put");
        }
        inner.mvcc.delete_keys([b"k0".as_slice()].into_iter());
        inner.mvcc.compacted = 4;
    });
    state
}

fn dumped(state: &State) -> Option<Vec<u8>> {
    let mut whole = Vec::new();
    let written = dump::write(state, &mut |chunk| {
        whole.extend_from_slice(&chunk);
        ControlFlow::Continue(())
    });
    written.ok().map(|_| whole)
}

/// Uses a state that was let in: it may be refused later, but nothing may panic.
fn use_it(engine: MemoryEngine) {
    let Ok(Some(state)) = State::load(Arc::new(engine)) else {
        return;
    };
    for revision in [0, 1, 5, state.revision()] {
        let request = RangeRequest {
            key: Bytes::from_static(&[0]),
            range_end: Bytes::from_static(&[0]),
            revision,
            ..RangeRequest::default()
        };
        let _ = state.range(&request);
        let _ = state.hash(revision);
    }
    while matches!(state.compact_step(), Ok(true)) {}
    let put = PutRequest {
        key: Bytes::from_static(b"k1"),
        value: Bytes::from_static(b"new"),
        prev_kv: true,
        ..PutRequest::default()
    };
    let before = state.revision();
    let put = state.apply(|inner| inner.mvcc.put(put).is_ok());
    assert_eq!(state.revision(), before + i64::from(put));
    if let Some(dump) = dumped(&state) {
        assert!(load_dump(&dump, 50).is_some(), "its own dump does not load");
    }
}

fn load_dump(bytes: &[u8], piece: usize) -> Option<MemoryEngine> {
    let mut loader = Loader::into_engine(MemoryEngine::default());
    for piece in bytes.chunks(piece) {
        loader.take(piece).ok()?;
    }
    loader.finish().ok()
}

/// What a member sends to one that is behind. In whatever pieces it comes, it is the same.
#[test]
fn snapshot() {
    let example = dumped(&example()).expect("a dump");
    fuzz("snapshot").examples([example]).rounds(600).run(|bytes| {
        let small = load_dump(bytes, 7);
        assert_eq!(small.is_some(), load_dump(bytes, 1000).is_some());
        if let Some(engine) = small {
            use_it(engine);
        }
    });
}

/// A backup whose checksum was right.
#[test]
fn backup_file() {
    use std::io::Write as _;
    let mut whole = Vec::new();
    let complete = backup::write(&example(), &mut |piece| {
        whole.extend_from_slice(&piece);
        ControlFlow::Continue(())
    });
    assert!(complete.expect("a backup"));
    // Larger than any other input: most mutations of it would be cut off.
    fuzz("backup_file")
        .longest(whole.len() + 4096)
        .examples([whole])
        .rounds(500)
        .run(|bytes| {
            let mut file = tempfile::tempfile().expect("a file");
            file.write_all(bytes).expect("written");
            let Ok(reader) = Reader::open(&file, bytes.len() as u64) else {
                return;
            };
            let engine = MemoryEngine::default();
            if backup::load(&reader, &engine, &Membership::default(), Bump::default()).is_ok() {
                use_it(engine);
            }
        });
}

/// What sled holds of a change.
#[test]
fn change_record() {
    fuzz("change_record").run(|bytes| {
        let (key, value) = bytes.split_at(bytes.len().min(13));
        let _ = schema::decode_meta(key, value);
        let _ = schema::parse_lease_key(bytes);
    });
}

/// Values beside sled, and what sled holds of them.
#[test]
fn value_record() {
    let mut whole = Vec::new();
    record::encode(&mut whole, b"key", b"value");
    fuzz("value_record").examples([whole]).run(|bytes| {
        let _ = record::stored(bytes);
        let _ = record::claimed_bytes(bytes);
        let _ = record::decode(&Bytes::copy_from_slice(bytes));
        if let Some((_, rest)) = bytes.split_at_checked(4) {
            let sum = crc32c::crc32c(rest).to_be_bytes();
            let _ = record::decode(&Bytes::from([&sum[..], rest].concat()));
        }
        let (key, value) = bytes.split_at(bytes.len().min(12));
        let _ = Tally::decode(key, value);
    });
}

/// A file of values with any content, and a tally that says anything of it.
#[test]
fn value_file() {
    let mut whole = Tally::default().encode();
    record::encode(&mut whole, b"key", b"value");
    record::encode(&mut whole, b"another", &[b'v'; 200]);
    let folder = tempfile::tempdir().expect("a folder");
    fuzz("value_file").examples([whole]).rounds(500).run(|bytes| {
        let (tally, content) = bytes.split_at(bytes.len().min(16));
        let key = tally_key(1);
        let Ok((file, tally)) = Tally::decode(&key, tally) else {
            return;
        };
        std::fs::write(folder.path().join("1"), content).expect("written");
        let Ok(values) = Values::open(folder.path(), &BTreeMap::from([(file, tally)])) else {
            return;
        };
        let _ = values.next_piece();
        let place = record::Place {
            file,
            offset: 0,
            bytes: content.len() as u32,
        };
        let _ = values.read(&mut [(place, 0)], &[b"key".to_vec()], &mut [None]);
    });
}
