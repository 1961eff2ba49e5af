//! The replicated state: what the committed log makes of an empty store, the same on every member.
//!
//! [`State`] is applied to by one thread and read by many. A batch of committed entries is applied under one
//! lock, then published to watchers. What the engine has of it follows in the background ([`crate::persist`]).

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Instant;

use keelson_proto::etcd::{
    self, AlarmMember, AlarmRequest, AlarmResponse, AlarmType, CompactionResponse, LeaseGrantResponse,
    LeaseRevokeResponse, PutResponse, RangeRequest, RangeResponse, TxnRequest, TxnResponse,
    alarm_request::AlarmAction,
};
use keelson_proto::store::{Proposal, StoredMember, StoredState, proposal::Operation};
use parking_lot::{RwLock, RwLockReadGuard};
use tokio::sync::watch;

use crate::cluster::Membership;
use crate::engine::{Batch, Engine};
use crate::error::StoreError;
use crate::history::History;
use crate::lease::{self, LeaseClock};
use crate::mvcc::Mvcc;
use crate::mvcc::compact;
use crate::mvcc::hash::{self, HistoryHash};
use crate::mvcc::index::Stamp;
use crate::mvcc::read::ReadError;
use crate::mvcc::recent::{Change, Recent};
use crate::mvcc::revision::Revision;
use crate::mvcc::schema;
use crate::time::Time;
use crate::watch::hub::Hub;

/// How often a read is tried again without history having been dropped meanwhile.
const MOST_IN_VAIN: u32 = 3;

/// What a proposal came to.
#[derive(Debug, Clone)]
pub enum Outcome {
    /// Of a put.
    Put(PutResponse),
    /// Of a deletion.
    DeleteRange(etcd::DeleteRangeResponse),
    /// Of a transaction.
    Txn(TxnResponse),
    /// Of a compaction.
    Compaction(CompactionResponse),
    /// Of granting a lease.
    LeaseGrant(LeaseGrantResponse),
    /// Of revoking a lease.
    LeaseRevoke(LeaseRevokeResponse),
    /// Of an alarm request.
    Alarm(AlarmResponse),
    /// Of a membership change: the members after it.
    Members(Vec<etcd::Member>),
    /// Nothing to say.
    Done,
}

/// Where in the log the state is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Applied {
    /// Index of the last applied entry.
    pub index: u64,
    /// Its term.
    pub term: u64,
}

/// The part of the state that is neither keys nor leases.
#[derive(Debug, Default)]
pub struct Shared {
    /// The group.
    pub membership: Membership,
    /// Alarms that are raised.
    pub alarms: Vec<AlarmMember>,
    /// Where in the log this is.
    pub applied: Applied,
}

/// Everything behind the lock.
pub struct Inner {
    /// The keys.
    pub mvcc: Mvcc,
    /// The rest.
    pub shared: Shared,
}

/// The state of a member.
pub struct State {
    inner: RwLock<Inner>,
    engine: Arc<dyn Engine>,
    /// Watchers.
    pub hub: Hub,
    /// Deadlines of leases.
    pub clock: LeaseClock,
    revision: AtomicI64,
    applied_index: AtomicU64,
    compaction_done: watch::Sender<i64>,
    /// While somebody reads it, history must not be dropped from the engine.
    pins: RwLock<()>,
}

/// What has to go to the engine next.
pub struct Unstored {
    /// The batch.
    pub batch: Batch,
    /// The revision the engine will have then.
    pub revision: i64,
    /// The place in the log the engine will have then.
    pub applied: Applied,
    /// The compaction the engine will know of then.
    compacted: i64,
    bytes: usize,
}

/// Keeps history from being dropped while it lives.
pub struct Pin<'a>(#[expect(dead_code, reason = "held, not looked at")] RwLockReadGuard<'a, ()>);

impl State {
    /// Reads what the engine has. `None`: it has nothing.
    ///
    /// # Errors
    /// When it cannot be read or holds something else.
    pub fn load(engine: Arc<dyn Engine>) -> Result<Option<Self>, StoreError> {
        Ok(load_inner(engine.clone())?.map(|(inner, done)| Self::with(inner, engine, done)))
    }

