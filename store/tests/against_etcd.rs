//! The same requests to Debian's etcd and to a store: answers, refusals, checksums and backups are the same.

mod common;
#[path = "against_etcd/turns.rs"]
mod turns;

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use common::{Member, put, range};
use keelson_proto::etcd::auth_client::AuthClient;
use keelson_proto::etcd::cluster_client::ClusterClient;
use keelson_proto::etcd::compare::{CompareResult, CompareTarget, TargetUnion};
use keelson_proto::etcd::kv_client::KvClient;
use keelson_proto::etcd::lease_client::LeaseClient;
use keelson_proto::etcd::maintenance_client::MaintenanceClient;
use keelson_proto::etcd::range_request::{SortOrder, SortTarget};
use keelson_proto::etcd::request_op::Request;
use keelson_proto::etcd::watch_client::WatchClient;
use keelson_proto::etcd::watch_request::RequestUnion;
use keelson_proto::etcd::*;
use prost::Message;
use tonic::Response;
use tonic::transport::Channel;

/// Debian's etcd on ports of its own.
struct Etcd {
    endpoint: String,
    child: Child,
}

impl Etcd {
    /// Starts it and waits until it answers; on other ports when these went to somebody else meanwhile.
    async fn start(data: &std::path::Path) -> anyhow::Result<Self> {
        let log = data.with_extension("log");
        let mut told = String::new();
        for _ in 0..3 {
            let mut etcd = Self::spawn(data, &log)?;
            if etcd.answers().await? {
                return Ok(etcd);
            }
            told.push_str(&std::fs::read_to_string(&log)?);
        }
        bail!("etcd does not answer: {told}")
    }

