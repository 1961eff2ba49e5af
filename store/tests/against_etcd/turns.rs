//! Locks and elections on the server: the same answers and refusals.

use std::time::Duration;

use anyhow::Context;
use keelson_proto::election::election_client::ElectionClient;
use keelson_proto::election::{
    CampaignRequest, LeaderKey, LeaderRequest, LeaderResponse, ProclaimRequest, ResignRequest,
};
use keelson_proto::etcd::kv_client::KvClient;
use keelson_proto::etcd::lease_client::LeaseClient;
use keelson_proto::etcd::{LeaseGrantRequest, LeaseRevokeRequest, LeaseTimeToLiveRequest};
use keelson_proto::lock::lock_client::LockClient;
use keelson_proto::lock::{LockRequest, UnlockRequest};
use tonic::Streaming;
use tonic::transport::Channel;

use super::common::{Member, put, range};
use super::{Etcd, anonymous, differences, seen};

/// Longer than any answer takes.
const PATIENCE: Duration = Duration::from_secs(20);

fn lock(name: &str, lease: i64) -> LockRequest {
    LockRequest {
        name: name.to_owned().into(),
        lease,
    }
}

fn unlock(key: &str) -> UnlockRequest {
    UnlockRequest {
        key: key.to_owned().into(),
    }
}

fn stand(name: &str, lease: i64, value: &str) -> CampaignRequest {
    CampaignRequest {
        name: name.to_owned().into(),
        lease,
        value: value.to_owned().into(),
    }
}

fn office(name: &str) -> LeaderRequest {
    LeaderRequest {
        name: name.to_owned().into(),
    }
}

fn proclaim(leader: Option<&LeaderKey>, value: &str) -> ProclaimRequest {
    ProclaimRequest {
        leader: leader.cloned(),
        value: value.to_owned().into(),
    }
}

fn resign(leader: Option<&LeaderKey>) -> ResignRequest {
    ResignRequest {
        leader: leader.cloned(),
    }
}

/// Waits until a key is there.
async fn there(channel: &Channel, key: &str) -> anyhow::Result<()> {
    let mut kv = KvClient::new(channel.clone());
    let look = async {
        while kv.range(range(key, "")).await?.into_inner().kvs.is_empty() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        anyhow::Ok(())
    };
    tokio::time::timeout(PATIENCE, look)
        .await
        .context(key.to_owned())?
}

/// What an observer is told next.
async fn told(stream: &mut Streaming<LeaderResponse>) -> anyhow::Result<String> {
    let mut message = tokio::time::timeout(PATIENCE, stream.message())
        .await
        .context("nothing is told")??
        .context("the stream ended")?;
    anonymous(&mut message.header);
    Ok(format!("{message:?}"))
}

type Log = Vec<(String, String)>;

macro_rules! ask {
    ($log:ident, $client:ident.$method:ident($request:expr)) => {{
        let request = $request;
        let name = format!("{} {request:?}", stringify!($method));
        let answer = tokio::time::timeout(PATIENCE, $client.$method(request));
        let answer = answer.await.context(name.clone())?;
        let answer = seen(answer, |message| anonymous(&mut message.header));
        $log.push((name, answer));
    }};
}

/// Asks in a task of its own, and waits for the key with which it waits.
macro_rules! wait {
    ($channel:expr, $client:ident.$method:ident($request:expr), $key:expr) => {{
        let mut client = $client.clone();
        let request = $request;
        let waiting = tokio::spawn(async move { client.$method(request).await });
        there($channel, $key).await?;
        anyhow::ensure!(!waiting.is_finished(), "{} did not wait", $key);
        waiting
    }};
}

/// The answer to what was waited for.
macro_rules! answered {
    ($log:ident, $waiting:ident) => {{
        let answer = tokio::time::timeout(PATIENCE, $waiting).await;
        let answer = answer.context(stringify!($waiting))??;
        let answer = seen(answer, |message| anonymous(&mut message.header));
        $log.push((stringify!($waiting).into(), answer));
    }};
}

