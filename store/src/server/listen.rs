//! Sockets, TLS, and which door a request goes to.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use keelson_daemon::health::HealthServer;
use keelson_daemon::tls::{Peer, ServerTls};
use keelson_proto::election::election_server::ElectionServer;
use keelson_proto::etcd::auth_server::AuthServer;
use keelson_proto::etcd::cluster_server::ClusterServer;
use keelson_proto::etcd::kv_server::KvServer;
use keelson_proto::etcd::lease_server::LeaseServer;
use keelson_proto::etcd::maintenance_server::MaintenanceServer;
use keelson_proto::etcd::watch_server::WatchServer;
use keelson_proto::lock::lock_server::LockServer;
use keelson_proto::raft_transport::raft_transport_server::RaftTransportServer;
use keelson_proto::transactions::transactions_server::TransactionsServer;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tonic::body::Body;
use tower::Service;

use super::auth::AuthService;
use super::cluster::ClusterService;
use super::election::ElectionService;
use super::kv::KvService;
use super::lease::LeaseService;
use super::lock::LockService;
use super::maintenance::MaintenanceService;
use super::transactions::TransactionsService;
use super::watch::WatchService;
use super::{API_VERSION, Api};
use crate::transport::service::TransportService;
use crate::urls::{Scheme, Url};

/// What etcd adds to its largest request for the message around it.
pub const MESSAGE_OVERHEAD: usize = 512 << 10;
/// Batches between members hold many requests.
const PEER_MESSAGE_BYTES: usize = 64 << 20;
/// How long streams get to end when the member stops.
const GOODBYE: Duration = Duration::from_secs(2);
/// How long a handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// A door: what one listener answers.
#[derive(Clone)]
pub enum Door {
    /// For clients: the etcd v3 API, and what apiservers ask beside it.
    Client(Box<ClientDoor>),
    /// For other members.
    Peer(RaftTransportServer<TransportService>),
    /// For Prometheus and health checks.
    Plain(Arc<PlainDoor>),
}

/// The etcd v3 API, and the Transactions service.
#[derive(Clone)]
pub struct ClientDoor {
    kv: KvServer<KvService>,
    watch: WatchServer<WatchService>,
    lease: LeaseServer<LeaseService>,
    cluster: ClusterServer<ClusterService>,
    maintenance: MaintenanceServer<MaintenanceService>,
    auth: AuthServer<AuthService>,
    lock: LockServer<LockService>,
    election: ElectionServer<ElectionService>,
    transactions: TransactionsServer<TransactionsService>,
    plain: Arc<PlainDoor>,
}

/// `/health`, `/metrics`, `/version`.
pub struct PlainDoor {
    health: HealthServer,
    api: Arc<Api>,
}

impl PlainDoor {
    /// Answers for a member.
    #[must_use]
    pub fn new(health: HealthServer, api: Arc<Api>) -> Self {
        Self { health, api }
    }

    /// The answer to a path, if it is one of the few.
    fn answer(&self, path: &str) -> Option<Response<Full<Bytes>>> {
        match path {
            "/health" => Some(self.health()),
            "/version" => Some(json(
                StatusCode::OK,
                format!("{{\"etcdserver\":\"{API_VERSION}\",\"etcdcluster\":\"{API_VERSION}\"}}"),
            )),
            "/metrics" | "/healthz" | "/livez" | "/readyz" => Some(self.health.answer(path)),
            _ => None,
        }
    }

    fn health(&self) -> Response<Full<Bytes>> {
        let leadership = &self.api.raft.leadership;
        let full = leadership.disk_full() || self.api.state.read(|inner| inner.is_full());
        let reason = if full {
            "ALARM NOSPACE"
        } else if leadership.leader() == 0 {
            "RAFT NO LEADER"
        } else {
            ""
        };
        let status = if reason.is_empty() {
            StatusCode::OK
        } else {
            StatusCode::SERVICE_UNAVAILABLE
        };
        json(
            status,
            format!("{{\"health\":\"{}\",\"reason\":\"{reason}\"}}", reason.is_empty()),
        )
    }
}

