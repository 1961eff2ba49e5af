//! One supervised process: started, watched, stopped, started again.

use std::fs::OpenOptions;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use keelson_daemon::backoff::Backoff;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::net::UnixDatagram;
use tokio::sync::{Notify, watch};

use super::control::{Known, Process, Remembered, State};
use crate::units::Unit;

/// The first and the longest wait before a process that ended is started again.
const RESTART_INITIAL: Duration = Duration::from_millis(100);
const RESTART_MAX: Duration = Duration::from_secs(10);
/// A process that ran this long starts its back-off anew.
const STABLE: Duration = Duration::from_secs(30);
/// How often an adopted process, which is nobody's child here, is looked at.
const LOOK: Duration = Duration::from_millis(250);

/// A handle; the process's own task does the work.
pub(super) struct Child {
    unit: Unit,
    wanted: watch::Sender<Wanted>,
    status: watch::Receiver<Status>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wanted {
    Running,
    Stopped,
}

#[derive(Debug, Clone)]
struct Status {
    state: State,
    known: Option<Known>,
    restarts: u32,
    last_exit: Option<String>,
    since: Instant,
}

impl Child {
    /// Starts the process, or takes over one that runs. `changes` is notified when its status changes.
    pub(super) fn start(
        unit: Unit,
        run_dir: &Path,
        adopt: Option<Known>,
        changes: Arc<Notify>,
    ) -> anyhow::Result<Self> {
        let notify = run_dir.join("notify").join(format!("{}.sock", unit.name));
        if let Some(parent) = notify.parent() {
            std::fs::create_dir_all(parent).with_context(|| format!("making {}", parent.display()))?;
        }
        let _ = std::fs::remove_file(&notify);
        let ready =
            UnixDatagram::bind(&notify).with_context(|| format!("listening on {}", notify.display()))?;
        let (wanted, wanted_seen) = watch::channel(Wanted::Running);
        let (publish, status) = watch::channel(Status {
            state: State::Starting,
            known: None,
            restarts: 0,
            last_exit: None,
            since: Instant::now(),
        });
        let keeper = Keeper {
            unit: unit.clone(),
            notify,
            ready,
            wanted: wanted_seen,
            publish,
            changes,
        };
        tokio::spawn(keeper.keep(adopt.filter(|known| is_alive(*known))));
        Ok(Self { unit, wanted, status })
    }

    pub(super) fn name(&self) -> &str {
        &self.unit.name
    }

    /// Stops the process; returns when it is gone.
    pub(super) async fn stop(&self) {
        self.wanted.send_replace(Wanted::Stopped);
        let mut status = self.status.clone();
        // An error means that the task is gone, and it never leaves a process behind that it was to stop.
        let _ = status.wait_for(|status| status.state == State::Stopped).await;
    }

    pub(super) fn resume(&self) {
        self.wanted.send_replace(Wanted::Running);
    }

    pub(super) fn describe(&self) -> Process {
        let status = self.status.borrow();
        Process {
            name: self.unit.name.clone(),
            state: status.state,
            pid: status.known.map(|known| known.pid),
            restarts: status.restarts,
            last_exit: status.last_exit.clone(),
            seconds: status.since.elapsed().as_secs(),
        }
    }

