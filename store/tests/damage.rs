//! Members whose files are damaged: repaired from the log or from another member, or refused with instructions.

mod common;

use std::path::{Path, PathBuf};

use common::{Member, get, put, range};
use keelson_proto::etcd::HashKvRequest;
use keelson_proto::etcd::maintenance_client::MaintenanceClient;

fn files(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            found.extend(files(&entry.path())?);
        } else {
            found.push(entry.path());
        }
    }
    Ok(found)
}

/// Turns a bit in every byte that is not zero.
fn ruin(folder: &Path) -> anyhow::Result<()> {
    for file in files(folder)? {
        let content = std::fs::read(&file)?;
        let ruined: Vec<u8> = content
            .iter()
            .map(|byte| if *byte == 0 { 0 } else { byte ^ 0x20 })
            .collect();
        std::fs::write(&file, ruined)?;
    }
    Ok(())
}

async fn hash(member: &Member) -> anyhow::Result<(u32, i64)> {
    get(&mut member.kv().await?, "k00").await?;
    let hash = MaintenanceClient::new(member.channel().await?)
        .hash_kv(HashKvRequest { revision: 0 })
        .await?
        .into_inner();
    Ok((hash.hash, hash.hash_revision))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_young_member_makes_its_state_anew_from_the_log() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let mut member = Member::new("young", folder.path())?.started().await?;
    for number in 0..20 {
        member.kv().await?.put(put(&format!("k{number:02}"), "v")).await?;
    }
    let before = hash(&member).await?;
    member.kill();
    ruin(&member.data.join("state"))?;
    member.start()?;
    member.wait_ready().await?;
    assert_eq!(hash(&member).await?, before);
    assert!(
        member.log().contains("made anew from the log"),
        "{}",
        member.log()
    );
    member.stop()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_gets_its_state_from_another_and_alone_says_what_to_do() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let mut members = Vec::new();
    for name in ["m1", "m2", "m3"] {
        members.push(Member::new(name, folder.path())?);
    }
    let initial = members
        .iter()
        .map(|member| format!("{}={}", member.name, member.peer_url()))
        .collect::<Vec<_>>()
        .join(",");
    for member in &mut members {
        member.more.push(format!("--initial-cluster={initial}"));
        member.more.push("--snapshot-count=10".into());
        member.start()?;
    }
    for member in &mut members {
        member.wait_ready().await?;
    }
    let mut kv = members[0].kv().await?;
    for number in 0..60 {
        kv.put(put(&format!("k{number:02}"), vec![b'v'; 1000])).await?;
    }
    // A stop brings everything to the state, so that the log need not keep it.
    members[2].stop()?;
    members[2].start()?;
    members[2].wait_ready().await?;
    for number in 0..60 {
        kv.put(put(&format!("k{number:02}"), vec![b'w'; 1000])).await?;
    }
    members[2].stop()?;
    members[2].start()?;
    members[2].wait_ready().await?;
    members[2].kill();
    kv.put(put("later", "and not to be missed")).await?;
    ruin(&members[2].data.join("state"))?;
    members[2].start()?;
    members[2].wait_ready().await?;
    let log = members[2].log();
    assert!(
        log.contains("the applied state is made anew") || log.contains("another member's now"),
        "{log}"
    );
    assert_eq!(
        get(&mut members[2].kv().await?, "later").await?.as_deref(),
        Some("and not to be missed")
    );
    assert_eq!(hash(&members[2]).await?, hash(&members[0]).await?);

    // The log is what cannot be had from elsewhere: damage in it is refused.
    members[2].stop()?;
    let wal = files(&members[2].data.join("wal"))?
        .into_iter()
        .filter(|path| path.extension().is_some_and(|extension| extension == "wal"))
        .min()
        .ok_or_else(|| anyhow::anyhow!("no segment"))?;
    let mut content = std::fs::read(&wal)?;
    content[60] ^= 1;
    std::fs::write(&wal, content)?;
    members[2].start()?;
    let refused = members[2].wait_ready().await;
    assert!(refused.is_err());
    let log = members[2].log();
    assert!(log.contains("the write-ahead log is damaged"), "{log}");
    assert!(log.contains("add it again"), "{log}");
    // The others go on.
    let found = kv.range(range("k00", "")).await?.into_inner();
    assert_eq!(found.count, 1);
    Ok(())
}
