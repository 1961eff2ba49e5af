//! Leader election on Lease objects.
//!
//! Candidates do not ask again and again: they watch the one Lease, and wake when it changes or when the time of its
//! holder has passed. Whether that time has passed is judged by the local clock since the Lease was last *seen* to
//! change, never by the time written in it, so clocks need not agree.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use keelson_api::object::{Object, ObjectKey};
use keelson_api::status::ApiError;
use keelson_api::time;
use keelson_daemon::backoff::Backoff;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::{Client, Informer, InformerOptions, ResourceClient};

/// The first wait after the Lease could not be written.
const ACQUIRE_AGAIN: Duration = Duration::from_millis(100);

/// Which Lease, who we are, and how fast a dead leader is replaced.
#[derive(Clone, Debug)]
pub struct LeaderConfig {
    /// Where the Lease is: `kube-system`.
    pub namespace: String,
    /// The Lease's name: the component's.
    pub name: String,
    /// Who holds it: unique to this process.
    pub identity: String,
    /// How long others wait after the last renewal they saw. 15 s by default.
    pub lease_duration: Duration,
    /// How long the leader goes on without a successful renewal. Less than `lease_duration`; 10 s by default.
    pub renew_deadline: Duration,
    /// How long between renewals. 2 s by default.
    pub retry_period: Duration,
}

impl LeaderConfig {
    /// Upstream's times, and an identity made of the host's name and a number no other process has.
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        LeaderConfig {
            namespace: namespace.into(),
            name: name.into(),
            identity: format!("{}_{:032x}", host.trim(), rand::random::<u128>()),
            lease_duration: Duration::from_secs(15),
            renew_deadline: Duration::from_secs(10),
            retry_period: Duration::from_secs(2),
        }
    }
}

/// Why a process does not lead any more.
#[derive(Debug, thiserror::Error)]
pub enum LeaderError {
    /// The Lease could not be renewed in time, or somebody else has it. The process should end and start anew.
    #[error("leadership of {0} lost")]
    Lost(String),
}

/// What a candidate does next.
#[derive(Debug, PartialEq)]
enum Move {
    /// There is no Lease: create this one.
    Create(Lease),
    /// The Lease is free, expired or ours: write this one over it.
    Take(Lease),
    /// Somebody holds it, at least for this long unless it changes.
    Wait(Duration),
}

/// The whole decision. `unchanged_for` is how long ago the Lease was seen to change.
fn next_move(config: &LeaderConfig, lease: Option<&Lease>, unchanged_for: Duration) -> Move {
    let Some(lease) = lease else {
        let metadata = ObjectMeta {
            namespace: Some(config.namespace.clone()),
            name: Some(config.name.clone()),
            ..Default::default()
        };
        return Move::Create(Lease {
            metadata,
            spec: Some(held(config, None)),
        });
    };
    let spec = lease.spec.as_ref();
    let holder = spec
        .and_then(|spec| spec.holder_identity.as_deref())
        .unwrap_or_default();
    if !holder.is_empty() && holder != config.identity {
        // The holder's own figure counts: it decides how long it may go on without renewing.
        let seconds = spec
            .and_then(|spec| spec.lease_duration_seconds)
            .and_then(|s| u64::try_from(s).ok());
        let duration = seconds.map_or(config.lease_duration, Duration::from_secs);
        let left = duration.saturating_sub(unchanged_for);
        if !left.is_zero() {
            return Move::Wait(left);
        }
    }
    Move::Take(Lease {
        metadata: lease.metadata.clone(),
        spec: Some(held(config, spec)),
    })
}

/// The spec of a Lease that we hold, following the one before.
fn held(config: &LeaderConfig, before: Option<&LeaseSpec>) -> LeaseSpec {
    let now = time::now_micro();
    let transitions = before.and_then(|spec| spec.lease_transitions).unwrap_or_default();
    let ours = before.is_some_and(|spec| spec.holder_identity.as_deref() == Some(&config.identity));
    let acquired = before.filter(|_| ours).and_then(|spec| spec.acquire_time.clone());
    LeaseSpec {
        holder_identity: Some(config.identity.clone()),
        lease_duration_seconds: Some(i32::try_from(config.lease_duration.as_secs()).unwrap_or(i32::MAX)),
        acquire_time: Some(acquired.unwrap_or_else(|| now.clone())),
        renew_time: Some(now),
        lease_transitions: Some(if ours || before.is_none() {
            transitions
        } else {
            transitions.saturating_add(1)
        }),
        ..Default::default()
    }
}

