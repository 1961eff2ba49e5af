//! One task per pod: it asks the runtime, decides with [`super::plan`], acts, and reports with [`super::status`].

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{DeleteOptions, Preconditions};
use keelson_api::ObjectKey;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::context::Context;
use crate::cri::CriResult;
use crate::events::Level;
use crate::objects::PodExt;
use crate::pods::backoff::{BackoffMap, CRASH_LOOP, Nanos, go_duration};
use crate::pods::kill;
use crate::pods::plan::{self, Hold, Plan};
use crate::pods::runtime::{self, Ended, PodRuntime};
use crate::pods::start::{self, StartError, Starter};
use crate::pods::status::{self, PodFailure, Waiting};
use crate::probes::worker::PodProbes;
use crate::volumes::files;

/// A pod is looked at this often although nothing seems to happen; volumes made of objects are renewed then.
const RESYNC: Duration = Duration::from_secs(60);
/// First and longest wait after something failed.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(10));
/// How often the event about a crash loop is repeated.
const BACKOFF_EVENT: Duration = Duration::from_secs(10);

/// Where a pod stands.
#[derive(Debug, Clone, PartialEq)]
pub enum State {
    /// What the spec says is made and kept. Next: `Ending`, when the pod is deleted, has failed, or is done.
    Running,
    /// Everything is asked to end, and made to. Next: `Ended`, when nothing runs any more.
    Ending,
    /// Nothing runs. Files and cgroups go, the last status is written, a deleted pod leaves the API. Next: `Over`.
    Ended,
    /// Nothing is left to do but to wait until the pod is deleted. Next: `Gone`.
    Over,
    /// Nothing is left.
    Gone,
}

/// What the worker is told.
#[derive(Debug, Clone)]
pub struct Desired {
    /// The pod as the API has it.
    pub pod: Arc<Pod>,
    /// It is no longer in the API.
    pub removed: bool,
    /// It was refused by the node, or is to be failed.
    pub failed: Option<PodFailure>,
}

/// How a worker is reached.
pub struct Mailbox {
    desired: Mutex<Desired>,
    wake: Arc<Notify>,
    /// Cancelled when the pod is to end: whatever is being waited for does not matter any more.
    ends: Mutex<CancellationToken>,
    /// What the runtime has, as last seen; for those who ask about the pod.
    seen: Mutex<Arc<PodRuntime>>,
    /// The status as last made.
    status: Mutex<Option<PodStatus>>,
    /// What the volumes are made of has changed.
    stale: AtomicBool,
}

impl Mailbox {
    /// A mailbox with a first message.
    pub fn new(desired: Desired) -> Self {
        Self {
            desired: Mutex::new(desired),
            wake: Arc::default(),
            ends: Mutex::default(),
            seen: Mutex::default(),
            status: Mutex::default(),
            stale: AtomicBool::new(false),
        }
    }

    /// Tells the worker what is wanted now.
    pub fn send(&self, change: impl FnOnce(&mut Desired)) {
        let ends = {
            let mut desired = self.desired.lock();
            change(&mut desired);
            desired.removed || desired.failed.is_some() || desired.pod.is_deleted()
        };
        if ends {
            self.ends.lock().cancel();
        }
        self.wake.notify_one();
    }

    /// Something happened: look again.
    pub fn wake(&self) {
        self.wake.notify_one();
    }

    /// What the pod's volumes are made of has changed.
    pub fn renew_volumes(&self) {
        self.stale.store(true, Ordering::Release);
        self.wake.notify_one();
    }

    /// What is wanted now.
    pub fn desired(&self) -> Desired {
        self.desired.lock().clone()
    }

    /// What the runtime has, as the worker last saw it.
    pub fn seen(&self) -> Arc<PodRuntime> {
        self.seen.lock().clone()
    }

    /// The pod with its status as last made.
    pub fn current(&self) -> Pod {
        let pod = self.desired().pod;
        let status = self.status.lock().clone();
        Pod {
            status: status.or_else(|| pod.status.clone()),
            ..(*pod).clone()
        }
    }
}

/// The worker of one pod.
pub struct Worker {
    context: Arc<Context>,
    mailbox: Arc<Mailbox>,
    uid: String,
    state: State,
    probes: PodProbes,
    backoff: BackoffMap<String>,
    waiting: HashMap<String, Waiting>,
    ended: Ended,
    start_time: Timestamp,
    failed: Option<PodFailure>,
    volumes: Option<(Instant, HashMap<String, PathBuf>)>,
    retry: Duration,
    reconciled: Instant,
    told: HashMap<String, Instant>,
}

