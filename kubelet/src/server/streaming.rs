//! exec, attach and port-forward: the runtime says at which address it serves the streams, and the connection is
//! handed on to it, byte for byte, whatever protocol client and runtime speak over it.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode, Uri, header};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use keelson_proto::cri;
use tokio::net::TcpStream;

use super::Server;
use super::reply::{Body, full, text, typed};
use super::routes::{Named, Query};
use crate::cri::{CriError, CriResult};
use crate::objects::PodExt;
use crate::pods::runtime::Activity;
use crate::pods::worker::Mailbox;

type Answer = Response<Body>;
/// Why there is nothing to stream.
type Refusal = (StatusCode, String);

fn find(server: &Server, (namespace, pod, uid): Named<'_>) -> Result<Arc<Mailbox>, Refusal> {
    let missing = || {
        (
            StatusCode::NOT_FOUND,
            format!("pod does not exist: {pod}_{namespace}"),
        )
    };
    server.manager.find(namespace, pod, uid).ok_or_else(missing)
}

/// The id of a container that runs.
fn running(mailbox: &Mailbox, container: &str) -> Result<String, Refusal> {
    let seen = mailbox.seen();
    match seen.container(container) {
        Some(view) if view.activity == Activity::Running => Ok(view.id.clone()),
        Some(_) => {
            let pod = mailbox.desired().pod.full_name();
            Err((
                StatusCode::INTERNAL_SERVER_ERROR,
                format!("container {container} is not running in pod {pod}"),
            ))
        }
        None => Err((
            StatusCode::NOT_FOUND,
            format!("container not found (\"{container}\")"),
        )),
    }
}

fn failed(error: &CriError) -> Answer {
    text(StatusCode::INTERNAL_SERVER_ERROR, error.message.clone())
}

/// Runs a command, its streams over the connection.
pub(super) async fn exec(
    server: &Arc<Server>,
    named: Named<'_>,
    container: &str,
    query: &Query,
    request: Request<Incoming>,
) -> Answer {
    let id = match find(server, named).and_then(|mailbox| running(&mailbox, container)) {
        Ok(id) => id,
        Err((status, message)) => return text(status, message),
    };
    let tty = query.is_on(&["tty"]);
    let asked = cri::ExecRequest {
        container_id: id,
        cmd: query.all("command"),
        tty,
        stdin: query.is_on(&["input", "stdin"]),
        stdout: query.is_on(&["output", "stdout"]),
        stderr: !tty && query.is_on(&["error", "stderr"]),
    };
    if !asked.stdin && !asked.stdout && !asked.stderr {
        return text(
            StatusCode::BAD_REQUEST,
            "you must specify at least 1 of stdin, stdout, stderr",
        );
    }
    hand_on(server, server.context.runtime.exec(asked).await, request).await
}

/// Joins a container's own streams.
pub(super) async fn attach(
    server: &Arc<Server>,
    named: Named<'_>,
    container: &str,
    query: &Query,
    request: Request<Incoming>,
) -> Answer {
    let found = find(server, named).and_then(|mailbox| Ok((running(&mailbox, container)?, mailbox)));
    let (id, mailbox) = match found {
        Ok(found) => found,
        Err((status, message)) => return text(status, message),
    };
    let pod = mailbox.desired().pod;
    let tty = pod
        .all_containers()
        .iter()
        .any(|(known, _)| known.name == container && known.tty == Some(true));
    let asked = cri::AttachRequest {
        container_id: id,
        stdin: query.is_on(&["input", "stdin"]),
        tty,
        stdout: query.is_on(&["output", "stdout"]),
        stderr: !tty && query.is_on(&["error", "stderr"]),
    };
    if !asked.stdin && !asked.stdout && !asked.stderr {
        return text(
            StatusCode::BAD_REQUEST,
            "you must specify at least 1 of stdin, stdout, stderr",
        );
    }
    hand_on(server, server.context.runtime.attach(asked).await, request).await
}

