//! Pods' statuses on their way to the apiserver: the latest of each pod, many in one round trip, tried until they
//! arrive. A worker never waits for the apiserver, except when a pod's last status must be there before it is gone.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Pod, PodStatus};
use keelson_api::ObjectKey;
use keelson_client::{Patch, ResourceClient, Write};
use keelson_daemon::backoff::Backoff;
use parking_lot::Mutex;
use serde_json::{Map, Value, json};
use tokio::sync::{Notify, oneshot};
use tokio_util::sync::CancellationToken;

use crate::objects::PodExt;

/// How many statuses go in one round trip.
const BATCH: usize = 64;

struct Pending {
    key: ObjectKey,
    patch: Map<String, Value>,
    waiters: Vec<oneshot::Sender<()>>,
}

#[derive(Default)]
struct Inner {
    /// By UID: the status as last sent.
    sent: HashMap<String, Map<String, Value>>,
    /// By UID: what is still to be sent.
    pending: HashMap<String, Pending>,
}

/// Sends statuses.
#[derive(Clone)]
pub struct StatusWriter {
    inner: Arc<Mutex<Inner>>,
    wake: Arc<Notify>,
}

fn as_map(status: &PodStatus) -> Map<String, Value> {
    match serde_json::to_value(status) {
        Ok(Value::Object(map)) => map,
        _ => Map::new(),
    }
}

/// What must change to get from one status to another: fields that differ, and `null` for those that go.
fn difference(old: &Map<String, Value>, new: &Map<String, Value>) -> Map<String, Value> {
    let gone = old
        .keys()
        .filter(|key| !new.contains_key(*key) && !NOT_OURS.contains(&key.as_str()))
        .map(|key| (key.clone(), Value::Null));
    let changed = new
        .iter()
        .filter(|(key, value)| old.get(*key) != Some(value))
        .map(|(key, value)| (key.clone(), value.clone()));
    gone.chain(changed).collect()
}

/// Fields that others write.
const NOT_OURS: [&str; 5] = [
    "nominatedNodeName",
    "resize",
    "resourceClaimStatuses",
    "extendedResourceClaimStatus",
    "resources",
];

impl StatusWriter {
    /// Starts the task that sends. It ends with `shutdown`.
    pub fn start(pods: ResourceClient<Pod>, shutdown: CancellationToken) -> Self {
        let writer = Self {
            inner: Arc::default(),
            wake: Arc::default(),
        };
        tokio::spawn(writer.clone().run(pods, shutdown));
        writer
    }

    /// Has a pod's status sent if it differs from what the apiserver has. `pod` is the pod as the apiserver has it.
    pub fn set(&self, pod: &Pod, status: &PodStatus) {
        self.enqueue(pod, status, None);
    }

    /// Like [`StatusWriter::set`], and waits until the apiserver has it, or has no such pod.
    pub async fn set_and_wait(&self, pod: &Pod, status: &PodStatus) {
        let (sender, receiver) = oneshot::channel();
        self.enqueue(pod, status, Some(sender));
        let _ = receiver.await;
    }

    /// The next comparison is with what the apiserver has, not with what was last sent.
    pub fn reconcile(&self, uid: &str) {
        self.inner.lock().sent.remove(uid);
    }

    /// The pod is gone.
    pub fn forget(&self, uid: &str) {
        let mut inner = self.inner.lock();
        inner.sent.remove(uid);
        inner.pending.remove(uid);
    }

    fn enqueue(&self, pod: &Pod, status: &PodStatus, waiter: Option<oneshot::Sender<()>>) {
        let new = as_map(status);
        let uid = pod.uid().to_owned();
        let mut inner = self.inner.lock();
        let old = inner
            .sent
            .get(&uid)
            .cloned()
            .unwrap_or_else(|| as_map(pod.status()));
        let change = difference(&old, &new);
        inner.sent.insert(uid.clone(), new);
        let is_pending = inner.pending.contains_key(&uid);
        if change.is_empty() && !is_pending {
            // Dropping the waiter tells it that there is nothing to wait for.
            return;
        }
        let pending = inner.pending.entry(uid).or_insert_with(|| Pending {
            key: ObjectKey::new(pod.namespace(), pod.name()),
            patch: Map::new(),
            waiters: Vec::new(),
        });
        pending.patch.extend(change);
        pending.waiters.extend(waiter);
        drop(inner);
        self.wake.notify_one();
    }

    async fn run(self, pods: ResourceClient<Pod>, shutdown: CancellationToken) {
        let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(5));
        loop {
            let batch = self.take();
            if batch.is_empty() {
                tokio::select! {
                    () = shutdown.cancelled() => return,
                    () = self.wake.notified() => continue,
                }
            }
            if self.send(&pods, batch).await {
                backoff.reset();
                continue;
            }
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(backoff.next_wait()) => {}
            }
        }
    }

    fn take(&self) -> Vec<(String, Pending)> {
        let mut inner = self.inner.lock();
        let uids: Vec<String> = inner.pending.keys().take(BATCH).cloned().collect();
        uids.into_iter()
            .filter_map(|uid| inner.pending.remove_entry(&uid))
            .collect()
    }

    /// Sends a batch; false if any of it must be sent again.
    async fn send(&self, pods: &ResourceClient<Pod>, batch: Vec<(String, Pending)>) -> bool {
        let writes = batch
            .iter()
            .map(|(uid, pending)| Write::Patch {
                key: pending.key.clone(),
                subresource: "status".into(),
                // The UID is a precondition: a pod made anew under the same name is not meant.
                patch: Patch::Merge(json!({"metadata": {"uid": uid}, "status": pending.patch})),
            })
            .collect();
        match pods.batch_discard(writes).await {
            Ok(results) => {
                let mut complete = true;
                for ((uid, pending), result) in batch.into_iter().zip(results) {
                    match result {
                        Ok(()) => {}
                        Err(error) if error.is_not_found() => self.forget(&uid),
                        Err(error) if error.is_conflict() || error.is_invalid() || error.code() == 400 => {
                            tracing::warn!(pod = %pending.key, error = error.message(), "status refused");
                        }
                        Err(error) => {
                            tracing::debug!(pod = %pending.key, error = error.message(), "status not written");
                            self.put_back(uid, pending);
                            complete = false;
                        }
                    }
                }
                complete
            }
            Err(error) => {
                tracing::debug!(error = error.message(), "statuses not written");
                for (uid, pending) in batch {
                    self.put_back(uid, pending);
                }
                false
            }
        }
    }

    fn put_back(&self, uid: String, mut old: Pending) {
        let mut inner = self.inner.lock();
        match inner.pending.get_mut(&uid) {
            Some(newer) => {
                old.patch.extend(std::mem::take(&mut newer.patch));
                newer.patch = old.patch;
                newer.waiters.append(&mut old.waiters);
            }
            None => {
                inner.pending.insert(uid, old);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_differences_are_sent() {
        let map = |value: Value| value.as_object().cloned().unwrap_or_default();
        let old = map(json!({"phase": "Pending", "podIP": "1", "reason": "X", "nominatedNodeName": "n"}));
        let new = map(json!({"phase": "Running", "podIP": "1"}));
        assert_eq!(
            Value::Object(difference(&old, &new)),
            json!({"phase": "Running", "reason": null})
        );
    }
}