async fn locks(channel: &Channel) -> anyhow::Result<Log> {
    let mut leases = LeaseClient::new(channel.clone());
    let mut locks = LockClient::new(channel.clone());
    let mut kv = KvClient::new(channel.clone());
    let mut log = Log::new();
    for id in [0x81, 0x82, 0x83] {
        ask!(log, leases.lease_grant(LeaseGrantRequest { id, ttl: 5000 }));
    }
    ask!(log, locks.lock(lock("l", 404)));
    ask!(log, locks.lock(lock("l", 0x81)));
    ask!(log, locks.lock(lock("l", 0x81)));
    let second = wait!(channel, locks.lock(lock("l", 0x82)), "l/82");
    let third = wait!(channel, locks.lock(lock("l", 0x83)), "l/83");
    ask!(log, locks.unlock(unlock("l/81")));
    answered!(log, second);
    // Who has it does not unlock, but its lease ends.
    ask!(log, leases.lease_revoke(LeaseRevokeRequest { id: 0x82 }));
    answered!(log, third);
    ask!(log, locks.unlock(unlock("l/83")));
    ask!(log, locks.unlock(unlock("l/83")));
    ask!(log, locks.unlock(unlock("")));
    // Anybody's keys under the name count; other names, and the name itself, do not.
    ask!(log, kv.put(put("n", "x")));
    ask!(log, kv.put(put("n0", "x")));
    ask!(log, kv.put(put("n/of somebody", "x")));
    let behind = wait!(channel, locks.lock(lock("n", 0x81)), "n/81");
    ask!(log, locks.unlock(unlock("n/of somebody")));
    answered!(log, behind);
    ask!(log, locks.lock(lock("", 0x81)));

    let made = locks.lock(lock("made", 0)).await?.into_inner().key;
    let lease = String::from_utf8_lossy(&made).replace("made/", "");
    let id = i64::from_str_radix(&lease, 16)?;
    let lease = leases
        .lease_time_to_live(LeaseTimeToLiveRequest { id, keys: true })
        .await?
        .into_inner();
    assert_eq!(lease.keys, [made]);
    log.push(("a lease that was made".into(), lease.granted_ttl.to_string()));
    Ok(log)
}

async fn elections(channel: &Channel) -> anyhow::Result<Log> {
    let mut leases = LeaseClient::new(channel.clone());
    let mut elections = ElectionClient::new(channel.clone());
    let mut log = Log::new();
    for id in [0x91, 0x92] {
        ask!(log, leases.lease_grant(LeaseGrantRequest { id, ttl: 5000 }));
    }
    ask!(log, elections.leader(office("e")));
    ask!(log, elections.proclaim(proclaim(None, "x")));
    ask!(log, elections.resign(resign(None)));
    ask!(log, elections.campaign(stand("e", 404, "x")));
    // etcd does not begin its answer before there is something to tell.
    let mut client = elections.clone();
    let observer = tokio::spawn(async move { client.observe(office("e")).await });
    let elected = elections.campaign(stand("e", 0x91, "v1")).await?.into_inner();
    let observer = tokio::time::timeout(PATIENCE, observer).await;
    let mut observer = observer.context("nothing is told")???.into_inner();
    let mut first = elected.leader.context("a key")?;
    log.push(("campaign".into(), format!("{first:?}")));
    log.push(("observe".into(), told(&mut observer).await?));
    ask!(log, elections.leader(office("e")));
    ask!(log, elections.proclaim(proclaim(Some(&first), "v2")));
    log.push(("observe".into(), told(&mut observer).await?));
    first.rev += 1;
    ask!(log, elections.proclaim(proclaim(Some(&first), "v3")));
    ask!(log, elections.resign(resign(Some(&first))));
    first.rev -= 1;
    first.lease = 404;
    ask!(log, elections.proclaim(proclaim(Some(&first), "v3")));
    first.lease = 0x91;
    let mut nameless = first.clone();
    nameless.key.clear();
    ask!(log, elections.proclaim(proclaim(Some(&nameless), "v3")));
    ask!(log, elections.resign(resign(Some(&nameless))));
    // Who is elected stands again, with the same value and another.
    ask!(log, elections.campaign(stand("e", 0x91, "v2")));
    ask!(log, elections.campaign(stand("e", 0x91, "v4")));
    log.push(("observe".into(), told(&mut observer).await?));
    let second = wait!(channel, elections.campaign(stand("e", 0x92, "w1")), "e/92");
    ask!(log, elections.leader(office("e")));
    ask!(log, elections.resign(resign(Some(&first))));
    answered!(log, second);
    log.push(("observe".into(), told(&mut observer).await?));
    ask!(log, elections.leader(office("e")));
    ask!(log, elections.proclaim(proclaim(Some(&first), "late")));
    ask!(log, elections.resign(resign(Some(&first))));
    ask!(log, leases.lease_revoke(LeaseRevokeRequest { id: 0x92 }));
    ask!(log, elections.leader(office("e")));
    Ok(log)
}

#[tokio::test(flavor = "multi_thread")]
async fn locks_and_elections_are_etcds() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let etcd = Etcd::start(&folder.path().join("etcd")).await?;
    let store = Member::new("store", folder.path())?.started().await?;
    let (theirs, ours) = (etcd.channel().await?, store.channel().await?);
    let different = differences(&locks(&theirs).await?, &locks(&ours).await?);
    assert!(different.is_empty(), "{different}");
    let different = differences(&elections(&theirs).await?, &elections(&ours).await?);
    assert!(different.is_empty(), "{different}");
    Ok(())
}
