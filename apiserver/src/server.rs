//! The port: TLS, then HTTP/1.1 or HTTP/2.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use http::Request;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use keelson_daemon::tls::{Gate, Gathering, ServerTls};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::grpc::GrpcDoor;
use crate::http::arriving::Arriving;
use crate::http::{Connection, serve};
use crate::state::Server;

/// A client that does not finish its handshake in this time is let go.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// A silent HTTP/2 connection is asked this often whether it lives.
const KEEPALIVE: Duration = Duration::from_secs(30);
/// Streams one HTTP/2 connection may have open: a component watches everything over one connection.
const STREAMS: u32 = 1000;
/// What may be on its way to us on one stream and one connection.
const STREAM_WINDOW: u32 = 1 << 20;
const CONNECTION_WINDOW: u32 = 8 << 20;
/// Requests under way get this long when the server stops.
const DRAIN: Duration = Duration::from_secs(2);

/// Binds the port.
pub async fn bind(address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address)
        .await
        .with_context(|| format!("cannot listen on {address}"))
}

/// Accepts connections until `shutdown`, then lets requests under way finish.
pub async fn run(
    server: Arc<Server>,
    grpc: GrpcDoor,
    listener: TcpListener,
    tls: ServerTls,
    shutdown: CancellationToken,
) {
    let connections = TaskTracker::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = shutdown.cancelled() => break,
        };
        match accepted {
            Ok((stream, address)) => {
                let one = connection(
                    server.clone(),
                    grpc.clone(),
                    tls.clone(),
                    stream,
                    address,
                    shutdown.clone(),
                );
                connections.spawn(one);
            }
            Err(error) => {
                // Out of file descriptors, most likely: give others time to close theirs.
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
    connections.close();
    if tokio::time::timeout(DRAIN, connections.wait()).await.is_err() {
        tracing::info!(connections = connections.len(), "connections left open are cut");
    }
}

async fn connection(
    server: Arc<Server>,
    grpc: GrpcDoor,
    tls: ServerTls,
    stream: TcpStream,
    address: SocketAddr,
    shutdown: CancellationToken,
) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%address, %error, "cannot set TCP_NODELAY");
    }
    let stream = match tokio::time::timeout(HANDSHAKE, tls.acceptor().accept(Gate::new(stream))).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return tracing::debug!(%address, %error, "TLS handshake failed"),
        Err(_) => return tracing::debug!(%address, "TLS handshake took too long"),
    };
    let connection = Connection {
        peer: Arc::new(tls.peer(&stream)),
        proxy: tls.proxy(&stream).map(Into::into),
        address,
    };
    let service = service_fn(move |request: Request<Incoming>| {
        let (server, grpc, connection) = (server.clone(), grpc.clone(), connection.clone());
        let request = Arriving::of(request);
        async move { Ok::<_, std::convert::Infallible>(serve(server, grpc, connection, request).await) }
    });
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(Duration::from_secs(60));
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(KEEPALIVE)
        .max_concurrent_streams(STREAMS)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_frame_size(64 << 10);
    let serving = builder.serve_connection_with_upgrades(TokioIo::new(Gathering::new(stream)), service);
    tokio::pin!(serving);
    let result = tokio::select! {
        result = serving.as_mut() => result,
        () = shutdown.cancelled() => {
            serving.as_mut().graceful_shutdown();
            serving.await
        }
    };
    if let Err(error) = result {
        tracing::debug!(%address, %error, "connection ended");
    }
}
