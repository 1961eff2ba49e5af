//! The pod lifecycle event generator: it notices what happens in the runtime and wakes the pod's worker.
//!
//! A runtime that tells (GetContainerEvents) is listened to, and listed now and then in case something was missed.
//! One that does not is listed every second: two calls whose answers are compared with the last ones.

use std::collections::{HashMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::StreamExt;
use keelson_proto::cri;
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use crate::cri::{CriResult, Runtime, labels};
use crate::pods::manager::PodManager;

/// How often a runtime that does not tell is listed.
const RELIST: Duration = Duration::from_secs(1);
/// How often right after something has changed: one change seldom comes alone, and somebody waits for the next.
const RELIST_BUSY: Duration = Duration::from_millis(200);
/// How long that lasts.
const BUSY: Duration = Duration::from_secs(3);
/// How often while the node has no pods at all.
const RELIST_IDLE: Duration = Duration::from_secs(5);
/// How often a runtime that tells is listed.
const RELIST_EVENTED: Duration = Duration::from_secs(60);
/// A runtime that could not be listed for so long is down.
const UNHEALTHY: Duration = Duration::from_secs(180);
/// How often left-over files are looked for.
const SWEEP: Duration = Duration::from_secs(60);
/// How long the runtime must have a pod that nobody wants before it is ended.
const ORPHAN_AFTER: Duration = Duration::from_secs(5);
/// How long until that is tried again.
const ORPHAN_AGAIN: Duration = Duration::from_secs(60);

/// When the runtime was last listed.
#[derive(Clone, Default)]
pub struct Pulse(Arc<Mutex<Option<Instant>>>);

impl Pulse {
    /// Is the runtime being listed?
    ///
    /// # Errors
    /// Since when it is not, in upstream's words.
    pub fn healthy(&self) -> Result<(), String> {
        match *self.0.lock() {
            None => Err("pleg has yet to be successful".into()),
            Some(at) if at.elapsed() > UNHEALTHY => {
                let ago = crate::pods::backoff::go_duration(at.elapsed());
                Err(format!("pleg was last seen active {ago} ago; threshold is 3m0s"))
            }
            Some(_) => Ok(()),
        }
    }

    /// The runtime has just been listed.
    pub fn beat(&self) {
        *self.0.lock() = Some(Instant::now());
    }
}

/// Watches the runtime until `shutdown`. `synced` says whether the node's pods are known.
pub async fn run(
    runtime: Arc<dyn Runtime>,
    manager: Arc<PodManager>,
    pulse: Pulse,
    synced: impl Fn() -> bool,
    shutdown: CancellationToken,
) {
    let mut seen: HashMap<String, u64> = HashMap::new();
    let mut strangers: HashMap<String, Instant> = HashMap::new();
    let mut swept = Instant::now();
    let mut changed = Instant::now();
    let mut events = None;
    let mut tells = true;
    loop {
        if tells && events.is_none() {
            match runtime.container_events().await {
                Ok(stream) => events = Some(stream),
                Err(error) if error.is_unimplemented() => tells = false,
                Err(_) => {}
            }
        }
        match relist(runtime.as_ref()).await {
            Ok(pods) => {
                pulse.beat();
                if pods != seen {
                    changed = Instant::now();
                }
                for (uid, state) in &pods {
                    if seen.get(uid) != Some(state) {
                        manager.wake(uid);
                    }
                }
                seen.keys()
                    .filter(|uid| !pods.contains_key(*uid))
                    .for_each(|uid| manager.wake(uid));
                if synced() {
                    end_strangers(&manager, &pods, &mut strangers).await;
                    if swept.elapsed() >= SWEEP {
                        swept = Instant::now();
                        manager.sweep(&pods.keys().cloned().collect::<HashSet<_>>()).await;
                    }
                }
                seen = pods;
            }
            Err(error) => tracing::debug!(%error, "listing the runtime's containers"),
        }
        let pause = match &events {
            Some(_) => RELIST_EVENTED,
            None if changed.elapsed() < BUSY => RELIST_BUSY,
            None if manager.count() == 0 && seen.is_empty() => RELIST_IDLE,
            None => RELIST,
        };
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
            () = listen(&mut events, &manager) => events = None,
            () = manager.new_pod() => changed = Instant::now(),
        }
    }
}

/// Wakes workers as the runtime tells; returns when it tells no more.
async fn listen(events: &mut Option<tonic::Streaming<cri::ContainerEventResponse>>, manager: &PodManager) {
    let Some(stream) = events else {
        return std::future::pending().await;
    };
    while let Some(Ok(event)) = stream.next().await {
        if let Some(uid) = event
            .pod_sandbox_status
            .and_then(|status| Some(status.metadata?.uid))
        {
            manager.wake(&uid);
        }
    }
    tokio::time::sleep(RELIST).await;
}

/// A pod's sandboxes and containers and their states, as one number.
async fn relist(runtime: &dyn Runtime) -> CriResult<HashMap<String, u64>> {
    let (sandboxes, containers) =
        tokio::try_join!(runtime.list_pod_sandboxes(None), runtime.list_containers(None))?;
    let mut pods: HashMap<String, Vec<(String, i32)>> = HashMap::new();
    for sandbox in sandboxes {
        if let Some(uid) = sandbox.labels.get(labels::POD_UID) {
            pods.entry(uid.clone())
                .or_default()
                .push((sandbox.id, sandbox.state));
        }
    }
    for container in containers {
        if let Some(uid) = container.labels.get(labels::POD_UID) {
            pods.entry(uid.clone())
                .or_default()
                .push((container.id, container.state));
        }
    }
    let number = |mut parts: Vec<(String, i32)>| {
        parts.sort();
        let mut hasher = DefaultHasher::new();
        parts.hash(&mut hasher);
        hasher.finish()
    };
    Ok(pods
        .into_iter()
        .map(|(uid, parts)| (uid, number(parts)))
        .collect())
}

/// Ends pods that nobody wants. `strangers` has the moment at which each of them is due.
async fn end_strangers(
    manager: &Arc<PodManager>,
    pods: &HashMap<String, u64>,
    strangers: &mut HashMap<String, Instant>,
) {
    strangers.retain(|uid, _| pods.contains_key(uid) && !manager.knows(uid));
    let now = Instant::now();
    for uid in pods.keys().filter(|uid| !manager.knows(uid)) {
        let due = strangers.entry(uid.clone()).or_insert(now + ORPHAN_AFTER);
        if now >= *due {
            *due = now + ORPHAN_AGAIN;
            let (manager, uid) = (manager.clone(), uid.clone());
            tokio::spawn(async move { manager.end_orphan(&uid).await });
        }
    }
}