    /// The state a group starts with, or, without members, that of one who is about to join.
    #[must_use]
    pub fn founding(engine: Arc<dyn Engine>, membership: Membership, applied: Applied) -> Self {
        let inner = Inner {
            mvcc: Mvcc::empty(engine.clone()),
            shared: Shared {
                membership,
                alarms: Vec::new(),
                applied,
            },
        };
        Self::with(inner, engine, 0)
    }

    fn with(inner: Inner, engine: Arc<dyn Engine>, compaction_done: i64) -> Self {
        Self {
            hub: Hub::new(inner.mvcc.current),
            clock: LeaseClock::default(),
            revision: AtomicI64::new(inner.mvcc.current),
            applied_index: AtomicU64::new(inner.shared.applied.index),
            compaction_done: watch::channel(compaction_done).0,
            pins: RwLock::new(()),
            inner: RwLock::new(inner),
            engine,
        }
    }

    /// The same state by another clock; for the start, before anything waits.
    #[must_use]
    pub fn with_time(mut self, time: Time) -> Self {
        self.clock = LeaseClock::new(time);
        self
    }

    /// What time it is for this member.
    #[must_use]
    pub fn now(&self) -> Instant {
        self.clock.time().now()
    }

    /// Looks at the state. Keep it short: the applying thread waits.
    pub fn read<T>(&self, look: impl FnOnce(&Inner) -> T) -> T {
        look(&self.inner.read())
    }

    /// The newest revision.
    #[must_use]
    pub fn revision(&self) -> i64 {
        self.revision.load(Ordering::Acquire)
    }

    /// Index of the last applied entry.
    #[must_use]
    pub fn applied_index(&self) -> u64 {
        self.applied_index.load(Ordering::Acquire)
    }

    /// Where records are that are not in memory.
    #[must_use]
    pub fn engine(&self) -> &dyn Engine {
        self.engine.as_ref()
    }

    /// Answers a range from this member's state.
    ///
    /// # Errors
    /// When its revision is not there, or the engine fails.
    pub fn range(&self, request: &RangeRequest) -> Result<RangeResponse, StoreError> {
        self.try_while_dropping(|| self.try_range(request))
    }

    fn try_range(&self, request: &RangeRequest) -> Result<RangeResponse, ReadError> {
        let mut selection = self.inner.read().mvcc.select(request)?;
        while selection.has_more() {
            self.inner.read().mvcc.select_more(request, &mut selection)?;
        }
        selection.complete(request, self.engine.as_ref())
    }

    /// Answers a transaction that only reads from this member's state.
    ///
    /// # Errors
    /// When a revision it asks for is not there, or the engine fails.
    pub fn txn_read(&self, request: &TxnRequest) -> Result<TxnResponse, StoreError> {
        self.try_while_dropping(|| {
            let selection = self.inner.read().mvcc.select_txn(request)?;
            selection.complete(self.engine.as_ref())
        })
    }

    /// Reads again when a record was dropped between two steps: it is not the newest any more, or is compacted.
    fn try_while_dropping<T>(&self, read: impl Fn() -> Result<T, ReadError>) -> Result<T, StoreError> {
        let (mut dropped, mut in_vain) = (self.dropped_through(), 0);
        loop {
            match read() {
                Ok(response) => return Ok(response),
                Err(ReadError::Gone) => {}
                Err(ReadError::Store(error)) => return Err(error),
            }
            // Nobody drops anything, and still it is not there: it never comes.
            let now = self.dropped_through();
            in_vain = if now == dropped { in_vain + 1 } else { 0 };
            dropped = now;
            if in_vain > MOST_IN_VAIN {
                return Err(StoreError::Corrupt);
            }
        }
    }

    /// Applies committed entries: `apply` is given the locked state. Watchers are told afterwards.
    pub fn apply<T>(&self, apply: impl FnOnce(&mut Inner) -> T) -> T {
        let (result, news) = {
            let mut inner = self.inner.write();
            let before = inner.mvcc.current;
            let result = apply(&mut inner);
            let news: Vec<Arc<Change>> = inner.mvcc.recent.since(before + 1).cloned().collect();
            self.revision.store(inner.mvcc.current, Ordering::Release);
            self.applied_index
                .store(inner.shared.applied.index, Ordering::Release);
            (result, news)
        };
        if !news.is_empty() {
            self.hub.publish(&news);
        }
        result
    }

