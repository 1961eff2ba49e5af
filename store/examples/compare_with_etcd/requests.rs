//! What is asked, with keys and values as an apiserver has them.

use bytes::Bytes;
use keelson_proto::etcd::request_op::Request;
use keelson_proto::etcd::{PutRequest, RangeRequest, RequestOp, TxnRequest};

/// Keys that are put, read and overwritten.
pub const WORKING_KEYS: u64 = 10_000;

pub fn key(number: u64) -> Bytes {
    format!("/registry/pods/default/pod-{number:08}")
        .into_bytes()
        .into()
}

pub fn put(number: u64, size: usize) -> PutRequest {
    PutRequest {
        key: key(number),
        value: vec![b'v'; size].into(),
        ..PutRequest::default()
    }
}

pub fn get(number: u64) -> RangeRequest {
    RangeRequest {
        key: key(number),
        ..RangeRequest::default()
    }
}

pub fn op(request: Request) -> RequestOp {
    RequestOp {
        request: Some(request),
    }
}

/// Many puts at once.
pub fn puts(numbers: impl Iterator<Item = u64>, size: usize) -> TxnRequest {
    TxnRequest {
        success: numbers
            .map(|number| op(Request::RequestPut(put(number, size))))
            .collect(),
        ..TxnRequest::default()
    }
}
