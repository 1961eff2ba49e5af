//! A store that is killed without a warning has every write that it acknowledged.

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use common::{Member, put, range};

const WRITERS: u64 = 16;
const ROUNDS: usize = 3;

#[tokio::test(flavor = "multi_thread")]
async fn every_acknowledged_write_survives_kill_9() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let mut member = Member::new("crash", folder.path())?.started().await?;
    // The last number that was acknowledged to each writer.
    let acknowledged: Arc<Vec<AtomicU64>> = Arc::new((0..WRITERS).map(|_| AtomicU64::new(0)).collect());
    for round in 0..ROUNDS {
        let mut writers = Vec::new();
        for writer in 0..WRITERS {
            let mut kv = member.kv().await?;
            let acknowledged = acknowledged.clone();
            writers.push(tokio::spawn(async move {
                let own = &acknowledged[writer as usize];
                for number in own.load(Ordering::SeqCst) + 1.. {
                    let value = format!("{number}:{}", "x".repeat(8000));
                    if kv
                        .put(put(&format!("w/{writer:02}/{number:08}"), value))
                        .await
                        .is_err()
                    {
                        return;
                    }
                    own.store(number, Ordering::SeqCst);
                }
            }));
        }
        // Once soon after the start, later in the middle of storing and segments.
        tokio::time::sleep(Duration::from_millis(400 + 900 * round as u64)).await;
        member.kill();
        for writer in writers {
            writer.await?;
        }
        member.start()?;
        member.wait_ready().await?;
        let mut kv = member.kv().await?;
        let response = kv.range(range("w/", "w0")).await?.into_inner();
        let found: std::collections::HashSet<String> = response
            .kvs
            .iter()
            .map(|kv| String::from_utf8_lossy(&kv.key).into_owned())
            .collect();
        let mut total = 0;
        for writer in 0..WRITERS {
            let last = acknowledged[writer as usize].load(Ordering::SeqCst);
            total += last;
            for number in 1..=last {
                let key = format!("w/{writer:02}/{number:08}");
                assert!(
                    found.contains(&key),
                    "round {round}: {key} was acknowledged and is gone"
                );
            }
        }
        for kv in &response.kvs {
            let key = String::from_utf8_lossy(&kv.key).into_owned();
            let number: u64 = key.rsplit('/').next().unwrap_or_default().parse()?;
            assert!(
                kv.value.starts_with(format!("{number}:").as_bytes()),
                "{key} has another's value"
            );
        }
        println!("round {round}: {total} acknowledged writes, all there");
        assert!(total > 0);
    }
    member.stop()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clean_stop_and_start_keeps_everything() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let mut member = Member::new("clean", folder.path())?.started().await?;
    let mut kv = member.kv().await?;
    for number in 0..50 {
        kv.put(put(&format!("k{number:02}"), vec![b'v'; 100])).await?;
    }
    let before = kv.range(range("k", "l")).await?.into_inner();
    for _ in 0..2 {
        member.stop()?;
        member.start()?;
        member.wait_ready().await?;
        let after = member.kv().await?.range(range("k", "l")).await?.into_inner();
        assert_eq!(after.kvs, before.kvs);
    }
    Ok(())
}
