//! Drives kube-store and etcd with the same client and the same load in one run, and prints what each costs.
//!
//! ```sh
//! cargo build --release -p keelson-store --bin kube-store --example compare_with_etcd
//! target/release/examples/compare_with_etcd --store target/release/kube-store --etcd /usr/bin/etcd --members 3 loads
//! ```
//!
//! All with fsync, plain HTTP on the loopback, data in `--dir`. CPU and memory are those of all members together, from
//! `/proc`. The client spreads its connections over the members, 32 callers to each connection.
//!
//! - [`group`]: the servers; [`requests`]: what is asked; [`loads`]: many callers at once
//! - [`bulk`]: much data; [`prober`]: how long a client waits meanwhile

mod bulk;
mod group;
mod loads;
mod prober;
mod requests;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::{Parser, Subcommand};
use group::Group;
use keelson_proto::etcd::SnapshotRequest;
use keelson_proto::etcd::maintenance_client::MaintenanceClient;
use loads::{Load, Measured};
use prober::Prober;
use requests::WORKING_KEYS;

#[derive(Parser)]
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
    /// Members of each
    #[arg(long, default_value_t = 1)]
    members: usize,
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Throughput, time and CPU of reads, writes and watches
    Loads {
        /// How long each load runs
        #[arg(long, default_value_t = 5)]
        seconds: u64,
        /// Only loads whose name contains one of these
        #[arg(long, value_delimiter = ',')]
        only: Vec<String>,
    },
    /// Memory and start with so many keys
    Keys {
        /// How many
        #[arg(long, default_value_t = 1_000_000)]
        keys: u64,
        /// Bytes of each value
        #[arg(long, default_value_t = 256)]
        size: usize,
    },
    /// Disk, memory and CPU of overwriting 10,000 keys, compacted after every 100,000
    Overwrites {
        /// How many
        #[arg(long, default_value_t = 10_000_000)]
        times: u64,
        /// Bytes of each value
        #[arg(long, default_value_t = 256)]
        size: usize,
    },
    /// The longest waits of a light client while the servers are idle, overwrite, compact and send snapshots
    Pauses {
        /// Keys that are there
        #[arg(long, default_value_t = 100_000)]
        keys: u64,
        /// Overwrites meanwhile
        #[arg(long, default_value_t = 400_000)]
        times: u64,
    },
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

/// Prints figures of both side by side.
fn compare(lines: Vec<(&str, f64, f64)>) {
    println!("| | etcd | kube-store | ratio |\n| --- | --- | --- | --- |");
    for (name, etcd, store) in lines {
        println!("| {name} | {etcd:.1} | {store:.1} | {:.2} x |", store / etcd);
    }
}

async fn loads([etcd_group, store_group]: &[Group; 2], seconds: u64, only: &[String]) -> anyhow::Result<()> {
    let length = Duration::from_secs(seconds);
    let wanted = |name: &str| only.is_empty() || only.iter().any(|part| name.contains(part));
    println!(
        "| load | etcd /s | kube-store /s | ratio | etcd µs CPU | kube-store µs CPU | ratio | etcd p50 / p99 ms | kube-store p50 / p99 ms |"
    );
    println!("| --- | --- | --- | --- | --- | --- | --- | --- | --- |");
    let linearizable = Load::Get { serializable: false };
    let serializable = Load::Get { serializable: true };
    let loads = [
        ("put 256 B", Load::Put(256), &[1, 16, 128, 512][..]),
        ("put 5 KiB", Load::Put(5 << 10), &[1, 16, 128, 512]),
        ("update 5 KiB", Load::Update(5 << 10), &[16, 128, 512]),
        ("get", linearizable, &[1, 128, 512]),
        ("get serializable", serializable, &[128, 512]),
        ("list 500", Load::List, &[16, 128]),
    ];
    for (name, load, callers) in loads {
        for callers in callers {
            let name = format!("{name}, {callers} callers");
            if wanted(&name) {
                let etcd = loads::run(etcd_group, load, *callers, length).await?;
                let store = loads::run(store_group, load, *callers, length).await?;
                row(&name, &etcd, &store);
            }
        }
    }
    for watchers in [1, 100, 1000] {
        let name = format!("events to {watchers} watchers");
        if wanted(&name) {
            let etcd = loads::fan_out(etcd_group, watchers, length).await?;
            let store = loads::fan_out(store_group, watchers, length).await?;
            row(&name, &etcd, &store);
        }
    }
    println!();
    compare(vec![(
        "memory after the loads, MiB",
        etcd_group.memory_mib(),
        store_group.memory_mib(),
    )]);
    Ok(())
}

