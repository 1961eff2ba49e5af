//! List, then watch, then watch again: the state machine that keeps a store current.
//!
//! The decisions are in [`State::step`], which does no I/O; [`run`] asks the source and carries them out.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::BoxStream;
use keelson_api::object::Object;
use keelson_api::status::ApiError;
use keelson_daemon::backoff::Backoff;
use tokio_util::sync::CancellationToken;

use crate::types::WatchEvent;

/// The first wait after a failure: a restarted apiserver is back within a second.
const BACKOFF_INITIAL: Duration = Duration::from_millis(100);
/// The longest wait: every component of a cluster comes back within this of its apiserver.
const BACKOFF_MAX: Duration = Duration::from_secs(5);

/// Where lists and watches come from.
pub(crate) trait Source: Send + Sync + 'static {
    type Item: Object;

    /// Everything there is, and the resource version it is as of.
    fn list(&self) -> impl Future<Output = Result<(Vec<Self::Item>, String), ApiError>> + Send;

    /// What changes after a version.
    fn watch(
        &self,
        version: &str,
    ) -> impl Future<Output = Result<BoxStream<'static, Watched<Self::Item>>, ApiError>> + Send;
}

type Watched<T> = Result<WatchEvent<T>, ApiError>;

/// What is told of changes.
pub(crate) trait Sink<T>: Send + Sync + 'static {
    /// This is everything there is.
    fn replace(&self, items: Vec<T>);
    /// One object is new or changed.
    fn apply(&self, item: T);
    /// One object is gone; its last state.
    fn delete(&self, item: T);
}

/// What a reflector knows and what it does next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// Nothing is known, or what is known is too old to continue from. Next: list everything.
    /// Success leads to `Listed`, failure back here after a pause.
    Empty,
    /// The store is as of `version` and nobody listens for changes. Next: watch from there.
    /// Success leads to `Watching`, an expired version to `Empty`, other failures back here after a pause.
    Listed { version: String },
    /// Changes after `version` arrive. An end of the watch leads to `Listed`, an expired version to `Empty`;
    /// every event and bookmark moves `version` on, so that a broken connection costs nothing that was seen.
    Watching { version: String },
}

/// What happened.
#[derive(Debug)]
pub(crate) enum Input {
    /// A list as of this version is in the store.
    Listed(String),
    /// The watch is open.
    Opened,
    /// An event or a bookmark moved the position.
    Progress(String),
    /// The server ended the watch in good order, as it does every few minutes.
    Ended,
    /// A list or a watch failed.
    Failed(ApiError),
}

/// Whether to wait before doing what the new state asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pause {
    None,
    BackOff,
}

impl State {
    pub(crate) fn step(self, input: Input) -> (State, Pause) {
        match (self, input) {
            (_, Input::Listed(version)) => (State::Listed { version }, Pause::None),
            (State::Listed { version } | State::Watching { version }, Input::Opened) => {
                (State::Watching { version }, Pause::None)
            }
            (State::Watching { .. } | State::Listed { .. }, Input::Progress(version)) => {
                (State::Watching { version }, Pause::None)
            }
            (State::Watching { version } | State::Listed { version }, Input::Ended) => {
                (State::Listed { version }, Pause::None)
            }
            // The first list after an expiry is not delayed: nothing is wrong but our position.
            (State::Listed { .. } | State::Watching { .. }, Input::Failed(error)) if error.is_expired() => {
                (State::Empty, Pause::None)
            }
            (State::Listed { version } | State::Watching { version }, Input::Failed(_)) => {
                (State::Listed { version }, Pause::BackOff)
            }
            (State::Empty, _) => (State::Empty, Pause::BackOff),
        }
    }
}

/// Keeps `sink` current until `shutdown`.
pub(crate) async fn run<S: Source>(source: S, sink: Arc<impl Sink<S::Item>>, shutdown: CancellationToken) {
    let reflect = reflect(source, sink);
    tokio::select! {
        () = shutdown.cancelled() => {}
        () = reflect => {}
    }
}

