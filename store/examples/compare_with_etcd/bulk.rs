//! Much data: filling, overwriting with compaction.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use keelson_proto::etcd::kv_client::KvClient;
use keelson_proto::etcd::maintenance_client::MaintenanceClient;
use keelson_proto::etcd::{CompactionRequest, StatusRequest};

use crate::group::Group;
use crate::requests::{WORKING_KEYS, get, puts};

/// Callers at a time.
const CALLERS: u64 = 16;
/// Puts in a transaction; etcd takes 128, and 1.5 MiB.
const PUTS: u64 = 100;
/// Overwrites between two compactions.
const COMPACT_EVERY: u64 = 100_000;
/// History that a compaction leaves.
const HISTORY: i64 = 1_000;

/// Puts keys of these numbers, many in a transaction.
pub async fn fill(group: &Group, from: u64, to: u64, size: usize) -> anyhow::Result<()> {
    let next = Arc::new(AtomicU64::new(from));
    let mut tasks = Vec::new();
    for caller in 0..CALLERS {
        let mut kv = KvClient::new(group.connect(caller as usize).await?);
        let next = next.clone();
        tasks.push(tokio::spawn(async move {
            loop {
                let first = next.fetch_add(PUTS, Ordering::Relaxed);
                if first >= to {
                    return Ok::<_, tonic::Status>(());
                }
                kv.txn(puts(first..(first + PUTS).min(to), size)).await?;
            }
        }));
    }
    for task in tasks {
        task.await??;
    }
    Ok(())
}

/// Overwrites the working keys so many times in all, and compacts now and then, as an apiserver does every five minutes.
pub async fn overwrite(group: &Group, times: u64, size: usize) -> anyhow::Result<()> {
    let mut kv = KvClient::new(group.connect(0).await?);
    let mut done = 0;
    while done < times {
        let to = (done + COMPACT_EVERY).min(times);
        let next = Arc::new(AtomicU64::new(done));
        let mut tasks = Vec::new();
        for caller in 0..CALLERS {
            let mut kv = KvClient::new(group.connect(caller as usize).await?);
            let next = next.clone();
            tasks.push(tokio::spawn(async move {
                loop {
                    let first = next.fetch_add(PUTS, Ordering::Relaxed);
                    if first >= to {
                        return Ok::<_, tonic::Status>(());
                    }
                    // The step spreads the keys of a transaction over all, and never names one twice.
                    let numbers = first..(first + PUTS).min(to);
                    kv.txn(puts(numbers.map(|number| number * 7919 % WORKING_KEYS), size))
                        .await?;
                }
            }));
        }
        for task in tasks {
            task.await??;
        }
        done = to;
        let newest = kv.range(get(0)).await?.into_inner().header;
        let newest = newest.map_or(0, |header| header.revision);
        kv.compact(CompactionRequest {
            revision: newest - HISTORY / PUTS as i64,
            physical: false,
        })
        .await?;
    }
    Ok(())
}

/// What a member says of its database: its size, and how much of that is in use.
pub async fn told_mib(group: &Group) -> anyhow::Result<(f64, f64)> {
    let mut maintenance = MaintenanceClient::new(group.connect(0).await?);
    let status = maintenance.status(StatusRequest {}).await?.into_inner();
    let mib = |bytes: i64| bytes as f64 / f64::from(1 << 20);
    Ok((mib(status.db_size), mib(status.db_size_in_use)))
}
