//! Informers in, decisions out: the loop around the engine, and the I/O that follows from its decisions.
//!
//! Bindings and status patches go out in batches, a few batches at a time: while one is under way the next one fills,
//! so that a burst of pods costs few round trips and a single pod waits for none.

use std::sync::Arc;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::{Namespace, Node, Pod, PodCondition};
use keelson_api::object::{Kind, Object, ObjectKey};
use keelson_api::{ApiError, conditions, time};
use keelson_client::{
    Client, Event, EventKind, EventRecorder, Informer, InformerOptions, Patch, ResourceClient, Write,
};
use serde_json::json;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::engine::{Change, Decision, Engine};
use crate::framework::{Bind, Binding, Permission, PostBind, PreBind, Profile, Refusal};
use crate::metrics::SchedulerMetrics;
use crate::model::PodInfo;
use crate::trim;

/// How many pods are placed before changes of the cluster are looked at again.
const SLICE: usize = 128;
/// How many writes go in one batch.
const BATCH: usize = 512;
/// How many batches of each kind are under way at once.
const BATCHES: usize = 2;

/// What the scheduler watches.
#[derive(Clone)]
pub struct Informers {
    nodes: Informer<Node>,
    pods: Informer<Pod>,
    namespaces: Informer<Namespace>,
}

impl Informers {
    /// Starts watching.
    pub fn start(client: &Client, shutdown: &CancellationToken) -> Self {
        let unfinished = InformerOptions {
            field_selector: "status.phase!=Succeeded,status.phase!=Failed".into(),
            ..Default::default()
        };
        let all = InformerOptions::default;
        Informers {
            nodes: Informer::start_trimmed(client, all(), Vec::new(), trim::node, shutdown),
            pods: Informer::start_trimmed(client, unfinished, Vec::new(), trim::pod, shutdown),
            namespaces: Informer::start(client, all(), Vec::new(), shutdown),
        }
    }

    /// Everything known and everything that changes, in order; nodes before the pods on them.
    async fn changes(&self) -> mpsc::UnboundedReceiver<Change> {
        let (sender, receiver) = mpsc::unbounded_channel();
        forward(&self.namespaces, &sender, Change::Namespace).await;
        forward(&self.nodes, &sender, Change::Node).await;
        forward(&self.pods, &sender, Change::Pod).await;
        receiver
    }
}

async fn forward<K: Kind>(
    informer: &Informer<K>,
    sender: &mpsc::UnboundedSender<Change>,
    wrap: fn(Event<K>) -> Change,
) {
    informer.synced().await;
    let sender = sender.clone();
    informer.subscribe(move |event| {
        let event = match event {
            Event::Added(new) => Event::Added(new.clone()),
            Event::Updated { old, new } => Event::Updated {
                old: old.clone(),
                new: new.clone(),
            },
            Event::Deleted(last) => Event::Deleted(last.clone()),
        };
        // Nobody listens any more when the scheduler stops.
        let _ = sender.send(wrap(event));
    });
}

/// What a task that did I/O tells the loop.
enum Done {
    /// A batch, or a pod that had to wait for something, was bound or not.
    Bound {
        outcomes: Vec<(Binding, Outcome)>,
        batch: bool,
        took: Duration,
    },
    /// A batch of status patches was sent.
    Patched,
}

enum Outcome {
    Bound,
    Failed(ApiError),
    Refused(Refusal),
}

struct Driver {
    engine: Engine,
    pods: ResourceClient<Pod>,
    recorder: EventRecorder,
    metrics: SchedulerMetrics,
    done: mpsc::UnboundedSender<Done>,
    bindings: Vec<Binding>,
    patches: Vec<Write<Pod>>,
    binding_batches: usize,
    patch_batches: usize,
}

