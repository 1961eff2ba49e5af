//! Pods that wait for a node.
//!
//! ```text
//!              ┌─────────────────────────────────────────────┐
//!  offer ──► active ──► (a cycle) ──► unschedulable ─ event ─┤ back-off not over
//!    │          ▲                          │ 5 min           ▼
//!    │          └──────────────────────────┴─────────────  back-off ◄── binding failed
//!    └──► gated ── until its gates are gone
//! ```

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use keelson_api::object::Object;

use crate::framework::{Profile, Rank};
use crate::model::{PodId, PodInfo};

/// The first wait after a failed attempt, doubled with each further one.
const BACKOFF_INITIAL: Duration = Duration::from_secs(1);
/// The longest wait.
const BACKOFF_MAX: Duration = Duration::from_secs(10);
/// An unschedulable pod is tried again after this even if nothing happened that should help: a wrong hint must not
/// keep a pod for ever.
const UNSCHEDULABLE_MAX: Duration = Duration::from_secs(300);

/// A pod that waits, or is being tried.
#[derive(Debug)]
pub struct QueuedPod {
    /// The pod.
    pub info: Arc<PodInfo>,
    /// How often it was tried.
    pub attempts: u32,
    /// When it was last tried.
    last_attempt: Option<Instant>,
    /// Who refused it then.
    refused_by: BTreeSet<&'static str>,
}

impl QueuedPod {
    fn backoff_ends(&self) -> Option<Instant> {
        let doublings = self.attempts.saturating_sub(1).min(16);
        Some(self.last_attempt? + BACKOFF_INITIAL.saturating_mul(1 << doublings).min(BACKOFF_MAX))
    }
}

/// How many pods wait where.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Places {
    /// To be tried now.
    pub active: usize,
    /// To be tried when their back-off is over.
    pub backoff: usize,
    /// For the cluster to change.
    pub unschedulable: usize,
    /// For their scheduling gates to be removed.
    pub gated: usize,
}

/// Tells equal ranks and instants apart.
type Number = u64;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Active(Rank, Number),
    BackOff(Instant, Number),
    Unschedulable(Instant, Number),
    Gated,
}

/// The waiting pods.
#[derive(Default)]
pub struct Queue {
    pods: HashMap<PodId, (QueuedPod, Place)>,
    active: BTreeMap<(Rank, Number), PodId>,
    backoff: BTreeMap<(Instant, Number), PodId>,
    unschedulable: BTreeMap<(Instant, Number), PodId>,
    gated: usize,
    next_number: Number,
}

impl Queue {
    /// How many pods wait where.
    pub fn places(&self) -> Places {
        Places {
            active: self.active.len(),
            backoff: self.backoff.len(),
            unschedulable: self.unschedulable.len(),
            gated: self.gated,
        }
    }

    /// A pod without a node is new, or changed.
    pub fn offer(&mut self, info: Arc<PodInfo>, profile: &Profile, now: Instant) {
        let Some((known, place)) = self.pods.get_mut(&info.id) else {
            let queued = QueuedPod {
                info,
                attempts: 0,
                last_attempt: None,
                refused_by: BTreeSet::new(),
            };
            return self.admit(queued, profile, now);
        };
        let same = known.info.pod.spec == info.pod.spec && known.info.pod.labels() == info.pod.labels();
        known.info = info;
        // A changed pod may fit where the former did not. (Its status is ours, and changes nothing.)
        if !same && !matches!(place, Place::BackOff(..)) {
            let id = known.info.id.clone();
            if let Some(queued) = self.take(&id) {
                self.admit(queued, profile, now);
            }
        }
    }

    /// Forgets a pod.
    pub fn remove(&mut self, id: &str) {
        self.take(id);
    }

    /// The next pod to try; it is not in the queue any more.
    pub fn pop(&mut self) -> Option<QueuedPod> {
        let id = self.active.first_key_value()?.1.clone();
        self.take(&id)
    }

    /// The pod fits nowhere: it waits until one of the plugins that refused it is told of an event that may help.
    pub fn park(&mut self, mut queued: QueuedPod, refused_by: BTreeSet<&'static str>, now: Instant) {
        queued.last_attempt = Some(now);
        queued.refused_by = refused_by;
        let number = self.number();
        self.unschedulable.insert((now, number), queued.info.id.clone());
        self.place(queued, Place::Unschedulable(now, number));
    }

