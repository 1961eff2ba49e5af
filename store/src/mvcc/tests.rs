use std::sync::Arc;

use bytes::Bytes;
use keelson_proto::etcd::compare::{CompareResult, CompareTarget, TargetUnion};
use keelson_proto::etcd::range_request::{SortOrder, SortTarget};
use keelson_proto::etcd::request_op::Request;
use keelson_proto::etcd::response_op::Response;
use keelson_proto::etcd::{
    Compare, DeleteRangeRequest, PutRequest, RangeRequest, RangeResponse, RequestOp, TxnRequest,
};

use super::read::{ReadError, Selection};
use super::{Mvcc, check, compact};
use crate::engine::Batch;
use crate::engine::memory::MemoryEngine;
use crate::error::StoreError;
use crate::mvcc::schema;

type Outcome = Result<(), StoreError>;

fn store() -> Mvcc {
    Mvcc::empty(Arc::new(MemoryEngine::default()))
}

fn put(key: &str, value: &str) -> PutRequest {
    PutRequest {
        key: Bytes::copy_from_slice(key.as_bytes()),
        value: Bytes::copy_from_slice(value.as_bytes()),
        ..PutRequest::default()
    }
}

fn range(key: &str, end: &str) -> RangeRequest {
    RangeRequest {
        key: Bytes::copy_from_slice(key.as_bytes()),
        range_end: Bytes::copy_from_slice(end.as_bytes()),
        ..RangeRequest::default()
    }
}

fn delete(key: &str, end: &str) -> DeleteRangeRequest {
    DeleteRangeRequest {
        key: Bytes::copy_from_slice(key.as_bytes()),
        range_end: Bytes::copy_from_slice(end.as_bytes()),
        prev_kv: true,
    }
}

fn read(mvcc: &Mvcc, request: &RangeRequest) -> Result<RangeResponse, StoreError> {
    let selection = mvcc.select(request)?;
    complete(mvcc, request, selection)
}

fn complete(mvcc: &Mvcc, request: &RangeRequest, selection: Selection) -> Result<RangeResponse, StoreError> {
    selection
        .complete(request, mvcc.engine.as_ref())
        .map_err(|error| match error {
            ReadError::Gone => StoreError::Corrupt,
            ReadError::Store(error) => error,
        })
}

fn pairs(response: &RangeResponse) -> Vec<(String, String)> {
    let text = |bytes: &Bytes| String::from_utf8_lossy(bytes).into_owned();
    response
        .kvs
        .iter()
        .map(|kv| (text(&kv.key), text(&kv.value)))
        .collect()
}

fn keys(response: &RangeResponse) -> String {
    pairs(response)
        .into_iter()
        .map(|(key, _)| key)
        .collect::<Vec<_>>()
        .join(" ")
}

fn op(request: Request) -> RequestOp {
    RequestOp {
        request: Some(request),
    }
}

/// Brings everything to the engine and forgets it in memory, as the persister does in time.
fn store_all(mvcc: &mut Mvcc) -> Outcome {
    let mut batch = Batch::default();
    let changes = mvcc.recent.unstored();
    schema::add_records(&mut batch, || changes.iter().flat_map(|change| &change.records));
    mvcc.engine.commit(batch)?;
    mvcc.recent.mark_stored(mvcc.current, usize::MAX);
    mvcc.recent.trim(0);
    Ok(())
}

