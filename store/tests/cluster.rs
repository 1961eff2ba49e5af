//! Three members on one machine: agreement, the loss of the leader, and a member that comes later.

mod common;

use common::{Member, get, group, put};
use keelson_proto::etcd::lease_client::LeaseClient;
use keelson_proto::etcd::{LeaseGrantRequest, LeaseTimeToLiveRequest, MemberAddRequest};

#[tokio::test(flavor = "multi_thread")]
async fn three_members_agree_and_survive_the_leader() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let mut members = group::started(&["m1", "m2", "m3"], folder.path()).await?;
    let initial = group::initial_cluster(&members);

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

    let first = group::leader(&members).await?;
    members[first].kill();
    group::put_anywhere(&members, "after", "the leader").await?;
    members[first].start()?;
    members[first].wait_ready().await?;
    assert_eq!(
        get(&mut members[first].kv().await?, "after").await?.as_deref(),
        Some("the leader")
    );

    // The group is big enough that the newcomer gets a snapshot, and small enough for a test.
    for number in 0..200 {
        group::put_anywhere(&members, &format!("more{number:03}"), &"x".repeat(1000)).await?;
    }
    let mut late = Member::new("m4", folder.path())?;
    group::cluster(&members[0])
        .await?
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
    group::put_anywhere(&members, "last", "one").await?;

    group::agree(&members).await?;
    for member in &mut members {
        member.stop()?;
    }
    Ok(())
}
