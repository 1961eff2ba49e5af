//! One task per probe. It waits for its container to run, asks at the probe's pace, counts, and tells the pod's
//! worker when the verdict changes.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Pod, Probe};
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::task::AbortHandle;

use super::{Outcome, ProbeKind, attempt};
use crate::cri::Runtime;
use crate::events::{Events, Level};
use crate::objects::{ContainerKind, PodExt};
use crate::pods::plan::{Verdict, Verdicts};
use crate::pods::runtime::PodRuntime;

/// How often a task looks whether its container has come to run.
const LOOK: Duration = Duration::from_millis(250);

/// What probes need to know of a running container.
#[derive(Debug, Clone, PartialEq)]
struct Target {
    id: String,
    started_at: i64,
    ip: String,
}

#[derive(Default)]
struct Shared {
    /// By container name.
    targets: HashMap<String, Target>,
    /// By container id.
    verdicts: HashMap<String, Verdicts>,
}

/// All probes of one pod.
pub struct PodProbes {
    runtime: Arc<dyn Runtime>,
    events: Events,
    shared: Arc<Mutex<Shared>>,
    wake: Arc<Notify>,
    tasks: HashMap<(String, ProbeKind), AbortHandle>,
}

impl PodProbes {
    /// No probes yet. `wake` is told when a verdict changes.
    pub fn new(runtime: Arc<dyn Runtime>, events: Events, wake: Arc<Notify>) -> Self {
        Self {
            runtime,
            events,
            shared: Arc::default(),
            wake,
            tasks: HashMap::new(),
        }
    }

    /// The verdicts, by container id.
    pub fn verdicts(&self) -> HashMap<String, Verdicts> {
        self.shared.lock().verdicts.clone()
    }

    /// Tells the probes what runs, and starts those that are not there yet.
    pub fn observe(&mut self, pod: &Arc<Pod>, runtime: &PodRuntime, ip: &str) {
        let containers = pod.all_containers();
        {
            let mut shared = self.shared.lock();
            let mut targets = HashMap::new();
            for (container, kind) in &containers {
                if *kind == ContainerKind::Init || *kind == ContainerKind::Ephemeral {
                    continue;
                }
                let Some(view) = runtime.running().find(|view| view.name == container.name) else {
                    continue;
                };
                // Only the newest container of a name counts.
                if runtime
                    .container(&container.name)
                    .is_none_or(|newest| newest.id != view.id)
                {
                    continue;
                }
                targets.insert(
                    container.name.clone(),
                    Target {
                        id: view.id.clone(),
                        started_at: view.started_at,
                        ip: ip.to_owned(),
                    },
                );
                shared
                    .verdicts
                    .entry(view.id.clone())
                    .or_insert_with(|| first_verdicts(pod, container, &view.id));
            }
            shared
                .verdicts
                .retain(|id, _| targets.values().any(|target| target.id == *id));
            shared.targets = targets;
        }
        for (container, kind) in containers {
            if kind == ContainerKind::Init || kind == ContainerKind::Ephemeral {
                continue;
            }
            for probe_kind in ProbeKind::ALL {
                let Some(probe) = probe_kind.of(&container) else {
                    continue;
                };
                let key = (container.name.clone(), probe_kind);
                if self.tasks.contains_key(&key) {
                    continue;
                }
                let task = ProbeTask {
                    runtime: self.runtime.clone(),
                    events: self.events.clone(),
                    shared: self.shared.clone(),
                    wake: self.wake.clone(),
                    pod: pod.clone(),
                    container: container.clone(),
                    kind: probe_kind,
                    probe: probe.clone(),
                };
                self.tasks.insert(key, tokio::spawn(task.run()).abort_handle());
            }
        }
    }

    /// Ends startup and liveness probes: what ends anyway need not be asked. Readiness goes on.
    pub fn pod_ends(&mut self) {
        self.tasks.retain(|(_, kind), task| {
            let keep = *kind == ProbeKind::Readiness;
            if !keep {
                task.abort();
            }
            keep
        });
    }

    /// Ends all probes.
    pub fn stop(&mut self) {
        self.tasks.drain().for_each(|(_, task)| task.abort());
    }
}

impl Drop for PodProbes {
    fn drop(&mut self) {
        self.stop();
    }
}

/// What is assumed before a probe has spoken. A container that already ran when the kubelet started keeps what the
/// API says of it, so that a restarted kubelet takes no endpoint away.
fn first_verdicts(pod: &Pod, container: &Container, id: &str) -> Verdicts {
    let known = pod.container_status(&container.name).filter(|status| {
        status
            .container_id
            .as_deref()
            .is_some_and(|known| known.ends_with(id))
    });
    let remembered = |yes: bool| if yes { Verdict::Success } else { Verdict::Unknown };
    Verdicts {
        startup: container
            .startup_probe
            .as_ref()
            .map(|_| remembered(known.is_some_and(|status| status.started == Some(true)))),
        liveness: container.liveness_probe.as_ref().map(|_| Verdict::Success),
        readiness: container
            .readiness_probe
            .as_ref()
            .map(|_| remembered(known.is_some_and(|status| status.ready))),
    }
}