/// Who applies does not wait for all of a long range: it may go on between two steps, and the range does not see it.
#[test]
fn a_long_range_is_selected_in_steps_and_of_one_moment() -> Outcome {
    const KEYS: i64 = 10_000;
    let key = |number: i64| format!("k{number:05}");
    for (at, forgotten) in [(0, false), (0, true), (KEYS + 1, false)] {
        let mut mvcc = store();
        for number in 0..KEYS {
            mvcc.put(put(&key(number), "old"))?;
        }
        let request = RangeRequest {
            limit: 9_000,
            revision: at,
            ..range("k", "l")
        };
        let mut selection = mvcc.select(&request)?;
        let mut steps = 1;
        while selection.has_more() {
            mvcc.put(put(&key(KEYS - 1), "new"))?;
            mvcc.put(put(&key(KEYS + steps), "later"))?;
            mvcc.delete_range(&delete(&key(8_000 + steps), ""))?;
            if forgotten {
                store_all(&mut mvcc)?;
            }
            let more = mvcc.select_more(&request, &mut selection);
            assert!(more.is_ok());
            steps += 1;
        }
        assert!(steps > 2);
        let response = complete(&mvcc, &request, selection)?;
        assert_eq!((response.count, response.more), (KEYS, true));
        assert_eq!(
            response.header.as_ref().map(|header| header.revision),
            Some(KEYS + 1)
        );
        let expected = (0..9_000).map(|number| (key(number), "old".to_owned()));
        assert!(pairs(&response).into_iter().eq(expected));

        // What was selected so far is of no use once its revision is gone.
        let mut selection = mvcc.select(&request)?;
        mvcc.put(put("k", "newest"))?;
        mvcc.compacted = mvcc.current;
        let more = mvcc.select_more(&request, &mut selection);
        assert!(matches!(more, Err(ReadError::Gone)));
    }
    Ok(())
}

#[test]
fn a_key_lives_dies_and_lives_again() -> Outcome {
    for stored in [false, true] {
        let mut mvcc = store();
        assert_eq!(mvcc.current, 1);
        mvcc.put(put("a", "1"))?;
        mvcc.put(put("a", "2"))?;
        mvcc.delete_range(&delete("a", ""))?;
        mvcc.put(put("a", "3"))?;
        if stored {
            store_all(&mut mvcc)?;
        }
        let at = |revision: i64| {
            let mut request = range("a", "");
            request.revision = revision;
            read(&mvcc, &request)
        };
        let kv = |response: RangeResponse| {
            response
                .kvs
                .first()
                .map(|kv| (kv.create_revision, kv.mod_revision, kv.version))
        };
        assert_eq!(kv(at(2)?), Some((2, 2, 1)));
        assert_eq!(kv(at(3)?), Some((2, 3, 2)));
        assert_eq!(kv(at(4)?), None);
        assert_eq!(kv(at(0)?), Some((5, 5, 1)));
        assert_eq!(at(6).map(|_| ()), Err(StoreError::FutureRevision));
        assert_eq!(pairs(&at(3)?), [("a".into(), "2".into())]);
    }
    Ok(())
}

#[test]
fn ranges_are_limited_sorted_and_filtered() -> Outcome {
    let mut mvcc = store();
    for (key, value) in [("a", "3"), ("b", "1"), ("c", "2"), ("d", "0")] {
        mvcc.put(put(key, value))?;
    }
    mvcc.put(put("b", "9"))?;
    let mut request = range("a", "d");
    assert_eq!(keys(&read(&mvcc, &request)?), "a b c");
    request.limit = 2;
    let response = read(&mvcc, &request)?;
    assert_eq!(
        (keys(&response).as_str(), response.more, response.count),
        ("a b", true, 3)
    );
    request.limit = 3;
    assert!(!read(&mvcc, &request)?.more);
    request.limit = 2;
    request.set_sort_order(SortOrder::Descend);
    assert_eq!(keys(&read(&mvcc, &request)?), "c b");
    request.set_sort_target(SortTarget::Mod);
    assert_eq!(keys(&read(&mvcc, &request)?), "b c");
    request.set_sort_target(SortTarget::Value);
    request.set_sort_order(SortOrder::Ascend);
    assert_eq!(keys(&read(&mvcc, &request)?), "c a");
    let mut request = range("a", "\0");
    request.min_mod_revision = 4;
    request.max_mod_revision = 5;
    let response = read(&mvcc, &request)?;
    assert_eq!((keys(&response).as_str(), response.count), ("c d", 4));
    request.keys_only = true;
    assert_eq!(pairs(&read(&mvcc, &request)?)[0].1, "");
    request.count_only = true;
    let response = read(&mvcc, &request)?;
    assert_eq!((response.count, response.kvs.len()), (4, 0));
    Ok(())
}

