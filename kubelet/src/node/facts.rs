//! What the machine has and what it is, from /proc, /sys and /etc.

use std::collections::BTreeMap;
use std::fs;
use std::net::{IpAddr, UdpSocket};
use std::path::Path;

use k8s_openapi::api::core::v1::{NodeSwapStatus, NodeSystemInfo};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use nix::sys::statvfs::statvfs;

use super::KUBERNETES_VERSION;
use crate::config::Config;

/// Amounts of resources by name.
pub type Resources = BTreeMap<String, Quantity>;

fn line(path: &str) -> String {
    fs::read_to_string(path)
        .map(|text| text.trim().to_owned())
        .unwrap_or_default()
}

/// A figure of /proc/meminfo in bytes.
pub fn meminfo(name: &str) -> u64 {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let found = text.lines().find_map(|line| {
        line.strip_prefix(name)?
            .strip_prefix(':')?
            .split_whitespace()
            .next()?
            .parse::<u64>()
            .ok()
    });
    found.unwrap_or(0) * 1024
}

/// How many processors there are.
pub fn cpus() -> u64 {
    let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    (text.lines().filter(|line| line.starts_with("processor")).count() as u64).max(1)
}

/// A file system's figures.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FsUsage {
    /// Bytes it holds.
    pub capacity: u64,
    /// Bytes that are free for everybody.
    pub available: u64,
    /// Files it can have.
    pub inodes: u64,
    /// Files it can still have.
    pub inodes_free: u64,
}

/// The file system that a folder is on.
pub fn file_system(path: &Path) -> FsUsage {
    let Some(found) = path.ancestors().find(|folder| folder.exists()) else {
        return FsUsage::default();
    };
    let Ok(figures) = statvfs(found) else {
        return FsUsage::default();
    };
    let block = figures.fragment_size();
    FsUsage {
        capacity: figures.blocks() * block,
        available: figures.blocks_available() * block,
        inodes: figures.files(),
        inodes_free: figures.files_available(),
    }
}

/// How many processes there may be, and how many there are.
pub fn pids() -> (u64, u64) {
    let number = |path: &str| line(path).parse::<u64>().unwrap_or(u64::MAX);
    let limit = number("/proc/sys/kernel/pid_max").min(number("/proc/sys/kernel/threads-max"));
    let running = line("/proc/loadavg")
        .split_whitespace()
        .nth(3)
        .and_then(|pair| pair.split_once('/')?.1.parse().ok())
        .unwrap_or(0);
    (limit, running)
}

/// All the machine has.
pub fn capacity(config: &Config) -> Resources {
    let disk = file_system(&config.root_dir).capacity;
    let mut all = Resources::from([
        ("cpu".to_owned(), Quantity(cpus().to_string())),
        (
            "memory".to_owned(),
            Quantity(format!("{}Ki", meminfo("MemTotal") / 1024)),
        ),
        (
            "ephemeral-storage".to_owned(),
            Quantity(format!("{}Ki", disk / 1024)),
        ),
        ("pods".to_owned(), Quantity(config.max_pods.to_string())),
    ]);
    for entry in fs::read_dir("/sys/kernel/mm/hugepages")
        .into_iter()
        .flatten()
        .flatten()
    {
        let name = entry.file_name().to_string_lossy().into_owned();
        let Some(kib) = name
            .strip_prefix("hugepages-")
            .and_then(|size| size.strip_suffix("kB")?.parse::<u64>().ok())
        else {
            continue;
        };
        let count: u64 = fs::read_to_string(entry.path().join("nr_hugepages"))
            .ok()
            .and_then(|text| text.trim().parse().ok())
            .unwrap_or(0);
        let size = if kib % (1 << 20) == 0 {
            format!("{}Gi", kib >> 20)
        } else {
            format!("{}Mi", kib >> 10)
        };
        let total = count * kib;
        all.insert(
            format!("hugepages-{size}"),
            Quantity(if total == 0 {
                "0".into()
            } else {
                format!("{total}Ki")
            }),
        );
    }
    all
}

