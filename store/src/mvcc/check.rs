//! What a request must look like before it is proposed. These checks need no state.

use keelson_proto::etcd::range_request::{SortOrder, SortTarget};
use keelson_proto::etcd::request_op::Request;
use keelson_proto::etcd::{DeleteRangeRequest, PutRequest, RangeRequest, RequestOp, TxnRequest};

use super::key_range::KeyRange;
use crate::error::StoreError;

/// Checks a range.
///
/// # Errors
/// Without a key, or with an order that does not exist.
pub fn range(request: &RangeRequest) -> Result<(), StoreError> {
    if request.key.is_empty() {
        return Err(StoreError::EmptyKey);
    }
    if SortOrder::try_from(request.sort_order).is_err() || SortTarget::try_from(request.sort_target).is_err()
    {
        return Err(StoreError::InvalidSortOption);
    }
    Ok(())
}

/// Checks a put.
///
/// # Errors
/// Without a key, or with a value or lease that it says to ignore.
pub fn put(request: &PutRequest) -> Result<(), StoreError> {
    if request.key.is_empty() {
        return Err(StoreError::EmptyKey);
    }
    if request.ignore_value && !request.value.is_empty() {
        return Err(StoreError::ValueProvided);
    }
    if request.ignore_lease && request.lease != 0 {
        return Err(StoreError::LeaseProvided);
    }
    Ok(())
}

/// Checks a deletion.
///
/// # Errors
/// Without a key.
pub fn delete_range(request: &DeleteRangeRequest) -> Result<(), StoreError> {
    if request.key.is_empty() {
        return Err(StoreError::EmptyKey);
    }
    Ok(())
}

/// Checks a transaction and those nested in it.
///
/// # Errors
/// With too many operations, with an operation that would be refused by itself, or with two writes that can
/// meet at one key.
pub fn txn(request: &TxnRequest, max_ops: usize) -> Result<(), StoreError> {
    txn_shape(request, max_ops)?;
    writes(&request.success)?;
    writes(&request.failure)?;
    Ok(())
}

fn txn_shape(request: &TxnRequest, max_ops: usize) -> Result<(), StoreError> {
    let most = request
        .compare
        .len()
        .max(request.success.len())
        .max(request.failure.len());
    if most > max_ops {
        return Err(StoreError::TooManyOps);
    }
    if request.compare.iter().any(|compare| compare.key.is_empty()) {
        return Err(StoreError::EmptyKey);
    }
    for op in request.success.iter().chain(&request.failure) {
        match &op.request {
            Some(Request::RequestRange(op)) => range(op)?,
            Some(Request::RequestPut(op)) => put(op)?,
            Some(Request::RequestDeleteRange(op)) => delete_range(op)?,
            Some(Request::RequestTxn(op)) => txn_shape(op, max_ops - most.min(max_ops))?,
            None => return Err(StoreError::KeyNotFound),
        }
    }
    Ok(())
}

/// Keys that a list of operations can write.
#[derive(Default)]
struct Writes {
    puts: Vec<KeyRange>,
    deletes: Vec<KeyRange>,
}

impl Writes {
    fn add_put(&mut self, key: KeyRange) -> Result<(), StoreError> {
        let meets = |other: &KeyRange| other.overlaps(&key);
        if self.puts.contains(&key) || self.deletes.iter().any(meets) {
            return Err(StoreError::DuplicateKey);
        }
        self.puts.push(key);
        Ok(())
    }
}

/// One key is not put twice, nor put and deleted, by operations that can run together. Several deletions of
/// one key are harmless, and so are the two branches of one nested transaction to each other.
fn writes(ops: &[RequestOp]) -> Result<Writes, StoreError> {
    let mut all = Writes::default();
    for op in ops {
        if let Some(Request::RequestDeleteRange(op)) = &op.request {
            all.deletes.push(KeyRange::new(&op.key, &op.range_end));
        }
    }
    for op in ops {
        let Some(Request::RequestTxn(op)) = &op.request else {
            continue;
        };
        let then = writes(&op.success)?;
        let otherwise = writes(&op.failure)?;
        for key in &then.puts {
            all.add_put(key.clone())?;
        }
        for key in otherwise.puts {
            if !then.puts.contains(&key) {
                all.add_put(key)?;
            }
        }
        all.deletes.extend(then.deletes);
        all.deletes.extend(otherwise.deletes);
    }
    for op in ops {
        if let Some(Request::RequestPut(op)) = &op.request {
            all.add_put(KeyRange::One(op.key.clone()))?;
        }
    }
    Ok(all)
}
