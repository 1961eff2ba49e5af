//! Transactions over one stream to the store instead of a call each.
//!
//! A call of gRPC costs both sides several times what the transaction itself does: headers, a task, a stream of HTTP/2
//! that comes and goes. Here what is asked while the last message is on its way goes out as the next one.

use std::collections::HashMap;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures::stream;
use keelson_proto::etcd::{TxnRequest, TxnResponse};
use keelson_proto::transactions::outcome::Result as Come;
use keelson_proto::transactions::transactions_client::TransactionsClient;
use keelson_proto::transactions::{Request, Requests};
use parking_lot::Mutex;
use prost::Message as _;
use tokio::sync::{mpsc, oneshot};
use tonic::transport::Channel;
use tonic::{Code, Status};

/// A message takes no more once it has this many bytes.
const MESSAGE_BYTES: usize = 256 << 10;

type Reply = oneshot::Sender<Result<TxnResponse, Status>>;

/// A transaction, and who waits for its outcome.
type Asked = (TxnRequest, Reply);

/// The store's transactions. Clones share a stream, which begins with the first and begins anew after it broke.
#[derive(Clone)]
pub struct Transactions {
    client: TransactionsClient<Channel>,
    line: Arc<Mutex<mpsc::UnboundedSender<Asked>>>,
}

impl Transactions {
    /// The largest value that may travel here. Messages have to stay below what the store takes, and nobody should wait
    /// behind a long one.
    pub const VALUE_BYTES: usize = 128 << 10;

    /// Over that channel.
    pub fn new(channel: Channel, message_limit: usize) -> Self {
        let (no_line, _) = mpsc::unbounded_channel();
        Self {
            client: TransactionsClient::new(channel).max_decoding_message_size(message_limit),
            line: Arc::new(Mutex::new(no_line)),
        }
    }

    /// Carries out a transaction. Fails like a call of `Txn`; with [`Code::Unimplemented`] where the store knows only
    /// etcd's services, and nothing was done.
    pub async fn run(&self, txn: TxnRequest) -> Result<TxnResponse, Status> {
        let (reply, outcome) = oneshot::channel();
        self.ask((txn, reply));
        let gone = |_| Err(Status::unavailable("the stream of transactions was given up"));
        outcome.await.unwrap_or_else(gone)
    }

    fn ask(&self, asked: Asked) {
        let mut line = self.line.lock();
        let Err(mpsc::error::SendError(asked)) = line.send(asked) else {
            return;
        };
        let (new, inbox) = mpsc::unbounded_channel();
        // The other end is still here.
        let _ = new.send(asked);
        tokio::spawn(talk(self.client.clone(), Line::new(inbox)));
        *line = new;
    }
}

/// Both directions of one stream.
struct Line {
    inbox: mpsc::UnboundedReceiver<Asked>,
    waiting: HashMap<u64, Reply>,
    next: u64,
}

impl Line {
    fn new(inbox: mpsc::UnboundedReceiver<Asked>) -> Self {
        Self {
            inbox,
            waiting: HashMap::new(),
            next: 0,
        }
    }

    /// All that was asked meanwhile, as one message.
    fn poll_message(&mut self, cx: &mut Context<'_>) -> Poll<Option<Requests>> {
        let mut message = Requests::default();
        let mut bytes = 0;
        while bytes < MESSAGE_BYTES {
            let (txn, reply) = match self.inbox.poll_recv(cx) {
                Poll::Ready(Some(asked)) => asked,
                end if message.requests.is_empty() => return end.map(|_| None),
                _ => break,
            };
            bytes += txn.encoded_len();
            self.waiting.insert(self.next, reply);
            message.requests.push(Request {
                id: self.next,
                txn: Some(txn),
            });
            self.next += 1;
        }
        Poll::Ready(Some(message))
    }

    /// Nobody waits here any longer, and nobody else will.
    fn end(&mut self, status: &Status) {
        self.inbox.close();
        while let Ok((_, reply)) = self.inbox.try_recv() {
            let _ = reply.send(Err(status.clone()));
        }
        for (_, reply) in self.waiting.drain() {
            let _ = reply.send(Err(status.clone()));
        }
    }
}

/// Keeps a stream until it ends, and says so to all that wait.
async fn talk(mut client: TransactionsClient<Channel>, line: Line) {
    let line = Arc::new(Mutex::new(line));
    let asking = line.clone();
    let messages = stream::poll_fn(move |cx| asking.lock().poll_message(cx));
    let hear = async {
        let mut outcomes = client.run(messages).await?.into_inner();
        while let Some(message) = outcomes.message().await? {
            let mut line = line.lock();
            for outcome in message.outcomes {
                // Whoever does not wait any more is not told.
                if let Some(reply) = line.waiting.remove(&outcome.id) {
                    let _ = reply.send(come(outcome.result));
                }
            }
        }
        Ok::<(), Status>(())
    };
    let status = match hear.await {
        Ok(()) => Status::unavailable("the store has ended the stream of transactions"),
        Err(status) if status.code() == Code::Unimplemented => status,
        // Whatever became of the stream, it was not the fault of a transaction.
        Err(status) => Status::unavailable(status.message()),
    };
    line.lock().end(&status);
}

fn come(result: Option<Come>) -> Result<TxnResponse, Status> {
    match result {
        Some(Come::Done(response)) => Ok(response),
        Some(Come::Refused(refusal)) => Err(Status::new(Code::from_i32(refusal.code), refusal.message)),
        None => Err(Status::internal("an outcome without a result")),
    }
}
