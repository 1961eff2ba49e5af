//! Whatever stands in a file or comes over the network: the decoders answer with an error, not with a panic, and never
//! take damaged bytes for what was written. `fuzz` feeds the same decoders with a corpus and its mutations.

use std::sync::Arc;

use bytes::Bytes;
use keelson_proto::etcd::request_op::Request;
use keelson_proto::etcd::{DeleteRangeRequest, PutRequest, RangeRequest, RequestOp, TxnRequest};
use keelson_proto::store::{Proposal, StoredState};
use keelson_store::backup::{self, Bump};
use keelson_store::bolt::read::Reader;
use keelson_store::cluster::Membership;
use keelson_store::dump::Loader;
use keelson_store::engine::memory::MemoryEngine;
use keelson_store::engine::{Batch, Engine};
use keelson_store::mvcc::{Mvcc, check, schema};
use keelson_store::state::State;
use keelson_store::wal::Wal;
use keelson_store::wal::disk::{Disk, FolderDisk};
use keelson_store::wal::record::{self, Found, Record};
use proptest::prelude::*;
use prost::Message as _;
use protobuf::Message as _;
use raft::eraftpb::{Entry, EntryType, Message};

const SEQUENCE: u64 = 3;

/// Every decoder gets the bytes; none may panic.
fn feed_all(bytes: &[u8]) {
    let _ = record::decode(SEQUENCE, bytes);
    let _ = record::claimed_bytes(bytes);
    let _ = record::synced_beyond(SEQUENCE, 0, bytes);
    let (key, value) = bytes.split_at(bytes.len() / 2);
    let _ = schema::decode_meta(key, value);
    let _ = schema::decode_meta(bytes, bytes);
    let _ = schema::parse_lease_key(bytes);
    let _ = Proposal::decode(bytes);
    let _ = StoredState::decode(bytes);
    let _ = TxnRequest::decode(bytes);
    let mut message = Message::default();
    let _ = message.merge_from_bytes(bytes);
    let text = String::from_utf8_lossy(bytes);
    let _ = text.parse::<keelson_store::urls::Url>();
    let _ = keelson_store::urls::parse_initial_cluster(&text);
    let _ = keelson_store::config::parse_duration(&text);
    load_dump(bytes, 7);
    load_state(bytes);
    load_backup(bytes);
}

/// Takes the bytes for a backup whose checksum was right.
fn load_backup(bytes: &[u8]) {
    use std::io::Write as _;
    let Ok(mut file) = tempfile::tempfile() else {
        return;
    };
    if file.write_all(bytes).is_err() {
        return;
    }
    let Ok(reader) = Reader::open(&file, bytes.len() as u64) else {
        return;
    };
    let engine = MemoryEngine::default();
    if backup::load(&reader, &engine, &Membership::default(), Bump::default()).is_ok() {
        let _ = State::load(Arc::new(engine));
    }
}

fn load_dump(bytes: &[u8], piece: usize) {
    let mut loader = Loader::into_engine(MemoryEngine::default());
    for piece in bytes.chunks(piece.max(1)) {
        if loader.take(piece).is_err() {
            return;
        }
    }
    if let Ok(engine) = loader.finish() {
        let _ = State::load(Arc::new(engine));
    }
}

fn load_state(bytes: &[u8]) {
    let engine = MemoryEngine::default();
    let mut batch = Batch::default();
    let (key, value) = bytes.split_at(bytes.len() / 3);
    let value = Bytes::copy_from_slice(value);
    for letter in [b'm', b'l', b'v'] {
        batch.put([&[letter], key].concat(), value.clone());
    }
    batch.put(schema::STATE_KEY.to_vec(), value.clone());
    batch.put(schema::COMPACTION_DONE_KEY.to_vec(), value);
    if engine.commit(batch).is_ok() {
        let _ = State::load(Arc::new(engine));
    }
}

fn entry() -> impl Strategy<Value = Entry> {
    let bytes = || prop::collection::vec(any::<u8>(), 0..200);
    (any::<u64>(), any::<u64>(), bytes(), bytes(), 0..3).prop_map(|(index, term, context, data, kind)| {
        Entry {
            index,
            term,
            context: context.into(),
            data: data.into(),
            entry_type: match kind {
                0 => EntryType::EntryNormal,
                1 => EntryType::EntryConfChange,
                _ => EntryType::EntryConfChangeV2,
            },
            ..Entry::default()
        }
    })
}

fn key() -> impl Strategy<Value = Bytes> {
    prop::collection::vec(prop_oneof![Just(0_u8), Just(b'a'), Just(b'b'), Just(0xff)], 0..3)
        .prop_map(Bytes::from)
}

fn op() -> impl Strategy<Value = RequestOp> {
    let revision = || -2_i64..12;
    let range = (
        key(),
        key(),
        revision(),
        -1_i64..4,
        -1..5,
        -1..7,
        any::<[bool; 3]>(),
        revision(),
        revision(),
    )
        .prop_map(
            |(key, range_end, revision, limit, sort_order, sort_target, flags, min, max)| {
                Request::RequestRange(RangeRequest {
                    key,
                    range_end,
                    revision,
                    limit,
                    sort_order,
                    sort_target,
                    keys_only: flags[0],
                    count_only: flags[1],
                    serializable: flags[2],
                    min_mod_revision: min,
                    max_create_revision: max,
                    ..RangeRequest::default()
                })
            },
        );
    let put = (key(), 0_i64..3, any::<[bool; 3]>()).prop_map(|(key, lease, flags)| {
        Request::RequestPut(PutRequest {
            value: key.clone(),
            key,
            lease,
            prev_kv: flags[0],
            ignore_value: flags[1],
            ignore_lease: flags[2],
        })
    });
    let delete = (key(), key(), any::<bool>()).prop_map(|(key, range_end, prev_kv)| {
        Request::RequestDeleteRange(DeleteRangeRequest {
            key,
            range_end,
            prev_kv,
        })
    });
    let leaf = prop_oneof![range, put, delete].boxed();
    leaf.prop_recursive(3, 16, 4, |inner| {
        let ops = || {
            prop::collection::vec(inner.clone(), 0..4).prop_map(|requests| {
                let ops = requests.into_iter().map(|request| RequestOp {
                    request: Some(request),
                });
                ops.collect::<Vec<_>>()
            })
        };
        (ops(), ops()).prop_map(|(success, failure)| {
            Request::RequestTxn(TxnRequest {
                success,
                failure,
                ..TxnRequest::default()
            })
        })
    })
    .prop_map(|request| RequestOp {
        request: Some(request),
    })
}