fn json(status: StatusCode, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

impl ClientDoor {
    /// The API of a member.
    #[must_use]
    pub fn new(api: &Arc<Api>, plain: Arc<PlainDoor>) -> Self {
        // What is a little too large is refused by the service, with etcd's text.
        let request_bytes = 2 * (api.limits.request_bytes + MESSAGE_OVERHEAD);
        Self {
            kv: KvServer::new(KvService(api.clone())).max_decoding_message_size(request_bytes),
            watch: WatchServer::new(WatchService(api.clone())),
            lease: LeaseServer::new(LeaseService(api.clone())),
            cluster: ClusterServer::new(ClusterService(api.clone())),
            maintenance: MaintenanceServer::new(MaintenanceService(api.clone())),
            auth: AuthServer::new(AuthService(api.clone())),
            lock: LockServer::new(LockService(api.clone())),
            election: ElectionServer::new(ElectionService(api.clone()))
                .max_decoding_message_size(request_bytes),
            transactions: TransactionsServer::new(TransactionsService(api.clone()))
                .max_decoding_message_size(request_bytes),
            plain,
        }
    }
}

/// The transport's door.
#[must_use]
pub fn peer_door(service: TransportService) -> Door {
    Door::Peer(RaftTransportServer::new(service).max_decoding_message_size(PEER_MESSAGE_BYTES))
}

impl Door {
    async fn answer(&mut self, request: Request<Incoming>) -> Response<Body> {
        let path = request.uri().path();
        let answered = match self {
            Self::Plain(plain) => {
                return plain
                    .answer(path)
                    .unwrap_or_else(not_found)
                    .map(|body| Body::new(body.map_err(|never| match never {})));
            }
            Self::Peer(transport) => transport.call(request).await,
            Self::Client(door) => {
                let service = path.strip_prefix('/').unwrap_or("");
                match service.split('/').next() {
                    Some("etcdserverpb.KV") => door.kv.call(request).await,
                    Some("etcdserverpb.Watch") => door.watch.call(request).await,
                    Some("etcdserverpb.Lease") => door.lease.call(request).await,
                    Some("etcdserverpb.Cluster") => door.cluster.call(request).await,
                    Some("etcdserverpb.Maintenance") => door.maintenance.call(request).await,
                    Some("etcdserverpb.Auth") => door.auth.call(request).await,
                    Some("v3lockpb.Lock") => door.lock.call(request).await,
                    Some("v3electionpb.Election") => door.election.call(request).await,
                    Some("keelson.transactions.v1.Transactions") => door.transactions.call(request).await,
                    _ => Ok(door.unknown(&request)),
                }
            }
        };
        match answered {
            Ok(response) => response,
            Err(never) => match never {},
        }
    }
}

impl ClientDoor {
    fn unknown(&self, request: &Request<Incoming>) -> Response<Body> {
        let is_grpc = request
            .headers()
            .get(header::CONTENT_TYPE)
            .is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"));
        if is_grpc {
            return tonic::Status::unimplemented(format!("unknown service {}", request.uri().path()))
                .into_http();
        }
        self.plain
            .answer(request.uri().path())
            .unwrap_or_else(not_found)
            .map(|body| Body::new(body.map_err(|never| match never {})))
    }
}

fn not_found() -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from_static(b"404 page not found\n")));
    *response.status_mut() = StatusCode::NOT_FOUND;
    response
}

/// TLS, and whether a peer without a trusted certificate is turned away.
#[derive(Clone)]
pub struct Lock {
    /// The certificate.
    pub tls: ServerTls,
    /// Whether peers are judged.
    pub judge: bool,
}

/// Binds a URL and serves a door there until the member stops.
///
/// # Errors
/// When the address cannot be bound.
pub async fn serve(
    url: &Url,
    door: Door,
    lock: Option<Lock>,
    shutdown: CancellationToken,
) -> anyhow::Result<tokio::task::JoinHandle<()>> {
    let address = url
        .socket_address()
        .with_context(|| format!("listening on {url}"))?;
    let listener = TcpListener::bind(address)
        .await
        .with_context(|| format!("listening on {url}"))?;
    let lock = lock.filter(|_| url.scheme == Scheme::Https);
    Ok(tokio::spawn(async move {
        let connections = tokio_util::task::TaskTracker::new();
        loop {
            let accepted = tokio::select! {
                () = shutdown.cancelled() => break,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, _)) => {
                    connections.spawn(connection(stream, door.clone(), lock.clone(), shutdown.clone()));
                }
                Err(error) => {
                    tracing::warn!(%error, "accepting a connection");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
        connections.close();
        let _ = tokio::time::timeout(GOODBYE, connections.wait()).await;
    }))
}

async fn connection(stream: TcpStream, door: Door, lock: Option<Lock>, shutdown: CancellationToken) {
    // Small responses must not wait for more.
    let _ = stream.set_nodelay(true);
    let Some(lock) = lock else {
        return talk(stream, door, shutdown).await;
    };
    let stream = match tokio::time::timeout(HANDSHAKE, lock.tls.acceptor().accept(stream)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => {
            tracing::debug!(%error, "a TLS handshake failed");
            return;
        }
        Err(_) => return,
    };
    if lock.judge {
        match lock.tls.peer(&stream) {
            Peer::Certificate(_) => {}
            Peer::Anonymous => {
                tracing::warn!("turned a client away that showed no certificate");
                return;
            }
            Peer::Untrusted(reason) => {
                tracing::warn!(reason, "turned a client away whose certificate is not trusted");
                return;
            }
        }
    }
    talk(stream, door, shutdown).await;
}

async fn talk<S>(stream: S, door: Door, shutdown: CancellationToken)
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let service = service_fn(move |request| {
        let mut door = door.clone();
        async move { Ok::<_, Infallible>(door.answer(request).await) }
    });
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http2()
        .timer(TokioTimer::new())
        .initial_stream_window_size(1 << 20)
        .initial_connection_window_size(4 << 20)
        .max_concurrent_streams(None)
        .keep_alive_interval(Some(Duration::from_secs(60)));
    let connection = builder.serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    tokio::select! {
        ended = connection.as_mut() => {
            if let Err(error) = ended {
                tracing::debug!(%error, "a connection ended");
            }
            return;
        }
        () = shutdown.cancelled() => connection.as_mut().graceful_shutdown(),
    }
    let _ = tokio::time::timeout(GOODBYE, connection).await;
}
