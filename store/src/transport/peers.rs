//! The outgoing side: a task for every other member.

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use keelson_daemon::backoff::Backoff;
use keelson_proto::raft_transport::{MessageBatch, SnapshotPiece};
use keelson_proto::store::StoredMember;
use parking_lot::Mutex;
use protobuf::Message as _;
use raft::eraftpb::{Message, MessageType};
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;

use super::connect::{Connector, PeerClient};
use crate::dump;
use crate::error::StoreError;
use crate::raft::core::Outbox;
use crate::raft::handle::{Command, RaftHandle};
use crate::state::State;
use crate::urls::Url;

/// Messages that may wait for a member; beyond that they are lost, and Raft sends again.
const QUEUE_MESSAGES: usize = 4096;
/// Messages sent in one batch.
const BATCH_MESSAGES: usize = 64;
/// Batches that may wait for a connection.
const QUEUE_BATCHES: usize = 4;

/// Connections to the other members.
#[derive(Clone)]
pub struct Peers {
    shared: Arc<Shared>,
}

struct Shared {
    member: u64,
    cluster: u64,
    connector: Connector,
    state: Arc<State>,
    raft: RaftHandle,
    runtime: Handle,
    shutdown: CancellationToken,
    peers: Mutex<HashMap<u64, Peer>>,
}

struct Peer {
    urls: Vec<String>,
    queue: mpsc::Sender<Message>,
    stop: CancellationToken,
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Peers {
    /// No connections yet.
    #[must_use]
    pub fn new(
        cluster: u64,
        connector: Connector,
        state: Arc<State>,
        raft: RaftHandle,
        runtime: Handle,
        shutdown: CancellationToken,
    ) -> Self {
        Self {
            shared: Arc::new(Shared {
                member: raft.member,
                cluster,
                connector,
                state,
                raft,
                runtime,
                shutdown,
                peers: Mutex::default(),
            }),
        }
    }

    /// A connection to the leader, for what only it can answer.
    ///
    /// # Errors
    /// When there is no leader or it cannot be reached.
    pub async fn leader(&self) -> Result<PeerClient, StoreError> {
        self.member(self.shared.raft.leadership.leader()).await
    }

    /// A connection to a member.
    ///
    /// # Errors
    /// When the group has none of this number or it cannot be reached.
    pub async fn member(&self, id: u64) -> Result<PeerClient, StoreError> {
        let urls = self.shared.state.read(|inner| {
            let members = &inner.shared.membership.members;
            members.get(&id).map(|member| member.peer_urls.clone())
        });
        let urls = urls.ok_or(StoreError::NoLeader)?;
        self.shared.connect(&urls).await.map_err(|_| StoreError::NoLeader)
    }
}

impl Outbox for Peers {
    fn send(&self, messages: Vec<Message>) {
        let peers = self.shared.peers.lock();
        for message in messages {
            let to = message.to;
            let Some(peer) = peers.get(&to) else {
                continue;
            };
            if message.get_msg_type() == MessageType::MsgSnapshot {
                let shared = self.shared.clone();
                let urls = peer.urls.clone();
                self.shared.runtime.spawn(async move {
                    let arrived = match shared.send_snapshot(&urls, message).await {
                        Ok(()) => true,
                        Err(error) => {
                            tracing::warn!(member = format!("{to:x}"), %error, "sending a snapshot");
                            false
                        }
                    };
                    shared.raft.send(Command::SnapshotSent { to, arrived });
                });
            } else if peer.queue.try_send(message).is_err() {
                self.shared.raft.send(Command::Unreachable(to));
            }
        }
    }

