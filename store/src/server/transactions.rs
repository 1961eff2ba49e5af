//! The Transactions service: etcd's transactions for an apiserver, over one stream instead of a call each.

use std::pin::Pin;
use std::sync::Arc;

use futures::future::BoxFuture;
use futures::stream::{self, FuturesUnordered};
use futures::{FutureExt, Stream, StreamExt};
use keelson_proto::transactions::outcome::Result as Come;
use keelson_proto::transactions::transactions_server::Transactions;
use keelson_proto::transactions::{Outcome, Outcomes, Refusal, Request as Asked, Requests};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

use super::Api;
use super::kv::KvService;

/// With so many transactions under way a stream is not read on.
const UNDER_WAY_MAX: usize = 4096;

/// The Transactions service.
#[derive(Clone)]
pub struct TransactionsService(pub Arc<Api>);

#[tonic::async_trait]
impl Transactions for TransactionsService {
    type RunStream = Pin<Box<dyn Stream<Item = Result<Outcomes, Status>> + Send>>;

    async fn run(&self, request: Request<Streaming<Requests>>) -> Result<Response<Self::RunStream>, Status> {
        let conversation = Conversation {
            kv: KvService(self.0.clone()),
            shutdown: self.0.shutdown.clone(),
            asked: Some(request.into_inner()),
            under_way: FuturesUnordered::new(),
        };
        let outcomes = stream::unfold(conversation, |mut conversation| async {
            let outcomes = conversation.next().await?;
            Some((Ok(Outcomes { outcomes }), conversation))
        });
        Ok(Response::new(Box::pin(outcomes)))
    }
}

/// One stream. All of it is one task: what wakes it is many transactions that are agreed on at once.
struct Conversation {
    kv: KvService,
    shutdown: CancellationToken,
    /// Until the client has ended its side, or the member stops.
    asked: Option<Streaming<Requests>>,
    under_way: FuturesUnordered<BoxFuture<'static, Outcome>>,
}

impl Conversation {
    /// The transactions that are done, at least one; `None` when there are no more to come.
    async fn next(&mut self) -> Option<Vec<Outcome>> {
        loop {
            let Some(asked) = &mut self.asked else {
                return done(&mut self.under_way).await;
            };
            tokio::select! {
                biased;
                done = done(&mut self.under_way), if !self.under_way.is_empty() => return done,
                requests = asked.message(), if self.under_way.len() < UNDER_WAY_MAX => match requests {
                    Ok(Some(requests)) => {
                        for asked in requests.requests {
                            self.under_way.push(carry_out(self.kv.clone(), asked).boxed());
                        }
                    }
                    Ok(None) | Err(_) => self.asked = None,
                },
                () = self.shutdown.cancelled() => self.asked = None,
            }
        }
    }
}

/// Waits for one, and takes with it all that are done by then. `None`: none is under way.
async fn done(under_way: &mut FuturesUnordered<BoxFuture<'static, Outcome>>) -> Option<Vec<Outcome>> {
    let mut outcomes = vec![under_way.next().await?];
    while let Some(Some(outcome)) = under_way.next().now_or_never() {
        outcomes.push(outcome);
    }
    Some(outcomes)
}

async fn carry_out(kv: KvService, Asked { id, txn }: Asked) -> Outcome {
    let result = match kv.transact(txn.unwrap_or_default()).await {
        Ok(response) => Come::Done(response),
        Err(error) => Come::Refused(Refusal {
            code: error.code() as i32,
            message: error.to_string(),
        }),
    };
    Outcome {
        id,
        result: Some(result),
    }
}