/// How long a worker may sleep.
type Sleep = Duration;

fn nanos(at: Timestamp) -> Nanos {
    i64::try_from(at.as_nanosecond()).unwrap_or(i64::MAX)
}

impl Worker {
    /// A worker that has done nothing yet.
    pub fn new(context: Arc<Context>, mailbox: Arc<Mailbox>) -> Self {
        let desired = mailbox.desired();
        let probes = PodProbes::new(
            context.runtime.clone(),
            context.events.clone(),
            mailbox.wake.clone(),
        );
        let start_time = desired
            .pod
            .status()
            .start_time
            .as_ref()
            .map_or_else(Timestamp::now, |time| time.0);
        Self {
            context,
            mailbox,
            uid: desired.pod.uid().to_owned(),
            state: State::Running,
            probes,
            backoff: BackoffMap::new(CRASH_LOOP),
            waiting: HashMap::new(),
            ended: Ended::new(),
            start_time,
            failed: None,
            volumes: None,
            retry: RETRY.0,
            reconciled: Instant::now(),
            told: HashMap::new(),
        }
    }

    /// Works until the pod is gone.
    pub async fn run(mut self) {
        while self.state != State::Gone {
            let before = self.state.clone();
            let sleep = self.step().await;
            if self.state != before {
                tracing::debug!(pod = self.mailbox.desired().pod.full_name(), from = ?before, to = ?self.state, "pod");
                continue;
            }
            if sleep.is_zero() {
                continue;
            }
            let wake = self.mailbox.wake.clone();
            let _ = tokio::time::timeout(sleep, wake.notified()).await;
        }
    }

    async fn step(&mut self) -> Sleep {
        let desired = self.mailbox.desired();
        match self.state {
            State::Running => self.keep_running(&desired).await,
            State::Ending => self.end(&desired).await,
            State::Ended => self.clean_up(&desired).await,
            State::Over => self.wait_for_deletion(&desired).await,
            State::Gone => Duration::ZERO,
        }
    }

    async fn inspect(&mut self) -> CriResult<PodRuntime> {
        let view = runtime::inspect(self.context.runtime.as_ref(), &self.uid, &mut self.ended).await?;
        *self.mailbox.seen.lock() = Arc::new(view.clone());
        Ok(view)
    }

    fn next_retry(&mut self) -> Sleep {
        let wait = self.retry;
        self.retry = (self.retry * 2).min(RETRY.1);
        wait
    }

    fn ips(&self, pod: &Pod, view: &PodRuntime) -> Vec<String> {
        if pod.host_network() {
            self.context.host_ips.clone()
        } else {
            view.ready_sandbox()
                .map(|sandbox| sandbox.ips.clone())
                .unwrap_or_default()
        }
    }

    fn make_status(&self, pod: &Pod, view: &PodRuntime, stopped: bool) -> PodStatus {
        status::status(&status::Inputs {
            pod,
            runtime: view,
            verdicts: &self.probes.verdicts(),
            waiting: &self.waiting,
            failed: self.failed.as_ref(),
            stopped,
            runtime_name: self.context.runtime_name(),
            host_ips: &self.context.host_ips,
            start_time: self.start_time,
            now: Timestamp::now(),
        })
    }

    /// The pod with the status we last made, which the API may not have yet.
    fn with_status(&self, pod: &Pod) -> Pod {
        let Some(ours) = self.mailbox.status.lock().clone() else {
            return pod.clone();
        };
        // Conditions of others are taken from the API, our own from memory.
        let mut status = ours;
        let theirs = pod.status().conditions.iter().flatten().cloned();
        let mut conditions = status.conditions.take().unwrap_or_default();
        for condition in theirs {
            match conditions.iter_mut().find(|own| own.type_ == condition.type_) {
                Some(own) if super::conditions::is_own(&own.type_) => {}
                Some(own) => *own = condition,
                None => conditions.push(condition),
            }
        }
        status.conditions = Some(conditions);
        status.nominated_node_name = pod.status().nominated_node_name.clone();
        status.resource_claim_statuses = pod.status().resource_claim_statuses.clone();
        Pod {
            status: Some(status),
            ..pod.clone()
        }
    }

    fn report(&mut self, pod: &Arc<Pod>, view: &PodRuntime, stopped: bool) -> PodStatus {
        if self.reconciled.elapsed() > RESYNC {
            self.reconciled = Instant::now();
            if let Some(known) = self.context.in_api(pod) {
                self.context.statuses.reconcile(known.uid());
            }
        }
        let status = self.make_status(&self.with_status(pod), view, stopped);
        *self.mailbox.status.lock() = Some(status.clone());
        if let Some(known) = self.context.in_api(pod) {
            self.context.statuses.set(&known, &status);
        }
        status
    }