/// What pods may use: the capacity less what is reserved and less what eviction keeps free.
pub fn allocatable(config: &Config, capacity: &Resources) -> Resources {
    let mut all = capacity.clone();
    for (name, signal) in [
        ("cpu", ""),
        ("memory", "memory.available"),
        ("ephemeral-storage", "nodefs.available"),
    ] {
        let Some(whole) = capacity.get(name).map(keelson_api::Amount::of) else {
            continue;
        };
        let reserved = config.reserved(name);
        if name == "cpu" {
            let millis = i64::try_from((whole.nanos() - reserved).max(0) / 1_000_000).unwrap_or(0);
            all.insert(
                name.into(),
                Quantity(if millis % 1000 == 0 {
                    (millis / 1000).to_string()
                } else {
                    format!("{millis}m")
                }),
            );
            continue;
        }
        let whole_units = u64::try_from(whole.value()).unwrap_or(0);
        let kept = config
            .threshold(signal)
            .map_or(0, |threshold| threshold.limit(whole_units));
        let left = whole_units
            .saturating_sub(u64::try_from(reserved / 1_000_000_000).unwrap_or(0))
            .saturating_sub(kept);
        let text = if name == "memory" {
            format!("{}Ki", left / 1024)
        } else {
            left.to_string()
        };
        all.insert(name.into(), Quantity(text));
    }
    all
}

/// The node's architecture as Go names it.
pub fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// The machine's name.
pub fn host_name() -> String {
    line("/proc/sys/kernel/hostname").to_lowercase()
}

/// The address that the node has towards a server: the one its packets would leave with.
pub fn address_towards(server: &str) -> Option<IpAddr> {
    let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
    socket.connect(server).ok()?;
    let ip = socket.local_addr().ok()?.ip();
    (!ip.is_unspecified()).then_some(ip)
}

/// What the machine is.
pub fn system_info(runtime_name: &str, runtime_version: &str) -> NodeSystemInfo {
    let os_release = fs::read_to_string("/etc/os-release").unwrap_or_default();
    let pretty = os_release
        .lines()
        .find_map(|line| line.strip_prefix("PRETTY_NAME="))
        .unwrap_or("Linux")
        .trim_matches('"');
    let machine_id = line("/etc/machine-id");
    let product = line("/sys/class/dmi/id/product_uuid");
    NodeSystemInfo {
        architecture: architecture().into(),
        boot_id: line("/proc/sys/kernel/random/boot_id"),
        container_runtime_version: format!("{runtime_name}://{runtime_version}"),
        kernel_version: line("/proc/sys/kernel/osrelease"),
        kube_proxy_version: String::new(),
        kubelet_version: KUBERNETES_VERSION.into(),
        system_uuid: if product.is_empty() {
            machine_id.clone()
        } else {
            product
        },
        machine_id,
        operating_system: "linux".into(),
        os_image: pretty.into(),
        swap: Some(NodeSwapStatus {
            capacity: i64::try_from(meminfo("SwapTotal")).ok(),
        }),
    }
}

/// The lowest out-of-memory score that children of this process may be given: with CAP_SYS_RESOURCE any, without it
/// no lower than our own.
pub fn lowest_oom_score() -> i64 {
    const CAP_SYS_RESOURCE: u32 = 24;
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok())
        .unwrap_or(0);
    if effective & (1 << CAP_SYS_RESOURCE) != 0 {
        return -1000;
    }
    line("/proc/self/oom_score_adj").parse().unwrap_or(0)
}

/// Would a process at the other end of a Unix socket see what we mount? Not if it lives in another mount namespace.
pub fn shares_mounts_with(socket: &str) -> bool {
    let path = socket.strip_prefix("unix://").unwrap_or(socket);
    let peer = std::os::unix::net::UnixStream::connect(path)
        .ok()
        .and_then(|stream| {
            nix::sys::socket::getsockopt(&stream, nix::sys::socket::sockopt::PeerCredentials).ok()
        });
    // A runtime that is not up yet is taken to be where runtimes usually are.
    let Some(peer) = peer else { return true };
    match (
        fs::read_link(format!("/proc/{}/ns/mnt", peer.pid())),
        fs::read_link("/proc/self/ns/mnt"),
    ) {
        (Ok(its), Ok(ours)) => its == ours,
        _ => true,
    }
}