    /// What is written down of it.
    pub(super) fn remembered(&self) -> Remembered {
        let status = self.status.borrow();
        Remembered {
            pid: status.known.map(|known| known.pid),
            started: status.known.map_or(0, |known| known.started),
            ready: status.state == State::Ready,
            stopped: status.state == State::Stopped,
            restarts: status.restarts,
            last_exit: status.last_exit.clone(),
            tier: self.unit.tier.clone(),
            command: self.unit.command.clone(),
            log: self.unit.log.clone(),
        }
    }
}

/// Why the keeper stopped watching a process.
enum Over {
    Ended(String),
    StopWanted,
}

struct Keeper {
    unit: Unit,
    notify: PathBuf,
    ready: UnixDatagram,
    wanted: watch::Receiver<Wanted>,
    publish: watch::Sender<Status>,
    changes: Arc<Notify>,
}

/// A process that is ours to watch: started here, or found running.
enum Running {
    Started(Box<tokio::process::Child>, Known),
    Adopted(Known),
}

impl Keeper {
    async fn keep(mut self, adopt: Option<Known>) {
        let mut backoff = Backoff::new(RESTART_INITIAL, RESTART_MAX);
        let mut adopt = adopt;
        loop {
            let started = Instant::now();
            let over = match adopt
                .take()
                .map(|known| Ok(Running::Adopted(known)))
                .unwrap_or_else(|| self.spawn())
            {
                Ok(mut running) => {
                    let known = running.known();
                    let state = if known.ready {
                        State::Ready
                    } else {
                        State::Starting
                    };
                    self.set(state, Some(known));
                    let over = self.watch(&mut running).await;
                    if matches!(over, Over::StopWanted) {
                        self.end(&mut running).await;
                    }
                    over
                }
                Err(error) => Over::Ended(format!("{error:#}")),
            };
            if let Over::Ended(how) = over {
                tracing::warn!(process = self.unit.name, how, "ended");
                if started.elapsed() > STABLE {
                    backoff.reset();
                }
                self.publish.send_modify(|status| {
                    status.last_exit = Some(how);
                    status.restarts += 1;
                });
                self.set(State::Waiting, None);
                tokio::select! {
                    () = tokio::time::sleep(backoff.next_wait()) => continue,
                    stop = self.wanted.wait_for(|wanted| *wanted == Wanted::Stopped) => if stop.is_err() { return },
                }
            }
            self.set(State::Stopped, None);
            backoff.reset();
            if self
                .wanted
                .wait_for(|wanted| *wanted == Wanted::Running)
                .await
                .is_err()
            {
                return;
            }
        }
    }

    fn set(&self, state: State, known: Option<Known>) {
        self.publish.send_modify(|status| {
            status.state = state;
            status.known = known;
            status.since = Instant::now();
        });
        self.changes.notify_one();
    }

    fn spawn(&self) -> anyhow::Result<Running> {
        let unit = &self.unit;
        if let Some(parent) = unit.log.parent() {
            std::fs::create_dir_all(parent).with_context(|| format!("making {}", parent.display()))?;
        }
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&unit.log)
            .with_context(|| format!("opening {}", unit.log.display()))?;
        let error_log = log.try_clone().context("sharing the log file")?;
        let (program, arguments) = unit.command.split_first().context("an empty command")?;
        let child = tokio::process::Command::new(program)
            .args(arguments)
            .env("NOTIFY_SOCKET", &self.notify)
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(error_log)
            // Signals for the supervisor's group, as from a terminal, are not for the daemons.
            .process_group(0)
            .spawn()
            .with_context(|| format!("starting {program}"))?;
        let pid = child.id().context("the process ended at once")?;
        tracing::info!(process = unit.name, pid, "started");
        let known = Known {
            pid,
            started: start_time(pid).unwrap_or(0),
            ready: false,
        };
        Ok(Running::Started(Box::new(child), known))
    }

    /// Until the process ends or is to be stopped; notes when it says that it is ready.
    async fn watch(&self, running: &mut Running) -> Over {
        let mut buffer = [0; 1024];
        let mut wanted = self.wanted.clone();
        loop {
            tokio::select! {
                how = running.ended() => return Over::Ended(how),
                _ = wanted.wait_for(|wanted| *wanted == Wanted::Stopped) => return Over::StopWanted,
                received = self.ready.recv(&mut buffer) => {
                    let Ok(length) = received else { continue };
                    let message = String::from_utf8_lossy(&buffer[..length]);
                    if message.lines().any(|line| line == "READY=1") {
                        let known = Known { ready: true, ..running.known() };
                        self.set(State::Ready, Some(known));
                    }
                }
            }
        }
    }