/// Leads to ports of a pod.
pub(super) async fn port_forward(
    server: &Arc<Server>,
    named: Named<'_>,
    query: &Query,
    request: Request<Incoming>,
) -> Answer {
    let mailbox = match find(server, named) {
        Ok(mailbox) => mailbox,
        Err((status, message)) => return text(status, message),
    };
    let ports: Vec<i32> = query
        .all("port")
        .iter()
        .flat_map(|list| list.split(','))
        .filter_map(|port| port.parse().ok())
        .collect();
    let seen = mailbox.seen();
    let Some(sandbox) = seen.ready_sandbox() else {
        return text(
            StatusCode::INTERNAL_SERVER_ERROR,
            "unable to do port forwarding: pod is not running",
        );
    };
    hand_on(
        server,
        server.context.runtime.port_forward(&sandbox.id, ports).await,
        request,
    )
    .await
}

/// Runs a command and answers with what it wrote.
pub(super) async fn run(
    server: &Arc<Server>,
    namespace: &str,
    pod: &str,
    container: &str,
    query: &Query,
) -> Answer {
    let id = match find(server, (namespace, pod, None)).and_then(|mailbox| running(&mailbox, container)) {
        Ok(id) => id,
        Err((status, message)) => return text(status, message),
    };
    let command = query
        .get("cmd")
        .unwrap_or_default()
        .split_whitespace()
        .map(str::to_owned)
        .collect();
    match server
        .context
        .runtime
        .exec_sync(&id, command, Duration::from_secs(60))
        .await
    {
        Ok(output) => typed(StatusCode::OK, "text/plain; charset=utf-8", output.output),
        Err(error) => failed(&error),
    }
}

async fn hand_on(server: &Arc<Server>, address: CriResult<String>, request: Request<Incoming>) -> Answer {
    let address = match address {
        Ok(address) => address,
        Err(error) => return failed(&error),
    };
    match tunnel(server, &address, request).await {
        Ok(answer) => answer,
        Err(error) => text(
            StatusCode::BAD_GATEWAY,
            format!("reaching the runtime's streaming server: {error}"),
        ),
    }
}

/// Headers that belong to one connection and not to the next, apart from those that ask for the upgrade.
fn is_hop(name: &header::HeaderName) -> bool {
    matches!(
        name.as_str(),
        "host"
            | "keep-alive"
            | "transfer-encoding"
            | "te"
            | "trailer"
            | "content-length"
            | "proxy-connection"
            | "authorization"
            | "cookie"
    )
}

fn copied(headers: &HeaderMap) -> HeaderMap {
    headers
        .iter()
        .filter(|(name, _)| !is_hop(name))
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect()
}

async fn tunnel(
    server: &Arc<Server>,
    address: &str,
    mut request: Request<Incoming>,
) -> anyhow::Result<Answer> {
    let uri: Uri = address.parse()?;
    let authority = uri
        .authority()
        .ok_or_else(|| anyhow::anyhow!("{address:?} names no host"))?
        .clone();
    let stream = TcpStream::connect((authority.host(), authority.port_u16().unwrap_or(80))).await?;
    let _ = stream.set_nodelay(true);
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection.with_upgrades());

    let path = uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
    let mut onward = Request::builder()
        .method(request.method().clone())
        .uri(path)
        .body(Empty::<Bytes>::new())?;
    *onward.headers_mut() = copied(request.headers());
    onward
        .headers_mut()
        .insert(header::HOST, authority.as_str().parse()?);
    let mut answer = sender.send_request(onward).await?;

    let mut response = Response::new(full(""));
    *response.status_mut() = answer.status();
    *response.headers_mut() = copied(answer.headers());
    if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
        *response.body_mut() = answer.into_body().boxed();
        return Ok(response);
    }
    let theirs = hyper::upgrade::on(&mut answer);
    let ours = hyper::upgrade::on(&mut request);
    let shutdown = server.shutdown.clone();
    let idle = server.context.config.streaming_connection_idle_timeout;
    tokio::spawn(async move {
        let (Ok(theirs), Ok(ours)) = tokio::join!(theirs, ours) else {
            return;
        };
        let (mut theirs, mut ours) = (TokioIo::new(theirs), TokioIo::new(ours));
        tokio::select! {
            () = shutdown.cancelled() => {}
            result = tokio::time::timeout(idle, tokio::io::copy_bidirectional(&mut ours, &mut theirs)) => {
                if let Ok(Err(error)) = result {
                    tracing::debug!(%error, "a stream ended");
                }
            }
        }
    });
    Ok(response)
}