    fn members(&self, members: Vec<StoredMember>) {
        let mut peers = self.shared.peers.lock();
        peers.retain(|id, peer| {
            members
                .iter()
                .any(|member| member.id == *id && member.peer_urls == peer.urls)
        });
        for member in members {
            if member.id == self.shared.member || peers.contains_key(&member.id) {
                continue;
            }
            let (queue, messages) = mpsc::channel(QUEUE_MESSAGES);
            let stop = self.shared.shutdown.child_token();
            self.shared.runtime.spawn(talk(
                self.shared.clone(),
                member.id,
                member.peer_urls.clone(),
                messages,
                stop.clone(),
            ));
            peers.insert(
                member.id,
                Peer {
                    urls: member.peer_urls,
                    queue,
                    stop,
                },
            );
        }
    }
}

/// Keeps a stream of messages to a member open.
async fn talk(
    shared: Arc<Shared>,
    to: u64,
    urls: Vec<String>,
    mut messages: mpsc::Receiver<Message>,
    stop: CancellationToken,
) {
    let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(2));
    let mut silent = false;
    loop {
        let attempt = async {
            let client = shared.connect(&urls).await?;
            backoff.reset();
            if silent {
                tracing::info!(member = format!("{to:x}"), "connected again");
                silent = false;
            }
            shared.forward(client, to, &mut messages).await
        };
        let ended = tokio::select! {
            () = stop.cancelled() => return,
            ended = attempt => ended,
        };
        match ended {
            // The queue is closed: the member has left the group.
            Ok(()) => return,
            Err(error) if !silent => {
                tracing::warn!(member = format!("{to:x}"), %error, "a member does not answer");
                silent = true;
            }
            Err(_) => {}
        }
        // What waited is old by now; Raft sends what still matters.
        while messages.try_recv().is_ok() {}
        shared.raft.send(Command::Unreachable(to));
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(backoff.next_wait()) => {}
        }
    }
}

impl Shared {
    /// Sends what arrives in the queue over one connection, until the connection ends (an error) or the queue
    /// does. Every connection has a channel of its own, so that one that is slow to die holds nothing back.
    async fn forward(
        &self,
        mut client: PeerClient,
        to: u64,
        messages: &mut mpsc::Receiver<Message>,
    ) -> std::io::Result<()> {
        let (feed, stream) = mpsc::channel(QUEUE_BATCHES);
        let mut call = std::pin::pin!(client.messages(ReceiverStream::new(stream)));
        let closed = || std::io::Error::other("the stream was closed");
        loop {
            let permit = tokio::select! {
                ended = call.as_mut() => return Err(ended.map_or_else(std::io::Error::other, |_| closed())),
                permit = feed.reserve() => permit.map_err(|_| closed())?,
            };
            let mut batch = Vec::with_capacity(BATCH_MESSAGES);
            let received = tokio::select! {
                ended = call.as_mut() => return Err(ended.map_or_else(std::io::Error::other, |_| closed())),
                received = messages.recv_many(&mut batch, BATCH_MESSAGES) => received,
            };
            if received == 0 {
                return Ok(());
            }
            permit.send(MessageBatch {
                cluster_id: self.cluster,
                from: self.member,
                to,
                messages: batch
                    .iter()
                    .filter_map(|message| message.write_to_bytes().ok())
                    .map(Bytes::from)
                    .collect(),
            });
        }
    }

    async fn connect(&self, urls: &[String]) -> std::io::Result<PeerClient> {
        let mut last = std::io::Error::other("the member has no peer URL");
        for url in urls {
            let Ok(url) = url.parse::<Url>() else {
                continue;
            };
            match self.connector.connect(&url).await {
                Ok(client) => return Ok(client),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// Sends the whole state. It may be newer than the announcement by the time it is read; the announcement
    /// is corrected to what it is.
    async fn send_snapshot(&self, urls: &[String], mut message: Message) -> std::io::Result<()> {
        let mut client = self.connect(urls).await?;
        let (pieces, stream) = mpsc::channel::<SnapshotPiece>(8);
        let state = self.state.clone();
        let head = SnapshotPiece {
            cluster_id: self.cluster,
            from: self.member,
            to: message.to,
            ..SnapshotPiece::default()
        };
        let reading = tokio::task::spawn_blocking(move || -> std::io::Result<()> {
            let mut crc = 0;
            let (applied, conf_state) = dump::write(&state, &mut |data| {
                crc = crc32c::crc32c_append(crc, &data);
                let piece = SnapshotPiece { data, ..head.clone() };
                match pieces.blocking_send(piece) {
                    Ok(()) => ControlFlow::Continue(()),
                    Err(_) => ControlFlow::Break(()),
                }
            })
            .map_err(std::io::Error::other)?
            .ok_or_else(|| std::io::Error::other("the receiver stopped"))?;
            let metadata = message.mut_snapshot().mut_metadata();
            metadata.index = applied.index;
            metadata.term = applied.term;
            metadata.set_conf_state(conf_state);
            let encoded = message.write_to_bytes().map_err(std::io::Error::other)?;
            pieces
                .blocking_send(SnapshotPiece {
                    message: encoded.into(),
                    crc: Some(crc),
                    ..head
                })
                .map_err(|_| std::io::Error::other("the receiver stopped"))
        });
        let sent = client.snapshot(ReceiverStream::new(stream)).await;
        reading.await.map_err(std::io::Error::other)??;
        sent.map(|_| ()).map_err(std::io::Error::other)
    }
}
