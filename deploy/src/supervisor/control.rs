//! Questions to a supervisor and its answers: one line of JSON each way on its socket.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;

use crate::cluster::Paths;

/// Longer than any process may take to stop, times their number.
const PATIENCE: Duration = Duration::from_secs(150);

/// What the supervisor is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Verb {
    /// Say what runs.
    Status,
    /// Start the named processes.
    Start,
    /// Stop the named processes and leave them stopped.
    Stop,
    /// Stop and start the named processes.
    Restart,
    /// Stop everything and end.
    Shutdown,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Question {
    pub(super) verb: Verb,
    #[serde(default)]
    pub(super) names: Vec<String>,
}

/// What the supervisor says.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Answer {
    pub(crate) error: Option<String>,
    pub(crate) processes: Vec<Process>,
}

/// One process as it is now.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Process {
    pub(crate) name: String,
    pub(crate) state: State,
    pub(crate) pid: Option<u32>,
    pub(crate) restarts: u32,
    /// How it last ended.
    pub(crate) last_exit: Option<String>,
    /// Seconds in the present state.
    pub(crate) seconds: u64,
}

/// The states a supervised process goes through.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum State {
    /// Runs; has not said that it is ready. Next: Ready, Waiting, Stopped.
    Starting,
    /// Runs and serves. Next: Waiting, Stopped.
    Ready,
    /// Ended by itself; is started again after a delay. Next: Starting, Stopped.
    Waiting,
    /// Stopped on request. Next: Starting, on request.
    Stopped,
}

/// A process as it is remembered: process ids are used again, so the start time belongs to the identity.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Known {
    pub(super) pid: u32,
    /// Field 22 of proc(5) stat: clock ticks between boot and the process's start.
    pub(super) started: u64,
    pub(super) ready: bool,
}

/// One process in the file that a later supervisor reads, and the kubelet, to show processes as pods.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Remembered {
    pub(super) pid: Option<u32>,
    /// As in [`Known`].
    pub(super) started: u64,
    pub(super) ready: bool,
    pub(super) stopped: bool,
    pub(super) restarts: u32,
    pub(super) last_exit: Option<String>,
    pub(super) tier: Option<String>,
    pub(super) command: Vec<String>,
    pub(super) log: PathBuf,
}

impl Remembered {
    pub(super) fn known(&self) -> Option<Known> {
        Some(Known {
            pid: self.pid?,
            started: self.started,
            ready: self.ready,
        })
    }
}

/// Whether a supervisor answers.
pub(crate) async fn running(paths: &Paths) -> bool {
    UnixStream::connect(paths.control_socket()).await.is_ok()
}

/// Asks the supervisor.
///
/// # Errors
/// When no supervisor answers, or it refuses.
pub(crate) async fn ask(paths: &Paths, verb: Verb, names: &[String]) -> anyhow::Result<Vec<Process>> {
    let socket = paths.control_socket();
    let asking = async {
        let stream = UnixStream::connect(&socket).await?;
        let (reading, mut writing) = stream.into_split();
        let mut line = serde_json::to_vec(&Question {
            verb,
            names: names.to_vec(),
        })?;
        line.push(b'\n');
        writing.write_all(&line).await?;
        let mut answer = String::new();
        BufReader::new(reading).read_line(&mut answer).await?;
        anyhow::Ok(serde_json::from_str::<Answer>(&answer)?)
    };
    let answer = tokio::time::timeout(PATIENCE, asking)
        .await
        .context("the supervisor takes too long")
        .and_then(|answer| answer)
        .with_context(|| format!("asking the supervisor at {}", socket.display()))?;
    match answer.error {
        Some(error) => bail!(error),
        None => Ok(answer.processes),
    }
}
