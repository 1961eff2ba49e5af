//! Several members that belong together.

use std::path::Path;
use std::time::{Duration, Instant};

use keelson_proto::etcd::cluster_client::ClusterClient;
use keelson_proto::etcd::maintenance_client::MaintenanceClient;
use keelson_proto::etcd::{HashKvRequest, StatusRequest};
use tonic::transport::Channel;

use super::{Member, get, put};

/// `--initial-cluster` of these members.
pub fn initial_cluster(members: &[Member]) -> String {
    members
        .iter()
        .map(|member| format!("{}={}", member.name, member.peer_url()))
        .collect::<Vec<_>>()
        .join(",")
}

/// A group that is new, running and ready.
pub async fn started(names: &[&str], folder: &Path) -> anyhow::Result<Vec<Member>> {
    let mut members = Vec::new();
    for name in names {
        members.push(Member::new(name, folder)?);
    }
    let initial = initial_cluster(&members);
    for member in &mut members {
        member.more.push(format!("--initial-cluster={initial}"));
    }
    start(&mut members).await?;
    Ok(members)
}

/// Starts all, and waits until each is ready.
pub async fn start(members: &mut [Member]) -> anyhow::Result<()> {
    for member in members.iter_mut() {
        member.start()?;
    }
    for member in members {
        member.wait_ready().await?;
    }
    Ok(())
}

/// The number of a member, as it says itself, and of its leader.
pub async fn numbers(member: &Member) -> anyhow::Result<(u64, u64)> {
    let status = MaintenanceClient::new(member.channel().await?)
        .status(StatusRequest {})
        .await?
        .into_inner();
    Ok((status.header.map_or(0, |header| header.member_id), status.leader))
}

/// Where in the list the leader is.
pub async fn leader(members: &[Member]) -> anyhow::Result<usize> {
    for (position, member) in members.iter().enumerate() {
        if let Ok((own, leader)) = numbers(member).await
            && own == leader
        {
            return Ok(position);
        }
    }
    anyhow::bail!("nobody leads")
}

/// What the group is asked through a member.
pub async fn cluster(member: &Member) -> anyhow::Result<ClusterClient<Channel>> {
    Ok(ClusterClient::new(member.channel().await?))
}

/// Puts through whoever takes it.
pub async fn put_anywhere(members: &[Member], key: &str, value: &str) -> anyhow::Result<()> {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        for member in members {
            if let Ok(mut kv) = member.kv().await
                && kv.put(put(key, value.to_owned())).await.is_ok()
            {
                return Ok(());
            }
        }
        if Instant::now() > deadline {
            for member in members {
                eprintln!("log of {}:\n{}", member.name, member.log());
            }
            anyhow::bail!("no member takes {key}");
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Whether all members have the same keys and history; returns the newest revision.
pub async fn agree(members: &[Member]) -> anyhow::Result<i64> {
    let mut found = Vec::new();
    let mut revision = 0;
    for member in members {
        // A linearizable read first, so that the member has it all.
        get(&mut member.kv().await?, "a").await?;
        let answer = MaintenanceClient::new(member.channel().await?)
            .hash_kv(HashKvRequest { revision })
            .await?
            .into_inner();
        revision = answer.hash_revision;
        found.push(answer.hash);
    }
    anyhow::ensure!(found.windows(2).all(|pair| pair[0] == pair[1]), "{found:?}");
    Ok(revision)
}
