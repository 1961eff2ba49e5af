//! `/healthz`, `/livez`, `/readyz` and `/metrics` for daemons that serve nothing else.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::metrics::{CONTENT_TYPE, Metrics};
use crate::tls::ServerTls;

type CheckFn = dyn Fn() -> Result<(), String> + Send + Sync;

/// Answers health questions and serves the metrics of one daemon.
#[derive(Clone)]
pub struct HealthServer {
    metrics: Metrics,
    checks: Vec<(&'static str, Arc<CheckFn>)>,
}

impl HealthServer {
    /// A server whose only check is that it answers.
    #[must_use]
    pub fn new(metrics: Metrics) -> Self {
        Self {
            metrics,
            checks: Vec::new(),
        }
    }

    /// Adds a check; its error text is shown in the answer.
    #[must_use]
    pub fn check(
        mut self,
        name: &'static str,
        check: impl Fn() -> Result<(), String> + Send + Sync + 'static,
    ) -> Self {
        self.checks.push((name, Arc::new(check)));
        self
    }

    /// Serves on `address` until `shutdown`; over TLS where `tls` is given.
    ///
    /// # Errors
    /// When the address cannot be bound.
    pub async fn serve(
        self,
        address: SocketAddr,
        tls: Option<ServerTls>,
        shutdown: CancellationToken,
    ) -> std::io::Result<SocketAddr> {
        let listener = TcpListener::bind(address).await.map_err(|error| {
            std::io::Error::new(
                error.kind(),
                format!("listening on {address} for health checks: {error}"),
            )
        })?;
        let bound = listener.local_addr()?;
        let server = Arc::new(self);
        tokio::spawn(async move {
            loop {
                let accepted = tokio::select! {
                    () = shutdown.cancelled() => break,
                    accepted = listener.accept() => accepted,
                };
                match accepted {
                    Ok((stream, _)) => {
                        tokio::spawn(connection(server.clone(), stream, tls.clone(), shutdown.clone()));
                    }
                    Err(error) => {
                        tracing::warn!(%error, "accepting a health connection");
                        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                    }
                }
            }
        });
        Ok(bound)
    }

    /// The answer to one path, shared with daemons that have a server of their own.
    #[must_use]
    pub fn answer(&self, path: &str) -> Response<Full<Bytes>> {
        match path {
            "/healthz" | "/livez" | "/readyz" => self.health(),
            "/metrics" => text(StatusCode::OK, CONTENT_TYPE, self.metrics.encode()),
            _ => text(
                StatusCode::NOT_FOUND,
                "text/plain; charset=utf-8",
                "404 page not found\n".into(),
            ),
        }
    }

    fn health(&self) -> Response<Full<Bytes>> {
        let failed: Vec<String> = self
            .checks
            .iter()
            .filter_map(|(name, check)| check().err().map(|error| format!("[-]{name} failed: {error}\n")))
            .collect();
        if failed.is_empty() {
            text(StatusCode::OK, "text/plain; charset=utf-8", "ok".into())
        } else {
            text(
                StatusCode::INTERNAL_SERVER_ERROR,
                "text/plain; charset=utf-8",
                failed.concat(),
            )
        }
    }
}

fn text(status: StatusCode, content_type: &'static str, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        header::HeaderValue::from_static(content_type),
    );
    response
}

async fn connection(
    server: Arc<HealthServer>,
    stream: tokio::net::TcpStream,
    tls: Option<ServerTls>,
    shutdown: CancellationToken,
) {
    let service = service_fn(move |request: Request<Incoming>| {
        let server = server.clone();
        async move { Ok::<_, Infallible>(server.answer(request.uri().path())) }
    });
    let builder = auto::Builder::new(TokioExecutor::new());
    let result = match tls {
        None => {
            let serving = builder.serve_connection(TokioIo::new(stream), service);
            tokio::select! { () = shutdown.cancelled() => Ok(()), result = serving => result }
        }
        Some(tls) => match tls.acceptor().accept(stream).await {
            Ok(stream) => {
                let serving = builder.serve_connection(TokioIo::new(stream), service);
                tokio::select! { () = shutdown.cancelled() => Ok(()), result = serving => result }
            }
            Err(error) => {
                tracing::debug!(%error, "TLS handshake of a health connection");
                Ok(())
            }
        },
    };
    if let Err(error) = result {
        tracing::debug!(%error, "health connection");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::BodyExt;

    async fn body(response: Response<Full<Bytes>>) -> String {
        let bytes = match response.into_body().collect().await {
            Ok(collected) => collected.to_bytes(),
            Err(never) => match never {},
        };
        String::from_utf8_lossy(&bytes).into_owned()
    }

    #[tokio::test]
    async fn a_failing_check_is_named() {
        let server = HealthServer::new(Metrics::new()).check("store", || Err("no leader".into()));
        let response = server.answer("/readyz");
        assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
        assert_eq!(body(response).await, "[-]store failed: no leader\n");
        assert_eq!(server.answer("/metrics").status(), StatusCode::OK);
        assert_eq!(server.answer("/else").status(), StatusCode::NOT_FOUND);
    }
}
