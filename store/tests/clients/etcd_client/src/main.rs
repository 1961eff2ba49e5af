//! Every command of the etcd-client crate, against three members with TLS.
//!
//! Arguments: the authority, a client's certificate and its key, and the members' URLs.

use std::error::Error;
use std::fmt::Debug;
use std::time::Duration;

use etcd_client::{
    AlarmAction, AlarmOptions, AlarmType, Certificate, Client, CompactionOptions, Compare, CompareOp,
    ConnectOptions, DeleteOptions, DowngradeOptions, EventType, GetOptions, Identity, KeyValue,
    LeaseGrantOptions, LeaseTimeToLiveOptions, LockOptions, MemberAddOptions, ProclaimOptions, PutOptions, ResignOptions, SortOrder, SortTarget,
    TlsOptions, Txn, TxnOp, TxnOpResponse, WatchFilterType, WatchOptions,
};

type Outcome = Result<(), Box<dyn Error>>;

fn check<T: PartialEq + Debug>(found: T, wanted: T) -> Outcome {
    if found != wanted {
        return Err(format!("{found:?} instead of {wanted:?}").into());
    }
    Ok(())
}

fn refused<T>(answer: Result<T, etcd_client::Error>, with: &str) -> Outcome {
    match answer {
        Ok(_) => Err(format!("not refused: {with}").into()),
        Err(error) if error.to_string().contains(with) => Ok(()),
        Err(error) => Err(format!("{error} instead of {with}").into()),
    }
}

fn values(kvs: &[KeyValue]) -> Vec<(&str, &str)> {
    kvs.iter()
        .map(|kv| (kv.key_str().unwrap_or("?"), kv.value_str().unwrap_or("?")))
        .collect()
}

async fn keys(client: &mut Client) -> Outcome {
    client.put("a", "1", None).await?;
    let put = client
        .put("a", "2", Some(PutOptions::new().with_prev_key()))
        .await?;
    check(put.prev_key().map(|kv| kv.value().to_vec()), Some(b"1".to_vec()))?;
    let first = client.get("a", None).await?.kvs()[0].create_revision();
    for (key, value) in [("b", "3"), ("c", "4"), ("d", "5")] {
        client.put(key, value, None).await?;
    }
    check(values(client.get("a", None).await?.kvs()), vec![("a", "2")])?;
    let old = GetOptions::new().with_revision(first).with_serializable();
    check(values(client.get("a", Some(old)).await?.kvs()), vec![("a", "1")])?;
    let sorted = GetOptions::new()
        .with_range("d")
        .with_sort(SortTarget::Value, SortOrder::Descend)
        .with_limit(2);
    let page = client.get("a", Some(sorted)).await?;
    check((page.count(), page.more()), (3, true))?;
    check(values(page.kvs()), vec![("c", "4"), ("b", "3")])?;
    let counted = GetOptions::new().with_from_key().with_count_only();
    check(client.get("b", Some(counted)).await?.count(), 3)?;
    let young = GetOptions::new()
        .with_all_keys()
        .with_keys_only()
        .with_min_create_revision(first + 3)
        .with_max_create_revision(first + 4)
        .with_min_mod_revision(first)
        .with_max_mod_revision(first + 3);
    check(values(client.get("", Some(young)).await?.kvs()), vec![("c", "")])?;
    client
        .put("a", "", Some(PutOptions::new().with_ignore_value()))
        .await?;
    check(values(client.get("a", None).await?.kvs()), vec![("a", "2")])?;
    let deleted = client
        .delete("c", Some(DeleteOptions::new().with_from_key().with_prev_key()))
        .await?;
    check(deleted.deleted(), 2)?;
    check(values(deleted.prev_kvs()), vec![("c", "4"), ("d", "5")])?;
    refused(client.put("", "x", None).await, "key is not provided")
}

async fn transactions(client: &mut Client) -> Outcome {
    let nested = Txn::new()
        .when(vec![Compare::lease("b", CompareOp::Equal, 0)])
        .and_then(vec![TxnOp::put("t", "inner", None)]);
    let txn = Txn::new()
        .when(vec![
            Compare::value("a", CompareOp::Equal, "2"),
            Compare::version("a", CompareOp::Greater, 0),
            Compare::create_revision("nothing", CompareOp::Equal, 0),
            Compare::mod_revision("a", CompareOp::NotEqual, 1),
            Compare::version("a", CompareOp::Less, 100).with_prefix(),
        ])
        .and_then(vec![
            TxnOp::txn(nested),
            TxnOp::get("t", None),
            TxnOp::delete("b", None),
        ])
        .or_else(vec![TxnOp::put("t", "wrong", None)]);
    let answer = client.txn(txn).await?;
    check(answer.succeeded(), true)?;
    match answer.op_responses().as_slice() {
        [
            TxnOpResponse::Txn(inner),
            TxnOpResponse::Get(got),
            TxnOpResponse::Delete(deleted),
        ] => {
            check(inner.succeeded(), true)?;
            check(values(got.kvs()), vec![("t", "inner")])?;
            check(deleted.deleted(), 1)
        }
        other => Err(format!("{other:?}").into()),
    }
}