#[test]
fn a_transaction_is_one_revision_and_sees_itself() -> Outcome {
    let mut mvcc = store();
    mvcc.put(put("a", "1"))?;
    let condition = |revision| Compare {
        result: CompareResult::Equal as i32,
        target: CompareTarget::Mod as i32,
        key: Bytes::from_static(b"a"),
        target_union: Some(TargetUnion::ModRevision(revision)),
        ..Compare::default()
    };
    let request = |revision| TxnRequest {
        compare: vec![condition(revision)],
        success: vec![
            op(Request::RequestPut(put("b", "2"))),
            op(Request::RequestRange(range("a", "c"))),
            op(Request::RequestDeleteRange(delete("a", ""))),
        ],
        failure: vec![op(Request::RequestRange(range("a", "")))],
    };
    let refused = mvcc.txn(request(7))?;
    assert!(!refused.succeeded);
    assert_eq!(mvcc.current, 2);
    let done = mvcc.txn(request(2))?;
    assert!(done.succeeded);
    assert_eq!(mvcc.current, 3);
    match &done.responses[1].response {
        Some(Response::ResponseRange(response)) => {
            assert_eq!(keys(response), "a b");
            assert_eq!(response.kvs[1].mod_revision, 3);
        }
        other => panic!("not a range: {other:?}"),
    }
    match &done.responses[2].response {
        Some(Response::ResponseDeleteRange(response)) => {
            assert_eq!(response.deleted, 1);
            assert_eq!(response.prev_kvs[0].value, "1");
        }
        other => panic!("not a deletion: {other:?}"),
    }
    assert_eq!(keys(&read(&mvcc, &range("a", "z"))?), "b");
    Ok(())
}

#[test]
fn a_transaction_that_would_fail_writes_nothing() -> Outcome {
    let mut mvcc = store();
    let mut lost = put("b", "");
    lost.lease = 99;
    let request = TxnRequest {
        success: vec![
            op(Request::RequestPut(put("a", "1"))),
            op(Request::RequestPut(lost)),
        ],
        ..TxnRequest::default()
    };
    assert_eq!(mvcc.txn(request), Err(StoreError::LeaseNotFound));
    assert_eq!(mvcc.current, 1);
    assert!(mvcc.index.is_empty());
    Ok(())
}

#[test]
fn comparing_a_key_that_is_not_there() -> Outcome {
    let mvcc = store();
    let compare = |target: CompareTarget, union| TxnRequest {
        compare: vec![Compare {
            result: CompareResult::Equal as i32,
            target: target as i32,
            key: Bytes::from_static(b"a"),
            target_union: Some(union),
            ..Compare::default()
        }],
        ..TxnRequest::default()
    };
    let zero = compare(CompareTarget::Create, TargetUnion::CreateRevision(0));
    assert!(mvcc.judge(&zero)?.succeeded);
    let empty = compare(CompareTarget::Value, TargetUnion::Value(Bytes::new()));
    assert!(!mvcc.judge(&empty)?.succeeded);
    Ok(())
}