    // ---- Running ----

    async fn keep_running(&mut self, desired: &Desired) -> Sleep {
        let pod = &desired.pod;
        self.failed = self
            .failed
            .take()
            .or_else(|| desired.failed.clone())
            .or_else(|| self.past_deadline(pod));
        if desired.removed || pod.is_deleted() || pod.is_over() || self.failed.is_some() {
            self.state = State::Ending;
            return Duration::ZERO;
        }
        let view = match self.inspect().await {
            Ok(view) => view,
            Err(error) => {
                tracing::debug!(pod = pod.full_name(), %error, "the runtime does not answer");
                return self.next_retry();
            }
        };
        let ips = self.ips(pod, &view);
        self.probes
            .observe(pod, &view, ips.first().map_or("", String::as_str));
        let verdicts = self.probes.verdicts();
        let plan = plan::plan(&plan::Inputs {
            pod,
            runtime: &view,
            verdicts: &verdicts,
            backoff: &self.backoff,
            now: nanos(Timestamp::now()),
        });
        self.note_holds(pod, &plan.hold);
        let status = self.report(pod, &view, false);
        if matches!(status.phase.as_deref(), Some("Succeeded" | "Failed")) {
            self.state = State::Ending;
            return Duration::ZERO;
        }
        match self.act(pod, &view, plan).await {
            Acted::Nothing(sleep) => sleep,
            Acted::Changed => {
                self.retry = RETRY.0;
                Duration::ZERO
            }
            Acted::Failed => {
                // What failed shows in the status at once.
                if let Ok(view) = self.inspect().await {
                    self.report(pod, &view, false);
                }
                self.next_retry()
            }
        }
    }

    fn past_deadline(&self, pod: &Pod) -> Option<PodFailure> {
        let left = self.deadline_left(pod)?;
        if !left.is_zero() {
            return None;
        }
        let message = "Pod was active on the node longer than the specified deadline";
        self.context
            .events
            .pod(pod, Level::Normal, "DeadlineExceeded", message);
        Some(PodFailure::new("DeadlineExceeded", message))
    }

    fn deadline_left(&self, pod: &Pod) -> Option<Duration> {
        let seconds = u64::try_from(pod.spec().active_deadline_seconds?).unwrap_or(0);
        Some(Duration::from_secs(seconds).saturating_sub(keelson_api::time::since(self.start_time)))
    }

    fn note_holds(&mut self, pod: &Pod, holds: &[Hold]) {
        for hold in holds {
            let message = format!(
                "back-off {} restarting failed container={} pod={}",
                go_duration(hold.wait),
                hold.name,
                pod.full_name()
            );
            self.waiting.insert(
                hold.name.clone(),
                Waiting {
                    reason: "CrashLoopBackOff".into(),
                    message,
                },
            );
            if self
                .told
                .get(&hold.name)
                .is_none_or(|told| told.elapsed() >= BACKOFF_EVENT)
            {
                self.told.insert(hold.name.clone(), Instant::now());
                let text = format!(
                    "Back-off restarting failed container {} in pod {}",
                    hold.name,
                    pod.full_name()
                );
                self.context
                    .events
                    .container(pod, &hold.name, Level::Warning, "BackOff", &text);
            }
        }
    }

