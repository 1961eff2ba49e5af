//! Faults for real: three members in network namespaces of their own, under load, while they are killed, stopped, cut
//! off from each other and slowed down. What clients saw has to be linearizable, and a watch that is taken up again
//! wherever it broke misses nothing and repeats nothing. Needs root.

mod common;
#[allow(dead_code, reason = "shared with the simulation")]
#[path = "simulation/history.rs"]
mod history;
#[path = "simulation/linearizable.rs"]
mod linearizable;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use bytes::Bytes;
use common::{put, range};
use history::{Asked, Operation, Value};
use keelson_proto::etcd::compare::{CompareResult, CompareTarget, TargetUnion};
use keelson_proto::etcd::kv_client::KvClient;
use keelson_proto::etcd::maintenance_client::MaintenanceClient;
use keelson_proto::etcd::request_op::Request;
use keelson_proto::etcd::response_op::Response;
use keelson_proto::etcd::watch_client::WatchClient;
use keelson_proto::etcd::watch_request::RequestUnion;
use keelson_proto::etcd::{Compare, RequestOp, StatusRequest, TxnRequest, WatchCreateRequest, WatchRequest};
use linearizable::Verdict;
use parking_lot::Mutex;
use rand::Rng;
use tonic::transport::{Channel, Endpoint};

const MEMBERS: [&str; 3] = ["m1", "m2", "m3"];
const CLIENTS: u64 = 6;
const KEYS: usize = 5;
/// How long a client waits for an answer.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long a fault lasts.
const FAULT: Duration = Duration::from_secs(4);
/// How long a group without faults may take to serve again.
const HEALING: Duration = Duration::from_secs(30);

/// Tells the test inside the namespaces where its files are, and what they are called.
const FOLDER: &str = "KEELSON_FAULTS_FOLDER";
const PREFIX: &str = "KEELSON_FAULTS_PREFIX";

