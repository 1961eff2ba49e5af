//! A quota that is used up refuses what grows, lets through what shrinks, and is no dead end.

mod common;

use std::time::{Duration, Instant};

use common::{Member, get, put};
use keelson_proto::etcd::maintenance_client::MaintenanceClient;
use keelson_proto::etcd::{CompactionRequest, DeleteRangeRequest, StatusRequest};
use tonic::Code;

#[tokio::test(flavor = "multi_thread")]
async fn deleting_and_compacting_is_enough_to_go_on() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let mut member = Member::new("quota", folder.path())?;
    member.more.push("--quota-backend-bytes=12000000".into());
    let mut member = member.started().await?;
    let mut kv = member.kv().await?;
    // Nothing that compresses.
    let value = |number: u64| -> Vec<u8> {
        let mut state = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        (0..100_000)
            .map(|_| {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                state as u8
            })
            .collect()
    };
    let mut number = 0;
    let refused = loop {
        match kv.put(put(&format!("k{number:04}"), value(number))).await {
            Ok(_) => number += 1,
            Err(status) => break status,
        }
        assert!(number < 2_000, "the quota is never used up");
    };
    assert_eq!(refused.code(), Code::ResourceExhausted);
    assert_eq!(refused.message(), "etcdserver: mvcc: database space exceeded");
    assert!(get(&mut kv, "k0000").await?.is_some());

    let deleted = kv
        .delete_range(DeleteRangeRequest {
            key: "k".into(),
            range_end: "l".into(),
            ..DeleteRangeRequest::default()
        })
        .await?
        .into_inner();
    assert_eq!(deleted.deleted, number as i64);
    let revision = deleted.header.map_or(0, |header| header.revision);
    kv.compact(CompactionRequest {
        revision,
        physical: true,
    })
    .await?;
    let deadline = Instant::now() + Duration::from_secs(60);
    while let Err(status) = kv.put(put("again", "1")).await {
        let now = MaintenanceClient::new(member.channel().await?)
            .status(StatusRequest {})
            .await?
            .into_inner();
        assert!(Instant::now() < deadline, "{status}: {now:?}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    member.stop()
}