async fn watches(client: &mut Client) -> Outcome {
    let options = WatchOptions::new()
        .with_prefix()
        .with_prev_key()
        .with_progress_notify()
        .with_fragment()
        .with_watch_id(7);
    let mut stream = client.watch("w/", Some(options)).await?;
    let created = stream.message().await?.ok_or("no answer")?;
    check((created.created(), created.watch_id()), (true, 7))?;
    let puts_only = WatchOptions::new()
        .with_watch_id(8)
        .with_filters(vec![WatchFilterType::NoDelete]);
    stream.watch("w/1", Some(puts_only)).await?;
    client.put("w/1", "x", None).await?;
    client.delete("w/1", None).await?;
    let mut seen = Vec::new();
    while seen.len() < 3 {
        let answer = stream.message().await?.ok_or("the stream ended")?;
        for event in answer.events() {
            let before = event.prev_kv().map(|kv| kv.value().to_vec());
            seen.push((answer.watch_id(), event.event_type() == EventType::Put, before));
        }
    }
    // Which of the two is told first is open.
    seen.sort();
    let wanted = vec![(7, false, Some(b"x".to_vec())), (7, true, None), (8, true, None)];
    check(seen, wanted)?;
    stream.request_progress().await?;
    let progress = stream.message().await?.ok_or("no progress")?;
    check(progress.events().len(), 0)?;
    stream.cancel(7).await?;
    check(stream.message().await?.ok_or("no answer")?.canceled(), true)?;

    let now = client.get("a", None).await?.header().ok_or("no header")?.revision();
    client
        .compact(now, Some(CompactionOptions::new().with_physical()))
        .await?;
    refused(client.compact(now, None).await, "has been compacted")?;
    let late = WatchOptions::new().with_start_revision(1);
    let mut stream = client.watch("a", Some(late)).await?;
    let mut answer = stream.message().await?.ok_or("no answer")?;
    if !answer.canceled() {
        answer = stream.message().await?.ok_or("no answer")?;
    }
    check((answer.canceled(), answer.compact_revision()), (true, now))
}

async fn leases(client: &mut Client) -> Outcome {
    let granted = client
        .lease_grant(60, Some(LeaseGrantOptions::new().with_id(77)))
        .await?;
    check((granted.id(), granted.ttl()), (77, 60))?;
    refused(
        client
            .lease_grant(60, Some(LeaseGrantOptions::new().with_id(77)))
            .await,
        "lease already exists",
    )?;
    client
        .put("leased", "x", Some(PutOptions::new().with_lease(77)))
        .await?;
    let (mut keeper, mut kept) = client.lease_keep_alive(77).await?;
    keeper.keep_alive().await?;
    check(kept.message().await?.ok_or("no answer")?.ttl(), 60)?;
    let left = client
        .lease_time_to_live(77, Some(LeaseTimeToLiveOptions::new().with_keys()))
        .await?;
    check((left.granted_ttl(), left.keys().to_vec()), (60, vec![b"leased".to_vec()]))?;
    let all = client.leases().await?;
    check(all.leases().iter().any(|lease| lease.id() == 77), true)?;
    client.lease_revoke(77).await?;
    check(client.get("leased", None).await?.count(), 0)?;
    refused(client.lease_revoke(77).await, "requested lease not found")
}

async fn locks(client: &mut Client) -> Outcome {
    let mine = client.lease_grant(60, None).await?.id();
    let theirs = client.lease_grant(60, None).await?.id();
    let held = client
        .lock("lock", Some(LockOptions::new().with_lease(mine)))
        .await?;
    check(held.key(), format!("lock/{mine:x}").as_bytes())?;
    let mut other = client.lock_client();
    let waiting = tokio::spawn(async move {
        other
            .lock("lock", Some(LockOptions::new().with_lease(theirs)))
            .await
    });
    let place = format!("lock/{theirs:x}");
    while client.get(place.as_str(), None).await?.count() == 0 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    check(waiting.is_finished(), false)?;
    client.unlock(held.key()).await?;
    check(waiting.await??.key(), place.as_bytes())?;
    client.lease_revoke(theirs).await?;
    // Without a lease of its own it gets one.
    let held = client.lock("lock", None).await?;
    client.unlock(held.key()).await?;
    client.lease_revoke(mine).await?;
    Ok(())
}

