//! Locks and elections that are waited for on the server, in a group.

mod common;

use std::time::Duration;

use anyhow::Context;
use common::{Member, get, group};
use keelson_proto::election::election_client::ElectionClient;
use keelson_proto::election::{
    CampaignRequest, LeaderRequest, LeaderResponse, ProclaimRequest, ResignRequest,
};
use keelson_proto::etcd::lease_client::LeaseClient;
use keelson_proto::etcd::{DeleteRangeRequest, LeaseGrantRequest, LeaseRevokeRequest};
use keelson_proto::lock::lock_client::LockClient;
use keelson_proto::lock::{LockRequest, LockResponse, UnlockRequest};
use tokio::task::JoinHandle;
use tonic::transport::Channel;
use tonic::{Response, Status, Streaming};

/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(30);

async fn grant(member: &Member, id: i64, ttl: i64) -> anyhow::Result<()> {
    let request = LeaseGrantRequest { id, ttl };
    LeaseClient::new(member.channel().await?)
        .lease_grant(request)
        .await?;
    Ok(())
}

async fn revoke(member: &Member, id: i64) -> anyhow::Result<()> {
    let request = LeaseRevokeRequest { id };
    LeaseClient::new(member.channel().await?)
        .lease_revoke(request)
        .await?;
    Ok(())
}

/// A call that may wait.
type Waiting<T> = JoinHandle<Result<Response<T>, Status>>;

async fn lock(member: &Member, name: &'static str, lease: i64) -> anyhow::Result<Waiting<LockResponse>> {
    let mut locks = LockClient::new(member.channel().await?);
    Ok(tokio::spawn(async move {
        let name = name.into();
        locks.lock(LockRequest { name, lease }).await
    }))
}

async fn answer<T>(waiting: Waiting<T>) -> anyhow::Result<Result<T, Status>> {
    let answer = tokio::time::timeout(PATIENCE, waiting).await;
    Ok(answer.context("no answer")??.map(Response::into_inner))
}

/// Waits until a key is there, or is not.
async fn until(member: &Member, key: &str, there: bool) -> anyhow::Result<()> {
    let mut kv = member.kv().await?;
    let look = async {
        while get(&mut kv, key).await?.is_some() != there {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        anyhow::Ok(())
    };
    tokio::time::timeout(PATIENCE, look)
        .await
        .context(key.to_owned())?
}

#[tokio::test(flavor = "multi_thread")]
async fn who_waits_for_a_lock_gets_it_when_its_turn_comes() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let members = group::started(&["l1", "l2", "l3"], folder.path()).await?;
    let [one, two, three] = members.as_slice() else {
        anyhow::bail!("three members");
    };
    for (id, ttl) in [(1, 1000), (2, 1), (3, 1000), (4, 1000), (5, 1000)] {
        grant(one, id, ttl).await?;
    }
    // Each waits at another member than the one before.
    let first = answer(lock(one, "l", 1).await?).await??;
    assert_eq!(first.key, "l/1");
    let second = lock(two, "l", 2).await?;
    until(one, "l/2", true).await?;
    let third = lock(three, "l", 3).await?;
    until(one, "l/3", true).await?;
    assert!(!second.is_finished() && !third.is_finished());

    // The holder's lease is revoked; the next one's runs out.
    revoke(three, 1).await?;
    assert_eq!(answer(second).await??.key, "l/2");
    let got = answer(third).await??;
    assert_eq!(got.key, "l/3");
    assert!(get(&mut one.kv().await?, "l/2").await?.is_none());
    let revision = got.header.context("a header")?.revision;
    assert!(revision > first.header.context("a header")?.revision);

    // One that waits loses its lease: it is told, and not only when its turn comes.
    let lost = lock(one, "l", 4).await?;
    until(one, "l/4", true).await?;
    revoke(two, 4).await?;
    let refused = answer(lost).await?.err().context("a refusal")?;
    assert_eq!(refused.message(), "mutex: session is expired");

    // One that waits goes away, with its connection or only with its call: so does its key.
    grant(one, 4, 1000).await?;
    let left = lock(two, "l", 4).await?;
    until(one, "l/4", true).await?;
    left.abort();
    until(one, "l/4", false).await?;
    let mut locks = LockClient::new(two.channel().await?);
    let mut late = tonic::Request::new(LockRequest {
        name: "l".into(),
        lease: 4,
    });
    late.set_timeout(Duration::from_secs(1));
    assert!(locks.lock(late).await.is_err());
    until(one, "l/4", false).await?;

    // Who has it keeps it, whatever becomes of those behind.
    let last = lock(two, "l", 5).await?;
    until(one, "l/5", true).await?;
    assert!(!last.is_finished());
    let key = got.key;
    locks.unlock(UnlockRequest { key }).await?;
    assert_eq!(answer(last).await??.key, "l/5");
    Ok(())
}

