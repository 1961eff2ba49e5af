//! What an administrator does on a bad day, with real processes: replacing a dead member, starting a whole group again,
//! restoring a group from a backup.

mod common;

use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use common::{Member, get, group, put, range};
use keelson_proto::etcd::lease_client::LeaseClient;
use keelson_proto::etcd::maintenance_client::MaintenanceClient;
use keelson_proto::etcd::watch_client::WatchClient;
use keelson_proto::etcd::watch_request::RequestUnion;
use keelson_proto::etcd::{
    LeaseGrantRequest, LeaseTimeToLiveRequest, MemberAddRequest, MemberListRequest, MemberPromoteRequest,
    MemberRemoveRequest, PutRequest, SnapshotRequest, WatchCreateRequest, WatchRequest, WatchResponse,
};

/// What a watch of everything from a revision is told, until it has `events` of them or is cancelled.
async fn history(member: &Member, from: i64, events: usize) -> anyhow::Result<(Vec<i64>, WatchResponse)> {
    let request = WatchRequest {
        request_union: Some(RequestUnion::CreateRequest(WatchCreateRequest {
            key: vec![0].into(),
            range_end: vec![0].into(),
            start_revision: from,
            ..WatchCreateRequest::default()
        })),
    };
    let (requests, outgoing) = tokio::sync::mpsc::channel(1);
    requests.send(request).await?;
    let mut told = WatchClient::new(member.channel().await?)
        .watch(tokio_stream::wrappers::ReceiverStream::new(outgoing))
        .await?
        .into_inner();
    let mut revisions = Vec::new();
    loop {
        let response = tokio::time::timeout(Duration::from_secs(20), told.message())
            .await
            .context("no response")??
            .context("the stream ended")?;
        let changed = response.events.iter().filter_map(|event| event.kv.as_ref());
        revisions.extend(changed.map(|kv| kv.mod_revision));
        if response.canceled || revisions.len() >= events {
            return Ok((revisions, response));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_member_is_replaced() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let mut members = group::started(&["m1", "m2", "m3"], folder.path()).await?;
    for number in 0..50 {
        let mut kv = members[number % 3].kv().await?;
        kv.put(put(&format!("k{number:02}"), "before")).await?;
    }
    let leader = group::leader(&members).await?;
    // Its disk is lost with it.
    let (dead, _) = group::numbers(&members[leader]).await?;
    members[leader].kill();
    std::fs::remove_dir_all(&members[leader].data)?;
    members.remove(leader);
    group::put_anywhere(&members, "without", "the dead one").await?;

    // Whoever is asked, leader or not, does it, or says why not.
    let leader = group::leader(&members).await?;
    let follower = 1 - leader;
    let mut asked = group::cluster(&members[follower]).await?;
    let (own, _) = group::numbers(&members[follower]).await?;
    let refused = asked.member_remove(MemberRemoveRequest { id: own }).await;
    assert_eq!(
        refused
            .err()
            .map(|status| (status.code(), status.message().to_owned())),
        Some((
            tonic::Code::Unavailable,
            "etcdserver: unhealthy cluster".to_owned()
        ))
    );
    let left = asked.member_remove(MemberRemoveRequest { id: dead }).await?;
    assert_eq!(left.into_inner().members.len(), 2);

    let mut fresh = Member::new("m4", folder.path())?;
    let added = asked
        .member_add(MemberAddRequest {
            peer_ur_ls: vec![fresh.peer_url()],
            is_learner: true,
        })
        .await?
        .into_inner();
    let id = added.member.context("the new member")?.id;
    let promote = MemberPromoteRequest { id };
    let Err(refused) = asked.member_promote(promote).await else {
        bail!("a learner that was never started votes");
    };
    assert_eq!(
        (refused.code(), refused.message()),
        (
            tonic::Code::FailedPrecondition,
            "etcdserver: can only promote a learner member which is in sync with leader"
        )
    );
    let initial = format!("{},m4={}", group::initial_cluster(&members), fresh.peer_url());
    fresh.more.push(format!("--initial-cluster={initial}"));
    fresh.more.push("--initial-cluster-state=existing".into());
    fresh.start()?;
    let deadline = Instant::now() + Duration::from_secs(30);
    while let Err(refused) = asked.member_promote(promote).await {
        if Instant::now() > deadline {
            bail!("{refused}: {}", fresh.log());
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    fresh.wait_ready().await?;
    members.push(fresh);
    group::agree(&members).await?;

    // With one of the old ones gone, nothing is agreed on without the new one.
    let leader = group::leader(&members[..2]).await.unwrap_or(0);
    members[leader].kill();
    members.remove(leader);
    group::put_anywhere(&members, "with", "the new one").await?;
    for member in &members {
        let mut kv = member.kv().await?;
        assert_eq!(get(&mut kv, "k49").await?.as_deref(), Some("before"));
        assert_eq!(get(&mut kv, "without").await?.as_deref(), Some("the dead one"));
        assert_eq!(get(&mut kv, "with").await?.as_deref(), Some("the new one"));
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_that_was_killed_as_a_whole_goes_on() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let mut members = group::started(&["m1", "m2", "m3"], folder.path()).await?;
    let lease = LeaseClient::new(members[0].channel().await?)
        .lease_grant(LeaseGrantRequest { ttl: 600, id: 0 })
        .await?
        .into_inner()
        .id;
    for number in 0..60 {
        let request = PutRequest {
            lease: if number % 2 == 0 { lease } else { 0 },
            ..put(&format!("k{number:02}"), "x".repeat(number * 20))
        };
        members[number % 3].kv().await?.put(request).await?;
    }
    let before = group::agree(&members).await?;
    for member in &mut members {
        member.kill();
    }
    group::start(&mut members).await?;
    assert_eq!(group::agree(&members).await?, before);
    for member in &members {
        let found = member.kv().await?.range(range("k", "l")).await?.into_inner();
        assert_eq!(found.kvs.len(), 60);
        let left = LeaseClient::new(member.channel().await?)
            .lease_time_to_live(LeaseTimeToLiveRequest {
                id: lease,
                keys: true,
            })
            .await?
            .into_inner();
        assert_eq!((left.granted_ttl, left.keys.len()), (600, 30));
        // The first revision is that of an empty store.
        let (told, _) = history(member, 2, 60).await?;
        assert_eq!(told, (2..=before).collect::<Vec<_>>());
    }
    let after = members[2].kv().await?.put(put("after", "x")).await?.into_inner();
    assert_eq!(after.header.map(|header| header.revision), Some(before + 1));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_is_restored_from_a_backup() -> anyhow::Result<()> {
    const BUMP: i64 = 1_000_000;
    let folder = tempfile::tempdir()?;
    let mut lost = group::started(&["m1", "m2", "m3"], folder.path()).await?;
    for number in 0..40 {
        let mut kv = lost[number % 3].kv().await?;
        kv.put(put(&format!("k{number:02}"), "saved")).await?;
    }
    let mut backup = Vec::new();
    let mut pieces = MaintenanceClient::new(lost[1].channel().await?)
        .snapshot(SnapshotRequest {})
        .await?
        .into_inner();
    while let Some(piece) = pieces.message().await? {
        backup.extend_from_slice(&piece.blob);
    }
    let file = folder.path().join("backup.db");
    std::fs::write(&file, backup)?;
    // What the backup lacks, and clients have seen.
    lost[0].kv().await?.put(put("later", "lost")).await?;
    let before = group::agree(&lost).await?;
    for member in &mut lost {
        member.kill();
    }

    let mut restored = Vec::new();
    for name in ["n1", "n2", "n3"] {
        restored.push(Member::new(name, folder.path())?);
    }
    let initial = group::initial_cluster(&restored);
    for member in &mut restored {
        member.more.push(format!("--initial-cluster={initial}"));
        let output = Command::new(env!("CARGO_BIN_EXE_kube-store"))
            .arg("restore")
            .arg(&file)
            .arg(format!("--name={}", member.name))
            .arg(format!("--data-dir={}", member.data.display()))
            .arg(format!("--initial-advertise-peer-urls={}", member.peer_url()))
            .arg(format!("--initial-cluster={initial}"))
            .arg("--initial-cluster-token=restored")
            .arg(format!("--bump-revision={BUMP}"))
            .arg("--mark-compacted")
            .output()?;
        let complained = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{complained}");
        member.more.push("--initial-cluster-token=restored".into());
    }
    group::start(&mut restored).await?;
    let now = group::agree(&restored).await?;
    assert_eq!(now, before - 1 + BUMP);
    for member in &restored {
        let mut kv = member.kv().await?;
        let found = kv.range(range("k", "l")).await?.into_inner();
        assert_eq!(found.kvs.len(), 40);
        assert_eq!(get(&mut kv, "later").await?, None);
        // Who has seen what is lost is told to list again.
        let (told, end) = history(member, before + 1, 1).await?;
        assert!(told.is_empty() && end.canceled, "{end:?}");
        assert_eq!(end.compact_revision, now);
    }
    let list = group::cluster(&restored[0])
        .await?
        .member_list(MemberListRequest { linearizable: true })
        .await?
        .into_inner();
    let mut names: Vec<String> = list.members.into_iter().map(|member| member.name).collect();
    names.sort();
    assert_eq!(names, ["n1", "n2", "n3"]);

    // The new group holds out against the loss of its leader like any other.
    let leader = group::leader(&restored).await?;
    restored[leader].kill();
    restored.remove(leader);
    group::put_anywhere(&restored, "after", "the restore").await?;
    Ok(())
}