    /// What the engine does not have yet.
    #[must_use]
    pub fn unstored(&self) -> Unstored {
        let (changes, leases, revision, applied, compacted, stored) = {
            let mut inner = self.inner.write();
            let leases = inner.mvcc.leases.take_changed();
            (
                inner.mvcc.recent.unstored(),
                leases,
                inner.mvcc.current,
                inner.shared.applied,
                inner.mvcc.compacted,
                encode_state(&inner),
            )
        };
        let bytes = changes.iter().map(|change| change.bytes()).sum();
        let mut batch = Batch::default();
        for (key, value) in leases {
            match value {
                Some(value) => batch.put(key, value),
                None => batch.remove(key),
            }
        }
        schema::add_records(&mut batch, || changes.iter().flat_map(|change| &change.records));
        batch.put(schema::STATE_KEY.to_vec(), stored);
        Unstored {
            batch,
            revision,
            applied,
            compacted,
            bytes,
        }
    }

    /// Size of the changes that the engine does not have yet.
    #[must_use]
    pub fn unstored_bytes(&self) -> usize {
        self.inner.read().mvcc.recent.unstored_bytes()
    }

    /// The engine has them now.
    pub fn mark_stored(&self, stored: &Unstored) {
        let mvcc = &mut self.inner.write().mvcc;
        mvcc.recent.mark_stored(stored.revision, stored.bytes);
        mvcc.compaction_stored = stored.compacted;
    }

    /// Drops a few records that no reader may ask for any more. Whether there is more to do.
    ///
    /// # Errors
    /// When the engine fails.
    pub fn compact_step(&self) -> Result<bool, StoreError> {
        let Some(_dropping) = self.pins.try_write() else {
            return Ok(false);
        };
        let until = self.read(|inner| inner.mvcc.compaction_stored);
        let done = *self.compaction_done.borrow();
        if done >= until {
            return Ok(false);
        }
        let (mut gone, mut through) = (Vec::new(), done);
        for _ in 0..compact::STEPS_TOGETHER {
            if through >= until || gone.len() >= compact::REMOVED_TOGETHER {
                break;
            }
            let step = compact::next_step(self.engine.as_ref(), through, until)?;
            through = step.through;
            gone.extend(self.inner.write().mvcc.drop_history(&step, until));
        }
        gone.sort_unstable();
        // One key may have had very many changes.
        let mut parts = gone.chunks(compact::REMOVED_TOGETHER).peekable();
        loop {
            let part = parts.next().unwrap_or_default();
            let last = parts.peek().is_none();
            self.engine
                .commit(compact::removal(part, last.then_some(through)))?;
            if last {
                break;
            }
        }
        self.compaction_done.send_replace(through);
        Ok(through < until)
    }

    /// Revision up to which history has been dropped from the engine.
    #[must_use]
    pub fn dropped_through(&self) -> i64 {
        *self.compaction_done.borrow()
    }

    /// Waits until records before a revision are gone from the engine.
    pub async fn compaction_done(&self, revision: i64) {
        let mut done = self.compaction_done.subscribe();
        // The sender lives as long as the state: this cannot fail while anyone waits.
        let _ = done.wait_for(|done| *done >= revision).await;
    }

    /// Keeps history from being dropped while the pin lives; waits for what is just being dropped.
    pub fn pin(&self) -> Pin<'_> {
        // Not behind those who want to drop: they only try.
        Pin(self.pins.read_recursive())
    }

    /// Computes the checksum over the history at a revision; 0 is now.
    ///
    /// # Errors
    /// When the revision is not there, or a record cannot be read.
    pub fn hash(&self, revision: i64) -> Result<HistoryHash, StoreError> {
        hash::hash(&History::capture(self), revision)
    }

    /// Puts the state of the prepared folder `with` in place of this one. Watchers catch up from it.
    ///
    /// # Errors
    /// When it cannot be opened or read.
    pub fn replace(&self, with: &std::path::Path) -> Result<(), StoreError> {
        let mut inner = self.inner.write();
        self.engine.replace(with)?;
        let (loaded, done) = load_inner(self.engine.clone())?.ok_or(StoreError::Corrupt)?;
        self.revision.store(loaded.mvcc.current, Ordering::Release);
        self.applied_index
            .store(loaded.shared.applied.index, Ordering::Release);
        self.compaction_done.send_replace(done);
        self.hub.jump(loaded.mvcc.current);
        *inner = loaded;
        Ok(())
    }
}