    fn spawn(data: &std::path::Path, log: &std::path::Path) -> anyhow::Result<Self> {
        let client = format!("http://127.0.0.1:{}", keelson_ports::free()?);
        let peer = format!("http://127.0.0.1:{}", keelson_ports::free()?);
        let child = Command::new("etcd")
            .arg("--name=one")
            .arg(format!("--data-dir={}", data.display()))
            .arg(format!("--listen-client-urls={client}"))
            .arg(format!("--advertise-client-urls={client}"))
            .arg(format!("--listen-peer-urls={peer}"))
            .arg(format!("--initial-advertise-peer-urls={peer}"))
            .arg(format!("--initial-cluster=one={peer}"))
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(log)?)
            .spawn()
            .context("starting etcd (Debian package etcd-server)")?;
        Ok(Self {
            endpoint: client.trim_start_matches("http://").to_owned(),
            child,
        })
    }

    /// Whether it answers within a minute; no, once it has ended.
    async fn answers(&mut self) -> anyhow::Result<bool> {
        let deadline = Instant::now() + Duration::from_secs(60);
        while Instant::now() < deadline && self.child.try_wait()?.is_none() {
            if let Ok(channel) = self.channel().await
                && KvClient::new(channel).range(range("a", "")).await.is_ok()
            {
                return Ok(true);
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(false)
    }

    async fn channel(&self) -> anyhow::Result<Channel> {
        Ok(Channel::from_shared(format!("http://{}", self.endpoint))?
            .connect()
            .await?)
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What a client sees of an answer: the message without who sent it, or code and text of the refusal.
fn seen<M: Message + std::fmt::Debug>(
    result: Result<Response<M>, tonic::Status>,
    clean: impl FnOnce(&mut M),
) -> String {
    match result {
        Ok(response) => {
            let mut message = response.into_inner();
            clean(&mut message);
            format!("{message:?}")
        }
        Err(status) => format!("{:?}: {}", status.code(), status.message()),
    }
}

fn anonymous(header: &mut Option<ResponseHeader>) {
    if let Some(header) = header {
        header.cluster_id = 0;
        header.member_id = 0;
        header.raft_term = 0;
    }
}

fn nameless(response: &mut TxnResponse) {
    anonymous(&mut response.header);
    for op in &mut response.responses {
        if let Some(response_op::Response::ResponseTxn(nested)) = &mut op.response {
            nameless(nested);
        }
    }
}

fn op(request: Request) -> RequestOp {
    RequestOp {
        request: Some(request),
    }
}

fn compare_version(key: &str, version: i64) -> Compare {
    Compare {
        result: CompareResult::Equal as i32,
        target: CompareTarget::Version as i32,
        key: key.to_owned().into(),
        target_union: Some(TargetUnion::Version(version)),
        ..Compare::default()
    }
}

fn delete(key: &str, end: &str) -> DeleteRangeRequest {
    DeleteRangeRequest {
        key: key.to_owned().into(),
        range_end: end.to_owned().into(),
        prev_kv: true,
    }
}

fn transactions() -> Vec<TxnRequest> {
    let nested = TxnRequest {
        compare: vec![compare_version("a", 2)],
        success: vec![op(Request::RequestPut(put("in", "nested")))],
        failure: vec![op(Request::RequestDeleteRange(delete("a", "")))],
    };
    vec![
        TxnRequest {
            compare: vec![compare_version("a", 2)],
            success: vec![
                op(Request::RequestPut(put("t1", "x"))),
                op(Request::RequestPut(put("t2", "y"))),
                op(Request::RequestRange(range("t", "u"))),
                op(Request::RequestDeleteRange(delete("b", "c"))),
                op(Request::RequestTxn(nested)),
            ],
            failure: vec![],
        },
        TxnRequest {
            compare: vec![compare_version("a", 99)],
            success: vec![op(Request::RequestPut(put("never", "x")))],
            failure: vec![op(Request::RequestRange(range("a", "")))],
        },
        TxnRequest::default(),
        // Refused: a key twice, put and deleted, an operation that is none, a compared key that is none, too many.
        TxnRequest {
            success: vec![
                op(Request::RequestPut(put("twice", "x"))),
                op(Request::RequestPut(put("twice", "y"))),
            ],
            ..TxnRequest::default()
        },
        TxnRequest {
            success: vec![
                op(Request::RequestPut(put("both", "x"))),
                op(Request::RequestDeleteRange(delete("a", "z"))),
            ],
            ..TxnRequest::default()
        },
        TxnRequest {
            success: vec![RequestOp { request: None }],
            ..TxnRequest::default()
        },
        TxnRequest {
            compare: vec![compare_version("", 1)],
            ..TxnRequest::default()
        },
        TxnRequest {
            success: (0..129)
                .map(|number| op(Request::RequestPut(put(&format!("m{number}"), "x"))))
                .collect(),
            ..TxnRequest::default()
        },
        TxnRequest {
            success: vec![op(Request::RequestPut(PutRequest {
                lease: 404,
                ..put("leased", "x")
            }))],
            ..TxnRequest::default()
        },
        TxnRequest {
            success: vec![op(Request::RequestRange(RangeRequest {
                revision: 9999,
                ..range("a", "")
            }))],
            ..TxnRequest::default()
        },
    ]
}

fn ranges() -> Vec<RangeRequest> {
    let all = || range("\0", "\0");
    let mut ranges = vec![
        range("", ""),
        range("a", ""),
        all(),
        RangeRequest { limit: 2, ..all() },
        RangeRequest {
            count_only: true,
            ..all()
        },
        RangeRequest {
            keys_only: true,
            ..all()
        },
        RangeRequest { revision: 3, ..all() },
        RangeRequest {
            revision: 9999,
            ..all()
        },
        RangeRequest {
            revision: -1,
            ..all()
        },
        RangeRequest {
            min_mod_revision: 4,
            ..all()
        },
        RangeRequest {
            max_mod_revision: 4,
            limit: 1,
            ..all()
        },
        RangeRequest {
            min_create_revision: 4,
            ..all()
        },
        RangeRequest {
            max_create_revision: 4,
            ..all()
        },
        range("b", "a"),
    ];
    for target in [
        SortTarget::Key,
        SortTarget::Version,
        SortTarget::Create,
        SortTarget::Mod,
        SortTarget::Value,
    ] {
        for order in [SortOrder::None, SortOrder::Ascend, SortOrder::Descend] {
            ranges.push(RangeRequest {
                sort_order: order as i32,
                sort_target: target as i32,
                limit: 3,
                ..all()
            });
        }
    }
    ranges
}

/// Everything that is asked, and what was seen.
async fn conversation(channel: Channel) -> anyhow::Result<Vec<(String, String)>> {
    let mut kv = KvClient::new(channel.clone());
    let mut leases = LeaseClient::new(channel.clone());
    let mut maintenance = MaintenanceClient::new(channel.clone());
    let mut cluster = ClusterClient::new(channel.clone());
    let mut log: Vec<(String, String)> = Vec::new();
    macro_rules! ask {
        ($client:ident.$method:ident($request:expr)) => {
            ask!($client.$method($request), |message| anonymous(
                &mut message.header
            ))
        };
        ($client:ident.$method:ident($request:expr), $clean:expr) => {{
            let request = $request;
            let name = format!("{} {request:?}", stringify!($method));
            let name: String = name.chars().take(300).collect();
            // etcd 3.4 never answers a change of members that comes right after another one, and was not made.
            let mut again = 0..5;
            let answer = loop {
                let asked = $client.$method(request.clone());
                match tokio::time::timeout(Duration::from_secs(10), asked).await {
                    Ok(answer) => break seen(answer, $clean),
                    Err(late) if again.next().is_none() => return Err(late).context(name),
                    Err(_) => {}
                }
            };
            log.push((name, answer));
        }};
    }
    ask!(leases.lease_grant(LeaseGrantRequest { id: 77, ttl: 5000 }));
    ask!(leases.lease_grant(LeaseGrantRequest { id: 77, ttl: 5000 }));
    ask!(leases.lease_grant(LeaseGrantRequest {
        id: 78,
        ttl: 9_000_000_001
    }));
    ask!(leases.lease_revoke(LeaseRevokeRequest { id: 404 }));
    ask!(leases.lease_time_to_live(LeaseTimeToLiveRequest { id: 404, keys: true }));
    ask!(leases.lease_leases(LeaseLeasesRequest {}));
    for (key, value) in [
        ("a", "1"),
        ("a", "2"),
        ("b", "9"),
        ("c", "8"),
        ("d", "7"),
        ("b/x", "6"),
    ] {
        ask!(kv.put(PutRequest {
            prev_kv: true,
            ..put(key, value)
        }));
    }
    ask!(kv.put(PutRequest {
        lease: 77,
        ..put("leased", "x")
    }));
    ask!(kv.put(PutRequest {
        lease: 77,
        ..put("leased2", "x")
    }));
    ask!(kv.put(PutRequest {
        lease: 404,
        ..put("k", "x")
    }));
    ask!(kv.put(put("", "x")));
    ask!(kv.put(PutRequest {
        ignore_value: true,
        ..put("a", "x")
    }));
    ask!(kv.put(PutRequest {
        ignore_value: true,
        ..put("absent", "")
    }));
    ask!(kv.put(PutRequest {
        ignore_value: true,
        ..put("leased", "")
    }));
    ask!(kv.put(PutRequest {
        ignore_lease: true,
        lease: 77,
        ..put("a", "x")
    }));
    ask!(kv.put(PutRequest {
        ignore_lease: true,
        ..put("leased2", "y")
    }));
    ask!(kv.put(put("large", vec![b'x'; 2 << 20])));
    for request in transactions() {
        ask!(kv.txn(request), nameless);
    }
    for request in ranges() {
        ask!(kv.range(request));
    }
    ask!(kv.delete_range(delete("", "")));
    ask!(kv.delete_range(delete("absent", "")));
    ask!(kv.delete_range(delete("c", "")));
    ask!(leases.lease_revoke(LeaseRevokeRequest { id: 77 }));
    ask!(kv.range(range("leased", "leasee")));
    let uncovered = |message: &mut HashKvResponse| {
        anonymous(&mut message.header);
        // etcd 3.4 does not say which revision it is.
        message.hash_revision = 0;
    };
    ask!(maintenance.hash_kv(HashKvRequest { revision: 0 }), uncovered);
    ask!(maintenance.hash_kv(HashKvRequest { revision: 9 }), uncovered);
    ask!(maintenance.hash_kv(HashKvRequest { revision: 9999 }), uncovered);
    ask!(kv.compact(CompactionRequest {
        revision: 9999,
        physical: false
    }));
    ask!(kv.compact(CompactionRequest {
        revision: 8,
        physical: true
    }));
    ask!(kv.compact(CompactionRequest {
        revision: 8,
        physical: false
    }));
    ask!(kv.range(RangeRequest {
        revision: 5,
        ..range("a", "")
    }));
    ask!(kv.range(RangeRequest {
        revision: 8,
        ..range("\0", "\0")
    }));
    ask!(maintenance.hash_kv(HashKvRequest { revision: 0 }), uncovered);
    ask!(maintenance.hash_kv(HashKvRequest { revision: 10 }), uncovered);
    ask!(maintenance.hash_kv(HashKvRequest { revision: 3 }), uncovered);
    ask!(kv.delete_range(delete("\0", "\0")));
    ask!(maintenance.hash_kv(HashKvRequest { revision: 0 }), uncovered);
    ask!(cluster.member_remove(MemberRemoveRequest { id: 404 }));
    ask!(cluster.member_update(MemberUpdateRequest {
        id: 404,
        peer_ur_ls: vec!["http://127.0.0.1:1".into()]
    }));
    ask!(cluster.member_promote(MemberPromoteRequest { id: 404 }));
    ask!(cluster.member_add(MemberAddRequest {
        peer_ur_ls: vec!["no url".into()],
        is_learner: false
    }));
    ask!(maintenance.move_leader(MoveLeaderRequest { target_id: 404 }));
    // etcd 3.4 gives it no header.
    ask!(maintenance.alarm(AlarmRequest::default()), |message| message
        .header =
        None);
    let mut auth = AuthClient::new(channel.clone());
    ask!(auth.authenticate(AuthenticateRequest {
        name: "root".into(),
        password: "x".into()
    }));
    log.push(("watch".into(), watch_from(channel.clone(), 3).await?));
    log.push(("watch".into(), watch_from(channel, 9).await?));
    Ok(log)
}

/// What a watch from a revision is told first.
async fn watch_from(channel: Channel, revision: i64) -> anyhow::Result<String> {
    let (requests, stream) = tokio::sync::mpsc::channel(1);
    requests
        .send(WatchRequest {
            request_union: Some(RequestUnion::CreateRequest(WatchCreateRequest {
                key: "\0".into(),
                range_end: "\0".into(),
                start_revision: revision,
                prev_kv: true,
                ..WatchCreateRequest::default()
            })),
        })
        .await?;
    let mut responses = WatchClient::new(channel)
        .watch(tokio_stream::wrappers::ReceiverStream::new(stream))
        .await?
        .into_inner();
    let mut told = Vec::new();
    while let Some(mut response) = responses.message().await? {
        anonymous(&mut response.header);
        let last = response.canceled || !response.events.is_empty();
        told.push(format!("{response:?}"));
        if last {
            break;
        }
    }
    Ok(told.join("\n"))
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_and_refusals_are_etcds() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let etcd = Etcd::start(&folder.path().join("etcd")).await?;
    let store = Member::new("store", folder.path())?.started().await?;
    let theirs = conversation(etcd.channel().await?).await?;
    let ours = conversation(store.channel().await?).await?;
    let different = differences(&theirs, &ours);
    assert!(different.is_empty(), "{different}");
    Ok(())
}

/// What was asked and not seen alike.
fn differences(theirs: &[(String, String)], ours: &[(String, String)]) -> String {
    assert_eq!(theirs.len(), ours.len());
    let mut different = String::new();
    for ((request, theirs), (_, ours)) in theirs.iter().zip(ours) {
        if theirs != ours {
            different.push_str(&format!("{request}\n  etcd:  {theirs}\n  store: {ours}\n"));
        }
    }
    different
}

fn run(command: &mut Command) -> anyhow::Result<String> {
    let output = command.env("ETCDCTL_API", "3").output()?;
    if !output.status.success() {
        bail!("{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

async fn hash(channel: Channel) -> anyhow::Result<(u32, i64)> {
    let hash = MaintenanceClient::new(channel)
        .hash_kv(HashKvRequest { revision: 0 })
        .await?
        .into_inner();
    Ok((hash.hash, hash.compact_revision))
}

async fn fill(channel: Channel) -> anyhow::Result<()> {
    let mut kv = KvClient::new(channel.clone());
    LeaseClient::new(channel)
        .lease_grant(LeaseGrantRequest { id: 99, ttl: 7777 })
        .await?;
    for number in 0..500 {
        let lease = if number == 403 { 99 } else { 0 };
        // Small ones, and some that take several pages.
        let size = if number % 50 == 0 { 40_000 } else { 30 };
        kv.put(PutRequest {
            lease,
            ..put(
                &format!("k{:03}", number % 200),
                vec![b'a' + (number % 26) as u8; size],
            )
        })
        .await?;
    }
    kv.delete_range(delete("k100", "k110")).await?;
    kv.compact(CompactionRequest {
        revision: 300,
        physical: true,
    })
    .await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn backups_go_from_etcd_to_the_store_and_back() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let path = |name: &str| folder.path().join(name).display().to_string();
    let ctl = |endpoint: &str, args: &[&str]| {
        run(Command::new("etcdctl")
            .arg(format!("--endpoints={endpoint}"))
            .args(args))
    };
    let etcd = Etcd::start(&folder.path().join("etcd")).await?;
    fill(etcd.channel().await?).await?;
    ctl(&etcd.endpoint, &["snapshot", "save", &path("theirs.db")])?;
    let (checksum, _) = hash(etcd.channel().await?).await?;

    let store = Member::new("store", folder.path())?;
    run(Command::new(env!("CARGO_BIN_EXE_kube-store"))
        .args(["restore", &path("theirs.db"), "--name=store"])
        .arg(format!("--data-dir={}", store.data.display()))
        .arg(format!("--initial-advertise-peer-urls={}", store.peer_url())))?;
    let store = store.started().await?;
    assert_eq!(hash(store.channel().await?).await?, (checksum, 300));
    let leases = LeaseClient::new(store.channel().await?)
        .lease_time_to_live(LeaseTimeToLiveRequest { id: 99, keys: true })
        .await?
        .into_inner();
    assert_eq!((leases.granted_ttl, leases.keys), (7777, vec!["k003".into()]));

    // And back: etcdctl reads the store's file, and an etcd starts from it.
    store.kv().await?.put(put("from", "the store")).await?;
    ctl(&store.endpoint(), &["snapshot", "save", &path("ours.db")])?;
    let status = run(Command::new("etcdctl").args(["snapshot", "status", "-w", "fields", &path("ours.db")]))?;
    assert!(status.contains("\"Revision\" : 503"), "{status}");
    run(Command::new("etcdctl").args([
        "snapshot",
        "restore",
        &path("ours.db"),
        "--name=one",
        &format!("--data-dir={}", path("etcd-again")),
        "--initial-cluster=one=http://127.0.0.1:1",
        "--initial-advertise-peer-urls=http://127.0.0.1:1",
    ]))?;
    let again = Etcd::start(&folder.path().join("etcd-again")).await?;
    let ask = || RangeRequest { ..range("\0", "\0") };
    let theirs = KvClient::new(again.channel().await?)
        .range(ask())
        .await?
        .into_inner();
    let ours = store.kv().await?.range(ask()).await?.into_inner();
    assert_eq!(ours.kvs.len(), 191);
    assert_eq!(theirs.kvs, ours.kvs);
    assert_eq!(
        hash(again.channel().await?).await?,
        hash(store.channel().await?).await?
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_can_raise_the_revision_beyond_what_clients_have_seen() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("saved.db").display().to_string();
    let old = Member::new("old", folder.path())?.started().await?;
    old.kv().await?.put(put("kept", "yes")).await?;
    run(Command::new("etcdctl")
        .arg(format!("--endpoints={}", old.endpoint()))
        .args(["snapshot", "save", &file]))?;
    // What the backup lacks, and a client has seen.
    old.kv().await?.put(put("later", "lost")).await?;

    let new = Member::new("new", folder.path())?;
    let restore = |more: &[&str]| {
        run(Command::new(env!("CARGO_BIN_EXE_kube-store"))
            .args(["restore", &file, "--name=new"])
            .arg(format!("--data-dir={}", new.data.display()))
            .arg(format!("--initial-advertise-peer-urls={}", new.peer_url()))
            .args(more))
    };
    assert!(
        restore(&["--bump-revision=1000"]).is_err(),
        "old watches would go on"
    );
    assert!(restore(&["--mark-compacted"]).is_err());
    restore(&["--bump-revision=1000", "--mark-compacted"])?;
    let new = new.started().await?;
    let found = new.kv().await?.range(range("kept", "")).await?.into_inner();
    assert_eq!(found.header.map(|header| header.revision), Some(1002));
    assert_eq!(found.kvs[0].mod_revision, 2);
    let told = watch_from(new.channel().await?, 3).await?;
    assert!(told.contains("compact_revision: 1002"), "{told}");
    let put = new.kv().await?.put(put("after", "x")).await?.into_inner();
    assert_eq!(put.header.map(|header| header.revision), Some(1003));
    Ok(())
}
