//! `/containerLogs/{namespace}/{pod}/{container}`.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use http::{HeaderValue, Response, StatusCode, header};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::ContainerState;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::Server;
use super::reply::{Body, text};
use super::routes::Query;
use crate::logs::cri_format::Stream;
use crate::logs::reader::{self, Options};
use crate::objects::PodExt;
use crate::pods::host_processes;
use crate::pods::runtime::Activity;
use crate::pods::worker::Mailbox;

/// What the parameters of a request for a log ask for.
///
/// # Errors
/// A text that says what is wrong with them.
pub fn asked(query: &str) -> Result<Options, String> {
    options(&Query::of(query))
}

fn options(query: &Query) -> Result<Options, String> {
    let count = |key: &str, least: i64| match query.get(key).filter(|text| !text.is_empty()) {
        None => Ok(None),
        Some(text) => match text.parse::<i64>() {
            Ok(value) if value >= least => Ok(Some(value)),
            _ => Err(format!("{{\"message\": \"Invalid request.\"}} {key}: {text:?}")),
        },
    };
    // Longer ago than there is time means from the beginning.
    let since_seconds = count("sinceSeconds", 1)?.map(|seconds| {
        let ago = Duration::from_secs(seconds.unsigned_abs());
        Timestamp::now().checked_sub(ago).unwrap_or(Timestamp::MIN)
    });
    let since_time = match query.get("sinceTime").filter(|text| !text.is_empty()) {
        None => None,
        Some(text) => Some(
            text.parse::<Timestamp>()
                .map_err(|error| format!("sinceTime: {error}"))?,
        ),
    };
    Ok(Options {
        follow: query.is_on(&["follow"]),
        previous: query.is_on(&["previous"]),
        timestamps: query.is_on(&["timestamps"]),
        since: since_seconds.or(since_time),
        tail: count("tailLines", 0)?.map(i64::unsigned_abs),
        limit_bytes: count("limitBytes", 1)?.map(i64::unsigned_abs),
        stream: match query.get("stream") {
            Some("Stdout") => Some(Stream::Stdout),
            Some("Stderr") => Some(Stream::Stderr),
            _ => None,
        },
        plain: false,
    })
}

/// The log's file and the container's id, or why there is none.
fn locate(
    mailbox: &Mailbox,
    container: &str,
    previous: bool,
) -> Result<(PathBuf, String), (StatusCode, String)> {
    let pod = mailbox.current();
    let name = pod.name();
    let bad = |message: String| Err((StatusCode::BAD_REQUEST, message));
    if !pod
        .all_containers()
        .iter()
        .any(|(known, _)| known.name == container)
    {
        return Err((
            StatusCode::NOT_FOUND,
            format!("container \"{container}\" not found in pod \"{name}\""),
        ));
    }
    let seen = mailbox.seen();
    let view = seen.container(container);
    let state = pod
        .container_status(container)
        .and_then(|status| status.state.clone())
        .unwrap_or_default();
    let chosen = if previous {
        // While the container waits to be started again, its last life is the previous one.
        let waits = view.is_some_and(|view| view.activity == Activity::Exited) && state.terminated.is_none();
        let found = if waits { view } else { seen.previous(container) };
        match found {
            Some(view) => view,
            None => {
                return bad(format!(
                    "previous terminated container \"{container}\" in pod \"{name}\" not found"
                ));
            }
        }
    } else {
        match view.filter(|view| view.activity != Activity::Created) {
            Some(view) => view,
            None => return bad(waiting(container, name, &state)),
        }
    };
    Ok((PathBuf::from(&chosen.log_path), chosen.id.clone()))
}

fn waiting(container: &str, pod: &str, state: &ContainerState) -> String {
    let reason = state
        .waiting
        .as_ref()
        .and_then(|waiting| waiting.reason.clone())
        .unwrap_or_else(|| "ContainerCreating".into());
    let why = match reason.as_str() {
        "ErrImagePull" | "ImagePullBackOff" => "trying and failing to pull image".to_owned(),
        _ => reason,
    };
    format!("container \"{container}\" in pod \"{pod}\" is waiting to start: {why}")
}

/// Answers with the log.
pub(super) async fn answer(
    server: &Arc<Server>,
    namespace: &str,
    pod: &str,
    container: &str,
    query: &Query,
) -> Response<Body> {
    let options = match options(query) {
        Ok(options) => options,
        Err(message) => return text(StatusCode::UNPROCESSABLE_ENTITY, message),
    };
    let Some(mailbox) = server.manager.find(namespace, pod, None) else {
        if let Some(path) = host_processes::log(&server.context, namespace, pod) {
            return of_host_process(server, path, options);
        }
        return text(StatusCode::NOT_FOUND, format!("pod \"{pod}\" not found"));
    };
    let (path, id) = match locate(&mailbox, container, options.previous) {
        Ok(found) => found,
        Err((status, message)) => return text(status, message),
    };
    if !path.exists() && !options.follow {
        return text(
            StatusCode::INTERNAL_SERVER_ERROR,
            format!(
                "failed to try resolving symlinks in path \"{0}\": lstat {0}: no such file or directory",
                path.display()
            ),
        );
    }
    let running = move || {
        let seen = mailbox.seen();
        let view = seen.containers.iter().find(|view| view.id == id);
        view.is_some_and(|view| matches!(view.activity, Activity::Running | Activity::Created))
    };
    stream(server, path, options, running)
}

/// The log of a process beside the pods. It goes on when the process is started again.
fn of_host_process(server: &Arc<Server>, path: PathBuf, options: Options) -> Response<Body> {
    if options.previous {
        let message = "a process of the host has one log for all its lives";
        return text(StatusCode::BAD_REQUEST, message);
    }
    let options = Options {
        plain: true,
        ..options
    };
    stream(server, path, options, || true)
}

/// Answers with what is read, as it is read.
fn stream(
    server: &Arc<Server>,
    path: PathBuf,
    options: Options,
    running: impl Fn() -> bool + Send + Sync + 'static,
) -> Response<Body> {
    let (sender, receiver) = mpsc::channel::<Bytes>(64);
    let shutdown = server.shutdown.clone();
    tokio::spawn(async move {
        tokio::select! {
            () = shutdown.cancelled() => {}
            result = reader::read(&path, &options, running, sender) => {
                if let Err(error) = result {
                    tracing::debug!(path = %path.display(), %error, "reading a log");
                }
            }
        }
    });
    let frames = ReceiverStream::new(receiver).map(|bytes| Ok::<_, hyper::Error>(Frame::data(bytes)));
    let mut response = Response::new(BodyExt::boxed(StreamBody::new(frames)));
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn since_before_all_time_is_since_the_beginning() {
        let since = |query: &str| asked(query).map(|options| options.since);
        assert_eq!(
            since("sinceSeconds=9223372036854775807"),
            Ok(Some(Timestamp::MIN))
        );
        assert!(since("sinceSeconds=5").is_ok_and(|since| since < Some(Timestamp::now())));
        assert!(since("sinceSeconds=0").is_err());
    }
}