proptest! {
    #[test]
    fn no_bytes_make_a_decoder_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        feed_all(&bytes);
    }

    #[test]
    fn an_entry_is_read_as_it_was_written_or_not_at_all(
        entry in entry(),
        place in any::<prop::sample::Index>(),
        bit in 0..8_u32,
    ) {
        let mut bytes = Vec::new();
        record::encode_entry(&mut bytes, SEQUENCE, &entry);
        prop_assert_eq!(bytes.len(), record::entry_bytes(&entry));
        let whole = Found::Record(Record::Entry(entry), bytes.len());
        prop_assert_eq!(&record::decode(SEQUENCE, &bytes), &whole);
        // Not in another segment, not cut short, not with any bit turned.
        prop_assert_ne!(&record::decode(SEQUENCE + 1, &bytes), &whole);
        let cut = place.index(bytes.len());
        prop_assert!(!matches!(record::decode(SEQUENCE, &bytes[..cut]), Found::Record(..)));
        bytes[cut] ^= 1 << bit;
        prop_assert!(!matches!(record::decode(SEQUENCE, &bytes), Found::Record(..)));
        feed_all(&bytes);
    }

    #[test]
    fn a_dump_with_damage_loads_or_not_but_in_whatever_pieces_it_comes(
        records in prop::collection::vec((key(), key()), 0..8),
        piece in 1..50_usize,
        place in any::<prop::sample::Index>(),
        value in any::<u8>(),
    ) {
        let mut dump = Vec::new();
        let state = StoredState { revision: 5, ..StoredState::default() }.encode_to_vec();
        let head = (Bytes::from_static(schema::STATE_KEY), Bytes::from(state));
        for (key, value) in records.into_iter().chain([head]) {
            for field in [key, value] {
                dump.extend_from_slice(&(field.len() as u32).to_be_bytes());
                dump.extend_from_slice(&field);
            }
        }
        load_dump(&dump, piece);
        let place = place.index(dump.len());
        dump[place] = value;
        load_dump(&dump, piece);
    }

    /// What the checks let through can be carried out, or is refused with an error.
    #[test]
    fn any_transaction_is_answered(txns in prop::collection::vec((prop::collection::vec(op(), 0..4), 0..10_i64), 1..6)) {
        let mut mvcc = Mvcc::empty(Arc::new(MemoryEngine::default()));
        for (success, compact) in txns {
            let txn = TxnRequest { success, ..TxnRequest::default() };
            let bytes = txn.encode_to_vec();
            prop_assert_eq!(&TxnRequest::decode(&bytes[..]).ok(), &Some(txn.clone()));
            if check::txn(&txn, 128).is_err() {
                continue;
            }
            let before = mvcc.current;
            match mvcc.txn(txn) {
                Ok(_) => prop_assert!(mvcc.current <= before + 1),
                Err(_) => prop_assert_eq!(mvcc.current, before),
            }
            mvcc.compacted = mvcc.compacted.max(compact.min(mvcc.current));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// A segment of anything opens with what is whole in it, or is refused.
    #[test]
    fn a_log_of_any_bytes_opens_or_is_refused(bytes in prop::collection::vec(any::<u8>(), 0..300), entries in prop::collection::vec(entry(), 0..4)) {
        let folder = tempfile::tempdir()?;
        let disk = FolderDisk::new(folder.path())?;
        let mut content = Vec::new();
        for entry in &entries {
            record::encode_entry(&mut content, 1, entry);
        }
        content.extend_from_slice(&bytes);
        std::fs::write(disk.path(1), content)?;
        let _ = Wal::open(Box::new(disk));
    }
}

/// A backup in which some bytes are others.
#[test]
fn a_damaged_backup_loads_or_not() -> anyhow::Result<()> {
    let engine: Arc<dyn Engine> = Arc::new(MemoryEngine::default());
    let state = State::founding(engine, Membership::default(), backup::FOUNDING);
    state.apply(|inner| {
        for number in 0..200_u32 {
            let put = PutRequest {
                key: Bytes::from(format!("key {number}")),
                value: Bytes::from(vec![b'v'; 100 + number as usize]),
                ..PutRequest::default()
            };
            inner.mvcc.put(put).map(drop)?;
        }
        anyhow::Ok(())
    })?;
    let mut whole = Vec::new();
    let complete = backup::write(&state, &mut |piece| {
        whole.extend_from_slice(&piece);
        std::ops::ControlFlow::Continue(())
    })?;
    assert!(complete);
    for place in (0..whole.len()).step_by(37) {
        let mut damaged = whole.clone();
        damaged[place] ^= 0x41;
        load_backup(&damaged);
    }
    Ok(())
}
