//! What clients and other members send.

use std::sync::Arc;

use bytes::Bytes;
use keelson_proto::etcd::compare::TargetUnion;
use keelson_proto::etcd::request_op::Request;
use keelson_proto::etcd::watch_request::RequestUnion;
use keelson_proto::etcd::{
    CompactionRequest, Compare, DeleteRangeRequest, LeaseGrantRequest, LeaseRevokeRequest, PutRequest,
    RangeRequest, RequestOp, TxnRequest, WatchCreateRequest, WatchProgressRequest, WatchRequest,
};
use keelson_proto::raft_transport::{MembershipRequest, MessageBatch, SnapshotPiece};
use keelson_proto::store::proposal::Operation;
use keelson_proto::store::{MembershipChange, Proposal};
use keelson_store::error::StoreError;
use keelson_store::mvcc::check;
use keelson_store::raft::handle::Leadership;
use keelson_store::server::Headers;
use keelson_store::state::State;
use keelson_store::watch::watches::Watches;
use prost::Message as _;
use protobuf::Message as _;
use raft::eraftpb::{ConfChange, ConfChangeV2, Entry, Message};

use super::state::example;
use super::{fuzz, joined, pieces};

fn encoded(operation: Operation) -> Vec<u8> {
    Proposal {
        id: 1,
        operation: Some(operation),
    }
    .encode_to_vec()
}

fn proposals() -> Vec<Vec<u8>> {
    let key = Bytes::from_static(b"k1");
    let put = PutRequest {
        key: key.clone(),
        value: Bytes::from_static(b"v"),
        lease: 7,
        prev_kv: true,
        ..PutRequest::default()
    };
    let range = RangeRequest {
        key: key.clone(),
        range_end: Bytes::from_static(b"k3"),
        limit: 2,
        ..RangeRequest::default()
    };
    let delete = DeleteRangeRequest {
        key: key.clone(),
        range_end: Bytes::from_static(b"k3"),
        prev_kv: true,
    };
    let op = |request| RequestOp {
        request: Some(request),
    };
    let txn = TxnRequest {
        compare: vec![Compare {
            target: 2,
            key,
            target_union: Some(TargetUnion::ModRevision(3)),
            ..Compare::default()
        }],
        success: vec![op(Request::RequestPut(put.clone()))],
        failure: vec![
            op(Request::RequestRange(range)),
            op(Request::RequestDeleteRange(delete.clone())),
        ],
    };
    vec![
        encoded(Operation::Put(put)),
        encoded(Operation::DeleteRange(delete)),
        encoded(Operation::Txn(txn)),
        encoded(Operation::Compaction(CompactionRequest {
            revision: 5,
            ..CompactionRequest::default()
        })),
        encoded(Operation::LeaseGrant(LeaseGrantRequest { id: 8, ttl: 60 })),
        encoded(Operation::LeaseRevoke(LeaseRevokeRequest { id: 7 })),
    ]
}

/// What the server checks before it proposes.
fn passes(operation: &Operation) -> bool {
    match operation {
        Operation::Put(request) => check::put(request).is_ok(),
        Operation::DeleteRange(request) => check::delete_range(request).is_ok(),
        Operation::Txn(request) => check::txn(request, 128).is_ok(),
        _ => true,
    }
}

/// Entries of the log: any proposals, one after the other, on a state.
#[test]
fn proposal() {
    fuzz("proposal")
        .examples([joined(&proposals())])
        .examples(proposals().into_iter().map(|one| joined(&[one])))
        .run(|bytes| {
            let state = example();
            for piece in pieces(bytes) {
                let Ok(proposal) = Proposal::decode(piece) else {
                    continue;
                };
                if !proposal.operation.as_ref().is_some_and(passes) {
                    continue;
                }
                let before = state.revision();
                let outcome = state.apply(|inner| inner.apply(proposal, 1, &state.clock));
                assert!(
                    !matches!(outcome, Err(StoreError::Storage(_) | StoreError::Corrupt)),
                    "{outcome:?}"
                );
                let grown = state.revision() - before;
                assert!(
                    (0..=1).contains(&grown) && (grown == 0 || outcome.is_ok()),
                    "{outcome:?}"
                );
            }
            assert!(state.hash(0).is_ok());
        });
}