    async fn act(&mut self, pod: &Arc<Pod>, view: &PodRuntime, plan: Plan) -> Acted {
        if plan.is_empty() {
            kill::prune(&self.context, view).await;
            if self.volumes_are_due(pod) {
                let ips = self.ips(pod, view);
                let _ = self.prepare(pod, ips).await;
            }
            let mut sleep = RESYNC;
            sleep = plan
                .hold
                .iter()
                .map(|hold| hold.remaining)
                .fold(sleep, Duration::min);
            sleep = self.deadline_left(pod).map_or(sleep, |left| sleep.min(left));
            return Acted::Nothing(sleep.max(Duration::from_millis(10)));
        }
        let ips = self.ips(pod, view);
        let ip = ips.first().cloned().unwrap_or_default();
        let mut failed = false;
        if plan.kill_pod {
            let grace = kill::grace_of(pod);
            if plan.create_sandbox.is_some() {
                self.context.events.pod(
                    pod,
                    Level::Normal,
                    "SandboxChanged",
                    "Pod sandbox changed, it will be killed and re-created.",
                );
            }
            if let Err(error) = kill::pod(&self.context, pod, view, grace, &ip).await {
                tracing::warn!(pod = pod.full_name(), %error, "ending the pod's containers");
                return Acted::Failed;
            }
        }
        for (id, reason) in &plan.kill {
            let Some(container) = view.containers.iter().find(|container| container.id == *id) else {
                continue;
            };
            if let Err(error) = kill::container(
                &self.context,
                pod,
                container,
                Some(reason),
                kill::grace_of(pod),
                &ip,
            )
            .await
            {
                tracing::warn!(pod = pod.full_name(), container = container.name, %error, "ending a container");
                failed = true;
            }
        }
        for id in &plan.remove {
            if let Err(error) = self.context.runtime.remove_container(id).await
                && !error.is_not_found()
            {
                tracing::warn!(pod = pod.full_name(), %id, %error, "removing a container");
                failed = true;
            }
        }
        if plan.create_sandbox.is_some() || !plan.start.is_empty() {
            match self.start_all(pod, view, &plan).await {
                Ok(()) => {}
                Err(Stopped::Cancelled) => return Acted::Changed,
                Err(Stopped::Failed) => failed = true,
            }
        }
        if failed { Acted::Failed } else { Acted::Changed }
    }

    fn volumes_are_due(&self, pod: &Pod) -> bool {
        let stale = self.mailbox.stale.swap(false, Ordering::AcqRel);
        files::follows_objects(pod)
            && (stale || self.volumes.as_ref().is_none_or(|(at, _)| at.elapsed() >= RESYNC))
    }

    /// Volumes are renewed at the next look.
    async fn prepare(&mut self, pod: &Pod, ips: Vec<String>) -> Result<HashMap<String, PathBuf>, Stopped> {
        match start::prepare(&self.context, pod, ips).await {
            Ok(folders) => {
                self.volumes = Some((Instant::now(), folders.clone()));
                Ok(folders)
            }
            Err(text) => {
                tracing::warn!(pod = pod.full_name(), error = text, "preparing the pod");
                Err(Stopped::Failed)
            }
        }
    }

    async fn start_all(&mut self, pod: &Arc<Pod>, view: &PodRuntime, plan: &Plan) -> Result<(), Stopped> {
        let cancel = self.mailbox.ends.lock().clone();
        let folders = self.prepare(pod, self.ips(pod, view)).await?;
        if cancel.is_cancelled() {
            return Err(Stopped::Cancelled);
        }
        let mut view = view.clone();
        if let Some(attempt) = plan.create_sandbox {
            if let Err(text) = start::sandbox(&self.context, pod, attempt).await {
                tracing::warn!(pod = pod.full_name(), error = text, "making a sandbox");
                return Err(Stopped::Failed);
            }
            view = self.inspect().await.map_err(|_| Stopped::Failed)?;
            self.report(pod, &view, false);
        }
        let Some(sandbox) = view.ready_sandbox().cloned() else {
            return Err(Stopped::Failed);
        };
        let ips = self.ips(pod, &view);
        if let Err(error) = start::hosts(&self.context, pod, &ips) {
            tracing::warn!(pod = pod.full_name(), %error, "writing the pod's hosts file");
            return Err(Stopped::Failed);
        }
        let context = self.context.clone();
        let starter = Starter {
            context: &context,
            pod,
            sandbox_id: sandbox.id,
            sandbox_config: context.sandbox_config(pod, sandbox.attempt),
            ips,
            volumes: folders,
            secrets: start::pull_secrets(&context, pod).await,
            runtime: &view,
            cancel,
        };
        let mut failed = false;
        for start in &plan.start {
            if let Some(exited) = start.after_exit_at {
                self.backoff
                    .next(&start.container.name, exited, nanos(Timestamp::now()));
            }
            match starter.start(start).await {
                Ok(()) => {
                    self.waiting.remove(&start.container.name);
                }
                Err(StartError::Cancelled) => return Err(Stopped::Cancelled),
                Err(StartError::Waits(waiting)) => {
                    tracing::info!(
                        pod = pod.full_name(),
                        container = start.container.name,
                        reason = waiting.reason,
                        message = waiting.message,
                        "not started"
                    );
                    self.waiting.insert(start.container.name.clone(), waiting);
                    failed = true;
                }
            }
        }
        if failed { Err(Stopped::Failed) } else { Ok(()) }
    }

    // ---- Ending ----

