//! Dropping history: what it costs, and what is left of it after a crash.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::channel;

use anyhow::Context as _;
use bytes::Bytes;
use keelson_proto::etcd::{PutRequest, RangeRequest};
use keelson_store::backup::FOUNDING;
use keelson_store::cluster::Membership;
use keelson_store::engine::memory::MemoryEngine;
use keelson_store::engine::{Batch, Engine, EngineError, Pressure, Visitor};
use keelson_store::error::StoreError;
use keelson_store::persist::{self, DiskRoom, Worker};
use keelson_store::raft::handle::{Leadership, RaftHandle};
use keelson_store::state::State;

/// An engine that counts what was committed since it was last asked to give back memory.
#[derive(Default)]
struct Counting {
    inner: MemoryEngine,
    since: AtomicUsize,
    most: AtomicUsize,
}

impl Engine for Counting {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, EngineError> {
        self.inner.get(key)
    }

    fn scan(&self, from: &[u8], to: &[u8], visit: &mut Visitor<'_>) -> Result<(), EngineError> {
        self.inner.scan(from, to, visit)
    }

    fn commit(&self, batch: Batch) -> Result<(), EngineError> {
        let since = self.since.fetch_add(batch.writes.len(), Ordering::Relaxed) + batch.writes.len();
        self.most.fetch_max(since, Ordering::Relaxed);
        self.inner.commit(batch)
    }

    fn trim(&self, _: Pressure) -> Result<(), EngineError> {
        self.since.store(0, Ordering::Relaxed);
        Ok(())
    }

    fn disk_bytes(&self) -> u64 {
        0
    }

    fn replace(&self, with: &Path) -> Result<(), EngineError> {
        self.inner.replace(with)
    }
}

struct Roomy;

impl DiskRoom for Roomy {
    fn free_bytes(&self) -> Option<u64> {
        None
    }

    fn prepare_segment(&self) -> bool {
        true
    }
}

/// A state in an engine, and who brings it there.
fn member(engine: Arc<dyn Engine>) -> (Arc<State>, Worker) {
    let state = Arc::new(State::founding(engine, Membership::default(), FOUNDING));
    let (commands, _) = channel();
    let handle = RaftHandle::numbering_from(commands, Arc::new(Leadership::default()), 1, 1);
    let (_, worker) = persist::persister(state.clone(), handle, Box::new(Roomy), 0);
    (state, worker)
}

fn put(state: &State, key: &str, value: &str) -> Result<(), StoreError> {
    let request = PutRequest {
        key: key.to_owned().into(),
        value: value.to_owned().into(),
        ..PutRequest::default()
    };
    state.apply(|inner| {
        inner.shared.applied.index += 1;
        inner.mvcc.put(request).map(drop)
    })
}

fn compact(state: &State, revision: i64) {
    state.apply(|inner| {
        inner.shared.applied.index += 1;
        inner.mvcc.compacted = revision;
    });
}

/// A member that starts again is told of a compaction by the log, later than it may be asked.
#[test]
fn after_a_crash_nobody_reads_history_that_was_dropped() -> anyhow::Result<()> {
    let engine = Arc::new(MemoryEngine::default());
    let (state, mut worker) = member(engine.clone());
    for value in 2..10 {
        put(&state, "k", &value.to_string())?;
    }
    // The first compaction brings all that to the engine, the second is of what is there.
    for revision in [3, 7] {
        compact(&state, revision);
        worker.look()?;
        assert_eq!(state.dropped_through(), revision);
        let again = State::load(engine.clone())?.context("nothing is there")?;
        let old = RangeRequest {
            key: "k".into(),
            revision: revision - 1,
            ..RangeRequest::default()
        };
        assert_eq!(again.range(&old).map(|_| ()), Err(StoreError::Compacted));
    }
    Ok(())
}

#[test]
fn memory_is_given_back_while_history_is_dropped() -> anyhow::Result<()> {
    const CHANGES: i64 = 100_000;
    let engine = Arc::new(Counting::default());
    let (state, mut worker) = member(engine.clone());
    for change in 0..CHANGES {
        put(&state, &format!("k{}", change % 10_000), "v")?;
        if change % 1000 == 0 {
            worker.look()?;
        }
    }
    compact(&state, state.revision());
    engine.most.store(0, Ordering::Relaxed);
    worker.look()?;
    let mut left = 0;
    engine.scan(b"m", b"n", &mut |_, _| {
        left += 1;
        ControlFlow::Continue(())
    })?;
    assert_eq!(left, 10_000, "history is left");
    let most = engine.most.load(Ordering::Relaxed);
    assert!(
        most < 110_000,
        "{most} records were written without memory being given back"
    );
    Ok(())
}