async fn campaign(
    member: &Member,
    lease: i64,
    value: &'static str,
) -> anyhow::Result<Waiting<keelson_proto::election::CampaignResponse>> {
    let mut elections = ElectionClient::new(member.channel().await?);
    Ok(tokio::spawn(async move {
        let (name, value) = ("office".into(), value.into());
        elections.campaign(CampaignRequest { name, lease, value }).await
    }))
}

/// The value that an observer is told next.
async fn told(stream: &mut Streaming<LeaderResponse>) -> anyhow::Result<String> {
    let message = tokio::time::timeout(PATIENCE, stream.message()).await??;
    let kv = message.and_then(|response| response.kv).context("a leader")?;
    Ok(String::from_utf8_lossy(&kv.value).into_owned())
}

async fn observer(elections: &mut ElectionClient<Channel>) -> anyhow::Result<Streaming<LeaderResponse>> {
    let request = LeaderRequest {
        name: "office".into(),
    };
    Ok(elections.observe(request).await?.into_inner())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_election_is_observed_at_every_member() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let members = group::started(&["e1", "e2", "e3"], folder.path()).await?;
    let mut observers = Vec::new();
    for member in &members {
        observers.push(observer(&mut ElectionClient::new(member.channel().await?)).await?);
    }
    let [one, two, three] = members.as_slice() else {
        anyhow::bail!("three members");
    };
    for id in [1, 2, 3] {
        grant(one, id, 1000).await?;
    }
    let elected = answer(campaign(one, 1, "a").await?).await??;
    for observer in &mut observers {
        assert_eq!(told(observer).await?, "a");
    }
    let second = campaign(two, 2, "b").await?;
    until(one, "office/2", true).await?;
    let third = campaign(three, 3, "c").await?;
    until(one, "office/3", true).await?;

    let mut elections = ElectionClient::new(two.channel().await?);
    let proclaimed = ProclaimRequest {
        leader: elected.leader.clone(),
        value: "a, too".into(),
    };
    elections.proclaim(proclaimed).await?;
    // Somebody ends it from outside, as one who repairs does.
    let delete = DeleteRangeRequest {
        key: "office/2".into(),
        ..DeleteRangeRequest::default()
    };
    one.kv().await?.delete_range(delete).await?;
    let refused = answer(second).await?.err().context("a refusal")?;
    assert_eq!(refused.message(), "election: not leader");
    let resigned = ResignRequest {
        leader: elected.leader,
    };
    elections.resign(resigned).await?;
    let next = answer(third).await??.leader.context("a key")?;
    assert_eq!((next.key.as_ref(), next.lease), (b"office/3".as_ref(), 3));
    for observer in &mut observers {
        assert_eq!(told(observer).await?, "a, too");
        assert_eq!(told(observer).await?, "c");
    }
    // Who comes late is told of the present.
    assert_eq!(told(&mut observer(&mut elections).await?).await?, "c");
    Ok(())
}
