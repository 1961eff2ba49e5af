//! Who did what: events as `audit.k8s.io/v1` has them, as much of each request as a policy asks for.
//!
//! Without a policy nothing is recorded and nothing is spent. With one, a request that a rule concerns gets a
//! [`Record`], which travels with the task that serves it: whoever has something to add calls [`annotate`]. Events are
//! put together and written by threads and tasks of their own.
//!
//! | module | what lives there |
//! | --- | --- |
//! | [`policy`] | which requests are recorded, and how much of them |
//! | [`event`] | one event, and its JSON |
//! | [`record`] | a request while it is being served |
//! | [`queue`] | what waits to be written, and what happens when it is too much |
//! | [`log`] | the log file and its rotation |
//! | [`webhook`] | batches of events sent to a webhook |
//!
//! <https://kubernetes.io/docs/tasks/debug/debug-cluster/audit/>

pub mod event;
pub mod log;
pub mod policy;
pub mod queue;
pub mod record;
pub mod webhook;

use std::sync::Arc;

use bytes::Bytes;
use clap::{ArgAction, Args, ValueEnum};
use http::HeaderMap;
use keelson_api::status::{ApiError, ApiResult};
use keelson_daemon::metrics::Metrics;

use crate::authentication::User;
use crate::authorization::Attributes;
use event::{Event, Origin};
use policy::{Level, Policy};
use queue::{Counts, Mode};
pub use record::Record;

/// The header that names a request in the log.
pub const AUDIT_ID: &str = "audit-id";
/// Names longer than this are not taken from clients.
const ID_MAX: usize = 64;

/// Flags of the audit log.
#[derive(Debug, Clone, Default, Args)]
pub struct AuditArgs {
    /// Which requests are recorded, and how much of them: an audit.k8s.io/v1 Policy, YAML.
    #[arg(long)]
    pub audit_policy_file: Option<std::path::PathBuf>,
    /// File the audit log is appended to, one JSON event a line; - is standard output.
    #[arg(long)]
    pub audit_log_path: Option<std::path::PathBuf>,
    /// Days that rotated files are kept; 0 is for ever.
    #[arg(long, default_value_t = 0)]
    pub audit_log_maxage: u64,
    /// Rotated files that are kept; 0 is all of them.
    #[arg(long, default_value_t = 0)]
    pub audit_log_maxbackup: usize,
    /// Megabytes of a file before it is rotated; 0 is 100.
    #[arg(long, default_value_t = 0)]
    pub audit_log_maxsize: u64,
    /// Whether rotated files are compressed with gzip.
    #[arg(long, default_value_t = false, action = ArgAction::Set, num_args = 0..=1, default_missing_value = "true")]
    pub audit_log_compress: bool,
    /// What happens when the log cannot keep up: requests wait, or events are dropped and counted; with blocking-strict
    /// requests are refused of which it cannot be written down that they came.
    #[arg(long, value_enum, default_value_t = Mode::Blocking)]
    pub audit_log_mode: Mode,
    /// Events that wait for the log at most.
    #[arg(long, default_value_t = 10_000)]
    pub audit_log_batch_buffer_size: usize,
    /// Form of the log.
    #[arg(long, value_enum, default_value_t = LogFormat::Json)]
    pub audit_log_format: LogFormat,
    /// Kubeconfig of a webhook that events are sent to.
    #[arg(long)]
    pub audit_webhook_config_file: Option<std::path::PathBuf>,
    /// Events that wait for the webhook at most; more are dropped and counted.
    #[arg(long, default_value_t = 10_000)]
    pub audit_webhook_batch_buffer_size: usize,
    /// Events in one batch at most.
    #[arg(long, default_value_t = 400)]
    pub audit_webhook_batch_max_size: usize,
    /// How long a batch that is not full waits for more.
    #[arg(long, default_value = "30s", value_parser = keelson_daemon::duration::parse)]
    pub audit_webhook_batch_max_wait: std::time::Duration,
    /// How long to wait before a batch that was refused is sent again; doubled each time, for four times.
    #[arg(long, default_value = "10s", value_parser = keelson_daemon::duration::parse)]
    pub audit_webhook_initial_backoff: std::time::Duration,
}

/// Form of the log.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// One event a line, as JSON.
    #[default]
    Json,
}

/// Where events go.
pub(crate) struct Sinks {
    log: Option<log::LogSink>,
    webhook: Option<webhook::WebhookSink>,
    counts: Counts,
}

impl Sinks {
    pub(crate) fn send(&self, event: &Arc<Event>) {
        self.counts.event();
        if let Some(log) = &self.log {
            log.send(event.clone());
        }
        if let Some(webhook) = &self.webhook {
            webhook.send(event.clone());
        }
    }

