//! A queue of keys to work on: each at most once in the queue and at most once in work.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::fmt::Debug;
use std::future::Future;
use std::hash::Hash;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use keelson_api::status::ApiError;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// The first delay after a failure, doubled with each further one.
const RETRY_INITIAL: Duration = Duration::from_millis(5);
/// The longest delay after failures.
const RETRY_MAX: Duration = Duration::from_secs(1000);

/// Keys to work on. A key added while it is queued is there once; a key added while it is worked on is queued again
/// when that work is [`done`](WorkQueue::done). Cheap to clone; every clone is the same queue.
pub struct WorkQueue<T> {
    shared: Arc<Shared<T>>,
}

impl<T> Clone for WorkQueue<T> {
    fn clone(&self) -> Self {
        WorkQueue {
            shared: self.shared.clone(),
        }
    }
}

struct Shared<T> {
    name: &'static str,
    state: Mutex<State<T>>,
    wake: Notify,
}

struct State<T> {
    ready: VecDeque<T>,
    /// Queued, or to be queued again when the work under way is done.
    wanted: HashSet<T>,
    working: HashSet<T>,
    /// By when they are due; the number keeps equal instants apart.
    delayed: BTreeMap<(Instant, u64), T>,
    due: HashMap<T, (Instant, u64)>,
    next_number: u64,
    failures: HashMap<T, u32>,
    shut_down: bool,
}

impl<T: Hash + Eq + Clone + Send> State<T> {
    fn add(&mut self, key: T) {
        if self.shut_down || !self.wanted.insert(key.clone()) || self.working.contains(&key) {
            return;
        }
        self.ready.push_back(key);
    }

    /// Moves what is due into the queue; says when the next will be.
    fn promote(&mut self, now: Instant) -> Option<Instant> {
        while let Some(entry) = self.delayed.first_entry() {
            let at = entry.key().0;
            if at > now {
                return Some(at);
            }
            let key = entry.remove();
            self.due.remove(&key);
            self.add(key);
        }
        None
    }
}

impl<T: Hash + Eq + Clone + Send> WorkQueue<T> {
    /// An empty queue. The name is for logs.
    pub fn new(name: &'static str) -> Self {
        let state = State {
            ready: VecDeque::new(),
            wanted: HashSet::new(),
            working: HashSet::new(),
            delayed: BTreeMap::new(),
            due: HashMap::new(),
            next_number: 0,
            failures: HashMap::new(),
            shut_down: false,
        };
        WorkQueue {
            shared: Arc::new(Shared {
                name,
                state: Mutex::new(state),
                wake: Notify::new(),
            }),
        }
    }