impl Inner {
    /// Applies one proposal, from an entry of `term`.
    ///
    /// # Errors
    /// What the client is told; the state is unchanged then. [`StoreError::Storage`] and
    /// [`StoreError::Corrupt`] mean that this member can not go on.
    pub fn apply(
        &mut self,
        proposal: Proposal,
        term: u64,
        clock: &LeaseClock,
    ) -> Result<Outcome, StoreError> {
        match proposal.operation {
            Some(Operation::Put(request)) => {
                self.refuse_when_full()?;
                self.mvcc.put(request).map(Outcome::Put)
            }
            Some(Operation::DeleteRange(request)) => {
                self.mvcc.delete_range(&request).map(Outcome::DeleteRange)
            }
            Some(Operation::Txn(request)) => {
                if crate::mvcc::write::may_put(&request) {
                    self.refuse_when_full()?;
                }
                self.mvcc.txn(request).map(Outcome::Txn)
            }
            Some(Operation::Compaction(request)) => {
                if request.revision <= self.mvcc.compacted {
                    return Err(StoreError::Compacted);
                }
                if request.revision > self.mvcc.current {
                    return Err(StoreError::FutureRevision);
                }
                self.mvcc.compacted = request.revision;
                Ok(Outcome::Compaction(CompactionResponse {
                    header: self.header(),
                }))
            }
            Some(Operation::LeaseGrant(request)) => {
                self.refuse_when_full()?;
                if request.ttl > lease::MAX_TTL {
                    return Err(StoreError::LeaseTtlTooLarge);
                }
                if !self.mvcc.leases.grant(request.id, request.ttl) {
                    return Err(StoreError::LeaseExists);
                }
                clock.granted(request.id, request.ttl);
                Ok(Outcome::LeaseGrant(LeaseGrantResponse {
                    header: self.header(),
                    id: request.id,
                    ttl: request.ttl,
                    error: String::new(),
                }))
            }
            Some(Operation::LeaseRevoke(request)) => {
                self.revoke(request.id, clock)?;
                Ok(Outcome::LeaseRevoke(LeaseRevokeResponse {
                    header: self.header(),
                }))
            }
            Some(Operation::LeaseExpiry(expiry)) => {
                // Of a leader who was deposed before this was agreed on: its successor gave the lease its time again.
                if expiry.term == term {
                    self.revoke(expiry.id, clock)?;
                }
                Ok(Outcome::Done)
            }
            Some(Operation::Alarm(request)) => Ok(Outcome::Alarm(self.alarm(&request))),
            Some(Operation::MemberUpdate(member)) => self.update_member(member),
            None => Ok(Outcome::Done),
        }
    }

    fn header(&self) -> Option<etcd::ResponseHeader> {
        Some(etcd::ResponseHeader {
            revision: self.mvcc.current,
            ..etcd::ResponseHeader::default()
        })
    }

    fn revoke(&mut self, lease: i64, clock: &LeaseClock) -> Result<(), StoreError> {
        let keys = self.mvcc.leases.revoke(lease).ok_or(StoreError::LeaseNotFound)?;
        clock.revoked(lease);
        self.mvcc.delete_keys(keys.iter().map(AsRef::as_ref));
        Ok(())
    }

    /// Whether the quota's alarm is raised.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.shared
            .alarms
            .iter()
            .any(|alarm| alarm.alarm() == AlarmType::Nospace)
    }

    fn refuse_when_full(&self) -> Result<(), StoreError> {
        if self.is_full() {
            return Err(StoreError::NoSpace);
        }
        Ok(())
    }

    fn alarm(&mut self, request: &AlarmRequest) -> AlarmResponse {
        let alarms = &mut self.shared.alarms;
        let matches = |alarm: &AlarmMember| {
            (request.member_id == 0 || alarm.member_id == request.member_id)
                && (request.alarm() == AlarmType::None || alarm.alarm() == request.alarm())
        };
        let affected = match request.action() {
            AlarmAction::Get => alarms.iter().filter(|alarm| matches(alarm)).cloned().collect(),
            AlarmAction::Activate => {
                let raised = AlarmMember {
                    member_id: request.member_id,
                    alarm: request.alarm,
                };
                if !alarms.contains(&raised) {
                    alarms.push(raised);
                }
                vec![raised]
            }
            AlarmAction::Deactivate => alarms.extract_if(.., |alarm| matches(alarm)).collect(),
        };
        AlarmResponse {
            header: self.header(),
            alarms: affected,
        }
    }

    fn update_member(&mut self, member: StoredMember) -> Result<Outcome, StoreError> {
        let membership = &mut self.shared.membership;
        membership.check_urls(&member)?;
        let known = membership
            .members
            .get_mut(&member.id)
            .ok_or(StoreError::MemberNotFound)?;
        // A member publishes its name and client URLs; an administrator changes peer URLs.
        if !member.name.is_empty() {
            known.name = member.name;
            known.client_urls = member.client_urls;
        }
        if !member.peer_urls.is_empty() {
            known.peer_urls = member.peer_urls;
        }
        Ok(Outcome::Members(self.shared.membership.to_etcd()))
    }
}

