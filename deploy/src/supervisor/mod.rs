//! The process that keeps a cluster's daemons running.
//!
//! `keeladm up` starts it in a session of its own. It starts every process of `processes.json`, starts those that
//! end again with a growing delay, and answers on a socket what runs. Daemons write to their log files themselves,
//! so they outlive it: a supervisor that is started after another was killed takes over what still runs.
//!
//! - [`control`]: questions and answers on the socket
//! - [`child`]: one process: started, watched, stopped, started again
//! - [`logs`]: log files that do not grow without end
//! - [`renewal`]: certificates that are replaced before they expire

mod child;
mod control;
mod logs;
mod renewal;

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::cluster::{Paths, write_file};
use crate::units::Unit;
use child::Child;
pub(crate) use control::{Answer, Process, State, Verb, ask, running};
use control::{Known, Question, Remembered};

/// How often log files are looked at.
const ROTATE_EVERY: Duration = Duration::from_secs(20);

struct Supervisor {
    paths: Paths,
    /// In the order of `processes.json`, which is the order of dependencies.
    children: Vec<Child>,
    changes: Arc<Notify>,
}

/// Runs until it is told to shut down.
///
/// # Errors
/// When the processes' list cannot be read or the socket cannot be made.
pub(crate) async fn run(paths: Paths) -> anyhow::Result<()> {
    // A session of its own: the terminal `up` was typed in may go away.
    let _ = nix::unistd::setsid();
    let listed = paths.processes();
    let text = std::fs::read(&listed).with_context(|| format!("reading {}", listed.display()))?;
    let units: Vec<Unit> =
        serde_json::from_slice(&text).with_context(|| format!("reading {}", listed.display()))?;

    let socket = paths.control_socket();
    if running(&paths).await {
        bail!("a supervisor already answers at {}", socket.display());
    }
    std::fs::create_dir_all(&paths.run_dir).with_context(|| format!("making {}", paths.run_dir.display()))?;
    let _ = std::fs::remove_file(&socket);
    let listener =
        UnixListener::bind(&socket).with_context(|| format!("listening on {}", socket.display()))?;
    std::fs::set_permissions(&socket, std::fs::Permissions::from_mode(0o600))
        .with_context(|| format!("protecting {}", socket.display()))?;

    let before = known(&paths);
    let logs: Vec<_> = units.iter().map(|unit| unit.log.clone()).collect();
    let changes = Arc::new(Notify::new());
    let children = units
        .into_iter()
        .map(|unit| {
            let adopt = before.get(&unit.name).copied();
            Child::start(unit, &paths.run_dir, adopt, changes.clone())
        })
        .collect::<anyhow::Result<_>>()?;
    let supervisor = Arc::new(Supervisor {
        paths,
        children,
        changes,
    });
    let over = CancellationToken::new();
    tokio::spawn(logs::rotate(logs, ROTATE_EVERY, over.clone()));
    tokio::spawn(renewal::run(supervisor.paths.clone(), over.clone()));
    tokio::spawn(supervisor.clone().remember(over.clone()));

    let terminated = keelson_daemon::signals::shutdown_token().context("handling signals")?;
    loop {
        tokio::select! {
            () = over.cancelled() => break,
            () = terminated.cancelled() => {
                supervisor.stop_all().await;
                break;
            }
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    let (supervisor, over) = (supervisor.clone(), over.clone());
                    tokio::spawn(async move {
                        if let Err(error) = supervisor.converse(stream, over).await {
                            tracing::warn!(%error, "answering on the control socket");
                        }
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "accepting on the control socket");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }
    over.cancel();
    let _ = std::fs::remove_file(&socket);
    let _ = std::fs::remove_file(supervisor.paths.state());
    Ok(())
}

/// What an earlier supervisor wrote down.
fn known(paths: &Paths) -> BTreeMap<String, Known> {
    let remembered: BTreeMap<String, Remembered> = std::fs::read(paths.state())
        .ok()
        .and_then(|text| serde_json::from_slice(&text).ok())
        .unwrap_or_default();
    remembered
        .into_iter()
        .filter_map(|(name, process)| Some((name, process.known()?)))
        .collect()
}

impl Supervisor {
    async fn converse(&self, stream: UnixStream, over: CancellationToken) -> anyhow::Result<()> {
        let (reading, mut writing) = stream.into_split();
        let mut line = String::new();
        BufReader::new(reading).read_line(&mut line).await?;
        let question: Question = serde_json::from_str(&line).context("reading the question")?;
        let shutdown = question.verb == Verb::Shutdown;
        let mut answer = serde_json::to_vec(&self.answer(question).await)?;
        answer.push(b'\n');
        writing.write_all(&answer).await?;
        writing.shutdown().await?;
        if shutdown {
            over.cancel();
        }
        Ok(())
    }

    async fn answer(&self, question: Question) -> Answer {
        let unknown: Vec<_> = question
            .names
            .iter()
            .filter(|name| !self.children.iter().any(|c| c.name() == **name))
            .collect();
        if !unknown.is_empty() {
            let known: Vec<_> = self.children.iter().map(Child::name).collect();
            return Answer {
                error: Some(format!(
                    "no process named {unknown:?}; there are {}",
                    known.join(", ")
                )),
                processes: Vec::new(),
            };
        }
        let named = || {
            self.children
                .iter()
                .filter(|child| question.names.iter().any(|n| n == child.name()))
        };
        match question.verb {
            Verb::Status => {}
            Verb::Start => named().for_each(Child::resume),
            Verb::Stop => {
                futures::future::join_all(named().map(Child::stop)).await;
            }
            Verb::Restart => {
                futures::future::join_all(named().map(Child::stop)).await;
                named().for_each(Child::resume);
            }
            Verb::Shutdown => self.stop_all().await,
        }
        Answer {
            error: None,
            processes: self.children.iter().map(Child::describe).collect(),
        }
    }

    /// Stops everything, dependants first.
    async fn stop_all(&self) {
        for child in self.children.iter().rev() {
            child.stop().await;
        }
    }

    /// Keeps what runs in a file, for a supervisor after this one and for the kubelet.
    async fn remember(self: Arc<Self>, over: CancellationToken) {
        let mut written = BTreeMap::new();
        loop {
            let now: BTreeMap<String, Remembered> = self
                .children
                .iter()
                .map(|child| (child.name().to_owned(), child.remembered()))
                .collect();
            if now != written {
                let saved = serde_json::to_vec(&now)
                    .map_err(anyhow::Error::from)
                    .and_then(|text| write_file(&self.paths.state(), &text, 0o644));
                match saved {
                    Ok(()) => written = now,
                    Err(error) => tracing::warn!(%error, "writing the processes' ids"),
                }
            }
            tokio::select! {
                () = over.cancelled() => return,
                () = self.changes.notified() => {}
            }
        }
    }
}