/// A Lease that nobody holds, so that the next leader need not wait.
fn released(lease: &Lease) -> Lease {
    let now = time::now_micro();
    let spec = LeaseSpec {
        // The API refuses an empty name.
        holder_identity: None,
        lease_duration_seconds: Some(1),
        acquire_time: Some(now.clone()),
        renew_time: Some(now),
        lease_transitions: lease.spec.as_ref().and_then(|spec| spec.lease_transitions),
        ..Default::default()
    };
    Lease {
        metadata: lease.metadata.clone(),
        spec: Some(spec),
    }
}

/// Waits for leadership, then runs `lead` with a token that is cancelled when leadership is lost or `shutdown` comes.
/// Releases the Lease when `lead` has returned. `Ok` means that we stopped because we were asked to.
pub async fn run_as_leader<F, Fut>(
    client: Client,
    config: LeaderConfig,
    shutdown: CancellationToken,
    lead: F,
) -> Result<(), LeaderError>
where
    F: FnOnce(CancellationToken) -> Fut,
    Fut: Future,
{
    let leases = client.resource::<Lease>();
    let Some(lease) = acquire(&client, &leases, &config, &shutdown).await else {
        return Ok(());
    };
    tracing::info!(lease = %lease.key(), identity = config.identity, "leading");

    let token = shutdown.child_token();
    let held = Arc::new(parking_lot::Mutex::new(lease));
    let mut lead = pin!(lead(token.clone()));
    let lost = tokio::select! {
        _ = &mut lead => false,
        () = renew(&leases, &config, &held) => true,
    };
    if lost {
        tracing::error!(lease = config.name, "leadership lost");
        token.cancel();
        // Whoever is next starts when the Lease has expired: by then this must be over.
        let grace = config.lease_duration.saturating_sub(config.renew_deadline);
        let _ = tokio::time::timeout(grace, lead).await;
        return Err(LeaderError::Lost(config.name));
    }
    let free = released(&held.lock());
    let release = tokio::time::timeout(config.retry_period, leases.update(&free)).await;
    if let Ok(Err(error)) = release {
        tracing::warn!(%error, "the lease was not released; the next leader waits until it expires");
    }
    Ok(())
}

/// Waits until the Lease is ours. `None` when `shutdown` comes first.
async fn acquire(
    client: &Client,
    leases: &ResourceClient<Lease>,
    config: &LeaderConfig,
    shutdown: &CancellationToken,
) -> Option<Lease> {
    let watching = shutdown.child_token();
    let _stop = watching.clone().drop_guard();
    let options = InformerOptions {
        namespace: config.namespace.clone(),
        field_selector: format!("metadata.name={}", config.name),
        ..Default::default()
    };
    let informer = Informer::<Lease>::start(client, options, Vec::new(), &watching);
    let (changed, mut changes) = watch::channel(Instant::now());
    informer.subscribe(move |_| {
        changed.send_replace(Instant::now());
    });
    let key = ObjectKey::new(&config.namespace, &config.name);
    tokio::select! {
        () = informer.synced() => {}
        () = shutdown.cancelled() => return None,
    }
    // In a cluster that is being started the namespace of the Lease is there a moment later.
    let mut backoff = Backoff::new(ACQUIRE_AGAIN, config.retry_period);
    loop {
        let seen = *changes.borrow_and_update();
        let lease = informer.store().get(&key);
        let (result, wait) = match next_move(config, lease.as_deref(), seen.elapsed()) {
            Move::Wait(left) => (None, left),
            Move::Create(lease) => (Some(leases.create(&lease).await), backoff.next_wait()),
            Move::Take(lease) => (Some(leases.update(&lease).await), backoff.next_wait()),
        };
        match result {
            Some(Ok(lease)) => return Some(lease),
            // Somebody was faster: the watch is about to say who.
            Some(Err(error)) if error.is_conflict() || error.is_already_exists() => {}
            Some(Err(error)) => tracing::warn!(%error, lease = %key, "acquiring the lease failed"),
            None => {}
        }
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            _ = changes.changed() => {}
            () = shutdown.cancelled() => return None,
        }
    }
}