    /// The queue's name.
    pub fn name(&self) -> &'static str {
        self.shared.name
    }

    /// Queues a key now.
    pub fn add(&self, key: T) {
        self.shared.state.lock().add(key);
        self.shared.wake.notify_one();
    }

    /// Queues a key later; if it is waiting already, the earlier time counts.
    pub fn add_after(&self, key: T, delay: Duration) {
        if delay.is_zero() {
            return self.add(key);
        }
        let mut state = self.shared.state.lock();
        if state.shut_down {
            return;
        }
        let at = Instant::now() + delay;
        if let Some(known) = state.due.get(&key).copied() {
            if known.0 <= at {
                return;
            }
            state.delayed.remove(&known);
        }
        let slot = (at, state.next_number);
        state.next_number += 1;
        state.due.insert(key.clone(), slot);
        state.delayed.insert(slot, key);
        drop(state);
        // Whoever waits for work may have to wake earlier than it thinks.
        self.shared.wake.notify_one();
    }

    /// Queues a key after 5 ms, and twice as long with each call until it is [`forgotten`](WorkQueue::forget), up to
    /// 1000 s.
    pub fn add_rate_limited(&self, key: T) {
        let failures = {
            let mut state = self.shared.state.lock();
            let failures = state.failures.entry(key.clone()).or_default();
            let before = *failures;
            *failures = before.saturating_add(1);
            before
        };
        let delay = RETRY_INITIAL
            .saturating_mul(1_u32.checked_shl(failures).unwrap_or(u32::MAX))
            .min(RETRY_MAX);
        self.add_after(key, delay);
    }

    /// The key's work succeeded: the next failure is its first.
    pub fn forget(&self, key: &T) {
        self.shared.state.lock().failures.remove(key);
    }

    /// How often the key was rate-limited since it was last forgotten.
    pub fn retries(&self, key: &T) -> u32 {
        self.shared
            .state
            .lock()
            .failures
            .get(key)
            .copied()
            .unwrap_or_default()
    }

    /// The next key to work on; [`done`](WorkQueue::done) must follow. `None` after [`shut_down`](WorkQueue::shut_down).
    pub async fn get(&self) -> Option<T> {
        loop {
            let next_due = {
                let mut state = self.shared.state.lock();
                if state.shut_down {
                    drop(state);
                    // One wake is kept for one waiter: pass it on.
                    self.shared.wake.notify_one();
                    return None;
                }
                let next_due = state.promote(Instant::now());
                if let Some(key) = state.ready.pop_front() {
                    state.wanted.remove(&key);
                    state.working.insert(key.clone());
                    let more = !state.ready.is_empty() || next_due.is_some();
                    drop(state);
                    if more {
                        self.shared.wake.notify_one();
                    }
                    return Some(key);
                }
                next_due
            };
            let woken = self.shared.wake.notified();
            match next_due {
                None => woken.await,
                Some(at) => {
                    let _ = tokio::time::timeout_at(at, woken).await;
                }
            }
        }
    }

    /// The work on a key is over, well or badly. If it was added meanwhile it is queued again.
    pub fn done(&self, key: &T) {
        let mut state = self.shared.state.lock();
        state.working.remove(key);
        if state.wanted.contains(key) {
            state.ready.push_back(key.clone());
            drop(state);
            self.shared.wake.notify_one();
        }
    }

    /// Nothing is handed out any more; everybody waiting gets `None`.
    pub fn shut_down(&self) {
        let mut state = self.shared.state.lock();
        state.shut_down = true;
        state.ready.clear();
        state.delayed.clear();
        state.due.clear();
        drop(state);
        self.shared.wake.notify_waiters();
        self.shared.wake.notify_one();
    }

    /// How many keys are ready to be worked on.
    pub fn len(&self) -> usize {
        self.shared.state.lock().ready.len()
    }

    /// Whether no key is ready.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Why a key is not finished.