#[test]
fn one_transaction_does_not_write_a_key_twice() {
    let puts = |keys: &[&str]| -> Vec<RequestOp> {
        keys.iter()
            .map(|key| op(Request::RequestPut(put(key, ""))))
            .collect()
    };
    let txn = |success: Vec<RequestOp>| TxnRequest {
        success,
        ..TxnRequest::default()
    };
    assert_eq!(check::txn(&txn(puts(&["a", "b"])), 128), Ok(()));
    assert_eq!(
        check::txn(&txn(puts(&["a", "a"])), 128),
        Err(StoreError::DuplicateKey)
    );
    let mut covered = puts(&["b"]);
    covered.push(op(Request::RequestDeleteRange(delete("a", "c"))));
    assert_eq!(check::txn(&txn(covered), 128), Err(StoreError::DuplicateKey));
    // The branches of a nested transaction do not run together, but each runs with its surroundings.
    let nested = TxnRequest {
        success: puts(&["x"]),
        failure: puts(&["x"]),
        ..TxnRequest::default()
    };
    let mut outer = puts(&["a"]);
    outer.push(op(Request::RequestTxn(nested)));
    assert_eq!(check::txn(&txn(outer.clone()), 128), Ok(()));
    outer.extend(puts(&["x"]));
    assert_eq!(check::txn(&txn(outer), 128), Err(StoreError::DuplicateKey));
    assert_eq!(
        check::txn(&txn(puts(&["a", "b"])), 1),
        Err(StoreError::TooManyOps)
    );
}

#[test]
fn compaction_drops_what_nobody_may_read() -> Outcome {
    let mut mvcc = store();
    for value in ["1", "2", "3"] {
        mvcc.put(put("a", value))?;
    }
    mvcc.put(put("gone", "x"))?;
    mvcc.delete_range(&delete("gone", ""))?;
    mvcc.put(put("a", "4"))?;
    store_all(&mut mvcc)?;
    let engine = mvcc.engine.clone();
    let records = |prefix: u8| -> Result<usize, StoreError> {
        let mut count = 0;
        engine.scan(&[prefix], &[prefix + 1], &mut |_, _| {
            count += 1;
            std::ops::ControlFlow::Continue(())
        })?;
        Ok(count)
    };
    compact_to(&mut mvcc, 0, 6)?;
    // A watch may begin at the deletion: it stays until the next compaction.
    assert_eq!((records(b'm')?, records(b'v')?), (3, 2));
    assert_eq!(mvcc.index.len(), 2);
    let mut old = range("a", "");
    old.revision = 6;
    assert_eq!(pairs(&read(&mvcc, &old)?), [("a".into(), "3".into())]);
    old.revision = 5;
    assert_eq!(read(&mvcc, &old).map(|_| ()), Err(StoreError::Compacted));
    compact_to(&mut mvcc, 6, 7)?;
    assert_eq!((records(b'm')?, records(b'v')?), (1, 1));
    assert_eq!(mvcc.index.len(), 1);
    Ok(())
}

fn compact_to(mvcc: &mut Mvcc, done: i64, until: i64) -> Outcome {
    mvcc.compacted = until;
    let step = compact::next_step(mvcc.engine.as_ref(), done, until)?;
    assert_eq!(step.through, until);
    let gone = mvcc.drop_history(&step, until);
    mvcc.engine.commit(compact::removal(&gone, Some(step.through)))?;
    Ok(())
}

/// As after damage that no checksum saw: the reader is told, and does not try for ever.
#[test]
fn a_value_that_is_not_there_is_damage() -> Outcome {
    let mut mvcc = store();
    mvcc.put(put("a", "1"))?;
    store_all(&mut mvcc)?;
    let engine = mvcc.engine.clone();
    let mut batch = crate::engine::Batch::default();
    let head = keelson_proto::store::StoredState {
        revision: mvcc.current,
        ..Default::default()
    };
    batch.put(
        schema::STATE_KEY.to_vec(),
        prost::Message::encode_to_vec(&head).into(),
    );
    batch.remove(schema::value_key(super::revision::Revision { main: 2, sub: 0 }));
    engine.commit(batch)?;
    let state = crate::state::State::load(engine)?.ok_or(StoreError::Corrupt)?;
    assert_eq!(state.range(&range("a", "")).map(|_| ()), Err(StoreError::Corrupt));
    Ok(())
}
