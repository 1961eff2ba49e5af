//! One client's watch stream: requests in, responses out, as fast as the client takes them.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures::{Stream, StreamExt};
use keelson_proto::etcd::{WatchRequest, WatchResponse};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use super::watches::Watches;
use crate::error::StoreError;
use crate::server::Headers;
use crate::state::State;

/// Sizes and times of watch streams.
#[derive(Debug, Clone, Copy)]
pub struct WatchLimits {
    /// Larger responses are split if the client allows it.
    pub fragment_bytes: usize,
    /// How often a silent watch that asked for it is told where it is.
    pub progress_interval: Duration,
}

/// The client has gone; nothing is left to do.
struct Gone;

type Flow<T = ()> = Result<T, Gone>;

/// A stream being served.
pub struct Session {
    state: Arc<State>,
    watches: Watches,
    progress_interval: Duration,
    out: mpsc::Sender<Result<WatchResponse, Status>>,
}

impl Session {
    /// Begins a stream whose responses go to `out`.
    #[must_use]
    pub fn new(
        state: Arc<State>,
        headers: Headers,
        limits: WatchLimits,
        out: mpsc::Sender<Result<WatchResponse, Status>>,
    ) -> Self {
        Self {
            watches: Watches::new(state.clone(), headers, limits.fragment_bytes),
            progress_interval: limits.progress_interval,
            state,
            out,
        }
    }

    /// Serves the stream until the client goes, the member stops, or `leader_lost` ends.
    pub async fn run(
        mut self,
        requests: impl Stream<Item = Result<WatchRequest, Status>>,
        shutdown: CancellationToken,
        leader_lost: impl Future<Output = ()>,
    ) {
        let served = tokio::select! {
            served = self.serve(requests, shutdown) => served,
            () = leader_lost => Ok(StoreError::NoLeader),
        };
        if let Ok(error) = served {
            // The client may be gone already.
            let _ = self.out.send(Err(error.into())).await;
        }
    }

    async fn serve(
        &mut self,
        requests: impl Stream<Item = Result<WatchRequest, Status>>,
        shutdown: CancellationToken,
    ) -> Flow<StoreError> {
        let mut requests = pin!(requests);
        let mailbox = self.watches.mailbox();
        let start = tokio::time::Instant::now() + self.progress_interval;
        let mut progress = tokio::time::interval_at(start, self.progress_interval);
        loop {
            self.send().await?;
            if !self.watches.is_behind() {
                tokio::select! {
                    request = requests.next() => match request {
                        Some(Ok(request)) => self.watches.request(request),
                        _ => return Err(Gone),
                    },
                    () = mailbox.arrived() => self.watches.mail(),
                    _ = progress.tick() => self.watches.notify_progress(),
                    () = shutdown.cancelled() => return Ok(StoreError::Stopped),
                    () = self.out.closed() => return Err(Gone),
                }
                continue;
            }
            tokio::select! {
                biased;
                request = requests.next() => match request {
                    Some(Ok(request)) => self.watches.request(request),
                    _ => return Err(Gone),
                },
                () = shutdown.cancelled() => return Ok(StoreError::Stopped),
                () = std::future::ready(()) => {
                    self.watches.mail();
                    self.catch_up().await?;
                }
            }
        }
    }

    /// Sends what there is to say.
    async fn send(&mut self) -> Flow {
        while let Some(response) = self.watches.next_response() {
            self.out.send(Ok(response)).await.map_err(|_| Gone)?;
        }
        Ok(())
    }

    /// Brings every watch that is out of step a piece further.
    async fn catch_up(&mut self) -> Flow {
        for id in self.watches.behind() {
            self.send().await?;
            let Some(behind) = self.watches.catch_up(id) else {
                continue;
            };
            let state = self.state.clone();
            let read = tokio::task::spawn_blocking(move || {
                let piece = behind.read(&state);
                (behind, piece)
            });
            match read.await {
                Ok((behind, piece)) => self.watches.caught_up(&behind, piece),
                Err(_) => return Err(Gone),
            }
        }
        self.watches.answer_progress();
        Ok(())
    }
}