/// The rest of the state as it is stored.
#[must_use]
pub fn encode_state(inner: &Inner) -> bytes::Bytes {
    use prost::Message;
    let membership = &inner.shared.membership;
    let conf = &membership.conf_state;
    StoredState {
        cluster_id: membership.cluster_id,
        applied_index: inner.shared.applied.index,
        applied_term: inner.shared.applied.term,
        revision: inner.mvcc.current,
        compacted: inner.mvcc.compacted,
        members: membership.members.values().cloned().collect(),
        removed: membership.removed.iter().copied().collect(),
        voters: conf.voters.clone(),
        learners: conf.learners.clone(),
        voters_outgoing: conf.voters_outgoing.clone(),
        learners_next: conf.learners_next.clone(),
        auto_leave: conf.auto_leave,
        alarms: inner.shared.alarms.clone(),
    }
    .encode_to_vec()
    .into()
}

fn load_inner(engine: Arc<dyn Engine>) -> Result<Option<(Inner, i64)>, StoreError> {
    use prost::Message;
    let Some(encoded) = engine.get(schema::STATE_KEY)? else {
        return Ok(None);
    };
    let stored = StoredState::decode(encoded).map_err(|_| StoreError::Corrupt)?;
    let mut mvcc = Mvcc::empty(engine.clone());
    mvcc.current = stored.revision;
    mvcc.compacted = stored.compacted;
    mvcc.compaction_stored = stored.compacted;
    mvcc.recent = Recent::new(stored.revision);

    let (from, to) = schema::lease_bounds();
    engine.scan(&from, &to, &mut |key, value| {
        if let (Some(id), Ok(ttl)) = (schema::parse_lease_key(key), value.try_into()) {
            mvcc.leases.restore(id, i64::from_be_bytes(ttl));
        }
        ControlFlow::Continue(())
    })?;
    let mut damaged = false;
    let from = schema::meta_key(Revision::default());
    let to = schema::meta_key(Revision::start_of(i64::MAX));
    engine.scan(&from, &to, &mut |key, value| {
        let Some(meta) = schema::decode_meta(key, value) else {
            damaged = true;
            return ControlFlow::Break(());
        };
        let Stamp { revision, deleted } = meta.stamp;
        mvcc.index
            .restore(&meta.key, Stamp { revision, deleted }, meta.life);
        ControlFlow::Continue(())
    })?;
    if damaged {
        return Err(StoreError::Corrupt);
    }
    for (key, item) in mvcc.index.all() {
        if let Some((_, life)) = item.alive() {
            mvcc.leases.attach(key, 0, life.lease);
        }
    }
    let done = match engine.get(schema::COMPACTION_DONE_KEY)? {
        Some(done) => i64::from_be_bytes(done[..].try_into().map_err(|_| StoreError::Corrupt)?),
        None => 0,
    };
    let conf_state = raft::eraftpb::ConfState {
        voters: stored.voters,
        learners: stored.learners,
        voters_outgoing: stored.voters_outgoing,
        learners_next: stored.learners_next,
        auto_leave: stored.auto_leave,
        ..Default::default()
    };
    let shared = Shared {
        membership: Membership {
            cluster_id: stored.cluster_id,
            members: stored
                .members
                .into_iter()
                .map(|member| (member.id, member))
                .collect(),
            removed: stored.removed.into_iter().collect(),
            conf_state,
        },
        alarms: stored.alarms,
        applied: Applied {
            index: stored.applied_index,
            term: stored.applied_term,
        },
    };
    Ok(Some((Inner { mvcc, shared }, done)))
}