/// What filling and starting cost one contender.
async fn keys(group: &mut Group, keys: u64, size: usize) -> anyhow::Result<[f64; 7]> {
    let (began, cpu) = (Instant::now(), group.cpu_micros());
    bulk::fill(group, 0, keys, size).await?;
    let took = began.elapsed().as_secs_f64();
    let cpu = (group.cpu_micros() - cpu) as f64 / keys as f64;
    let filled = group.memory_mib();
    group.stop();
    let disk = group.disk_mib();
    let start = group.start().await?.as_secs_f64();
    let start_cpu = group.cpu_micros() as f64 / 1e6;
    tokio::time::sleep(Duration::from_secs(3)).await;
    Ok([took, cpu, filled, disk, start, start_cpu, group.memory_mib()])
}

/// What overwriting costs one contender.
async fn overwrites(group: &Group, times: u64, size: usize) -> anyhow::Result<[f64; 7]> {
    let (began, cpu) = (Instant::now(), group.cpu_micros());
    bulk::overwrite(group, times, size).await?;
    let took = began.elapsed().as_secs_f64();
    // What goes on in the background belongs to the price.
    tokio::time::sleep(Duration::from_secs(15)).await;
    let cpu = (group.cpu_micros() - cpu) as f64 / times as f64;
    let (told, in_use) = bulk::told_mib(group).await?;
    Ok([
        times as f64 / took,
        cpu,
        group.memory_mib(),
        group.disk_mib(),
        told,
        in_use,
        took,
    ])
}

/// How long a light client waits at one contender.
async fn pauses(group: &Group, dir: &std::path::Path, keys: u64, times: u64) -> anyhow::Result<()> {
    let file = dir.join("prober");
    bulk::fill(group, 0, keys, 1024).await?;
    for phase in ["idle", "overwrites with compaction", "snapshots sent"] {
        let prober = Prober::start(group, file.clone()).await?;
        match phase {
            "idle" => tokio::time::sleep(Duration::from_secs(10)).await,
            "snapshots sent" => {
                for _ in 0..3 {
                    let mut maintenance = MaintenanceClient::new(group.connect(0).await?);
                    let mut pieces = maintenance.snapshot(SnapshotRequest {}).await?.into_inner();
                    while pieces.message().await?.is_some() {}
                }
            }
            _ => bulk::overwrite(group, times, 1024).await?,
        }
        let seen = prober.stop()?;
        println!(
            "| {phase} | {} | {} | {} | {} | {} | {} |",
            group.name,
            seen.serializable.summary(),
            seen.linearizable.summary(),
            seen.put.summary(),
            seen.late.summary(),
            seen.sync.summary(),
        );
    }
    Ok(())
}

/// Names for the figures of two contenders.
fn side_by_side<const N: usize>(names: [&'static str; N], [etcd, store]: [[f64; N]; 2]) {
    let figures = etcd.into_iter().zip(store);
    compare(
        names
            .into_iter()
            .zip(figures)
            .map(|(name, (etcd, store))| (name, etcd, store))
            .collect(),
    );
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let folder = tempfile::Builder::new()
        .prefix("compare-")
        .tempdir_in(&arguments.dir)?;
    let contender = |name, binary| Group::new(name, binary, folder.path(), arguments.members);
    let mut groups = [
        contender("etcd", &arguments.etcd)?,
        contender("kube-store", &arguments.store)?,
    ];
    match arguments.what {
        What::Loads { seconds, only } => {
            for group in &mut groups {
                group.start().await?;
                bulk::fill(group, 0, WORKING_KEYS, 256).await?;
            }
            loads(&groups, seconds, &only).await?;
        }
        // One after the other, so that memory and disk are enough.
        What::Keys { keys: many, size } => {
            let mut figures = [[0.0; 7]; 2];
            for (place, group) in groups.iter_mut().enumerate() {
                group.start().await?;
                figures[place] = keys(group, many, size).await?;
                group.stop();
                group.remove();
            }
            let names = [
                "filling, s",
                "filling, µs CPU a key",
                "memory when filled, MiB",
                "disk, MiB",
                "start until it answers, s",
                "start, s CPU",
                "memory after the start, MiB",
            ];
            side_by_side(names, figures);
        }
        What::Overwrites { times, size } => {
            let mut figures = [[0.0; 7]; 2];
            for (place, group) in groups.iter_mut().enumerate() {
                group.start().await?;
                figures[place] = overwrites(group, times, size).await?;
                group.stop();
                group.remove();
            }
            let names = [
                "overwrites a second",
                "µs CPU an overwrite",
                "memory, MiB",
                "disk, MiB",
                "size as told, MiB",
                "of that in use, MiB",
                "time, s",
            ];
            side_by_side(names, figures);
        }
        What::Pauses { keys, times } => {
            println!(
                "| while | of | serializable get | linearizable get | put | late wake-up | fdatasync beside |"
            );
            println!("| --- | --- | --- | --- | --- | --- | --- |");
            for group in &mut groups {
                group.start().await?;
                pauses(group, folder.path(), keys, times).await?;
                group.stop();
                group.remove();
            }
        }
    }
    Ok(())
}
