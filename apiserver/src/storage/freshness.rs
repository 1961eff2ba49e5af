//! Learns the store's current revision for reads that must not be stale.
//!
//! A question may only be answered with a revision read after it was asked. While one probe is on its way further
//! questions gather; the next probe answers all of them. However many readers there are, one probe is in flight.

use keelson_api::status::{ApiError, ApiResult};
use tokio::sync::{mpsc, oneshot};

use super::store::Store;

type Reply = oneshot::Sender<Result<i64, ApiError>>;

/// Asks the store how far it is.
#[derive(Clone)]
pub struct Freshness {
    questions: mpsc::UnboundedSender<Reply>,
}

impl Freshness {
    /// Starts the task that asks; it ends when the last `Freshness` is dropped.
    pub fn start(store: Store) -> Self {
        let (questions, mut inbox) = mpsc::unbounded_channel::<Reply>();
        tokio::spawn(async move {
            let mut waiting = Vec::new();
            while inbox.recv_many(&mut waiting, usize::MAX).await > 0 {
                let answer = store.revision().await.map_err(ApiError::from);
                for reply in waiting.drain(..) {
                    // A caller that went away needs no answer.
                    let _ = reply.send(answer.clone());
                }
            }
        });
        Self { questions }
    }

    /// A revision of the store that is at least as new as this call.
    pub async fn revision(&self) -> ApiResult<i64> {
        let (reply, answer) = oneshot::channel();
        let gone = || ApiError::internal("the task that asks the store for its revision has ended");
        self.questions.send(reply).map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?
    }
}