struct ProbeTask {
    runtime: Arc<dyn Runtime>,
    events: Events,
    shared: Arc<Mutex<Shared>>,
    wake: Arc<Notify>,
    pod: Arc<Pod>,
    container: Container,
    kind: ProbeKind,
    probe: Probe,
}

fn seconds(value: Option<i32>, default: u64) -> Duration {
    Duration::from_secs(
        value
            .and_then(|value| u64::try_from(value).ok())
            .filter(|value| *value > 0)
            .unwrap_or(default),
    )
}

fn count(value: Option<i32>, default: u32) -> u32 {
    value
        .and_then(|value| u32::try_from(value).ok())
        .filter(|value| *value > 0)
        .unwrap_or(default)
}

/// Whether a container that was started then has run for `delay`. One from the future has: its clock was set back since,
/// and to wait until it gets there again might take hours.
fn has_run_for(started_at: i64, delay: Duration, now: i64) -> bool {
    u64::try_from(now.saturating_sub(started_at)).map_or(true, |ran| Duration::from_nanos(ran) >= delay)
}

impl ProbeTask {
    async fn run(self) {
        let period = seconds(self.probe.period_seconds, 10);
        let mut run = Run::default();
        loop {
            let Some(target) = self.due() else {
                tokio::time::sleep(LOOK).await;
                continue;
            };
            if run.id != target.id {
                run = Run {
                    id: target.id.clone(),
                    ..Default::default()
                };
            }
            let outcome = attempt(
                self.runtime.as_ref(),
                &self.probe,
                &self.container,
                &target.id,
                &target.ip,
            )
            .await;
            let still_there = self
                .shared
                .lock()
                .targets
                .get(&self.container.name)
                .is_some_and(|now| now.id == target.id);
            if still_there {
                self.judge(&mut run, outcome);
            }
            tokio::time::sleep(period).await;
        }
    }

    /// The container, if it is time to ask it.
    fn due(&self) -> Option<Target> {
        let shared = self.shared.lock();
        let target = shared.targets.get(&self.container.name)?;
        let verdicts = shared.verdicts.get(&target.id)?;
        let delay = self
            .probe
            .initial_delay_seconds
            .and_then(|delay| u64::try_from(delay).ok())
            .unwrap_or(0);
        let now = i64::try_from(Timestamp::now().as_nanosecond()).unwrap_or(i64::MAX);
        if !has_run_for(target.started_at, Duration::from_secs(delay), now) {
            return None;
        }
        match self.kind {
            // Startup has been answered, or it failed and the container is about to end.
            ProbeKind::Startup if verdicts.startup != Some(Verdict::Unknown) => None,
            ProbeKind::Liveness | ProbeKind::Readiness if !verdicts.started() => None,
            ProbeKind::Liveness if verdicts.liveness == Some(Verdict::Failure) => None,
            _ => Some(target.clone()),
        }
    }

    fn judge(&self, run: &mut Run, outcome: Outcome) {
        let (verdict, threshold) = match &outcome {
            Outcome::Success => (Verdict::Success, count(self.probe.success_threshold, 1)),
            Outcome::Unasked(text) => {
                tracing::debug!(
                    pod = self.pod.full_name(),
                    container = self.container.name,
                    error = text,
                    "probe"
                );
                return;
            }
            Outcome::Failure(text) => {
                let message = format!("{} probe failed: {text}", self.kind.as_str());
                self.events.container(
                    &self.pod,
                    &self.container.name,
                    Level::Warning,
                    "Unhealthy",
                    &message,
                );
                (Verdict::Failure, count(self.probe.failure_threshold, 3))
            }
        };
        run.in_a_row = if run.last == Some(verdict) {
            run.in_a_row + 1
        } else {
            1
        };
        run.last = Some(verdict);
        if run.in_a_row < threshold {
            return;
        }
        let mut shared = self.shared.lock();
        let Some(verdicts) = shared.verdicts.get_mut(&run.id) else {
            return;
        };
        let slot = match self.kind {
            ProbeKind::Startup => &mut verdicts.startup,
            ProbeKind::Liveness => &mut verdicts.liveness,
            ProbeKind::Readiness => &mut verdicts.readiness,
        };
        if *slot != Some(verdict) {
            *slot = Some(verdict);
            drop(shared);
            tracing::info!(
                pod = self.pod.full_name(),
                container = self.container.name,
                probe = self.kind.as_str(),
                ?verdict,
                "probe"
            );
            self.wake.notify_one();
        }
    }
}

#[derive(Default)]
struct Run {
    id: String,
    last: Option<Verdict>,
    in_a_row: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_initial_delay_ends_though_the_clock_is_set_back() {
        const SECOND: i64 = 1_000_000_000;
        let delay = Duration::from_secs(10);
        assert!(!has_run_for(100 * SECOND, delay, 109 * SECOND));
        assert!(has_run_for(100 * SECOND, delay, 110 * SECOND));
        assert!(has_run_for(7300 * SECOND, delay, 100 * SECOND));
    }
}
