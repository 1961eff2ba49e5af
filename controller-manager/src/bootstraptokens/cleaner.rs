//! Removes bootstrap tokens that have ended.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;
use keelson_api::object::{Object as _, ObjectKey};
use keelson_client::{Event, ResourceClient, WorkQueue, run_workers};

use super::text;
use crate::common::answers::{only, unless_gone};
use crate::context::Context;

/// Runs the controller until shutdown.
pub async fn run(context: Context) {
    let secrets = context.bootstrap_secrets();
    let client: ResourceClient<Secret> = context.client().resource();
    let queue: WorkQueue<ObjectKey> = WorkQueue::new("token_cleaner");
    let to = queue.clone();
    secrets.subscribe(move |event| match event {
        Event::Added(secret) | Event::Updated { new: secret, .. } => to.add(secret.key()),
        Event::Deleted(_) => {}
    });
    secrets.synced().await;
    let again = queue.clone();
    run_workers(queue, 1, context.shutdown().clone(), move |key| {
        let (secrets, client, again) = (secrets.clone(), client.clone(), again.clone());
        async move {
            let Some(secret) = secrets.store().get(&key) else {
                return Ok(());
            };
            match left(&secret, Timestamp::now()) {
                None => {}
                Some(Duration::ZERO) => {
                    unless_gone(client.delete(&key, &only(secret.uid())).await)?;
                    tracing::info!(%key, "removed: the token has ended");
                }
                Some(left) => again.add_after(key, left),
            }
            Ok(())
        }
    })
    .await;
}

/// How long a token still is good; `None` is for ever. An end that cannot be read has come.
fn left(secret: &Secret, now: Timestamp) -> Option<Duration> {
    let end = text(secret, "expiration");
    if end.is_empty() {
        return None;
    }
    let end = end.parse::<Timestamp>().unwrap_or(Timestamp::MIN);
    Some(Duration::try_from(end.duration_since(now)).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use k8s_openapi::ByteString;

    use super::*;

    #[test]
    fn tokens_end_when_they_say() {
        let secret = |end: &str| Secret {
            data: Some([("expiration".to_owned(), ByteString(end.into()))].into()),
            ..Secret::default()
        };
        let now = "2026-01-01T00:00:00Z".parse().expect("a time");
        assert_eq!(left(&Secret::default(), now), None);
        assert_eq!(
            left(&secret("2026-01-01T00:01:00Z"), now),
            Some(Duration::from_secs(60))
        );
        assert_eq!(left(&secret("2025-12-31T00:00:00Z"), now), Some(Duration::ZERO));
        assert_eq!(left(&secret("some day"), now), Some(Duration::ZERO));
    }
}