/// Schedules until `shutdown`.
pub async fn run(
    client: Client,
    name: String,
    profiles: Vec<Profile>,
    informers: Informers,
    metrics: SchedulerMetrics,
    shutdown: CancellationToken,
) {
    let mut changes = tokio::select! {
        changes = informers.changes() => changes,
        () = shutdown.cancelled() => return,
    };
    let (done, mut finished) = mpsc::unbounded_channel();
    let mut driver = Driver {
        engine: Engine::new(profiles),
        pods: client.resource(),
        recorder: EventRecorder::new(&client, &name, "", &shutdown),
        metrics,
        done,
        bindings: Vec::new(),
        patches: Vec::new(),
        binding_batches: 0,
        patch_batches: 0,
    };
    tracing::info!(scheduler = name, "scheduling");
    loop {
        while let Ok(change) = changes.try_recv() {
            driver.engine.apply(change, Instant::now());
        }
        while let Ok(done) = finished.try_recv() {
            driver.finish(done);
        }
        let wake_at = driver.engine.tick(Instant::now());
        let more = driver.place_some();
        driver.send();
        driver.metrics.pending(driver.engine.places());
        if more {
            // Let the connection's tasks run, then look for changes and go on.
            tokio::task::yield_now().await;
            if shutdown.is_cancelled() {
                return;
            }
            continue;
        }
        let wake = async {
            match wake_at {
                Some(at) => tokio::time::sleep_until(at.into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            Some(change) = changes.recv() => driver.engine.apply(change, Instant::now()),
            Some(done) = finished.recv() => driver.finish(done),
            () = wake => {}
            () = shutdown.cancelled() => return,
        }
    }
}

impl Driver {
    /// Places a slice of the waiting pods. Returns whether there may be more.
    fn place_some(&mut self) -> bool {
        for _ in 0..SLICE {
            let started = Instant::now();
            let Some(decision) = self.engine.next(started) else {
                return false;
            };
            let took = started.elapsed();
            match decision {
                Decision::Bind { binding, waits } => {
                    self.metrics.attempt("scheduled", took);
                    self.bind(binding, waits);
                }
                Decision::Unschedulable {
                    pod,
                    message,
                    nominated,
                } => {
                    self.metrics.attempt("unschedulable", took);
                    tracing::debug!(pod = %pod.key, message, "unschedulable");
                    self.recorder.event(
                        &*pod.pod,
                        EventKind::Warning,
                        "FailedScheduling",
                        message.as_str(),
                    );
                    self.patches
                        .extend(status_patch(&pod, &message, nominated.as_deref()));
                }
            }
        }
        true
    }

    fn bind(&mut self, binding: Binding, waits: Vec<Permission>) {
        let Some(profile) = self.engine.profile(&binding.pod) else {
            return;
        };
        let concerned = |plugin: &&Arc<dyn PreBind>| plugin.concerns(&binding.pod);
        let pre_bind: Vec<_> = profile
            .points
            .pre_bind
            .iter()
            .filter(concerned)
            .cloned()
            .collect();
        if waits.is_empty() && pre_bind.is_empty() {
            self.bindings.push(binding);
            return;
        }
        let Some(bind) = profile.points.bind.first().cloned() else {
            return;
        };
        let done = self.done.clone();
        tokio::spawn(async move {
            let started = Instant::now();
            let outcome = match prepare(&binding, waits, &pre_bind).await {
                Err(refusal) => Outcome::Refused(refusal),
                Ok(()) => bind_all(&*bind, std::slice::from_ref(&binding))
                    .await
                    .pop()
                    .unwrap_or(Outcome::Bound),
            };
            let outcomes = vec![(binding, outcome)];
            let _ = done.send(Done::Bound {
                outcomes,
                batch: false,
                took: started.elapsed(),
            });
        });
    }

    /// Sends what has gathered, as far as there are batches free.
    fn send(&mut self) {
        while !self.bindings.is_empty() && self.binding_batches < BATCHES {
            // All bindings of a batch go through one plugin; with one profile this is all of them.
            let Some(bind) = self.binder(&self.bindings[0].pod) else {
                self.bindings.clear();
                return;
            };
            let count = self.bindings.len().min(BATCH);
            let batch: Vec<Binding> = self.bindings.drain(..count).collect();
            self.binding_batches += 1;
            let done = self.done.clone();
            tokio::spawn(async move {
                let started = Instant::now();
                let outcomes = bind_all(&*bind, &batch).await;
                let outcomes = batch.into_iter().zip(outcomes).collect();
                let _ = done.send(Done::Bound {
                    outcomes,
                    batch: true,
                    took: started.elapsed(),
                });
            });
        }
        while !self.patches.is_empty() && self.patch_batches < BATCHES {
            let count = self.patches.len().min(BATCH);
            let batch: Vec<_> = self.patches.drain(..count).collect();
            self.patch_batches += 1;
            let (pods, done) = (self.pods.clone(), self.done.clone());
            tokio::spawn(async move {
                match pods.batch_discard(batch).await {
                    Err(error) => tracing::warn!(%error, "conditions of unschedulable pods were not written"),
                    Ok(results) => {
                        let failures = results.into_iter().filter_map(Result::err);
                        for error in failures.filter(|error| !error.is_not_found()) {
                            tracing::warn!(%error, "the condition of an unschedulable pod was not written");
                        }
                    }
                }
                let _ = done.send(Done::Patched);
            });
        }
    }

    fn binder(&self, pod: &PodInfo) -> Option<Arc<dyn Bind>> {
        self.engine.profile(pod)?.points.bind.first().cloned()
    }

    fn finish(&mut self, done: Done) {
        let (outcomes, batch, took) = match done {
            Done::Patched => {
                self.patch_batches -= 1;
                return;
            }
            Done::Bound {
                outcomes,
                batch,
                took,
            } => (outcomes, batch, took),
        };
        self.binding_batches -= usize::from(batch);
        self.metrics.bound(took);
        for (binding, outcome) in outcomes {
            match outcome {
                Outcome::Bound => self.bound(&binding),
                Outcome::Failed(error) => {
                    let text = format!("binding rejected: running Bind plugin \"DefaultBinder\": {error}");
                    // Somebody was faster, or the pod is gone: the watch will say so, and nobody need read it.
                    self.not_bound(&binding, &text, !(error.is_not_found() || error.is_conflict()));
                }
                Outcome::Refused(refusal) => {
                    let text = format!(
                        "running plugin {:?}: {}",
                        refusal.plugin,
                        refusal.reasons.join(", ")
                    );
                    self.not_bound(&binding, &text, true);
                }
            }
        }
    }

    fn bound(&mut self, binding: &Binding) {
        self.engine.bound(&binding.pod);
        let post_bind = self
            .engine
            .profile(&binding.pod)
            .into_iter()
            .flat_map(|p| &p.points.post_bind);
        post_bind.for_each(|plugin: &Arc<dyn PostBind>| plugin.post_bind(binding));
        let message = format!("Successfully assigned {} to {}", binding.pod.key, binding.node);
        tracing::debug!(pod = %binding.pod.key, node = %binding.node, "bound");
        self.recorder
            .event(&*binding.pod.pod, EventKind::Normal, "Scheduled", message);
    }

    fn not_bound(&mut self, binding: &Binding, message: &str, worth_an_event: bool) {
        self.metrics.failed();
        tracing::warn!(pod = %binding.pod.key, node = %binding.node, message, "not bound");
        if worth_an_event {
            self.recorder
                .event(&*binding.pod.pod, EventKind::Warning, "FailedScheduling", message);
        }
        self.engine.not_bound(binding, Instant::now());
    }
}

/// Waits for permissions and does what has to be done before binding.
async fn prepare(
    binding: &Binding,
    waits: Vec<Permission>,
    pre_bind: &[Arc<dyn PreBind>],
) -> Result<(), Refusal> {
    for wait in waits {
        if let Permission::Wait(ready, limit) = wait {
            let late = |_| {
                Err(Refusal::resolvable(
                    "Permit",
                    format!("not permitted within {limit:?}"),
                ))
            };
            tokio::time::timeout(limit, ready).await.unwrap_or_else(late)?;
        }
    }
    for plugin in pre_bind {
        plugin.pre_bind(&binding.pod, &binding.node).await?;
    }
    Ok(())
}

async fn bind_all(bind: &dyn Bind, bindings: &[Binding]) -> Vec<Outcome> {
    let results = bind.bind(bindings).await;
    results
        .into_iter()
        .map(|result| result.map_or_else(Outcome::Failed, |()| Outcome::Bound))
        .collect()
}

/// What to write into an unschedulable pod's status; nothing if it is there already.
fn status_patch(pod: &PodInfo, message: &str, nominated: Option<&str>) -> Option<Write<Pod>> {
    let status = pod.pod.status.as_ref();
    let known: Option<&PodCondition> =
        conditions::find(status.and_then(|s| s.conditions.as_ref()), "PodScheduled");
    let is_false = known.is_some_and(|condition| condition.status == conditions::FALSE);
    let same = known.is_some_and(|condition| {
        is_false
            && condition.reason.as_deref() == Some("Unschedulable")
            && condition.message.as_deref() == Some(message)
    });
    if same && nominated.is_none() {
        return None;
    }
    let mut condition = json!({
        "type": "PodScheduled",
        "status": conditions::FALSE,
        "reason": "Unschedulable",
        "message": message,
        "observedGeneration": pod.pod.generation(),
    });
    if !is_false {
        condition["lastTransitionTime"] = json!(time::now());
    }
    let mut change = json!({"status": {"conditions": [condition]}});
    if let Some(node) = nominated {
        change["status"]["nominatedNodeName"] = json!(node);
    }
    let key = ObjectKey::of(&pod.pod.metadata);
    Some(Write::Patch {
        key,
        subresource: "status".into(),
        patch: Patch::Strategic(change),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::pod;

    #[test]
    fn a_condition_is_written_once() {
        let fresh = pod("p").info();
        let Some(Write::Patch {
            patch: Patch::Strategic(change),
            ..
        }) = status_patch(&fresh, "no", None)
        else {
            panic!("nothing to write")
        };
        let condition = &change["status"]["conditions"][0];
        assert_eq!(condition["reason"], "Unschedulable");
        assert!(condition["lastTransitionTime"].is_string());

        let mut told = pod("p").build();
        let known: PodCondition = serde_json::from_value(condition.clone()).unwrap();
        told.status.get_or_insert_default().conditions = Some(vec![known]);
        let told = PodInfo::new(Arc::new(told));
        assert!(status_patch(&told, "no", None).is_none());
        assert!(status_patch(&told, "still no", None).is_some());
    }
}