#[derive(Debug, thiserror::Error)]
pub enum ReconcileError {
    /// The apiserver refused or could not be reached: tried again with back-off.
    #[error(transparent)]
    Api(#[from] ApiError),
    /// Something else failed: tried again with back-off.
    #[error("{0}")]
    Other(Box<dyn std::error::Error + Send + Sync>),
    /// Nothing failed, but there is more to do then.
    #[error("more to do in {0:?}")]
    RequeueAfter(Duration),
}

impl ReconcileError {
    /// Any other failure.
    pub fn other(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        ReconcileError::Other(error.into())
    }
}

/// Runs `workers` tasks that take keys and reconcile them until `shutdown`; on failure a key comes back with back-off.
/// Returns when the last reconcile under way has finished.
pub async fn run_workers<T, F, Fut>(
    queue: WorkQueue<T>,
    workers: usize,
    shutdown: CancellationToken,
    reconcile: F,
) where
    T: Hash + Eq + Clone + Debug + Send + Sync + 'static,
    F: Fn(T) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<(), ReconcileError>> + Send,
{
    let reconcile = Arc::new(reconcile);
    let mut tasks = JoinSet::new();
    for _ in 0..workers {
        let queue = queue.clone();
        let reconcile = reconcile.clone();
        tasks.spawn(async move {
            while let Some(key) = queue.get().await {
                // One object that trips a bug must not stop the work on all others.
                let result = AssertUnwindSafe(reconcile(key.clone())).catch_unwind().await;
                match result {
                    Ok(Ok(())) => queue.forget(&key),
                    Ok(Err(ReconcileError::RequeueAfter(delay))) => {
                        queue.forget(&key);
                        queue.add_after(key.clone(), delay);
                    }
                    Ok(Err(error)) => {
                        let queue_name = queue.name();
                        match &error {
                            ReconcileError::Api(api) if api.is_conflict() => {
                                tracing::debug!(queue = queue_name, ?key, %error, "reconcile raced, trying again");
                            }
                            _ => tracing::warn!(queue = queue_name, ?key, %error, "reconcile failed, trying again"),
                        }
                        queue.add_rate_limited(key.clone());
                    }
                    Err(_) => {
                        tracing::error!(queue = queue.name(), ?key, "reconcile panicked, trying again");
                        queue.add_rate_limited(key.clone());
                    }
                }
                queue.done(&key);
            }
        });
    }
    shutdown.cancelled().await;
    queue.shut_down();
    while tasks.join_next().await.is_some() {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_key_is_queued_once_and_worked_on_once() {
        let queue = WorkQueue::new("test");
        queue.add("a");
        queue.add("b");
        queue.add("a");
        assert_eq!(queue.len(), 2);
        assert_eq!(queue.get().await, Some("a"));
        queue.add("a");
        assert_eq!(queue.get().await, Some("b"));
        assert_eq!(queue.len(), 0, "a is being worked on");
        queue.done(&"a");
        assert_eq!(queue.get().await, Some("a"));
    }

    #[tokio::test]
    async fn delays_are_kept_and_the_earlier_wins() {
        let queue = WorkQueue::new("test");
        let start = Instant::now();
        let (sooner, later) = (Duration::from_millis(50), Duration::from_secs(3600));
        queue.add_after("late", later);
        queue.add_after("early", Duration::from_millis(20));
        queue.add_after("late", sooner);
        let brought_forward = Instant::now() + sooner;
        queue.add_after("late", later);
        let (due, _) = queue.shared.state.lock().due["late"];
        assert!((start + sooner..=brought_forward).contains(&due));
        assert_eq!(queue.get().await, Some("early"));
        assert!(start.elapsed() >= Duration::from_millis(20));
        assert_eq!(queue.get().await, Some("late"));
        assert!(start.elapsed() >= sooner);
    }

    #[tokio::test]
    async fn failures_back_off_until_forgotten() {
        let queue = WorkQueue::new("test");
        for milliseconds in [5, 10, 20] {
            let delay = Duration::from_millis(milliseconds);
            let before = Instant::now();
            queue.add_rate_limited("a");
            let after = Instant::now();
            let (due, _) = queue.shared.state.lock().due["a"];
            assert!(
                (before + delay..=after + delay).contains(&due),
                "not {delay:?} later"
            );
            assert_eq!(queue.get().await, Some("a"));
            queue.done(&"a");
        }
        assert_eq!(queue.retries(&"a"), 3);
        queue.forget(&"a");
        assert_eq!(queue.retries(&"a"), 0);
        for _ in 0..70 {
            queue.add_rate_limited("b");
        }
        assert_eq!(queue.retries(&"b"), 70);
    }

    #[tokio::test]
    async fn workers_retry_survive_panics_and_stop() {
        let queue = WorkQueue::new("test");
        let shutdown = CancellationToken::new();
        let log = Arc::new(Mutex::new(Vec::new()));
        let seen = log.clone();
        for key in ["ok", "fails", "panics", "later"] {
            queue.add(key);
        }
        let workers = tokio::spawn(run_workers(queue.clone(), 2, shutdown.clone(), move |key| {
            let first = !seen.lock().contains(&key);
            seen.lock().push(key);
            async move {
                match key {
                    "fails" if first => Err(ReconcileError::other("no")),
                    "panics" if first => panic!("on purpose"),
                    "later" if first => Err(ReconcileError::RequeueAfter(Duration::from_millis(50))),
                    _ => Ok(()),
                }
            }
        }));
        for _ in 0..500 {
            if log.lock().len() >= 7 {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        shutdown.cancel();
        workers.await.unwrap();
        let mut log = log.lock().clone();
        log.sort_unstable();
        assert_eq!(
            log,
            ["fails", "fails", "later", "later", "ok", "panics", "panics"]
        );
        assert_eq!(queue.get().await, None);
    }
}
