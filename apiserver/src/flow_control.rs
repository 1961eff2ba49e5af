//! How many requests are served at the same time. Watches and connections that stay open do not count.

use std::sync::Arc;

use keelson_api::status::{ApiError, ApiResult};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

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

    /// Takes a place until the permit is dropped, or answers 429.
    pub fn enter(&self, pool: Pool) -> ApiResult<Option<OwnedSemaphorePermit>> {
        let semaphore = match pool {
            Pool::Reading => &self.reading,
            Pool::Writing => &self.writing,
            Pool::Unlimited => &None,
        };
        match semaphore {
            None => Ok(None),
            Some(semaphore) => semaphore
                .clone()
                .try_acquire_owned()
                .map(Some)
                .map_err(|_| ApiError::too_many_requests("Too many requests, please try again later.", 1)),
        }
    }
}
