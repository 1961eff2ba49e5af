//! Flags that show only in a group: `--strict-reconfig-check`, `--snapshot-count`, `--pre-vote`.

mod common;

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use common::{Member, get, put};
use keelson_proto::etcd::cluster_client::ClusterClient;
use keelson_proto::etcd::maintenance_client::MaintenanceClient;
use keelson_proto::etcd::{MemberAddRequest, StatusRequest, StatusResponse};

const PATIENCE: Duration = Duration::from_secs(60);

async fn group(folder: &Path, flag: &str) -> anyhow::Result<Vec<Member>> {
    let mut members = Vec::new();
    for name in ["m1", "m2", "m3"] {
        members.push(Member::new(name, folder)?);
    }
    let initial: Vec<String> = members
        .iter()
        .map(|member| format!("{}={}", member.name, member.peer_url()))
        .collect();
    for member in &mut members {
        member
            .more
            .push(format!("--initial-cluster={}", initial.join(",")));
        member.more.push(flag.into());
        member.start()?;
    }
    for member in &mut members {
        member.wait_ready().await?;
    }
    Ok(members)
}

async fn status(member: &Member) -> anyhow::Result<StatusResponse> {
    let status = MaintenanceClient::new(member.channel().await?)
        .status(StatusRequest {})
        .await?;
    Ok(status.into_inner())
}

async fn leader(members: &[Member]) -> anyhow::Result<usize> {
    for (place, member) in members.iter().enumerate() {
        let status = status(member).await?;
        let id = status.header.map_or(0, |header| header.member_id);
        if id == status.leader {
            return Ok(place);
        }
    }
    bail!("nobody leads")
}

/// A member that does not lead.
async fn follower(members: &[Member]) -> anyhow::Result<usize> {
    Ok((leader(members).await? + 1) % 3)
}

/// What comes of adding a voter while one of three members is down: of four, three would have to answer.
async fn add_while_one_is_down(flag: &str) -> anyhow::Result<Result<(), tonic::Status>> {
    let folder = tempfile::tempdir()?;
    let mut members = group(folder.path(), flag).await?;
    let leader = leader(&members).await?;
    members[(leader + 1) % 3].kill();
    // The leader notices after some election timeouts.
    tokio::time::sleep(Duration::from_secs(5)).await;
    let added = ClusterClient::new(members[leader].channel().await?)
        .member_add(MemberAddRequest {
            peer_ur_ls: vec!["http://127.0.0.1:1".into()],
            is_learner: false,
        })
        .await;
    Ok(added.map(drop))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_that_endangers_the_majority_is_refused_if_it_is_checked() -> anyhow::Result<()> {
    let Err(refused) = add_while_one_is_down("--strict-reconfig-check=true").await? else {
        bail!("the change was made");
    };
    assert_eq!(
        (refused.code(), refused.message()),
        (tonic::Code::Unavailable, "etcdserver: unhealthy cluster")
    );
    let unchecked = add_while_one_is_down("--strict-reconfig-check=false").await?;
    assert!(unchecked.is_ok(), "{unchecked:?}");
    Ok(())
}

/// How a member that missed much catches up: whether it got a snapshot.
async fn catches_up_with_a_snapshot(flag: &str) -> anyhow::Result<bool> {
    let folder = tempfile::tempdir()?;
    let mut members = group(folder.path(), flag).await?;
    let late = follower(&members).await?;
    members[late].kill();
    let there = (late + 1) % 3;
    let mut kv = members[there].kv().await?;
    // More than what waits in memory, less than what is kept for those who are behind.
    for number in 0..80 {
        kv.put(put(&format!("k{number}"), vec![b'v'; 100_000])).await?;
    }
    let deadline = Instant::now() + PATIENCE;
    for place in (0..3).filter(|place| *place != late) {
        while unstored(&members[place])? > 5_000_000.0 {
            if Instant::now() > deadline {
                bail!("nothing goes to the engine");
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
    members[late].start()?;
    members[late].wait_ready().await?;
    let value = get(&mut members[late].kv().await?, "k79").await?;
    assert_eq!(value.map(|value| value.len()), Some(100_000));
    Ok(members[late].log().contains("installed a snapshot"))
}

fn unstored(member: &Member) -> anyhow::Result<f64> {
    let metrics = Command::new("curl")
        .args(["-s", "-m", "5", &format!("http://{}/metrics", member.endpoint())])
        .output()?;
    let text = String::from_utf8_lossy(&metrics.stdout).into_owned();
    let line = text
        .lines()
        .find(|line| line.starts_with("keelson_store_unstored_bytes"));
    let number = line.and_then(|line| line.split_whitespace().nth(1));
    Ok(number.with_context(|| format!("no figure in {text}"))?.parse()?)
}

#[tokio::test(flavor = "multi_thread")]
async fn beyond_the_snapshot_count_a_member_gets_a_snapshot() -> anyhow::Result<()> {
    assert!(catches_up_with_a_snapshot("--snapshot-count=5").await?);
    assert!(!catches_up_with_a_snapshot("--snapshot-count=100000").await?);
    Ok(())
}

/// By how much a member's term grows while it hears of nobody.
async fn growth_of_the_term(flag: &str) -> anyhow::Result<u64> {
    let folder = tempfile::tempdir()?;
    let members = group(folder.path(), flag).await?;
    let alone = follower(&members).await?;
    let before = status(&members[alone]).await?.raft_term;
    for other in (0..3).filter(|other| *other != alone) {
        let id = members[other].pid().context("it runs")?.to_string();
        Command::new("kill").args(["-STOP", &id]).status()?;
    }
    let deadline = Instant::now() + PATIENCE;
    while status(&members[alone]).await?.leader != 0 {
        if Instant::now() > deadline {
            bail!("it still believes in a leader");
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    // Some election timeouts.
    tokio::time::sleep(Duration::from_secs(6)).await;
    Ok(status(&members[alone]).await?.raft_term - before)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_hears_nobody_raises_its_term_only_without_pre_vote() -> anyhow::Result<()> {
    assert_eq!(growth_of_the_term("--pre-vote=true").await?, 0);
    assert!(growth_of_the_term("--pre-vote=false").await? > 0);
    Ok(())
}