fn run(command: &str) -> anyhow::Result<()> {
    let output = Command::new("sh").args(["-ec", command]).output()?;
    if !output.status.success() {
        bail!("{command}: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(())
}

/// A namespace with a bridge, and one for each member at its end of a cable.
struct Network(String);

impl Network {
    fn make() -> anyhow::Result<Self> {
        let network = Self(format!("kst{}", std::process::id()));
        let hub = format!("{}-hub", network.0);
        run(&format!(
            "ip netns add {hub}; ip -n {hub} link set lo up; ip -n {hub} link add br0 type bridge
             ip -n {hub} link set br0 up; ip -n {hub} addr add 10.77.0.1/24 dev br0"
        ))?;
        for (number, member) in MEMBERS.iter().enumerate() {
            let space = format!("{}-{member}", network.0);
            run(&format!(
                "ip netns add {space}; ip -n {space} link set lo up
                 ip -n {hub} link add {member} type veth peer name eth0 netns {space}
                 ip -n {hub} link set {member} master br0 up
                 ip -n {space} addr add {}/24 dev eth0; ip -n {space} link set eth0 up",
                address(number)
            ))?;
        }
        Ok(network)
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for name in MEMBERS.iter().chain(&["hub"]) {
            let _ = run(&format!("ip netns del {}-{name}", self.0));
        }
    }
}

fn address(member: usize) -> String {
    format!("10.77.0.{}", member + 11)
}

/// The members, as seen from the hub.
struct Group {
    folder: PathBuf,
    prefix: String,
    children: Vec<Option<Child>>,
}

impl Group {
    fn space(&self, member: usize) -> String {
        format!("{}-{}", self.prefix, MEMBERS[member])
    }

    fn start(&mut self, member: usize) -> anyhow::Result<()> {
        let initial: Vec<String> = MEMBERS
            .iter()
            .enumerate()
            .map(|(number, name)| format!("{name}=http://{}:2380", address(number)))
            .collect();
        let name = MEMBERS[member];
        let (client, peer) = (
            format!("http://{}:2379", address(member)),
            format!("http://{}:2380", address(member)),
        );
        let log = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.folder.join(format!("{name}.log")))?;
        let child = Command::new("ip")
            .args([
                "netns",
                "exec",
                &self.space(member),
                env!("CARGO_BIN_EXE_kube-store"),
            ])
            .arg(format!("--name={name}"))
            .arg(format!("--data-dir={}", self.folder.join(name).display()))
            .arg(format!("--listen-client-urls={client}"))
            .arg(format!("--advertise-client-urls={client}"))
            .arg(format!("--listen-peer-urls={peer}"))
            .arg(format!("--initial-advertise-peer-urls={peer}"))
            .arg(format!("--initial-cluster={}", initial.join(",")))
            .arg("--snapshot-count=500")
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .context("starting kube-store")?;
        self.children[member] = Some(child);
        Ok(())
    }

    fn signal(&self, member: usize, signal: &str) -> anyhow::Result<()> {
        // `ip netns exec` becomes the program it starts.
        let child = self.children[member].as_ref().context("it does not run")?;
        run(&format!("kill -{signal} {}", child.id()))
    }

    fn kill(&mut self, member: usize) -> anyhow::Result<()> {
        self.signal(member, "KILL")?;
        if let Some(mut child) = self.children[member].take() {
            child.wait()?;
        }
        Ok(())
    }

    /// Drops what a member gets from, or sends to, other members.
    fn cut(&self, member: usize, hooks: &[(&str, &str)]) -> anyhow::Result<()> {
        let others: Vec<String> = (0..MEMBERS.len())
            .filter(|other| *other != member)
            .map(address)
            .collect();
        let chains: String = hooks
            .iter()
            .map(|(hook, end)| {
                format!(
                    "chain {hook} {{ type filter hook {hook} priority 0; ip {end} {{ {} }} drop; }}\n",
                    others.join(", ")
                )
            })
            .collect();
        run(&format!(
            "ip netns exec {} nft 'table inet faults {{ {chains} }}'",
            self.space(member)
        ))
    }

    fn mend(&self, member: usize) -> anyhow::Result<()> {
        run(&format!(
            "ip netns exec {} nft delete table inet faults",
            self.space(member)
        ))
    }

    async fn leader(&self) -> anyhow::Result<usize> {
        let deadline = Instant::now() + HEALING;
        while Instant::now() < deadline {
            let mut votes = BTreeMap::<u64, usize>::new();
            let mut ids = BTreeMap::new();
            for member in 0..MEMBERS.len() {
                let asked = async {
                    let status = MaintenanceClient::new(connect(member).await?)
                        .status(StatusRequest {})
                        .await?
                        .into_inner();
                    anyhow::Ok((status.header.map_or(0, |header| header.member_id), status.leader))
                };
                if let Ok(Ok((id, leader))) = tokio::time::timeout(PATIENCE, asked).await {
                    ids.insert(id, member);
                    *votes.entry(leader).or_default() += 1;
                }
            }
            let agreed = votes.iter().find(|(leader, votes)| **leader != 0 && **votes >= 2);
            if let Some(member) = agreed.and_then(|(leader, _)| ids.get(leader)) {
                return Ok(*member);
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        bail!("nobody leads")
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        for child in self.children.iter_mut().flatten() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

async fn connect(member: usize) -> anyhow::Result<Channel> {
    let endpoint = Endpoint::from_shared(format!("http://{}:2379", address(member)))?;
    Ok(endpoint.connect_timeout(PATIENCE).connect().await?)
}

/// What the clients share.
struct Load {
    started: Instant,
    stop: AtomicBool,
    operations: Mutex<Vec<Operation>>,
    next: AtomicU64,
    answered: AtomicU64,
}

impl Load {
    fn now(&self) -> u64 {
        self.started.elapsed().as_micros() as u64
    }

    /// Asks for something and notes what came of it.
    async fn ask(&self, kv: &mut KvClient<Channel>, known: &mut BTreeMap<String, (Value, i64)>) -> bool {
        let (key, kind) = {
            let mut random = rand::rng();
            (
                format!("k/{}", random.random_range(0..KEYS)),
                random.random_range(0..10),
            )
        };
        let new = self.next.fetch_add(1, Ordering::Relaxed) + 1;
        let called = self.now();
        let asked = async {
            anyhow::Ok(match kind {
                0..4 => {
                    let found = kv.range(range(&key, "")).await?.into_inner();
                    let (value, revision) = first(&found.kvs);
                    (Asked::Get(value), Some((value, revision)))
                }
                4..6 => {
                    let done = kv.put(put(&key, new.to_string())).await?.into_inner();
                    let revision = done.header.map_or(0, |header| header.revision);
                    (Asked::Put(new), Some((new, revision)))
                }
                _ => {
                    let (expected, revision) = known.get(&key).copied().unwrap_or((0, 0));
                    let done = kv.txn(swap(&key, revision, new)).await?.into_inner();
                    let at = done.header.map_or(0, |header| header.revision);
                    let (outcome, now) = match done.responses.into_iter().next().and_then(|op| op.response) {
                        Some(Response::ResponseRange(found)) if !done.succeeded => {
                            let (value, revision) = first(&found.kvs);
                            (Err(value), (value, revision))
                        }
                        _ => (Ok(()), (new, at)),
                    };
                    let asked = Asked::Swap {
                        expected,
                        new,
                        outcome: Some(outcome),
                    };
                    (asked, Some(now))
                }
            })
        };
        let answer = tokio::time::timeout(PATIENCE, asked).await;
        let returned = self.now();
        let (asked, returned) = match answer {
            Ok(Ok((asked, now))) => {
                if let Some(now) = now {
                    known.insert(key.clone(), now);
                }
                self.answered.fetch_add(1, Ordering::Relaxed);
                (asked, Some(returned))
            }
            // Nobody knows what became of it; a read that was not answered says nothing.
            _ => match kind {
                0..4 => return false,
                4..6 => (Asked::Put(new), None),
                _ => {
                    let (expected, _) = known.get(&key).copied().unwrap_or((0, 0));
                    let outcome = None;
                    let asked = Asked::Swap {
                        expected,
                        new,
                        outcome,
                    };
                    (asked, None)
                }
            },
        };
        self.operations.lock().push(Operation {
            key,
            asked,
            called,
            returned,
            revision: None,
        });
        returned.is_some()
    }

    /// Asks until it is told to stop, at whichever member answers.
    async fn client(self: Arc<Self>, number: u64) {
        let mut known = BTreeMap::new();
        let mut member = number as usize;
        while !self.stop.load(Ordering::Relaxed) {
            member = (member + 1) % MEMBERS.len();
            let Ok(Ok(channel)) = tokio::time::timeout(PATIENCE, connect(member)).await else {
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            };
            let mut kv = KvClient::new(channel);
            while !self.stop.load(Ordering::Relaxed) && self.ask(&mut kv, &mut known).await {
                // Enough for every fault to meet many, and few enough to be checked.
                tokio::time::sleep(Duration::from_millis(15)).await;
            }
        }
    }
}

fn first(kvs: &[keelson_proto::mvcc::KeyValue]) -> (Value, i64) {
    kvs.first().map_or((0, 0), |kv| {
        let value = String::from_utf8_lossy(&kv.value).parse().unwrap_or(u64::MAX);
        (value, kv.mod_revision)
    })
}

fn swap(key: &str, revision: i64, new: Value) -> TxnRequest {
    let op = |request| RequestOp {
        request: Some(request),
    };
    TxnRequest {
        compare: vec![Compare {
            result: CompareResult::Equal as i32,
            target: CompareTarget::Mod as i32,
            key: key.to_owned().into(),
            target_union: Some(TargetUnion::ModRevision(revision)),
            ..Compare::default()
        }],
        success: vec![op(Request::RequestPut(put(key, new.to_string())))],
        failure: vec![op(Request::RequestRange(range(key, "")))],
    }
}

type Seen = Vec<(i64, Bytes, Bytes)>;

/// Watches everything from revision 2 on, at one member after the other, until `until` has come.
async fn watch(until: Arc<AtomicU64>) -> Seen {
    let mut seen = Seen::new();
    let mut member = 0;
    loop {
        member = (member + 1) % MEMBERS.len();
        let next = seen.last().map_or(2, |(revision, ..)| revision + 1);
        let _ = watch_at(member, next, &until, &mut seen).await;
        if seen
            .last()
            .is_some_and(|(revision, ..)| *revision as u64 >= until.load(Ordering::Relaxed))
        {
            return seen;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

async fn watch_at(member: usize, next: i64, until: &AtomicU64, seen: &mut Seen) -> anyhow::Result<()> {
    let channel = tokio::time::timeout(PATIENCE, connect(member)).await??;
    let (requests, stream) = tokio::sync::mpsc::channel(1);
    requests
        .send(WatchRequest {
            request_union: Some(RequestUnion::CreateRequest(WatchCreateRequest {
                key: "k/".into(),
                range_end: "k0".into(),
                start_revision: next,
                ..WatchCreateRequest::default()
            })),
        })
        .await?;
    let mut responses = WatchClient::new(channel)
        .watch(tokio_stream::wrappers::ReceiverStream::new(stream))
        .await?
        .into_inner();
    // Silence is taken for a break now and then, so that the watch moves about.
    while let Some(response) = tokio::time::timeout(PATIENCE, responses.message()).await?? {
        if response.canceled {
            bail!("cancelled");
        }
        for event in response.events {
            let kv = event.kv.context("an event without a key")?;
            seen.push((kv.mod_revision, kv.key, kv.value));
        }
        if seen
            .last()
            .is_some_and(|(revision, ..)| *revision as u64 >= until.load(Ordering::Relaxed))
        {
            break;
        }
    }
    Ok(())
}

#[test]
fn three_members_in_three_namespaces_survive_it_all() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let network = Network::make()?;
    let status = Command::new("ip")
        .args(["netns", "exec", &format!("{}-hub", network.0)])
        .arg(std::env::current_exe()?)
        .args(["within_the_namespaces", "--exact", "--ignored", "--nocapture"])
        .env(FOLDER, folder.path())
        .env(PREFIX, &network.0)
        .status()?;
    if !status.success() {
        for member in MEMBERS {
            let log = std::fs::read_to_string(folder.path().join(format!("{member}.log")));
            eprintln!("log of {member}:\n{}", log.unwrap_or_default());
        }
    }
    assert!(status.success());
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "runs in the namespaces that the other test makes"]
async fn within_the_namespaces() -> anyhow::Result<()> {
    let folder = PathBuf::from(std::env::var(FOLDER)?);
    let mut group = Group {
        folder: Path::new(&folder).to_owned(),
        prefix: std::env::var(PREFIX)?,
        children: vec![None, None, None],
    };
    for member in 0..MEMBERS.len() {
        group.start(member)?;
    }
    group.leader().await?;
    let load = Arc::new(Load {
        started: Instant::now(),
        stop: AtomicBool::new(false),
        operations: Mutex::default(),
        next: AtomicU64::new(0),
        answered: AtomicU64::new(0),
    });
    let clients: Vec<_> = (0..CLIENTS)
        .map(|number| tokio::spawn(load.clone().client(number)))
        .collect();
    let last = Arc::new(AtomicU64::new(u64::MAX));
    let watcher = tokio::spawn(watch(last.clone()));
    let both = [("input", "saddr"), ("output", "daddr")];

    tokio::time::sleep(FAULT / 2).await;
    for fault in 0..7 {
        let leader = group.leader().await?;
        let follower = (leader + 1) % MEMBERS.len();
        let before = load.answered.load(Ordering::Relaxed);
        match fault {
            0 => {
                println!("kill -9 of the leader {}", MEMBERS[leader]);
                group.kill(leader)?;
                tokio::time::sleep(FAULT).await;
                group.start(leader)?;
            }
            1 => {
                println!("SIGSTOP of the leader {}", MEMBERS[leader]);
                group.signal(leader, "STOP")?;
                tokio::time::sleep(FAULT).await;
                group.signal(leader, "CONT")?;
            }
            2 => {
                println!("the leader {} hears and reaches no other member", MEMBERS[leader]);
                group.cut(leader, &both)?;
                tokio::time::sleep(FAULT).await;
                group.mend(leader)?;
            }
            3 => {
                println!("the leader {} hears no other member", MEMBERS[leader]);
                group.cut(leader, &both[..1])?;
                tokio::time::sleep(FAULT).await;
                group.mend(leader)?;
            }
            4 => {
                println!("the follower {} reaches no other member", MEMBERS[follower]);
                group.cut(follower, &both[1..])?;
                tokio::time::sleep(FAULT).await;
                group.mend(follower)?;
            }
            5 => {
                let space = group.space(leader);
                let slow =
                    format!("ip netns exec {space} tc qdisc add dev eth0 root netem delay 40ms 20ms loss 5%");
                match run(&slow) {
                    Ok(()) => {
                        println!("the leader {} is slow and loses messages", MEMBERS[leader]);
                        tokio::time::sleep(FAULT).await;
                        run(&format!("ip netns exec {space} tc qdisc del dev eth0 root"))?;
                    }
                    Err(error) => println!("this kernel cannot delay and lose: {error:#}"),
                }
            }
            _ => {
                println!("kill -9 of everybody");
                for member in 0..MEMBERS.len() {
                    group.kill(member)?;
                }
                for member in 0..MEMBERS.len() {
                    group.start(member)?;
                }
            }
        }
        group.leader().await?;
        tokio::time::sleep(FAULT / 4).await;
        let after = load.answered.load(Ordering::Relaxed);
        println!("  {} requests were answered meanwhile", after - before);
        assert!(after > before, "nobody was answered");
    }
    load.stop.store(true, Ordering::Relaxed);
    for client in clients {
        client.await?;
    }

    // Every member has come to the same, and the last reads say what the history has to explain.
    let mut ends = Vec::new();
    for member in 0..MEMBERS.len() {
        let mut kv = KvClient::new(connect(member).await?);
        let called = load.now();
        let found = kv.range(range("k/", "k0")).await?.into_inner();
        let returned = load.now();
        for number in 0..KEYS {
            let key = format!("k/{number}");
            let there: Vec<_> = found.kvs.iter().filter(|kv| kv.key == key).cloned().collect();
            load.operations.lock().push(Operation {
                key,
                asked: Asked::Get(first(&there).0),
                called,
                returned: Some(returned),
                revision: None,
            });
        }
        ends.push((found.header.map_or(0, |header| header.revision), found.kvs));
    }
    // A write that nobody waits for any more may come between two of the reads; then the revisions differ.
    let revision = ends.iter().map(|(revision, _)| *revision).max().unwrap_or(0);
    let operations = std::mem::take(&mut *load.operations.lock());
    let unknown = operations
        .iter()
        .filter(|operation| operation.returned.is_none())
        .count();
    println!(
        "{} operations, of {unknown} of which the outcome is unknown",
        operations.len()
    );
    for number in 0..KEYS {
        let key = format!("k/{number}");
        let of_key: Vec<Operation> = operations
            .iter()
            .filter(|operation| operation.key == key)
            .cloned()
            .collect();
        match linearizable::check(&of_key) {
            Verdict::Linearizable => {}
            Verdict::Not(at) => bail!("{key}: nothing explains {:?}", of_key[at]),
            Verdict::Unknown => bail!("{key}: the check came to no end over {} operations", of_key.len()),
        }
    }
    // The newest change that a watch of these keys is told of.
    let newest = ends
        .iter()
        .flat_map(|(_, kvs)| kvs)
        .map(|kv| kv.mod_revision)
        .max()
        .unwrap_or(0);
    assert!(newest <= revision);
    last.store(newest as u64, Ordering::Relaxed);
    let seen = tokio::time::timeout(HEALING, watcher).await??;
    let whole = tokio::time::timeout(HEALING, watch(last)).await?;
    let known = |seen: &Seen| -> Seen { seen.iter().filter(|(at, ..)| *at <= newest).cloned().collect() };
    assert!(
        known(&seen) == known(&whole),
        "the watch missed or repeated something"
    );
    assert!(seen.windows(2).all(|pair| pair[0].0 < pair[1].0));
    println!("a watch saw {} changes, each once", seen.len());
    Ok(())
}
