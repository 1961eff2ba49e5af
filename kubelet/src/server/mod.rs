//! The kubelet's HTTPS API: what the apiserver asks for on behalf of users, and what monitoring reads.
//!
//! - [`routes`]: who may ask, and what for
//! - [`logs`]: a container's log
//! - [`streaming`]: exec, attach and port-forward, handed on to the runtime
//! - [`stats`]: what pods use

pub mod logs;
mod reply;
mod routes;
mod stats;
mod streaming;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use keelson_daemon::health::HealthServer;
use keelson_daemon::tls::{Peer, ServerTls};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::context::Context;
use crate::pods::manager::PodManager;

/// How long a client may take for its handshake.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// What requests are answered from.
pub struct Server {
    /// What all parts share.
    pub context: Arc<Context>,
    /// Pods.
    pub manager: Arc<PodManager>,
    /// Health and metrics.
    pub health: HealthServer,
    /// Ended together with the daemon.
    pub shutdown: CancellationToken,
}

/// Serves until the server's shutdown.
///
/// # Errors
/// When the address cannot be bound.
pub async fn serve(server: Arc<Server>, address: SocketAddr, tls: ServerTls) -> std::io::Result<()> {
    let listener = TcpListener::bind(address)
        .await
        .map_err(|error| std::io::Error::new(error.kind(), format!("listening on {address}: {error}")))?;
    tracing::info!(%address, "serving");
    let shutdown = server.shutdown.clone();
    tokio::spawn(async move {
        loop {
            let accepted = tokio::select! {
                () = shutdown.cancelled() => return,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, _)) => {
                    tokio::spawn(connection(server.clone(), stream, tls.clone()));
                }
                Err(error) => {
                    tracing::warn!(%error, "accepting a connection");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    });
    Ok(())
}

async fn connection(server: Arc<Server>, stream: tokio::net::TcpStream, tls: ServerTls) {
    let _ = stream.set_nodelay(true);
    let stream = match tokio::time::timeout(HANDSHAKE, tls.acceptor().accept(stream)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => {
            tracing::debug!(%error, "TLS handshake");
            return;
        }
        Err(_) => return,
    };
    let peer: Arc<Peer> = Arc::new(tls.peer(&stream));
    let shutdown = server.shutdown.clone();
    let service = service_fn(move |request: hyper::Request<Incoming>| {
        let (server, peer) = (server.clone(), peer.clone());
        async move { Ok::<_, Infallible>(routes::answer(server, &peer, request).await) }
    });
    let builder = auto::Builder::new(TokioExecutor::new());
    let connection = builder.serve_connection_with_upgrades(TokioIo::new(stream), service);
    tokio::pin!(connection);
    tokio::select! {
        result = connection.as_mut() => {
            if let Err(error) = result {
                tracing::debug!(%error, "serving a connection");
            }
        }
        () = shutdown.cancelled() => connection.as_mut().graceful_shutdown(),
    }
}
