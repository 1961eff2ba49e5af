//! Who did what: one line of JSON a request in the log that `--audit-log-path` names, at the Metadata level.

use std::io::Write as _;
use std::net::SocketAddr;
use std::path::Path;

use anyhow::Context as _;
use serde_json::json;
use tokio::sync::mpsc;

use crate::authentication::User;
use crate::authorization::{Attributes, Target};

/// Events that wait to be written; more than that are dropped and counted in the log of the server.
const QUEUE: usize = 8192;

/// The audit log, or nothing.
pub struct AuditLog {
    queue: Option<mpsc::Sender<String>>,
}

impl AuditLog {
    /// Opens the file; `-` is standard output.
    pub fn open(path: Option<&Path>) -> anyhow::Result<Self> {
        let Some(path) = path else {
            return Ok(Self { queue: None });
        };
        let mut out: Box<dyn std::io::Write + Send> = if path == Path::new("-") {
            Box::new(std::io::stdout())
        } else {
            let file = std::fs::OpenOptions::new().create(true).append(true).open(path);
            Box::new(file.with_context(|| format!("--audit-log-path: cannot open {}", path.display()))?)
        };
        let (queue, mut inbox) = mpsc::channel::<String>(QUEUE);
        std::thread::Builder::new()
            .name("audit".into())
            .spawn(move || {
                while let Some(line) = inbox.blocking_recv() {
                    if let Err(error) = out.write_all(line.as_bytes()) {
                        tracing::error!(%error, "cannot write the audit log");
                    }
                }
            })
            .context("cannot start the audit thread")?;
        Ok(Self { queue: Some(queue) })
    }

    /// Whether anything is written at all.
    pub fn enabled(&self) -> bool {
        self.queue.is_some()
    }

    /// Notes an answered request.
    pub fn note(&self, request: &Noted<'_>) {
        let Some(queue) = &self.queue else { return };
        let object = match request.attributes.target {
            Target::Path(_) => None,
            Target::Resource {
                group,
                resource,
                subresource,
                namespace,
                name,
                ..
            } => Some(json!({
                "apiGroup": group, "resource": resource, "subresource": subresource,
                "namespace": namespace, "name": name,
            })),
        };
        let now = jiff::Timestamp::now().to_string();
        let mut line = json!({
            "kind": "Event",
            "apiVersion": "audit.k8s.io/v1",
            "level": "Metadata",
            "auditID": uuid::Uuid::new_v4().to_string(),
            "stage": "ResponseComplete",
            "requestURI": request.uri,
            "verb": request.attributes.verb,
            "user": {"username": request.user.name, "groups": request.user.groups},
            "sourceIPs": [request.peer.ip().to_string()],
            "userAgent": request.user_agent,
            "objectRef": object,
            "responseStatus": {"code": request.code},
            "stageTimestamp": now,
        })
        .to_string();
        line.push('\n');
        if queue.try_send(line).is_err() {
            tracing::warn!(uri = request.uri, "audit event dropped: the log cannot keep up");
        }
    }
}

/// A request that has been answered.
pub struct Noted<'a> {
    /// Who asked.
    pub user: &'a User,
    /// For what.
    pub attributes: Attributes<'a>,
    /// The path and query.
    pub uri: &'a str,
    /// From where.
    pub peer: SocketAddr,
    /// With which program.
    pub user_agent: &'a str,
    /// HTTP status of the answer.
    pub code: u16,
}
