//! The servers: groups of one or more members of one program, and what `/proc` and the disk say of them.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use keelson_proto::etcd::kv_client::KvClient;
use tonic::transport::Channel;

use crate::requests::get;

/// Whoever has not answered by then does not start.
const PATIENCE: Duration = Duration::from_secs(240);

/// One member.
struct Server {
    data: PathBuf,
    client: u16,
    peer: u16,
    child: Option<Child>,
}

/// All members of one contender.
pub struct Group {
    pub name: &'static str,
    binary: PathBuf,
    servers: Vec<Server>,
}

impl Group {
    pub fn new(name: &'static str, binary: &Path, dir: &Path, members: usize) -> anyhow::Result<Self> {
        let mut servers = Vec::new();
        for member in 0..members {
            servers.push(Server {
                data: dir.join(format!("{name}-{member}")),
                client: keelson_ports::free()?,
                peer: keelson_ports::free()?,
                child: None,
            });
        }
        Ok(Self {
            name,
            binary: binary.to_owned(),
            servers,
        })
    }

    /// Starts all members; returns how long it took until each of them answered.
    pub async fn start(&mut self) -> anyhow::Result<Duration> {
        let url = |port: u16| format!("http://127.0.0.1:{port}");
        let initial = self.servers.iter().enumerate();
        let initial = initial
            .map(|(member, server)| format!("m{member}={}", url(server.peer)))
            .collect::<Vec<_>>()
            .join(",");
        let started = Instant::now();
        for (member, server) in self.servers.iter_mut().enumerate() {
            let child = Command::new(&self.binary)
                .arg(format!("--name=m{member}"))
                .arg(format!("--data-dir={}", server.data.display()))
                .arg(format!("--listen-client-urls={}", url(server.client)))
                .arg(format!("--advertise-client-urls={}", url(server.client)))
                .arg(format!("--listen-peer-urls={}", url(server.peer)))
                .arg(format!("--initial-advertise-peer-urls={}", url(server.peer)))
                .arg(format!("--initial-cluster={initial}"))
                // As kubeadm starts etcd.
                .arg("--snapshot-count=10000")
                .arg("--quota-backend-bytes=8589934592")
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .with_context(|| format!("starting {}", self.binary.display()))?;
            server.child = Some(child);
        }
        for member in 0..self.servers.len() {
            loop {
                if let Ok(channel) = self.connect(member).await
                    && KvClient::new(channel).range(get(0)).await.is_ok()
                {
                    break;
                }
                if started.elapsed() > PATIENCE {
                    bail!("{} does not answer", self.name);
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
        Ok(started.elapsed())
    }

    pub fn stop(&mut self) {
        for server in &mut self.servers {
            if let Some(child) = &server.child {
                let _ = Command::new("kill").arg(child.id().to_string()).status();
            }
        }
        for server in &mut self.servers {
            if let Some(mut child) = server.child.take() {
                let _ = child.wait();
            }
        }
    }

    /// Where clients reach a member; numbers go round.
    pub fn url(&self, number: usize) -> String {
        let server = &self.servers[number % self.servers.len()];
        format!("http://127.0.0.1:{}", server.client)
    }

    /// A connection to a member.
    pub async fn connect(&self, number: usize) -> anyhow::Result<Channel> {
        Ok(Channel::from_shared(self.url(number))?.connect().await?)
    }

    /// Removes the files of all members.
    pub fn remove(&self) {
        for server in &self.servers {
            let _ = std::fs::remove_dir_all(&server.data);
        }
    }

    /// CPU used so far by all members, in microseconds.
    pub fn cpu_micros(&self) -> u64 {
        self.servers.iter().map(Server::cpu_micros).sum()
    }

    /// Resident memory of all members together.
    pub fn memory_mib(&self) -> f64 {
        self.servers.iter().map(Server::memory_mib).sum()
    }

    /// What the files of all members take on the disk.
    pub fn disk_mib(&self) -> f64 {
        let bytes: u64 = self.servers.iter().map(|server| disk_bytes(&server.data)).sum();
        bytes as f64 / f64::from(1 << 20)
    }
}

impl Server {
    fn proc(&self, file: &str) -> String {
        let id = self.child.as_ref().map_or(0, Child::id);
        std::fs::read_to_string(format!("/proc/{id}/{file}")).unwrap_or_default()
    }

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

/// Allocated blocks of all files below. Files come and go meanwhile.
fn disk_bytes(folder: &Path) -> u64 {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .map(|entry| match entry.metadata() {
            Ok(metadata) if metadata.is_dir() => disk_bytes(&entry.path()),
            Ok(metadata) => metadata.blocks() * 512,
            Err(_) => 0,
        })
        .sum()
}

impl Drop for Group {
    fn drop(&mut self) {
        self.stop();
        self.remove();
    }
}
