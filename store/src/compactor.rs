//! Dropping history by itself: `--auto-compaction-mode` and `--auto-compaction-retention`.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use keelson_proto::etcd::CompactionRequest;
use keelson_proto::store::proposal::Operation;
use tokio_util::sync::CancellationToken;

use crate::config::AutoCompaction;
use crate::error::StoreError;
use crate::raft::handle::RaftHandle;
use crate::state::State;

/// How often the revisions are looked at; etcd's interval.
const REVISIONS_EVERY: Duration = Duration::from_secs(300);

/// Which revision may be dropped to, by a record of when there was which.
struct Past {
    retention: Duration,
    samples: VecDeque<(Instant, i64)>,
}

impl Past {
    /// The newest revision that is old enough, after taking note of the present one.
    fn sample(&mut self, now: Instant, revision: i64) -> Option<i64> {
        self.samples.push_back((now, revision));
        let mut target = None;
        while let Some((at, revision)) = self.samples.front().copied()
            && now.duration_since(at) >= self.retention
        {
            target = Some(revision);
            self.samples.pop_front();
        }
        target
    }
}

/// Compacts until the member stops. Only the leader does.
pub async fn run(state: Arc<State>, raft: RaftHandle, mode: AutoCompaction, shutdown: CancellationToken) {
    let every = match mode {
        AutoCompaction::Off => return,
        AutoCompaction::Revisions(_) => REVISIONS_EVERY,
        AutoCompaction::Periodic(retention) => {
            (retention / 10).clamp(Duration::from_secs(1), REVISIONS_EVERY)
        }
    };
    let mut past = match mode {
        AutoCompaction::Periodic(retention) => Some(Past {
            retention,
            samples: VecDeque::new(),
        }),
        _ => None,
    };
    let mut clock = tokio::time::interval(every);
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            _ = clock.tick() => {}
        }
        let revision = state.revision();
        let target = match (&mut past, mode) {
            (Some(past), _) => past.sample(Instant::now(), revision),
            (None, AutoCompaction::Revisions(keep)) => Some(revision - keep),
            _ => None,
        };
        let compacted = state.read(|inner| inner.mvcc.compacted);
        let Some(target) = target.filter(|target| *target > compacted.max(0)) else {
            continue;
        };
        if raft.leadership.leader() != raft.member {
            continue;
        }
        let request = CompactionRequest {
            revision: target,
            physical: false,
        };
        match raft.propose(Operation::Compaction(request)).await {
            Ok(_) => tracing::info!(revision = target, "dropped history"),
            // A client was faster.
            Err(StoreError::Compacted) => {}
            Err(error) => tracing::warn!(revision = target, %error, "dropping history"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_old_enough_goes() {
        let start = Instant::now();
        let mut past = Past {
            retention: Duration::from_secs(60),
            samples: VecDeque::new(),
        };
        let at = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(past.sample(at(0), 10), None);
        assert_eq!(past.sample(at(30), 20), None);
        assert_eq!(past.sample(at(61), 30), Some(10));
        assert_eq!(past.sample(at(200), 40), Some(30));
        assert_eq!(past.sample(at(201), 50), None);
    }
}