async fn reflect<S: Source>(source: S, sink: Arc<impl Sink<S::Item>>) {
    let mut state = State::Empty;
    let mut backoff = Backoff::new(BACKOFF_INITIAL, BACKOFF_MAX);
    let mut watch: Option<BoxStream<'static, Watched<S::Item>>> = None;
    let kind = std::any::type_name::<S::Item>()
        .rsplit("::")
        .next()
        .unwrap_or_default();
    let (mut failing, mut missing) = (false, false);
    loop {
        let input = match &state {
            State::Empty => match source.list().await {
                Ok((items, version)) => {
                    sink.replace(items);
                    Input::Listed(version)
                }
                Err(error) => Input::Failed(error),
            },
            State::Listed { version } => match source.watch(version).await {
                Ok(stream) => {
                    watch = Some(stream);
                    Input::Opened
                }
                Err(error) => Input::Failed(error),
            },
            State::Watching { .. } => next(&mut watch, &*sink).await,
        };
        match &input {
            Input::Listed(_) | Input::Progress(_) => {
                backoff.reset();
                (failing, missing) = (false, false);
            }
            Input::Failed(error) if error.is_expired() => {
                tracing::debug!(%error, "watch expired, listing again")
            }
            // A resource that has gone takes its watches along. Whoever watches it is told so as well, and stops: only
            // one that stays away while it is still wanted is worth a word.
            Input::Failed(error) if error.is_not_found() && !missing => {
                missing = true;
                tracing::debug!(%error, kind, "what is watched is not served");
            }
            // One line an outage: every attempt after the first says the same.
            Input::Failed(error) if failing => tracing::debug!(%error, kind, "list or watch still fails"),
            Input::Failed(error) => {
                failing = true;
                tracing::warn!(%error, kind, "list or watch failed");
            }
            Input::Opened | Input::Ended => {}
        }
        let pause;
        (state, pause) = state.step(input);
        if !matches!(state, State::Watching { .. }) {
            watch = None;
        }
        if pause == Pause::BackOff {
            tokio::time::sleep(backoff.next_wait()).await;
        }
    }
}

/// Takes one event off the watch into the sink.
async fn next<T: Object>(watch: &mut Option<BoxStream<'static, Watched<T>>>, sink: &impl Sink<T>) -> Input {
    let Some(stream) = watch else { return Input::Ended };
    match stream.next().await {
        None => Input::Ended,
        Some(Err(error)) => Input::Failed(error),
        Some(Ok(WatchEvent::Bookmark { resource_version, .. })) => Input::Progress(resource_version),
        Some(Ok(WatchEvent::Added(item) | WatchEvent::Modified(item))) => {
            let version = item.resource_version().to_owned();
            sink.apply(item);
            Input::Progress(version)
        }
        Some(Ok(WatchEvent::Deleted(item))) => {
            let version = item.resource_version().to_owned();
            sink.delete(item);
            Input::Progress(version)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(version: &str) -> State {
        State::Watching {
            version: version.into(),
        }
    }

    #[test]
    fn a_broken_watch_resumes_where_it_was() {
        let (state, pause) = at("7").step(Input::Progress("9".into()));
        assert_eq!((&state, pause), (&at("9"), Pause::None));
        let (state, pause) = state.step(Input::Failed(ApiError::service_unavailable("gone")));
        assert_eq!(
            (state, pause),
            (State::Listed { version: "9".into() }, Pause::BackOff)
        );
    }

    #[test]
    fn an_expired_version_means_a_new_list() {
        assert_eq!(
            at("7").step(Input::Failed(ApiError::expired("old"))),
            (State::Empty, Pause::None)
        );
        // ... and a server that says so of the list itself is not hammered.
        assert_eq!(
            State::Empty.step(Input::Failed(ApiError::expired("old"))),
            (State::Empty, Pause::BackOff)
        );
    }

    #[test]
    fn an_orderly_end_is_no_failure() {
        assert_eq!(
            at("7").step(Input::Ended),
            (State::Listed { version: "7".into() }, Pause::None)
        );
    }
}
