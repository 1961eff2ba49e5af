//! Drives kube-store and etcd with the same client and the same load in one run, and prints what each costs.
//!
//! ```sh
//! cargo build --release -p keelson-store --bin kube-store --example compare_with_etcd
//! target/release/examples/compare_with_etcd --store target/release/kube-store --etcd /usr/bin/etcd
//! ```
//!
//! One member each, both with fsync, plain HTTP on the loopback, data in `--dir`. The client has one connection
//! for 32 callers; every caller waits for its answer before it asks again. CPU is the server's own, from
//! `/proc`. `--seconds` is how long each load runs, `--keys` how many keys the memory is measured with.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use bytes::Bytes;
use clap::Parser;
use keelson_proto::etcd::compare::{CompareResult, CompareTarget, TargetUnion};
use keelson_proto::etcd::kv_client::KvClient;
use keelson_proto::etcd::request_op::Request;
use keelson_proto::etcd::watch_client::WatchClient;
use keelson_proto::etcd::watch_request::RequestUnion;
use keelson_proto::etcd::{
    Compare, PutRequest, RangeRequest, RequestOp, TxnRequest, WatchCreateRequest, WatchRequest,
};
use tonic::transport::Channel;

/// Callers that share a connection.
const CALLERS_PER_CONNECTION: usize = 32;
/// Keys that are put, read and overwritten.
const WORKING_KEYS: u64 = 10_000;

#[derive(Parser, Clone)]
struct Arguments {
    /// kube-store's binary
    #[arg(long)]
    store: PathBuf,
    /// etcd's binary
    #[arg(long, default_value = "/usr/bin/etcd")]
    etcd: PathBuf,
    /// Folder for the data of both
    #[arg(long, default_value = "/var/tmp")]
    dir: PathBuf,
    /// How long each load runs
    #[arg(long, default_value_t = 5)]
    seconds: u64,
    /// Keys of 256 bytes that the memory is measured with
    #[arg(long, default_value_t = 100_000)]
    keys: u64,
    /// Only loads whose name contains this
    #[arg(long, default_value = "")]
    only: String,
}

struct Server {
    name: &'static str,
    binary: PathBuf,
    data: PathBuf,
    client: u16,
    peer: u16,
    child: Option<Child>,
}

fn free_port() -> anyhow::Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

impl Server {
    fn new(name: &'static str, binary: &Path, dir: &Path) -> anyhow::Result<Self> {
        Ok(Self {
            name,
            binary: binary.to_owned(),
            data: dir.join(name),
            client: free_port()?,
            peer: free_port()?,
            child: None,
        })
    }

    async fn start(&mut self) -> anyhow::Result<Duration> {
        let client = format!("http://127.0.0.1:{}", self.client);
        let peer = format!("http://127.0.0.1:{}", self.peer);
        let started = Instant::now();
        let child = Command::new(&self.binary)
            .arg("--name=one")
            .arg(format!("--data-dir={}", self.data.display()))
            .arg(format!("--listen-client-urls={client}"))
            .arg(format!("--advertise-client-urls={client}"))
            .arg(format!("--listen-peer-urls={peer}"))
            .arg(format!("--initial-advertise-peer-urls={peer}"))
            .arg(format!("--initial-cluster=one={peer}"))
            .arg("--quota-backend-bytes=8589934592")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .with_context(|| format!("starting {}", self.binary.display()))?;
        self.child = Some(child);
        while started.elapsed() < Duration::from_secs(60) {
            if let Ok(channel) = self.connect().await
                && KvClient::new(channel).range(get(0)).await.is_ok()
            {
                return Ok(started.elapsed());
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        bail!("{} does not answer", self.name)
    }

    fn stop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = Command::new("kill").arg(child.id().to_string()).status();
            let _ = child.wait();
        }
    }

    async fn connect(&self) -> anyhow::Result<Channel> {
        let url = format!("http://127.0.0.1:{}", self.client);
        Ok(Channel::from_shared(url)?.connect().await?)
    }

    fn proc(&self, file: &str) -> String {
        let id = self.child.as_ref().map_or(0, Child::id);
        std::fs::read_to_string(format!("/proc/{id}/{file}")).unwrap_or_default()
    }

    /// CPU used so far, in microseconds.
    fn cpu_micros(&self) -> u64 {
        let stat = self.proc("stat");
        let after = stat.rsplit(')').next().unwrap_or_default();
        let fields: Vec<u64> = after
            .split_whitespace()
            .map(|field| field.parse().unwrap_or(0))
            .collect();
        // utime and stime, in ticks of 10 ms
        fields
            .get(11..13)
            .map_or(0, |ticks| (ticks[0] + ticks[1]) * 10_000)
    }

    fn memory_mib(&self) -> f64 {
        let status = self.proc("status");
        let line = status.lines().find(|line| line.starts_with("VmRSS"));
        let kib: f64 = line
            .and_then(|line| line.split_whitespace().nth(1))
            .and_then(|text| text.parse().ok())
            .unwrap_or(0.0);
        kib / 1024.0
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
        let _ = std::fs::remove_dir_all(&self.data);
    }
}