    /// Something failed that may not fail the next time.
    pub fn back_off(&mut self, mut queued: QueuedPod, now: Instant) {
        queued.last_attempt = Some(now);
        queued.refused_by.clear();
        self.wait_for_backoff(queued, now);
    }

    /// Takes unschedulable pods back that an event may help. `helps` is asked about each plugin that refused a pod.
    pub fn wake(
        &mut self,
        now: Instant,
        profiles: &BTreeMap<String, Profile>,
        helps: impl Fn(&'static str, &Profile, &PodInfo) -> bool,
    ) {
        if self.unschedulable.is_empty() {
            return;
        }
        let mut woken = Vec::new();
        for id in self.unschedulable.values() {
            let Some((queued, _)) = self.pods.get(id) else {
                continue;
            };
            let Some(profile) = profiles.get(queued.info.scheduler_name()) else {
                continue;
            };
            let by = &queued.refused_by;
            if by.is_empty() || by.iter().any(|plugin| helps(plugin, profile, &queued.info)) {
                woken.push(id.clone());
            }
        }
        for id in woken {
            self.retry(&id, profiles, now);
        }
    }

    /// Activates pods whose back-off is over, and pods that have been unschedulable for too long. Returns when the next
    /// such moment is.
    pub fn tick(&mut self, now: Instant, profiles: &BTreeMap<String, Profile>) -> Option<Instant> {
        while let Some((&(until, _), id)) = self.backoff.first_key_value() {
            if until > now {
                break;
            }
            let id = id.clone();
            self.retry(&id, profiles, now);
        }
        while let Some((&(since, _), id)) = self.unschedulable.first_key_value() {
            if since + UNSCHEDULABLE_MAX > now {
                break;
            }
            let id = id.clone();
            self.retry(&id, profiles, now);
        }
        let backoff = self.backoff.first_key_value().map(|(key, _)| key.0);
        let unschedulable = self
            .unschedulable
            .first_key_value()
            .map(|(key, _)| key.0 + UNSCHEDULABLE_MAX);
        backoff.into_iter().chain(unschedulable).min()
    }

    fn retry(&mut self, id: &str, profiles: &BTreeMap<String, Profile>, now: Instant) {
        let Some(queued) = self.take(id) else { return };
        if let Some(profile) = profiles.get(queued.info.scheduler_name()) {
            self.admit(queued, profile, now);
        }
    }

    /// Queues a pod that is nowhere: behind its gates, in back-off, or active.
    fn admit(&mut self, queued: QueuedPod, profile: &Profile, now: Instant) {
        let gated = profile
            .points
            .pre_enqueue
            .iter()
            .any(|plugin| plugin.pre_enqueue(&queued.info).is_err());
        if gated {
            self.gated += 1;
            return self.place(queued, Place::Gated);
        }
        if queued.backoff_ends().is_some_and(|ends| ends > now) {
            return self.wait_for_backoff(queued, now);
        }
        let number = self.number();
        let rank = profile.queue_sort.rank(&queued.info, number);
        self.active.insert((rank, number), queued.info.id.clone());
        self.place(queued, Place::Active(rank, number));
    }

    fn wait_for_backoff(&mut self, queued: QueuedPod, now: Instant) {
        let until = queued.backoff_ends().unwrap_or(now);
        let number = self.number();
        self.backoff.insert((until, number), queued.info.id.clone());
        self.place(queued, Place::BackOff(until, number));
    }

    fn place(&mut self, queued: QueuedPod, place: Place) {
        self.pods.insert(queued.info.id.clone(), (queued, place));
    }

    fn take(&mut self, id: &str) -> Option<QueuedPod> {
        let (queued, place) = self.pods.remove(id)?;
        match place {
            Place::Active(rank, number) => drop(self.active.remove(&(rank, number))),
            Place::BackOff(until, number) => drop(self.backoff.remove(&(until, number))),
            Place::Unschedulable(since, number) => drop(self.unschedulable.remove(&(since, number))),
            Place::Gated => self.gated -= 1,
        }
        Some(queued)
    }

    fn number(&mut self) -> Number {
        self.next_number += 1;
        self.next_number
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugins;
    use crate::testing::pod;

    struct Fixture {
        queue: Queue,
        profiles: BTreeMap<String, Profile>,
        now: Instant,
    }

    fn fixture() -> Fixture {
        let profile = plugins::default_profile("default-scheduler", Vec::new());
        Fixture {
            queue: Queue::default(),
            profiles: BTreeMap::from([(profile.name.clone(), profile)]),
            now: Instant::now(),
        }
    }

    impl Fixture {
        fn offer(&mut self, pod: k8s_openapi::api::core::v1::Pod) {
            let profile = &self.profiles["default-scheduler"];
            self.queue
                .offer(Arc::new(PodInfo::new(Arc::new(pod))), profile, self.now);
        }

        fn pop(&mut self) -> QueuedPod {
            let mut queued = self.queue.pop().unwrap();
            queued.attempts += 1;
            queued
        }
    }

    fn by_fit() -> BTreeSet<&'static str> {
        BTreeSet::from(["NodeResourcesFit"])
    }

    #[test]
    fn priority_and_then_age_decide() {
        let mut f = fixture();
        f.offer(pod("old").build());
        f.offer(pod("new").build());
        f.offer(pod("important").priority(10).build());
        let order: Vec<_> = (0..3).map(|_| f.pop().info.key.name.clone()).collect();
        assert_eq!(order, ["important", "old", "new"]);
        assert!(f.queue.pop().is_none());
    }

    #[test]
    fn a_parked_pod_wakes_when_it_helps_and_backs_off() {
        let mut f = fixture();
        f.offer(pod("a").build());
        let queued = f.pop();
        f.queue.park(queued, by_fit(), f.now);

        f.queue.wake(f.now, &f.profiles, |_, _, _| false);
        assert_eq!(f.queue.places().unschedulable, 1);
        f.queue
            .wake(f.now, &f.profiles, |plugin, _, _| plugin == "NodeResourcesFit");
        assert_eq!(
            f.queue.places(),
            Places {
                backoff: 1,
                ..Places::default()
            },
            "a second has not passed"
        );

        let wake_at = f.queue.tick(f.now, &f.profiles).unwrap();
        assert_eq!(wake_at, f.now + Duration::from_secs(1));
        f.queue.tick(wake_at, &f.profiles);
        assert_eq!(f.queue.places().active, 1);
    }

    #[test]
    fn back_off_doubles_up_to_ten_seconds() {
        let mut f = fixture();
        f.offer(pod("a").build());
        for seconds in [1, 2, 4, 8, 10, 10] {
            let queued = f.pop();
            f.queue.back_off(queued, f.now);
            let until = f.queue.tick(f.now, &f.profiles).unwrap();
            assert_eq!(until - f.now, Duration::from_secs(seconds));
            f.now = until;
            f.queue.tick(f.now, &f.profiles);
        }
    }

    #[test]
    fn nobody_waits_for_ever() {
        let mut f = fixture();
        f.offer(pod("a").build());
        let queued = f.pop();
        f.queue.park(queued, by_fit(), f.now);
        let at = f.queue.tick(f.now, &f.profiles).unwrap();
        assert_eq!(at - f.now, UNSCHEDULABLE_MAX);
        f.queue.tick(at, &f.profiles);
        assert_eq!(f.queue.places().active, 1);
    }

    #[test]
    fn gates_hold_until_they_are_gone() {
        let mut f = fixture();
        f.offer(pod("a").gate("example.com/quota").build());
        assert_eq!(
            f.queue.places(),
            Places {
                gated: 1,
                ..Places::default()
            }
        );
        f.offer(pod("a").build());
        assert_eq!(
            f.queue.places(),
            Places {
                active: 1,
                ..Places::default()
            }
        );
    }

    #[test]
    fn our_own_status_wakes_nobody_but_a_changed_spec_does() {
        let mut f = fixture();
        f.offer(pod("a").build());
        let queued = f.pop();
        f.queue.park(queued, by_fit(), f.now);
        f.now += Duration::from_secs(60);
        let mut same = pod("a").build();
        same.status = Some(Default::default());
        f.offer(same);
        assert_eq!(f.queue.places().unschedulable, 1);
        f.offer(pod("a").toleration("dedicated").build());
        assert_eq!(f.queue.places().active, 1);
    }
}