async fn elections(client: &mut Client) -> Outcome {
    refused(client.leader("office").await, "election: no leader")?;
    let mut stream = client.observe("office").await?;
    let mine = client.lease_grant(60, None).await?.id();
    let theirs = client.lease_grant(60, None).await?.id();
    let elected = client.campaign("office", "me", mine).await?;
    let leader = elected.leader().ok_or("no key")?.clone();
    let mut other = client.election_client();
    let waiting = tokio::spawn(async move { other.campaign("office", "you", theirs).await });
    let place = format!("office/{theirs:x}");
    while client.get(place.as_str(), None).await?.count() == 0 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let show = || ProclaimOptions::new().with_leader(leader.clone());
    client.proclaim("still me", Some(show())).await?;
    let now = client.leader("office").await?;
    check(values(now.kv().map_or(&[], std::slice::from_ref)), vec![(leader.key_str()?, "still me")])?;
    client
        .resign(Some(ResignOptions::new().with_leader(leader.clone())))
        .await?;
    check(waiting.await??.leader().map(|leader| leader.lease()), Some(theirs))?;
    refused(client.proclaim("me again", Some(show())).await, "election: not leader")?;
    refused(client.resign(None).await, "field must be provided")?;
    for wanted in ["me", "still me", "you"] {
        let told = stream.message().await?.ok_or("the stream ended")?;
        check(told.kv().map(|kv| kv.value().to_vec()), Some(wanted.into()))?;
    }
    client.lease_revoke(theirs).await?;
    client.lease_revoke(mine).await?;
    Ok(())
}

async fn group(client: &mut Client) -> Outcome {
    let members = client.member_list().await?;
    check(members.members().len(), 3)?;
    let status = client.status().await?;
    check(status.version(), "3.6.0")?;
    check(status.db_size() > 0 && status.raft_used_db_size() > 0, true)?;
    client.hash().await?;
    check(client.hash_kv(0).await?.hash() > 0, true)?;
    client.defragment().await?;
    let mut pieces = client.snapshot().await?;
    let mut bytes = 0;
    while let Some(piece) = pieces.message().await? {
        bytes += piece.blob().len();
    }
    // Pages, and a SHA-256 behind them.
    check(bytes % 512, 32)?;

    let mut raised = AlarmOptions::new();
    raised.with_member(status.leader());
    let alarms = client
        .alarm(AlarmAction::Activate, AlarmType::Nospace, Some(raised.clone()))
        .await?;
    check(alarms.alarms().len(), 1)?;
    refused(client.put("refused", "x", None).await, "database space exceeded")?;
    client
        .alarm(AlarmAction::Deactivate, AlarmType::Nospace, Some(raised.clone()))
        .await?;
    let alarms = client.alarm(AlarmAction::Get, AlarmType::None, None).await?;
    check(alarms.alarms().len(), 0)?;
    let mut maintenance = client.maintenance_client();
    refused(
        maintenance.downgrade(DowngradeOptions::Validate(String::new())).await,
        "wrong downgrade target version format",
    )?;

    let added = client
        .member_add(["https://127.0.0.1:1"], Some(MemberAddOptions::new().with_is_learner()))
        .await?;
    let id = added.member().ok_or("no member")?.id();
    client
        .member_update(id, vec!["https://127.0.0.1:2".to_owned()])
        .await?;
    refused(client.member_promote(id).await, "in sync with leader")?;
    client.member_remove(id).await?;
    refused(client.member_remove(id).await, "member not found")?;

    // Only the leader hands over; whoever else is asked says so.
    let target = members
        .members()
        .iter()
        .map(etcd_client::Member::id)
        .find(|id| *id != status.leader())
        .ok_or("nobody else")?;
    let deadline = std::time::Instant::now() + Duration::from_secs(20);
    while let Err(error) = client.move_leader(target).await {
        if std::time::Instant::now() > deadline || !error.to_string().contains("not leader") {
            return Err(error.into());
        }
    }
    refused(client.role_list().await, "certificate")?;
    refused(client.user_list().await, "certificate")?;
    refused(client.auth_enable().await, "certificate")
}

#[tokio::main]
async fn main() -> Outcome {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [authority, certificate, key, members @ ..] = arguments.as_slice() else {
        return Err("arguments: AUTHORITY CERTIFICATE KEY URL...".into());
    };
    let read = |path: &str| std::fs::read(path);
    let tls = TlsOptions::new()
        .ca_certificate(Certificate::from_pem(read(authority)?))
        .identity(Identity::from_pem(read(certificate)?, read(key)?));
    let options = ConnectOptions::new()
        .with_tls(tls)
        .with_require_leader(true)
        .with_timeout(Duration::from_secs(20));
    let mut client = Client::connect(members, Some(options)).await?;
    keys(&mut client).await?;
    transactions(&mut client).await?;
    watches(&mut client).await?;
    leases(&mut client).await?;
    locks(&mut client).await?;
    elections(&mut client).await?;
    group(&mut client).await?;
    println!("every command was answered");
    Ok(())
}
