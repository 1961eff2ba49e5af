//! Three members on one machine: agreement, the loss of the leader, and a member that comes later.

mod common;

use std::time::{Duration, Instant};

use anyhow::Context;
use common::{Member, get, put};
use keelson_proto::etcd::cluster_client::ClusterClient;
use keelson_proto::etcd::lease_client::LeaseClient;
use keelson_proto::etcd::maintenance_client::MaintenanceClient;
use keelson_proto::etcd::{
    HashKvRequest, LeaseGrantRequest, LeaseTimeToLiveRequest, MemberAddRequest, StatusRequest,
};

async fn leader(members: &[Member]) -> anyhow::Result<usize> {
    for (position, member) in members.iter().enumerate() {
        let Ok(channel) = member.channel().await else {
            continue;
        };
        let status = MaintenanceClient::new(channel)
            .status(StatusRequest {})
            .await?
            .into_inner();
        if status.leader != 0 && status.header.map(|header| header.member_id) == Some(status.leader) {
            return Ok(position);
        }
    }
    anyhow::bail!("nobody leads")
}

async fn put_anywhere(members: &[Member], key: &str, value: &str) -> anyhow::Result<()> {
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

#[tokio::test(flavor = "multi_thread")]
async fn three_members_agree_and_survive_the_leader() -> anyhow::Result<()> {
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
        member.start()?;
    }
    for member in &mut members {
        member.wait_ready().await?;
    }

    for number in 0..30 {
        let member = &members[number % 3];
        member.kv().await?.put(put(&format!("k{number:02}"), "v")).await?;
    }
    for member in &members {
        assert_eq!(get(&mut member.kv().await?, "k29").await?.as_deref(), Some("v"));
    }
    let mut lease = LeaseClient::new(members[0].channel().await?);
    let granted = lease
        .lease_grant(LeaseGrantRequest { ttl: 100, id: 0 })
        .await?
        .into_inner();
    for member in &members {
        let left = LeaseClient::new(member.channel().await?)
            .lease_time_to_live(LeaseTimeToLiveRequest {
                id: granted.id,
                keys: false,
            })
            .await?
            .into_inner();
        assert!((95..=100).contains(&left.ttl), "{}", left.ttl);
    }

    let first = leader(&members).await?;
    members[first].kill();
    put_anywhere(&members, "after", "the leader").await?;
    members[first].start()?;
    members[first].wait_ready().await?;
    assert_eq!(
        get(&mut members[first].kv().await?, "after").await?.as_deref(),
        Some("the leader")
    );

    // The group is big enough that the newcomer gets a snapshot, and small enough for a test.
    for number in 0..200 {
        put_anywhere(&members, &format!("more{number:03}"), &"x".repeat(1000)).await?;
    }
    let mut late = Member::new("m4", folder.path())?;
    ClusterClient::new(members[0].channel().await?)
        .member_add(MemberAddRequest {
            peer_ur_ls: vec![late.peer_url()],
            is_learner: false,
        })
        .await?;
    late.more
        .push(format!("--initial-cluster={initial},m4={}", late.peer_url()));
    late.more.push("--initial-cluster-state=existing".into());
    late.start()?;
    late.wait_ready().await?;
    assert_eq!(
        get(&mut late.kv().await?, "more199").await?.map(|v| v.len()),
        Some(1000)
    );
    members.push(late);
    put_anywhere(&members, "last", "one").await?;

    let mut hashes = Vec::new();
    let revision = members[0]
        .kv()
        .await?
        .range(common::range("last", ""))
        .await?
        .into_inner()
        .header
        .context("a header")?
        .revision;
    for member in &members {
        // A linearizable read first, so that the member has it all.
        get(&mut member.kv().await?, "last").await?;
        let hash = MaintenanceClient::new(member.channel().await?)
            .hash_kv(HashKvRequest { revision })
            .await?
            .into_inner();
        hashes.push(hash.hash);
    }
    assert!(hashes.windows(2).all(|pair| pair[0] == pair[1]), "{hashes:?}");
    for member in &mut members {
        member.stop()?;
    }
    Ok(())
}