    /// A request came, as this event says. Whether it may be served.
    fn admit(&self, event: &Arc<Event>) -> bool {
        self.counts.event();
        if let Some(webhook) = &self.webhook {
            webhook.send(event.clone());
        }
        let admitted = self.log.as_ref().is_none_or(|log| log.admit(event.clone()));
        if !admitted {
            self.counts.rejected();
        }
        admitted
    }
}

struct Running {
    policy: Policy,
    sinks: Arc<Sinks>,
}

/// The audit log, or nothing.
pub struct AuditLog(Option<Running>);

impl AuditLog {
    /// Opens what the flags name, and shows what is counted among these metrics.
    ///
    /// # Errors
    /// When the policy makes no sense, or the log cannot be opened.
    pub fn open(args: &AuditArgs, registry: &Metrics) -> anyhow::Result<Self> {
        let wanted = args.audit_log_path.is_some() || args.audit_webhook_config_file.is_some();
        let Some(path) = args.audit_policy_file.as_deref() else {
            if wanted {
                tracing::warn!("no audit policy file is given: nothing is recorded");
            }
            return Ok(Self(None));
        };
        let policy = Policy::load(path)?;
        if !wanted {
            return Ok(Self(None));
        }
        let counts = Counts::new(registry);
        let sinks = Sinks {
            log: log::LogSink::open(args, &counts)?,
            webhook: webhook::WebhookSink::open(args, &counts)?,
            counts,
        };
        Ok(Self(Some(Running {
            policy,
            sinks: Arc::new(sinks),
        })))
    }

    /// Whether anything is recorded at all.
    pub fn enabled(&self) -> bool {
        self.0.is_some()
    }

    /// Begins the record of a request, if a rule concerns it.
    ///
    /// # Errors
    /// When the log is strict and cannot be written.
    pub fn begin(
        &self,
        origin: &Arc<Origin>,
        user: &User,
        attributes: &Attributes<'_>,
    ) -> ApiResult<Option<Arc<Record>>> {
        let Some(Running { policy, sinks }) = self.0.as_ref() else {
            return Ok(None);
        };
        let found = policy.find(user, attributes);
        if found.level == Level::None {
            return Ok(None);
        }
        let event = Event::new(origin.clone(), found, user, attributes);
        match Record::begin(event, sinks.clone()) {
            Some(record) => Ok(Some(Arc::new(record))),
            None => Err(ApiError::internal("failed to store audit event")),
        }
    }

    /// Notes that somebody could not prove to be anybody.
    pub fn refused(&self, origin: &Arc<Origin>, attributes: &Attributes<'_>, message: &str) {
        let nobody = User::default();
        if let Ok(Some(record)) = self.begin(origin, &nobody, attributes) {
            record.failed_authentication(message);
        }
    }
}

/// The name of a request: the client's own, or a new one.
pub fn id_of(headers: &HeaderMap) -> String {
    let given = headers.get(AUDIT_ID).and_then(|value| value.to_str().ok());
    match given {
        Some(id) if !id.is_empty() && id.len() <= ID_MAX => id.to_owned(),
        _ => uuid::Uuid::new_v4().to_string(),
    }
}

tokio::task_local! {
    static CURRENT: Arc<Record>;
    static ORIGIN: Arc<Origin>;
}

/// Serves a request whose record is `record`.
pub async fn scope<T>(record: Option<Arc<Record>>, serving: impl Future<Output = T>) -> T {
    match record {
        Some(record) => CURRENT.scope(record, serving).await,
        None => serving.await,
    }
}

/// Serves calls of a door where one request is several events: each of them finds here where it came from.
pub async fn from<T>(origin: Arc<Origin>, serving: impl Future<Output = T>) -> T {
    ORIGIN.scope(origin, serving).await
}

/// Where the request being served came from, inside of [`from`].
pub fn origin() -> Option<Arc<Origin>> {
    ORIGIN.try_with(Clone::clone).ok()
}

/// Whether the request being served is recorded. What is costly to say need not be put together otherwise.
pub fn recording() -> bool {
    CURRENT.try_with(|_| ()).is_ok()
}

/// Adds an annotation to the event of the request being served, if there is one. The first of a key stays.
pub fn annotate(key: &str, value: impl FnOnce() -> String) {
    let _nobody_records = CURRENT.try_with(|record| record.annotate(key, value()));
}

/// The body of the request being served, as JSON.
pub fn request_body(json: &Bytes) {
    let _nobody_records = CURRENT.try_with(|record| record.request_body(json));
}

/// The object the request being served is answered with, as JSON.
pub fn response_body(json: &Bytes) {
    let _nobody_records = CURRENT.try_with(|record| record.response_body(json));
}

/// Whether the answer of the request being served is wanted whole.
pub fn wants_response() -> bool {
    CURRENT
        .try_with(|record| record.wants_response())
        .unwrap_or(false)
}

#[cfg(test)]
mod tests;