/// Renews the Lease for as long as it is ours.
async fn renew(leases: &ResourceClient<Lease>, config: &LeaderConfig, held: &parking_lot::Mutex<Lease>) {
    let mut renewed = Instant::now();
    loop {
        tokio::time::sleep(config.retry_period).await;
        let deadline = renewed + config.renew_deadline;
        match tokio::time::timeout_at(deadline, renew_once(leases, config, held)).await {
            Err(_) => return,
            Ok(Ok(true)) => renewed = Instant::now(),
            Ok(Ok(false)) => return,
            Ok(Err(error)) => {
                tracing::warn!(%error, lease = config.name, "renewing the lease failed");
                if Instant::now() >= deadline {
                    return;
                }
            }
        }
    }
}

/// One renewal. `false`: somebody else holds the Lease.
async fn renew_once(
    leases: &ResourceClient<Lease>,
    config: &LeaderConfig,
    held: &parking_lot::Mutex<Lease>,
) -> Result<bool, ApiError> {
    let current = held.lock().clone();
    let wanted = match next_move(config, Some(&current), Duration::ZERO) {
        Move::Take(lease) => lease,
        Move::Create(_) | Move::Wait(_) => return Ok(false),
    };
    let error = match leases.update(&wanted).await {
        Ok(lease) => {
            *held.lock() = lease;
            return Ok(true);
        }
        Err(error) => error,
    };
    if error.is_not_found() {
        return Ok(false);
    }
    if error.is_conflict() {
        // Either an answer of ours was lost on the way, or the Lease was taken over: the next round sees which.
        let fresh = leases.get(&config.namespace, &config.name).await?;
        *held.lock() = fresh;
    }
    Err(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(identity: &str) -> LeaderConfig {
        LeaderConfig {
            identity: identity.into(),
            ..LeaderConfig::new("kube-system", "kube-scheduler")
        }
    }

    fn lease(step: Move) -> Lease {
        match step {
            Move::Create(lease) | Move::Take(lease) => lease,
            Move::Wait(left) => panic!("wait {left:?}"),
        }
    }

    #[test]
    fn a_held_lease_is_waited_for_and_then_taken() {
        let (a, b) = (config("a"), config("b"));
        let first = lease(next_move(&a, None, Duration::ZERO));
        let left = next_move(&b, Some(&first), Duration::from_secs(4));
        assert_eq!(left, Move::Wait(Duration::from_secs(11)));

        let taken = lease(next_move(&b, Some(&first), Duration::from_secs(15)));
        let spec = taken.spec.as_ref().unwrap();
        assert_eq!(
            (spec.holder_identity.as_deref(), spec.lease_transitions),
            (Some("b"), Some(1))
        );
        assert!(matches!(
            next_move(&a, Some(&taken), Duration::ZERO),
            Move::Wait(_)
        ));
    }

    #[test]
    fn renewing_keeps_the_acquisition() {
        let a = config("a");
        let first = lease(next_move(&a, None, Duration::ZERO));
        let renewed = lease(next_move(&a, Some(&first), Duration::ZERO));
        let (before, after) = (first.spec.unwrap(), renewed.spec.unwrap());
        assert_eq!(before.acquire_time, after.acquire_time);
        assert_eq!(after.lease_transitions, Some(0));
    }

    #[test]
    fn a_released_lease_is_free_at_once() {
        let (a, b) = (config("a"), config("b"));
        let free = released(&lease(next_move(&a, None, Duration::ZERO)));
        assert_eq!(
            free.spec.as_ref().and_then(|spec| spec.holder_identity.as_ref()),
            None
        );
        assert!(matches!(
            next_move(&b, Some(&free), Duration::ZERO),
            Move::Take(_)
        ));
    }
}
