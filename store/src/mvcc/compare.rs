//! Conditions of transactions.

use std::cmp::Ordering;

use keelson_proto::etcd::compare::{CompareResult, CompareTarget, TargetUnion};
use keelson_proto::etcd::{Compare, TxnRequest};

use super::Mvcc;
use super::index::Life;
use super::key_range::KeyRange;
use super::revision::Revision;
use crate::error::StoreError;

/// Which branch every transaction of a tree takes. All conditions are judged before anything is written.
#[derive(Debug)]
pub struct Path {
    /// Whether the conditions hold.
    pub succeeded: bool,
    /// The paths of the transactions nested in the branch taken, in order.
    pub nested: Vec<Path>,
}

impl Mvcc {
    /// Judges a transaction's conditions, and those of the transactions nested in the branch it takes.
    ///
    /// # Errors
    /// When a value that is compared cannot be read.
    pub fn judge(&self, request: &TxnRequest) -> Result<Path, StoreError> {
        let mut succeeded = true;
        for compare in &request.compare {
            if !self.holds(compare)? {
                succeeded = false;
                break;
            }
        }
        let branch = if succeeded {
            &request.success
        } else {
            &request.failure
        };
        let mut nested = Vec::new();
        for op in branch {
            if let Some(keelson_proto::etcd::request_op::Request::RequestTxn(txn)) = &op.request {
                nested.push(self.judge(txn)?);
            }
        }
        Ok(Path { succeeded, nested })
    }

    fn holds(&self, compare: &Compare) -> Result<bool, StoreError> {
        let range = KeyRange::new(&compare.key, &compare.range_end);
        let mut any = false;
        for (key, item) in self.index.range(&range) {
            let Some((revision, life)) = item.alive() else {
                continue;
            };
            any = true;
            if !self.holds_for(compare, Some((key, revision, life)))? {
                return Ok(false);
            }
        }
        if any {
            return Ok(true);
        }
        // A key that does not exist has no value to compare, and zero for every number.
        if compare.target() == CompareTarget::Value {
            return Ok(false);
        }
        self.holds_for(compare, None)
    }

    fn holds_for(
        &self,
        compare: &Compare,
        subject: Option<(&[u8], Revision, Life)>,
    ) -> Result<bool, StoreError> {
        let (modified, life) =
            subject.map_or((0, Life::default()), |(_, revision, life)| (revision.main, life));
        let number = |ours: i64, theirs: Option<i64>| ours.cmp(&theirs.unwrap_or(0));
        let union = compare.target_union.as_ref();
        let ordering = match compare.target() {
            CompareTarget::Version => number(
                life.version,
                pick(union, |u| match u {
                    TargetUnion::Version(n) => Some(*n),
                    _ => None,
                }),
            ),
            CompareTarget::Create => number(
                life.created,
                pick(union, |u| match u {
                    TargetUnion::CreateRevision(n) => Some(*n),
                    _ => None,
                }),
            ),
            CompareTarget::Mod => number(
                modified,
                pick(union, |u| match u {
                    TargetUnion::ModRevision(n) => Some(*n),
                    _ => None,
                }),
            ),
            CompareTarget::Lease => number(
                life.lease,
                pick(union, |u| match u {
                    TargetUnion::Lease(n) => Some(*n),
                    _ => None,
                }),
            ),
            CompareTarget::Value => {
                let Some((key, revision, _)) = subject else {
                    return Ok(false);
                };
                let record = self.record(key, revision)?.ok_or(StoreError::Corrupt)?;
                match union {
                    Some(TargetUnion::Value(value)) => record.value.cmp(value),
                    _ => record.value.as_ref().cmp(&[]),
                }
            }
        };
        Ok(match compare.result() {
            CompareResult::Equal => ordering == Ordering::Equal,
            CompareResult::Greater => ordering == Ordering::Greater,
            CompareResult::Less => ordering == Ordering::Less,
            CompareResult::NotEqual => ordering != Ordering::Equal,
        })
    }
}

fn pick(union: Option<&TargetUnion>, which: impl Fn(&TargetUnion) -> Option<i64>) -> Option<i64> {
    union.and_then(which)
}
