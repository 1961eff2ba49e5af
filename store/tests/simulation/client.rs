//! Clients: one operation after the other, each noted with what came of it.

use std::collections::BTreeMap;

use bytes::Bytes;
use keelson_proto::etcd::compare::{CompareResult, CompareTarget, TargetUnion};
use keelson_proto::etcd::request_op::Request;
use keelson_proto::etcd::response_op::Response;
use keelson_proto::etcd::{
    CompactionRequest, Compare, DeleteRangeRequest, PutRequest, RangeRequest, RangeResponse, RequestOp,
    TxnRequest,
};
use keelson_proto::store::Proposal;
use keelson_proto::store::proposal::Operation as Proposed;
use keelson_store::error::StoreError;
use keelson_store::raft::handle::Command;
use keelson_store::state::Outcome;
use prost::Message;
use rand::Rng;
use rand::rngs::StdRng;
use tokio::sync::oneshot::{self, error::TryRecvError};

use crate::history::{Asked, Operation, Value};
use crate::member::Running;

/// How long a client waits for an answer.
const PATIENCE_MICROS: u64 = 4_000_000;
const KEYS: usize = 5;

/// What a client waits for.
enum Wait {
    Write(oneshot::Receiver<Result<Outcome, StoreError>>),
    Read(oneshot::Receiver<Result<(), StoreError>>),
}

struct Pending {
    wait: Wait,
    member: u64,
    starts: u32,
    since: u64,
    /// Indexes of the history's operations: a transaction has several.
    operations: Vec<usize>,
}

/// A client.
pub struct Client {
    number: usize,
    pending: Option<Pending>,
    /// What it knows of keys: the value and its revision.
    known: BTreeMap<String, (Value, i64)>,
    next: u64,
    next_id: u64,
    /// Operations that were answered.
    pub answered: u64,
}

pub fn encode(value: Value) -> Bytes {
    Bytes::from(value.to_string().into_bytes())
}

pub fn decode(value: &[u8]) -> Value {
    std::str::from_utf8(value)
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(u64::MAX)
}

fn op(request: Request) -> RequestOp {
    RequestOp {
        request: Some(request),
    }
}

fn put(key: &str, value: Value) -> PutRequest {
    PutRequest {
        key: Bytes::copy_from_slice(key.as_bytes()),
        value: encode(value),
        ..PutRequest::default()
    }
}

fn get(key: &str) -> RangeRequest {
    RangeRequest {
        key: Bytes::copy_from_slice(key.as_bytes()),
        ..RangeRequest::default()
    }
}

fn read(response: &RangeResponse) -> (Value, i64) {
    response
        .kvs
        .first()
        .map_or((0, 0), |kv| (decode(&kv.value), kv.mod_revision))
}

impl Client {
    pub fn new(number: usize) -> Self {
        Self {
            number,
            pending: None,
            known: BTreeMap::new(),
            next: 0,
            next_id: 0,
            answered: 0,
        }
    }

    pub fn is_waiting(&self) -> bool {
        self.pending.is_some()
    }

    /// The member it waits for.
    pub fn waits_for(&self) -> Option<u64> {
        self.pending.as_ref().map(|pending| pending.member)
    }

    fn fresh(&mut self) -> Value {
        self.next += 1;
        (self.number as u64 + 1) * 1_000_000 + self.next
    }

    /// Begins an operation at a member.
    pub fn begin(
        &mut self,
        running: &mut Running,
        (member, starts): (u64, u32),
        now: u64,
        random: &mut StdRng,
        operations: &mut Vec<Operation>,
    ) {
        let key = format!("k/{}", random.random_range(0..KEYS));
        let mut asked = Vec::new();
        let wait = match random.random_range(0..20) {
            0..5 => {
                let (waiter, ready) = oneshot::channel();
                running.core.take(Command::ReadIndex(waiter));
                asked.push((key, Asked::Get(0)));
                Wait::Read(ready)
            }
            5..9 => {
                let value = self.fresh();
                let request = Proposed::Put(put(&key, value));
                asked.push((key, Asked::Put(value)));
                self.propose(running, request, false)
            }
            9..11 => {
                let request = Proposed::DeleteRange(DeleteRangeRequest {
                    key: Bytes::copy_from_slice(key.as_bytes()),
                    ..DeleteRangeRequest::default()
                });
                asked.push((key, Asked::Delete { found: None }));
                self.propose(running, request, true)
            }
            11..17 => {
                let new = self.fresh();
                let (expected, revision) = self.known.get(&key).copied().unwrap_or((0, 0));
                let request = Proposed::Txn(TxnRequest {
                    compare: vec![Compare {
                        result: CompareResult::Equal as i32,
                        target: CompareTarget::Mod as i32,
                        key: Bytes::copy_from_slice(key.as_bytes()),
                        target_union: Some(TargetUnion::ModRevision(revision)),
                        ..Compare::default()
                    }],
                    success: vec![op(Request::RequestPut(put(&key, new)))],
                    failure: vec![op(Request::RequestRange(get(&key)))],
                });
                let outcome = None;
                asked.push((
                    key,
                    Asked::Swap {
                        expected,
                        new,
                        outcome,
                    },
                ));
                self.propose(running, request, false)
            }
            _ => {
                // Several keys as one.
                let mut success = Vec::new();
                for number in 0..random.random_range(2..=3) {
                    let value = self.fresh();
                    let key = format!("k/{number}");
                    success.push(op(Request::RequestPut(put(&key, value))));
                    asked.push((key, Asked::Put(value)));
                }
                let request = Proposed::Txn(TxnRequest {
                    success,
                    ..TxnRequest::default()
                });
                self.propose(running, request, false)
            }
        };
        let first = operations.len();
        operations.extend(asked.into_iter().map(|(key, asked)| Operation {
            key,
            asked,
            called: now,
            returned: None,
            revision: None,
        }));
        self.pending = Some(Pending {
            wait,
            member,
            starts,
            since: now,
            operations: (first..operations.len()).collect(),
        });
    }