    async fn end(&mut self, desired: &Desired) -> Sleep {
        let pod = &desired.pod;
        self.probes.pod_ends();
        let view = match self.inspect().await {
            Ok(view) => view,
            Err(error) => {
                tracing::debug!(pod = pod.full_name(), %error, "the runtime does not answer");
                return self.next_retry();
            }
        };
        if !desired.removed {
            self.report(pod, &view, false);
        }
        if view.is_stopped() {
            self.state = State::Ended;
            self.retry = RETRY.0;
            return Duration::ZERO;
        }
        let mut grace = kill::grace_of(pod);
        if let Some(least) = self.failed.as_ref().and_then(|failed| failed.grace) {
            grace = grace.min(least);
        }
        let ips = self.ips(pod, &view);
        let ip = ips.first().cloned().unwrap_or_default();
        let context = self.context.clone();
        let killing = kill::pod(&context, pod, &view, grace, &ip);
        tokio::pin!(killing);
        let mailbox = self.mailbox.clone();
        loop {
            tokio::select! {
                result = &mut killing => {
                    if let Err(error) = result {
                        tracing::warn!(pod = pod.full_name(), %error, "ending the pod");
                        return self.next_retry();
                    }
                    return Duration::ZERO;
                }
                // The grace period may be shortened while the pod ends; then it starts over with less.
                () = mailbox.wake.notified() => {
                    let now = mailbox.desired();
                    if kill::grace_of(&now.pod) < grace {
                        return Duration::ZERO;
                    }
                    // Meanwhile containers end one by one.
                    if let Ok(view) = self.inspect().await
                        && !now.removed
                    {
                        self.report(&now.pod, &view, false);
                    }
                }
            }
        }
    }

    async fn clean_up(&mut self, desired: &Desired) -> Sleep {
        let pod = &desired.pod;
        self.probes.stop();
        let view = match self.inspect().await {
            Ok(view) if view.is_stopped() => view,
            Ok(_) => {
                self.state = State::Ending;
                return Duration::ZERO;
            }
            Err(_) => return self.next_retry(),
        };
        if !desired.removed {
            let status = self.report(pod, &view, true);
            // The last status must be there before the pod is not; a pod that is gone has no use for it.
            if let Some(known) = self.context.in_api(pod) {
                tokio::select! {
                    () = self.context.statuses.set_and_wait(&known, &status) => {}
                    () = removal(&self.mailbox) => {}
                }
            }
        }
        if let Err(error) = self.context.volumes.teardown(&self.uid).await {
            tracing::warn!(pod = pod.full_name(), %error, "removing the pod's files");
            return self.next_retry();
        }
        self.context.cgroups.remove(&self.uid);
        self.state = State::Over;
        Duration::ZERO
    }

    async fn wait_for_deletion(&mut self, desired: &Desired) -> Sleep {
        let pod = &desired.pod;
        if !desired.removed && !pod.is_deleted() {
            return RESYNC;
        }
        let Ok(view) = self.inspect().await else {
            return self.next_retry();
        };
        if let Err(error) = kill::remove_remains(&self.context, &view).await {
            tracing::warn!(pod = pod.full_name(), %error, "removing what remains of the pod");
            return self.next_retry();
        }
        if !desired.removed {
            let key = ObjectKey::new(pod.namespace(), pod.name());
            let options = DeleteOptions {
                grace_period_seconds: Some(0),
                preconditions: Some(Preconditions {
                    uid: Some(self.uid.clone()),
                    ..Default::default()
                }),
                ..Default::default()
            };
            match self.context.api.pods.delete(&key, &options).await {
                Err(error) if !error.is_not_found() && !error.is_conflict() => {
                    tracing::warn!(pod = pod.full_name(), error = error.message(), "deleting the pod");
                    return self.next_retry();
                }
                _ => {}
            }
        }
        let logs = self.context.paths.pod_logs(pod);
        if let Err(error) = tokio::fs::remove_dir_all(&logs).await
            && error.kind() != std::io::ErrorKind::NotFound
        {
            tracing::warn!(path = %logs.display(), %error, "removing logs");
        }
        self.context.api.release(&self.uid);
        self.context.images.release(&self.uid);
        self.context.statuses.forget(&self.uid);
        tracing::info!(pod = pod.full_name(), "gone");
        self.state = State::Gone;
        Duration::ZERO
    }
}

async fn removal(mailbox: &Mailbox) {
    while !mailbox.desired().removed {
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

enum Acted {
    /// All is as it should be, for so long.
    Nothing(Sleep),
    /// Something was done: look again.
    Changed,
    /// Something did not work: wait, then try again.
    Failed,
}

enum Stopped {
    /// The pod is to end.
    Cancelled,
    /// Something did not work.
    Failed,
}