fn key(number: u64) -> Bytes {
    format!("/registry/pods/default/pod-{number:08}")
        .into_bytes()
        .into()
}

fn put(number: u64, size: usize) -> PutRequest {
    PutRequest {
        key: key(number),
        value: vec![b'v'; size].into(),
        ..PutRequest::default()
    }
}

fn get(number: u64) -> RangeRequest {
    RangeRequest {
        key: key(number),
        ..RangeRequest::default()
    }
}

/// What one caller does over and over.
#[derive(Clone, Copy)]
enum Load {
    Put(usize),
    /// As the apiserver writes: if the revision is the one known, put, else tell what there is.
    Update(usize),
    Get {
        serializable: bool,
    },
    /// 500 keys.
    List,
}

struct Measured {
    per_second: f64,
    p50: f64,
    p99: f64,
    cpu: f64,
}

async fn call(
    kv: &mut KvClient<Channel>,
    load: Load,
    number: u64,
    revision: &mut i64,
) -> Result<(), tonic::Status> {
    match load {
        Load::Put(size) => {
            kv.put(put(number, size)).await?;
        }
        Load::Get { serializable } => {
            let request = RangeRequest {
                serializable,
                ..get(number)
            };
            kv.range(request).await?;
        }
        Load::List => {
            let request = RangeRequest {
                range_end: Bytes::from_static(b"/registry/pods0"),
                limit: 500,
                ..get(number % (WORKING_KEYS - 500))
            };
            kv.range(request).await?;
        }
        Load::Update(size) => {
            let op = |request| RequestOp {
                request: Some(request),
            };
            let request = TxnRequest {
                compare: vec![Compare {
                    result: CompareResult::Equal as i32,
                    target: CompareTarget::Mod as i32,
                    key: key(number),
                    target_union: Some(TargetUnion::ModRevision(*revision)),
                    ..Compare::default()
                }],
                success: vec![op(Request::RequestPut(put(number, size)))],
                failure: vec![op(Request::RequestRange(get(number)))],
            };
            let response = kv.txn(request).await?.into_inner();
            let header = response.header.map_or(0, |header| header.revision);
            *revision = if response.succeeded { header } else { 0 };
        }
    }
    Ok(())
}

async fn run(server: &Server, load: Load, callers: usize, length: Duration) -> anyhow::Result<Measured> {
    let mut channels = Vec::new();
    for _ in 0..callers.div_ceil(CALLERS_PER_CONNECTION) {
        channels.push(server.connect().await?);
    }
    let end = Instant::now() + length;
    let before = server.cpu_micros();
    let mut tasks = Vec::new();
    for caller in 0..callers {
        let mut kv =
            KvClient::new(channels[caller % channels.len()].clone()).max_decoding_message_size(64 << 20);
        tasks.push(tokio::spawn(async move {
            let mut micros = Vec::new();
            let mut number = caller as u64 * 7919;
            // An updater has keys of its own; it takes each once more after it was told the revision.
            let mut revision = 0;
            while Instant::now() < end {
                let started = Instant::now();
                let key = match load {
                    Load::Update(_) => caller as u64 % WORKING_KEYS,
                    _ => number % WORKING_KEYS,
                };
                call(&mut kv, load, key, &mut revision).await?;
                micros.push(started.elapsed().as_micros() as u64);
                number += 1;
            }
            Ok::<_, tonic::Status>(micros)
        }));
    }
    let mut micros = Vec::new();
    for task in tasks {
        micros.extend(task.await??);
    }
    let cpu = server.cpu_micros() - before;
    micros.sort_unstable();
    let at = |part: f64| micros[((micros.len() - 1) as f64 * part) as usize] as f64 / 1000.0;
    Ok(Measured {
        per_second: micros.len() as f64 / length.as_secs_f64(),
        p50: at(0.5),
        p99: at(0.99),
        cpu: cpu as f64 / micros.len() as f64,
    })
}

/// Puts while `watchers` watch all of them; the figures are of the events that arrived.
async fn fan_out(server: &Server, watchers: usize, length: Duration) -> anyhow::Result<Measured> {
    let arrived = Arc::new(AtomicU64::new(0));
    let mut tasks = Vec::new();
    let mut channels = Vec::new();
    for _ in 0..watchers.div_ceil(100) {
        channels.push(server.connect().await?);
    }
    for watcher in 0..watchers {
        let mut client = WatchClient::new(channels[watcher % channels.len()].clone());
        let (requests, stream) = tokio::sync::mpsc::channel(1);
        requests
            .send(WatchRequest {
                request_union: Some(RequestUnion::CreateRequest(WatchCreateRequest {
                    key: Bytes::from_static(b"/registry/pods/"),
                    range_end: Bytes::from_static(b"/registry/pods0"),
                    ..WatchCreateRequest::default()
                })),
            })
            .await?;
        let mut responses = client
            .watch(tokio_stream::wrappers::ReceiverStream::new(stream))
            .await?
            .into_inner();
        responses.message().await?;
        let arrived = arrived.clone();
        tasks.push(tokio::spawn(async move {
            while let Ok(Some(response)) = responses.message().await {
                arrived.fetch_add(response.events.len() as u64, Ordering::Relaxed);
            }
            drop(requests);
        }));
    }
    let before = server.cpu_micros();
    let puts = run(server, Load::Put(256), 8, length).await?;
    let wanted = (puts.per_second * length.as_secs_f64()).round() as u64 * watchers as u64;
    let deadline = Instant::now() + Duration::from_secs(20);
    while arrived.load(Ordering::Relaxed) < wanted && Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let cpu = server.cpu_micros() - before;
    let events = arrived.load(Ordering::Relaxed);
    for task in tasks {
        task.abort();
    }
    Ok(Measured {
        per_second: events as f64 / length.as_secs_f64(),
        cpu: cpu as f64 / events as f64,
        ..puts
    })
}