/// Reads at any revision, in any order.
#[test]
fn range_request() {
    let example_request = RangeRequest {
        key: Bytes::from_static(b"k"),
        range_end: Bytes::from_static(b"l"),
        revision: 5,
        sort_order: 1,
        sort_target: 2,
        min_mod_revision: 2,
        max_create_revision: 9,
        ..RangeRequest::default()
    };
    let state = example();
    fuzz("range_request")
        .examples([example_request.encode_to_vec()])
        .run(|bytes| {
            let Ok(request) = RangeRequest::decode(bytes) else {
                return;
            };
            if check::range(&request).is_ok() {
                let _ = state.range(&request);
            }
        });
}

fn headers() -> Headers {
    Headers {
        cluster_id: 1,
        member_id: 2,
        leadership: Arc::new(Leadership::default()),
    }
}

/// A stream of a client who watches, on a state that changes.
#[test]
fn watch_stream() {
    let request = |union| {
        WatchRequest {
            request_union: Some(union),
        }
        .encode_to_vec()
    };
    let create = |start_revision, fragment| {
        request(RequestUnion::CreateRequest(WatchCreateRequest {
            key: Bytes::from_static(b"k"),
            range_end: Bytes::from_static(b"l"),
            start_revision,
            prev_kv: true,
            fragment,
            progress_notify: true,
            filters: vec![1],
            ..WatchCreateRequest::default()
        }))
    };
    let stream = joined(&[
        create(2, false),
        create(5, true),
        request(RequestUnion::ProgressRequest(WatchProgressRequest {})),
        request(RequestUnion::CancelRequest(
            keelson_proto::etcd::WatchCancelRequest { watch_id: 1 },
        )),
    ]);
    fuzz("watch_stream").examples([stream]).rounds(2000).run(|bytes| {
        let state = Arc::new(example());
        let mut watches = Watches::new(state.clone(), headers(), 64);
        for piece in pieces(bytes) {
            if let Ok(request) = WatchRequest::decode(piece) {
                watches.request(request);
            }
            change(&state);
            // Every watch comes into step after a few pieces of the history, or ends.
            for _ in 0..10 {
                for id in watches.behind() {
                    if let Some(behind) = watches.catch_up(id) {
                        let read = behind.read(&state);
                        watches.caught_up(&behind, read);
                    }
                }
            }
            let future = watches.behind();
            watches.mail();
            watches.notify_progress();
            while watches.next_response().is_some() {}
            assert!(future.is_empty(), "a watch does not come into step");
        }
    });
}

fn change(state: &State) {
    let put = PutRequest {
        key: Bytes::from_static(b"k1"),
        value: Bytes::from_static(b"changed"),
        ..PutRequest::default()
    };
    assert!(state.apply(|inner| inner.mvcc.put(put)).is_ok());
}

/// What members send to each other.
#[test]
fn member_message() {
    let mut message = Message::default();
    message.set_entries(vec![Entry::default()].into());
    message.mut_snapshot().mut_metadata().index = 7;
    let message = message.write_to_bytes().expect("encoded");
    let batch = MessageBatch {
        cluster_id: 1,
        from: 2,
        to: 3,
        messages: vec![message.clone().into()],
    };
    fuzz("member_message")
        .examples([message, batch.encode_to_vec()])
        .run(|bytes| {
            if let Ok(batch) = MessageBatch::decode(bytes) {
                for message in batch.messages {
                    let _ = Message::default().merge_from_bytes(&message);
                }
            }
            let mut message = Message::default();
            if message.merge_from_bytes(bytes).is_ok() {
                let written = message.write_to_bytes().expect("encoded");
                assert!(Message::default().merge_from_bytes(&written).is_ok());
            }
            let _ = ConfChange::default().merge_from_bytes(bytes);
            let _ = ConfChangeV2::default().merge_from_bytes(bytes);
            let _ = MembershipChange::decode(bytes);
            let _ = SnapshotPiece::decode(bytes);
            if let Ok(request) = MembershipRequest::decode(bytes)
                && let Some(change) = request.change
            {
                let _ = keelson_store::transport::membership::decode(change);
            }
        });
}
