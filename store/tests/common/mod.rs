//! Real kube-store processes on ephemeral ports, ended and cleaned up when they are dropped.

#![allow(dead_code)]

pub mod certificates;
pub mod group;

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use bytes::Bytes;
use keelson_proto::etcd::kv_client::KvClient;
use keelson_proto::etcd::{PutRequest, RangeRequest, RangeResponse};
use tonic::transport::Channel;

/// A member and where it is.
pub struct Member {
    pub name: String,
    pub client_port: u16,
    pub peer_port: u16,
    pub data: PathBuf,
    pub more: Vec<String>,
    child: Option<Child>,
}

impl Member {
    /// A member that is not running yet.
    pub fn new(name: &str, folder: &Path) -> anyhow::Result<Self> {
        Ok(Self {
            name: name.into(),
            client_port: keelson_ports::free()?,
            peer_port: keelson_ports::free()?,
            data: folder.join(name),
            more: Vec::new(),
            child: None,
        })
    }

    /// Starts it and waits until it answers.
    pub async fn started(mut self) -> anyhow::Result<Self> {
        self.start()?;
        self.wait_ready().await?;
        Ok(self)
    }

    pub fn start(&mut self) -> anyhow::Result<()> {
        let client = format!("http://127.0.0.1:{}", self.client_port);
        let peer = self.peer_url();
        let log = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.data.with_extension("log"))?;
        let child = Command::new(env!("CARGO_BIN_EXE_kube-store"))
            .arg(format!("--name={}", self.name))
            .arg(format!("--data-dir={}", self.data.display()))
            .arg(format!("--listen-client-urls={client}"))
            .arg(format!("--advertise-client-urls={client}"))
            .arg(format!("--listen-peer-urls={peer}"))
            .arg(format!("--initial-advertise-peer-urls={peer}"))
            .args(&self.more)
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .context("starting kube-store")?;
        self.child = Some(child);
        Ok(())
    }

    pub fn peer_url(&self) -> String {
        format!("http://127.0.0.1:{}", self.peer_port)
    }

    pub fn endpoint(&self) -> String {
        format!("127.0.0.1:{}", self.client_port)
    }

    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// Ends it without a warning.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Asks it to end, and waits for it.
    pub fn stop(&mut self) -> anyhow::Result<()> {
        let Some(mut child) = self.child.take() else {
            return Ok(());
        };
        Command::new("kill").arg(child.id().to_string()).status()?;
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            match child.try_wait()? {
                Some(status) if status.success() => return Ok(()),
                Some(status) => bail!("kube-store ended with {status}: {}", self.log()),
                None if Instant::now() > deadline => {
                    let _ = child.kill();
                    let _ = child.wait();
                    bail!("kube-store did not end: {}", self.log());
                }
                None => std::thread::sleep(Duration::from_millis(20)),
            }
        }
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.data.with_extension("log")).unwrap_or_default()
    }

    pub async fn channel(&self) -> anyhow::Result<Channel> {
        Ok(Channel::from_shared(format!("http://{}", self.endpoint()))?
            .connect()
            .await?)
    }

    pub async fn kv(&self) -> anyhow::Result<KvClient<Channel>> {
        Ok(KvClient::new(self.channel().await?).max_decoding_message_size(256 << 20))
    }

    /// Waits until it answers a linearizable read.
    pub async fn wait_ready(&mut self) -> anyhow::Result<()> {
        let deadline = Instant::now() + Duration::from_secs(40);
        loop {
            let asked = async {
                self.kv().await?.range(range("ready", "")).await?;
                anyhow::Ok(())
            };
            let Err(error) = asked.await else {
                return Ok(());
            };
            if let Some(child) = &mut self.child
                && let Some(status) = child.try_wait()?
            {
                bail!("kube-store ended with {status}: {}", self.log());
            }
            if Instant::now() > deadline {
                bail!("kube-store is not ready ({error}): {}", self.log());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            eprintln!("log of {}:\n{}", self.name, self.log());
        }
    }
}

pub fn put(key: &str, value: impl Into<Bytes>) -> PutRequest {
    PutRequest {
        key: Bytes::copy_from_slice(key.as_bytes()),
        value: value.into(),
        ..PutRequest::default()
    }
}

pub fn range(key: &str, end: &str) -> RangeRequest {
    RangeRequest {
        key: Bytes::copy_from_slice(key.as_bytes()),
        range_end: Bytes::copy_from_slice(end.as_bytes()),
        ..RangeRequest::default()
    }
}

pub async fn get(kv: &mut KvClient<Channel>, key: &str) -> anyhow::Result<Option<String>> {
    let response: RangeResponse = kv.range(range(key, "")).await?.into_inner();
    Ok(response
        .kvs
        .first()
        .map(|kv| String::from_utf8_lossy(&kv.value).into_owned()))
}