    /// SIGTERM, then SIGKILL when it takes too long.
    async fn end(&self, running: &mut Running) {
        let pid = running.known().pid;
        signal(pid, Signal::SIGTERM);
        let patience = Duration::from_secs(self.unit.stop_timeout);
        if tokio::time::timeout(patience, running.ended()).await.is_err() {
            tracing::warn!(process = self.unit.name, pid, "did not stop in time, killed");
            signal(pid, Signal::SIGKILL);
            running.ended().await;
        }
    }
}

impl Running {
    fn known(&self) -> Known {
        match self {
            Running::Started(_, known) | Running::Adopted(known) => *known,
        }
    }

    /// Returns how the process ended.
    async fn ended(&mut self) -> String {
        match self {
            Running::Started(child, _) => match child.wait().await {
                Ok(status) => describe(status),
                Err(error) => format!("lost: {error}"),
            },
            Running::Adopted(known) => {
                while is_alive(*known) {
                    tokio::time::sleep(LOOK).await;
                }
                "ended".into()
            }
        }
    }
}

fn describe(status: ExitStatus) -> String {
    match (status.code(), status.signal().map(Signal::try_from)) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(Ok(signal))) => signal.as_str().into(),
        _ => status.to_string(),
    }
}

fn signal(pid: u32, signal: Signal) {
    if let Ok(pid) = i32::try_from(pid)
        && let Err(error) = kill(Pid::from_raw(pid), signal)
    {
        tracing::debug!(pid, %error, "sending {signal}");
    }
}

fn is_alive(known: Known) -> bool {
    start_time(known.pid).is_some_and(|started| started == known.started)
}

/// When a process was started; none when it is gone or a zombie.
fn start_time(pid: u32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field is a name in parentheses that may hold anything; counting starts behind it, at field 3.
    let fields: Vec<&str> = stat.rsplit(')').next()?.split_whitespace().collect();
    if fields.first() == Some(&"Z") {
        return None;
    }
    fields.get(19)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unit(dir: &Path, script: &str) -> Unit {
        Unit {
            name: "x".into(),
            command: vec!["/bin/sh".into(), "-c".into(), script.into()],
            log: dir.join("x.log"),
            stop_timeout: 5,
            tier: None,
        }
    }

    #[tokio::test]
    async fn a_process_that_ends_is_started_again_and_a_stopped_one_is_not() -> anyhow::Result<()> {
        let dir = tempfile::tempdir()?;
        let child = Child::start(
            unit(dir.path(), "echo here; exit 3"),
            dir.path(),
            None,
            Arc::default(),
        )?;
        let mut status = child.status.clone();
        tokio::time::timeout(
            Duration::from_secs(5),
            status.wait_for(|status| status.restarts >= 2),
        )
        .await??;
        assert_eq!(child.describe().last_exit.as_deref(), Some("exit code 3"));
        child.stop().await;
        assert_eq!(child.describe().state, State::Stopped);
        let written = std::fs::read_to_string(dir.path().join("x.log"))?;
        assert!(written.starts_with("here\nhere\n"), "{written}");
        Ok(())
    }

    #[tokio::test]
    async fn a_running_process_is_taken_over_and_stopped() -> anyhow::Result<()> {
        let dir = tempfile::tempdir()?;
        let mut other = tokio::process::Command::new("sleep").arg("60").spawn()?;
        let pid = other.id().context("running")?;
        let known = Known {
            pid,
            started: start_time(pid).context("start time")?,
            ready: true,
        };
        let child = Child::start(
            unit(dir.path(), "exit 1"),
            dir.path(),
            Some(known),
            Arc::default(),
        )?;
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert_eq!(child.describe().pid, Some(pid));
        assert_eq!(child.describe().state, State::Ready);
        let reaped = tokio::spawn(async move { other.wait().await });
        child.stop().await;
        assert_eq!(reaped.await??.signal(), Some(Signal::SIGTERM as i32));
        Ok(())
    }
}