fn row(name: &str, etcd: &Measured, store: &Measured) {
    println!(
        "| {name} | {:.0} | {:.0} | {:.1} x | {:.0} | {:.0} | {:.2} x | {:.1} / {:.1} | {:.1} / {:.1} |",
        etcd.per_second,
        store.per_second,
        store.per_second / etcd.per_second,
        etcd.cpu,
        store.cpu,
        store.cpu / etcd.cpu,
        etcd.p50,
        etcd.p99,
        store.p50,
        store.p99,
    );
}

async fn fill(server: &Server, from: u64, to: u64, size: usize) -> anyhow::Result<()> {
    let channel = server.connect().await?;
    let mut tasks = Vec::new();
    let parts = 64;
    for part in 0..parts {
        let mut kv = KvClient::new(channel.clone());
        tasks.push(tokio::spawn(async move {
            let mut number = from + part;
            while number < to {
                kv.put(put(number, size)).await?;
                number += parts;
            }
            Ok::<_, tonic::Status>(())
        }));
    }
    for task in tasks {
        task.await??;
    }
    Ok(())
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let length = Duration::from_secs(arguments.seconds);
    let folder = tempfile::Builder::new()
        .prefix("compare-")
        .tempdir_in(&arguments.dir)?;
    let mut servers = [
        Server::new("etcd", &arguments.etcd, folder.path())?,
        Server::new("kube-store", &arguments.store, folder.path())?,
    ];
    for server in &mut servers {
        server.start().await?;
        fill(server, 0, WORKING_KEYS, 256).await?;
    }
    println!(
        "| load | etcd /s | kube-store /s | ratio | etcd µs CPU | kube-store µs CPU | ratio | etcd p50 / p99 ms | kube-store p50 / p99 ms |"
    );
    println!("| --- | --- | --- | --- | --- | --- | --- | --- | --- |");
    let loads = [
        ("put 256 B, 1 caller", Load::Put(256), 1),
        ("put 256 B, 16 callers", Load::Put(256), 16),
        ("put 256 B, 128 callers", Load::Put(256), 128),
        ("put 256 B, 512 callers", Load::Put(256), 512),
        ("put 5 KiB, 128 callers", Load::Put(5 << 10), 128),
        ("update 5 KiB, 128 callers", Load::Update(5 << 10), 128),
        ("get, 128 callers", Load::Get { serializable: false }, 128),
        (
            "get serializable, 128 callers",
            Load::Get { serializable: true },
            128,
        ),
        ("list 500, 16 callers", Load::List, 16),
        ("list 500, 128 callers", Load::List, 128),
    ];
    for (name, load, callers) in loads {
        if name.contains(&arguments.only) {
            let etcd = run(&servers[0], load, callers, length).await?;
            let store = run(&servers[1], load, callers, length).await?;
            row(name, &etcd, &store);
        }
    }
    for watchers in [1, 100, 1000] {
        let name = format!("events to {watchers} watchers");
        if name.contains(&arguments.only) {
            let etcd = fan_out(&servers[0], watchers, length).await?;
            let store = fan_out(&servers[1], watchers, length).await?;
            row(&name, &etcd, &store);
        }
    }
    println!("\n| | etcd | kube-store | ratio |\n| --- | --- | --- | --- |");
    let mut lines: Vec<(String, [f64; 2])> = vec![
        ("memory after the loads, MiB".into(), [0.0; 2]),
        (
            format!("memory with {} keys, freshly started, MiB", arguments.keys),
            [0.0; 2],
        ),
        (
            format!("start with {} keys until it answers, ms", arguments.keys),
            [0.0; 2],
        ),
    ];
    for (place, server) in servers.iter_mut().enumerate() {
        lines[0].1[place] = server.memory_mib();
        fill(server, WORKING_KEYS, arguments.keys, 256).await?;
        server.stop();
        lines[2].1[place] = server.start().await?.as_secs_f64() * 1000.0;
        tokio::time::sleep(Duration::from_secs(3)).await;
        lines[1].1[place] = server.memory_mib();
    }
    for (name, [etcd, store]) in lines {
        println!("| {name} | {etcd:.0} | {store:.0} | {:.2} x |", store / etcd);
    }
    Ok(())
}
