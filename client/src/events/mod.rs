//! EventRecorder: what happened to an object, for people to read.
//!
//! Recording never blocks and never fails: events go into a bounded queue and are written by a task, in batches.
//! Repetitions are counted on one Event object; [`correlator`] decides that.

mod correlator;

use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use keelson_api::object::{Kind, Object};
use keelson_api::time;
use keelson_daemon::backoff::Backoff;
use serde_json::json;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::{Client, Patch, ResourceClient, Write};
use correlator::{Correlator, Verdict};

/// How many events may wait to be written; a component that makes more faster than the apiserver takes them loses some.
const QUEUE: usize = 8192;
/// How many writes go in one round trip.
const BATCH: usize = 256;
/// How often a batch is tried while the apiserver cannot be reached.
const ATTEMPTS: u32 = 12;

/// Whether an event is good news.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EventKind {
    /// As it should be.
    Normal,
    /// Somebody may want to look.
    Warning,
}

impl EventKind {
    fn as_str(self) -> &'static str {
        match self {
            EventKind::Normal => "Normal",
            EventKind::Warning => "Warning",
        }
    }
}

/// Something that happened, before it is an Event object.
#[derive(Clone, Debug)]
struct Happening {
    about: ObjectReference,
    kind: EventKind,
    reason: String,
    message: String,
    at: Time,
}

/// Records events about objects. Cheap to clone.
#[derive(Clone)]
pub struct EventRecorder {
    sender: mpsc::Sender<Happening>,
}

impl EventRecorder {
    /// Starts the task that writes events as `component` on `host`; it ends with `shutdown`, after what is queued.
    pub fn new(client: &Client, component: &str, host: &str, shutdown: &CancellationToken) -> Self {
        let (sender, receiver) = mpsc::channel(QUEUE);
        let writer = Writer {
            events: client.resource(),
            component: component.to_owned(),
            host: host.to_owned(),
            correlator: Correlator::new(),
            last_moment: 0,
        };
        tokio::spawn(writer.run(receiver, shutdown.clone()));
        EventRecorder { sender }
    }

    /// Records that something happened to an object.
    pub fn event<K: Kind>(&self, about: &K, kind: EventKind, reason: &str, message: impl Into<String>) {
        self.event_ref(reference(about), kind, reason, message);
    }

    /// Records that something happened to the object referred to.
    pub fn event_ref(
        &self,
        about: ObjectReference,
        kind: EventKind,
        reason: &str,
        message: impl Into<String>,
    ) {
        let happening = Happening {
            about,
            kind,
            reason: reason.to_owned(),
            message: message.into(),
            at: time::now(),
        };
        if self.sender.try_send(happening).is_err() {
            tracing::debug!(reason, "event dropped: too many are waiting");
        }
    }
}

/// A reference to an object as events make it.
pub fn reference<K: Kind>(object: &K) -> ObjectReference {
    let meta = object.meta();
    ObjectReference {
        api_version: Some(K::API_VERSION.to_owned()),
        kind: Some(K::KIND.to_owned()),
        namespace: meta.namespace.clone(),
        name: meta.name.clone(),
        uid: meta.uid.clone(),
        resource_version: meta.resource_version.clone(),
        field_path: None,
    }
}

struct Writer {
    events: ResourceClient<Event>,
    component: String,
    host: String,
    correlator: Correlator,
    last_moment: i64,
}

impl Writer {
    async fn run(mut self, mut receiver: mpsc::Receiver<Happening>, shutdown: CancellationToken) {
        let mut waiting = Vec::with_capacity(BATCH);
        loop {
            let got = tokio::select! {
                biased;
                got = receiver.recv_many(&mut waiting, BATCH) => got,
                () = shutdown.cancelled() => 0,
            };
            if got == 0 {
                return;
            }
            self.write(std::mem::take(&mut waiting), &shutdown).await;
        }
    }

    async fn write(&mut self, happenings: Vec<Happening>, shutdown: &CancellationToken) {
        let mut batch: Vec<(Event, Write<Event>)> = Vec::with_capacity(happenings.len());
        for happening in happenings {
            match self.correlator.judge(&happening, Instant::now()) {
                Verdict::Drop => {}
                Verdict::Create { message } => {
                    let event = self.build(&happening, message, 1);
                    self.correlator.created(&happening, event.key(), Instant::now());
                    batch.push((event.clone(), Write::Create(event)));
                }
                Verdict::Count { key, count, message } => {
                    let event = self.build(&happening, message, count);
                    let patch = Patch::Merge(json!({
                        "count": count,
                        "lastTimestamp": event.last_timestamp,
                        "message": event.message,
                    }));
                    batch.push((
                        event,
                        Write::Patch {
                            key,
                            subresource: String::new(),
                            patch,
                        },
                    ));
                }
            }
        }
        if batch.is_empty() {
            return;
        }
        let mut backoff = Backoff::new(Duration::from_millis(500), Duration::from_secs(10));
        for _ in 0..ATTEMPTS {
            let writes = batch.iter().map(|(_, write)| write.clone()).collect();
            let results = match self.events.batch_discard(writes).await {
                Ok(results) => results,
                Err(error) => {
                    tracing::debug!(%error, "events not written, trying again");
                    tokio::select! {
                        () = tokio::time::sleep(backoff.next_wait()) => continue,
                        () = shutdown.cancelled() => return,
                    }
                }
            };
            // A counted Event may have expired meanwhile: then it starts anew, under a name of its own.
            batch = batch
                .into_iter()
                .zip(results)
                .filter_map(|((event, write), result)| match (write, result) {
                    (_, Ok(())) => None,
                    (Write::Patch { .. }, Err(error)) if error.is_not_found() => {
                        Some((event.clone(), Write::Create(event)))
                    }
                    (_, Err(error)) => {
                        // Usual where a namespace is being deleted.
                        tracing::debug!(%error, reason = event.reason, "event refused");
                        None
                    }
                })
                .collect();
            if batch.is_empty() {
                return;
            }
        }
        tracing::warn!(
            events = batch.len(),
            "events lost: the apiserver could not be reached"
        );
    }

    /// Nanoseconds since 1970, never the same twice.
    fn moment(&mut self) -> i64 {
        let now = i64::try_from(time::now_micro().0.as_nanosecond()).unwrap_or(i64::MAX);
        self.last_moment = now.max(self.last_moment.saturating_add(1));
        self.last_moment
    }

    fn build(&mut self, happening: &Happening, message: String, count: i32) -> Event {
        let about = &happening.about;
        let namespace = about
            .namespace
            .clone()
            .filter(|n| !n.is_empty())
            .unwrap_or_else(|| "default".into());
        // The time in hexadecimal, as upstream: names sort by age.
        let name = format!(
            "{}.{:x}",
            about.name.as_deref().unwrap_or_default(),
            self.moment()
        );
        Event {
            metadata: ObjectMeta {
                name: Some(name),
                namespace: Some(namespace),
                ..Default::default()
            },
            involved_object: about.clone(),
            type_: Some(happening.kind.as_str().to_owned()),
            reason: Some(happening.reason.clone()),
            message: Some(message),
            first_timestamp: Some(happening.at.clone()),
            last_timestamp: Some(happening.at.clone()),
            count: Some(count),
            source: Some(EventSource {
                component: Some(self.component.clone()),
                host: Some(self.host.clone()).filter(|host| !host.is_empty()),
            }),
            reporting_component: Some(self.component.clone()),
            reporting_instance: Some(self.host.clone()),
            ..Default::default()
        }
    }
}
