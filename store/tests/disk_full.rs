//! A full disk: writes are refused, reads are served, and room brings writes back. Needs root, for a small
//! file system of its own.

mod common;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::bail;
use common::{Member, get, put};
use keelson_proto::etcd::{CompactionRequest, DeleteRangeRequest};

struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(path: &Path) -> anyhow::Result<Self> {
        std::fs::create_dir_all(path)?;
        let status = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=64m", "tmpfs"])
            .arg(path)
            .status()?;
        if !status.success() {
            bail!("mounting a tmpfs needs root");
        }
        Ok(Self(path.to_owned()))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_refuses_writes_and_serves_reads() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let disk = SmallDisk::mount(&folder.path().join("disk"))?;
    let mut member = Member::new("full", &disk.0)?;
    // The log of the process must not be what fills the disk.
    member.more.push("--log-level=warn".into());
    let mut member = member.started().await?;
    let mut kv = member.kv().await?;
    kv.put(put("first", "kept")).await?;

    // Something else takes the room.
    let hog = disk.0.join("hog");
    std::fs::write(&hog, vec![1_u8; 30 << 20])?;
    let mut refused = None;
    let deadline = Instant::now() + Duration::from_secs(60);
    let mut number = 0_u64;
    let mut acknowledged = 0;
    while refused.is_none() && Instant::now() < deadline {
        number += 1;
        // Not compressible, and different every time.
        let mut seed = number;
        let value: Vec<u8> = (0..20_000)
            .map(|_| {
                seed = seed
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1_442_695_040_888_963_407);
                (seed >> 33) as u8
            })
            .collect();
        match kv.put(put(&format!("k{number:06}"), value)).await {
            Ok(_) => acknowledged = number,
            Err(status) => refused = Some(status),
        }
    }
    let status = refused.expect("the disk has 64 MiB");
    assert_eq!(status.code(), tonic::Code::ResourceExhausted);
    assert_eq!(status.message(), "etcdserver: mvcc: database space exceeded");

    assert_eq!(get(&mut kv, "first").await?.as_deref(), Some("kept"));
    assert!(get(&mut kv, &format!("k{acknowledged:06}")).await?.is_some());
    // What makes room is still done.
    kv.delete_range(DeleteRangeRequest {
        key: "k000001".into(),
        ..DeleteRangeRequest::default()
    })
    .await?;
    let revision = kv
        .range(common::range("first", ""))
        .await?
        .into_inner()
        .header
        .map_or(0, |header| header.revision);
    kv.compact(CompactionRequest {
        revision,
        physical: false,
    })
    .await?;

    // It even starts on the full disk.
    member.kill();
    member.start()?;
    member.wait_ready().await?;
    let mut kv = member.kv().await?;
    assert_eq!(get(&mut kv, "first").await?.as_deref(), Some("kept"));
    assert!(get(&mut kv, &format!("k{acknowledged:06}")).await?.is_some());
    assert!(get(&mut kv, "k000001").await?.is_none());

    std::fs::remove_file(&hog)?;
    let deadline = Instant::now() + Duration::from_secs(20);
    while let Err(status) = kv.put(put("again", "yes")).await {
        assert!(Instant::now() < deadline, "still refused: {status}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(get(&mut kv, "again").await?.as_deref(), Some("yes"));
    member.stop()
}
