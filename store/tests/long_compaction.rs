//! While much history is dropped, the engine is asked again and again to give back memory.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::channel;

use bytes::Bytes;
use keelson_proto::etcd::PutRequest;
use keelson_store::backup::FOUNDING;
use keelson_store::cluster::Membership;
use keelson_store::engine::memory::MemoryEngine;
use keelson_store::engine::{Batch, Engine, EngineError, Pressure, Visitor};
use keelson_store::persist::{self, DiskRoom};
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

#[test]
fn memory_is_given_back_while_history_is_dropped() -> anyhow::Result<()> {
    const CHANGES: i64 = 100_000;
    let engine = Arc::new(Counting::default());
    let state = Arc::new(State::founding(engine.clone(), Membership::default(), FOUNDING));
    let (commands, _listening) = channel();
    let handle = RaftHandle::numbering_from(commands, Arc::new(Leadership::default()), 1, 1);
    let (_persister, mut worker) = persist::persister(state.clone(), handle, Box::new(Roomy), 0);
    for change in 0..CHANGES {
        state.apply(|inner| {
            inner.shared.applied.index += 1;
            inner.mvcc.put(PutRequest {
                key: format!("k{}", change % 10_000).into(),
                value: "v".into(),
                ..PutRequest::default()
            })
        })?;
        if change % 1000 == 0 {
            worker.look()?;
        }
    }
    state.apply(|inner| inner.mvcc.compacted = inner.mvcc.current);
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
