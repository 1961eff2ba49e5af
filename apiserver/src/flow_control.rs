//! How many requests are served at the same time. Watches and connections that stay open do not count.

use std::sync::Arc;
use std::time::Duration;

use keelson_api::status::{ApiError, ApiResult};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// How long a request waits for a place: bursts of a cluster's own components are over in this time.
const PATIENCE: Duration = Duration::from_secs(5);

/// Which pool a request takes its place from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pool {
    /// Requests that change nothing.
    Reading,
    /// Requests that may change something.
    Writing,
    /// Watches, logs, exec: no limit.
    Unlimited,
}

/// The pools.
pub struct FlowControl {
    reading: Option<Arc<Semaphore>>,
    writing: Option<Arc<Semaphore>>,
}

impl FlowControl {
    /// Pools of these sizes; 0 is no limit.
    pub fn new(reading: usize, writing: usize) -> Self {
        let pool =
            |size: usize| (size > 0).then(|| Arc::new(Semaphore::new(size.min(Semaphore::MAX_PERMITS))));
        Self {
            reading: pool(reading),
            writing: pool(writing),
        }
    }

    /// Waits until there is a place. For the writes of a batch: its sender waits for all of them, and a refusal would
    /// only bring the same ones again.
    pub async fn wait(&self, pool: Pool) {
        let semaphore = match pool {
            Pool::Reading => &self.reading,
            Pool::Writing => &self.writing,
            Pool::Unlimited => &None,
        };
        if let Some(semaphore) = semaphore {
            // Closed is never: the pools live as long as the server.
            drop(semaphore.acquire().await);
        }
    }

    /// Takes a place until the permit is dropped. Waits a while for one, first come, first served; then answers 429.
    pub async fn enter(&self, pool: Pool) -> ApiResult<Option<OwnedSemaphorePermit>> {
        let semaphore = match pool {
            Pool::Reading => &self.reading,
            Pool::Writing => &self.writing,
            Pool::Unlimited => &None,
        };
        let Some(semaphore) = semaphore else {
            return Ok(None);
        };
        if let Ok(permit) = semaphore.clone().try_acquire_owned() {
            return Ok(Some(permit));
        }
        match tokio::time::timeout(PATIENCE, semaphore.clone().acquire_owned()).await {
            Ok(Ok(permit)) => Ok(Some(permit)),
            _ => Err(ApiError::too_many_requests(
                "Too many requests, please try again later.",
                1,
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_full_pool_makes_wait_and_recovers() {
        let flow = FlowControl::new(1, 0);
        let place = flow.enter(Pool::Reading).await.expect("a place");
        let mut waiting = std::pin::pin!(flow.enter(Pool::Reading));
        assert!(futures::poll!(waiting.as_mut()).is_pending());
        assert!(flow.enter(Pool::Writing).await.expect("no limit").is_none());
        drop(place);
        assert!(waiting.await.expect("a place").is_some());
    }
}
