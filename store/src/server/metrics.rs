//! What Prometheus reads, under etcd's names where the figure is the same.

use std::sync::Arc;

use keelson_daemon::metrics::Metrics;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::gauge::ConstGauge;

use crate::raft::handle::Leadership;
use crate::state::State;
use crate::wal::SyncTimes;
use crate::wal::sync_times::BOUNDS_MICROS;

#[derive(Debug)]
struct Figures(Arc<Sources>);

struct Sources {
    state: Arc<State>,
    leadership: Arc<Leadership>,
    member: u64,
    syncs: Arc<SyncTimes>,
}

impl std::fmt::Debug for Sources {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sources").field("member", &self.member).finish()
    }
}

/// Registers the store's figures.
pub fn register(
    metrics: &Metrics,
    state: Arc<State>,
    leadership: Arc<Leadership>,
    member: u64,
    syncs: Arc<SyncTimes>,
) {
    let figures = Figures(Arc::new(Sources {
        state,
        leadership,
        member,
        syncs,
    }));
    metrics.register(|registry| registry.register_collector(Box::new(figures)));
}

impl Collector for Figures {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let sources = &self.0;
        let (keys, leases, unstored, compacted) = sources.state.read(|inner| {
            let mvcc = &inner.mvcc;
            (
                mvcc.index.len(),
                mvcc.leases.all().count(),
                mvcc.recent.unstored_bytes(),
                mvcc.compacted,
            )
        });
        let leader = sources.leadership.leader();
        let figures: [(&str, &str, u64); 11] = [
            (
                "etcd_server_has_leader",
                "Whether a leader exists",
                u64::from(leader != 0),
            ),
            (
                "etcd_server_is_leader",
                "Whether this member leads",
                u64::from(leader == sources.member),
            ),
            (
                "etcd_server_proposals_committed_total",
                "Index of the last committed entry",
                sources.leadership.committed(),
            ),
            (
                "etcd_server_proposals_applied_total",
                "Index of the last applied entry",
                sources.state.applied_index(),
            ),
            (
                "etcd_debugging_mvcc_current_revision",
                "The newest revision",
                sources.state.revision().unsigned_abs(),
            ),
            (
                "etcd_debugging_mvcc_compact_revision",
                "Revision of the last compaction",
                compacted.unsigned_abs(),
            ),
            (
                "etcd_debugging_mvcc_keys_total",
                "Keys with a history",
                keys as u64,
            ),
            ("etcd_debugging_lease_total", "Leases", leases as u64),
            (
                "etcd_mvcc_db_total_size_in_bytes",
                "Size of the applied state on disk",
                sources.state.engine().disk_bytes(),
            ),
            (
                "keelson_store_unstored_bytes",
                "Changes in memory that the applied state on disk does not have yet",
                unstored as u64,
            ),
            (
                "keelson_store_disk_full",
                "Whether writes are refused for want of room on the disk",
                u64::from(sources.leadership.disk_full()),
            ),
        ];
        for (name, help, value) in figures {
            let gauge = ConstGauge::new(value);
            let metric = encoder.encode_descriptor(name, help, None, gauge.metric_type())?;
            gauge.encode(metric)?;
        }
        let syncs = &sources.syncs;
        let bounds = BOUNDS_MICROS.iter().map(|micros| *micros as f64 / 1e6);
        let buckets: Vec<(f64, u64)> = bounds.chain([f64::MAX]).zip(syncs.counts()).collect();
        let count = buckets.iter().map(|(_, count)| count).sum();
        encoder
            .encode_descriptor(
                "etcd_disk_wal_fsync_duration_seconds",
                "How long the disk takes to make a write of the log durable",
                None,
                MetricType::Histogram,
            )?
            .encode_histogram::<NoLabelSet>(syncs.seconds(), count, &buckets, None)?;
        Ok(())
    }
}
