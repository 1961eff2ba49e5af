//! Batches of events sent to a webhook as `audit.k8s.io/v1` EventLists.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use serde_json::json;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::AuditArgs;
use super::event::Event;
use super::queue::Counts;
use crate::outbound::kubeconfig::Webhook;

/// How long the webhook may take.
const TIMEOUT: Duration = Duration::from_secs(30);
/// How often a batch is tried before it is given up.
const ATTEMPTS: u32 = 5;
/// What the webhook is called where losses are counted.
const PLUGIN: &str = "webhook";

/// The task that sends events.
pub struct WebhookSink {
    queue: mpsc::Sender<Arc<Event>>,
    counts: Counts,
}

impl WebhookSink {
    /// Reads the webhook's configuration, if there is to be one.
    pub fn open(args: &AuditArgs, counts: &Counts) -> anyhow::Result<Option<Self>> {
        let Some(path) = args.audit_webhook_config_file.as_deref() else {
            return Ok(None);
        };
        let webhook = Webhook::load(path).context("--audit-webhook-config-file")?;
        let (queue, inbox) = mpsc::channel(args.audit_webhook_batch_buffer_size.max(1));
        let batches = Batches {
            webhook,
            inbox,
            size: args.audit_webhook_batch_max_size.max(1),
            wait: args.audit_webhook_batch_max_wait,
            backoff: args.audit_webhook_initial_backoff,
            counts: counts.clone(),
        };
        tokio::spawn(batches.run());
        let counts = counts.clone();
        Ok(Some(Self { queue, counts }))
    }

    /// Sends an event with one of the next batches. Requests do not wait for a webhook that is slow.
    pub fn send(&self, event: Arc<Event>) {
        if self.queue.try_send(event).is_err() {
            self.counts.lost(PLUGIN, 1);
        }
    }
}

struct Batches {
    webhook: Webhook,
    inbox: mpsc::Receiver<Arc<Event>>,
    size: usize,
    wait: Duration,
    backoff: Duration,
    counts: Counts,
}

impl Batches {
    async fn run(mut self) {
        while let Some(first) = self.inbox.recv().await {
            let mut batch = vec![first];
            let until = Instant::now() + self.wait;
            while batch.len() < self.size {
                match tokio::time::timeout_at(until, self.inbox.recv()).await {
                    Ok(Some(event)) => batch.push(event),
                    Ok(None) | Err(_) => break,
                }
            }
            self.deliver(&batch).await;
        }
    }

    async fn deliver(&self, batch: &[Arc<Event>]) {
        let items: Vec<_> = batch.iter().map(|event| event.json()).collect();
        let list =
            json!({"kind": "EventList", "apiVersion": "audit.k8s.io/v1", "metadata": {}, "items": items});
        let body = Bytes::from(list.to_string());
        let mut wait = self.backoff;
        for attempt in 1..=ATTEMPTS {
            match self.webhook.post(body.clone(), TIMEOUT).await {
                Ok(_) => return,
                Err(error) if attempt == ATTEMPTS => {
                    tracing::error!(
                        events = batch.len(),
                        error,
                        "the audit webhook has refused them for good"
                    );
                    self.counts.lost(PLUGIN, batch.len() as u64);
                }
                Err(error) => {
                    tracing::warn!(events = batch.len(), error, "the audit webhook refuses events");
                    tokio::time::sleep(wait).await;
                    wait *= 2;
                }
            }
        }
    }
}
