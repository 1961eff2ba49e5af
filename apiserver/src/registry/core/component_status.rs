//! ComponentStatuses: whether the other daemons beside this server answer. Nobody writes them, and nobody should still
//! ask: upstream deprecated them in 1.19.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::future::join_all;
use http::Request;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ComponentCondition, ComponentStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use keelson_api::field::Errors;
use keelson_daemon::tls::client_config;
use serde_json::Value;

use crate::connect::forward::{Backend, Transport, fetch};
use crate::registry::common::cells;
use crate::registry::strategy::{Column, Lifetime, RequestContext, ResourceInfo, Scope, Strategy, Verb};
use crate::state::Server;

const HEALTHY: &str = "Healthy";
/// Daemons on the same machine and where their health is served.
const DAEMONS: &[(&str, u16)] = &[("controller-manager", 10257), ("scheduler", 10259)];
const STORE: &str = "etcd-0";
/// How long one of them may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// The kind's strategy.
pub struct ComponentStatusKind;

static INFO: ResourceInfo = ResourceInfo {
    kind: "ComponentStatus",
    plural: "componentstatuses",
    singular: "componentstatus",
    short_names: &["cs"],
    scope: Scope::Cluster,
    verbs: &[Verb::Get, Verb::List],
    storage_prefix: "componentstatuses",
    lifetime: Lifetime::Observed,
    ..ResourceInfo::base()
};

#[async_trait]
impl Strategy for ComponentStatusKind {
    type Object = ComponentStatus;

    fn info(&self) -> &'static ResourceInfo {
        &INFO
    }

    fn deprecation(&self) -> Option<&'static str> {
        Some("v1 ComponentStatus is deprecated in v1.19+")
    }

    fn validate_create(&self, _ctx: &RequestContext<'_>, _status: &ComponentStatus) -> Errors {
        Errors::new()
    }

    fn validate_update(
        &self,
        _ctx: &RequestContext<'_>,
        _new: &ComponentStatus,
        _old: &ComponentStatus,
    ) -> Errors {
        Errors::new()
    }

    fn columns(&self) -> &'static [Column] {
        const COLUMNS: &[Column] = &[
            Column::name(),
            Column::new("Status", "Status of the component conditions"),
            Column::new("Message", "Message of the component conditions"),
            Column::new("Error", "Error of the component conditions"),
        ];
        COLUMNS
    }

    fn cells(&self, status: &ComponentStatus, _now: Timestamp) -> Vec<Value> {
        let condition = status.conditions.iter().flatten().find(|c| c.type_ == HEALTHY);
        let word = match condition.map(|condition| condition.status.as_str()) {
            Some("True") => "Healthy",
            Some("False") => "Unhealthy",
            _ => "Unknown",
        };
        let text = |field: fn(&ComponentCondition) -> Option<&String>| -> Value {
            condition.and_then(field).map_or("", String::as_str).into()
        };
        vec![
            cells::name(&status.metadata),
            word.into(),
            text(|condition| condition.message.as_ref()),
            text(|condition| condition.error.as_ref()),
        ]
    }

    async fn observe(&self, server: &Arc<Server>) -> Vec<ComponentStatus> {
        let asked = DAEMONS.iter().map(|(name, port)| async move {
            let answer = tokio::time::timeout(PATIENCE, health(*port)).await;
            status(
                name,
                answer.unwrap_or_else(|_| Err("context deadline exceeded".to_owned())),
            )
        });
        let mut all = join_all(asked).await;
        let store = server.store.revision().await;
        all.push(status(STORE, store.map(drop).map_err(|error| error.to_string())));
        all
    }
}

async fn health(port: u16) -> Result<(), String> {
    // What a daemon serves its health with is its own business: nothing is told to it, and nothing it says is believed.
    let tls = client_config(None, None).map_err(|error| error.to_string())?;
    let backend = Backend {
        host: "127.0.0.1".to_owned(),
        port,
        name: None,
        transport: Transport::Tls(Arc::new(tls)),
    };
    let request = Request::get("/healthz")
        .body(Bytes::new())
        .map_err(|error| error.to_string())?;
    let (code, body) = fetch(&backend, request)
        .await
        .map_err(|error| format!("Get \"https://127.0.0.1:{port}/healthz\": {error}"))?;
    if code.is_success() {
        Ok(())
    } else {
        Err(String::from_utf8_lossy(&body).into_owned())
    }
}

fn status(name: &str, health: Result<(), String>) -> ComponentStatus {
    let (status, message) = match health {
        Ok(()) => ("True", "ok".to_owned()),
        Err(why) => ("False", why),
    };
    ComponentStatus {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            ..ObjectMeta::default()
        },
        conditions: Some(vec![ComponentCondition {
            type_: HEALTHY.to_owned(),
            status: status.to_owned(),
            message: Some(message),
            error: None,
        }]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_answer_is_unhealthy() {
        let now = Timestamp::UNIX_EPOCH;
        let row = ComponentStatusKind.cells(&status("scheduler", Err("refused".to_owned())), now);
        assert_eq!(row, ["scheduler", "Unhealthy", "refused", ""]);
        let row = ComponentStatusKind.cells(&status("etcd-0", Ok(())), now);
        assert_eq!(row, ["etcd-0", "Healthy", "ok", ""]);
    }
}