    fn propose(&mut self, running: &mut Running, operation: Proposed, frees_space: bool) -> Wait {
        let (answer, outcome) = oneshot::channel();
        self.next_id += 1;
        // Unique beside the numbers that members give.
        let id = (0xffff_u64 << 48) | ((self.number as u64) << 32) | self.next_id;
        let data = Proposal {
            id,
            operation: Some(operation),
        }
        .encode_to_vec();
        running.core.take(Command::Propose {
            id,
            data,
            frees_space,
            answer,
        });
        Wait::Write(outcome)
    }

    /// Drops the history before a revision, if it can; nobody waits for it.
    pub fn compact(running: &mut Running, revision: i64) {
        let request = CompactionRequest {
            revision,
            physical: false,
        };
        running.handle.propose_unattended(Proposed::Compaction(request));
    }

    /// Asks for many writes that nobody waits for, of a key that no other client uses.
    pub fn burst(running: &mut Running, writes: u64, number: u64) {
        for write in 0..writes {
            let value = (number << 20) + 900_000_000 + write;
            running
                .handle
                .propose_unattended(Proposed::Put(put("burst", value)));
        }
    }

    /// Looks whether the answer is there. `running` is the member it asked, if that is still the same.
    pub fn poll(
        &mut self,
        running: Option<(&Running, u32)>,
        now: u64,
        operations: &mut [Operation],
    ) -> Result<(), String> {
        let Some(pending) = &mut self.pending else {
            return Ok(());
        };
        let running = running
            .filter(|(_, starts)| *starts == pending.starts)
            .map(|(running, _)| running);
        let late = now > pending.since + PATIENCE_MICROS;
        let (outcome, read_now) = match &mut pending.wait {
            Wait::Write(receiver) => match receiver.try_recv() {
                Ok(Ok(outcome)) => (Some(outcome), false),
                Err(TryRecvError::Empty) if running.is_some() && !late => return Ok(()),
                _ => (None, false),
            },
            Wait::Read(receiver) => match receiver.try_recv() {
                Ok(Ok(())) => (None, running.is_some()),
                Err(TryRecvError::Empty) if running.is_some() && !late => return Ok(()),
                _ => (None, false),
            },
        };
        let done = std::mem::take(&mut pending.operations);
        self.pending = None;
        if let (true, Some(running)) = (read_now, running) {
            let operation = &mut operations[done[0]];
            let response = running
                .state
                .range(&get(&operation.key))
                .map_err(|error| format!("a read failed: {error}"))?;
            let (value, revision) = read(&response);
            operation.asked = Asked::Get(value);
            operation.returned = Some(now);
            operation.revision = response.header.map(|header| header.revision);
            self.known.insert(operation.key.clone(), (value, revision));
            self.answered += 1;
            return Ok(());
        }
        let Some(outcome) = outcome else {
            // Nobody knows what became of it. A read that was not answered says nothing at all.
            return Ok(());
        };
        self.answered += 1;
        let revision = match &outcome {
            Outcome::Put(response) => response.header.as_ref().map(|header| header.revision),
            Outcome::DeleteRange(response) => response.header.as_ref().map(|header| header.revision),
            Outcome::Txn(response) => response.header.as_ref().map(|header| header.revision),
            _ => return Err("an answer to another question".into()),
        };
        for index in done {
            let operation = &mut operations[index];
            operation.returned = Some(now);
            operation.revision = revision;
            match (&mut operation.asked, &outcome) {
                (Asked::Put(value), _) => {
                    self.known
                        .insert(operation.key.clone(), (*value, revision.unwrap_or(0)));
                }
                (Asked::Delete { found }, Outcome::DeleteRange(response)) => {
                    *found = Some(response.deleted > 0);
                    self.known.insert(operation.key.clone(), (0, 0));
                }
                (Asked::Swap { new, outcome, .. }, Outcome::Txn(response)) => {
                    if response.succeeded {
                        *outcome = Some(Ok(()));
                        self.known
                            .insert(operation.key.clone(), (*new, revision.unwrap_or(0)));
                    } else if let Some(Response::ResponseRange(range)) = response
                        .responses
                        .first()
                        .and_then(|response| response.response.as_ref())
                    {
                        let (value, modified) = read(range);
                        *outcome = Some(Err(value));
                        self.known.insert(operation.key.clone(), (value, modified));
                    }
                }
                _ => return Err("an answer to another question".into()),
            }
        }
        Ok(())
    }
}
