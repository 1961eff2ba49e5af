//! Removes requests that have been dealt with, or that nobody deals with.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::certificates::v1::{
    CertificateSigningRequest as Request, CertificateSigningRequestCondition,
};
use keelson_api::object::Object as _;
use keelson_client::ResourceClient;

use super::{APPROVED, DENIED, FAILED, condition, issued};
use crate::common::answers::{only, unless_gone};
use crate::context::Context;

/// How often requests are looked through.
const PERIOD: Duration = Duration::from_secs(60 * 60);
/// How long answered requests stay.
const ANSWERED: i64 = 60 * 60;
/// How long others stay.
const PENDING: i64 = 24 * 60 * 60;

/// Runs the controller until shutdown.
pub async fn run(context: Context) {
    let requests = context.certificate_signing_requests();
    let client: ResourceClient<Request> = context.client().resource();
    requests.synced().await;
    loop {
        for request in requests.store().list() {
            if !is_over(&request, Timestamp::now()) {
                continue;
            }
            match unless_gone(client.delete(&request.key(), &only(request.uid())).await) {
                Ok(_) => tracing::info!(request = request.name(), "removed"),
                Err(error) => tracing::warn!(request = request.name(), %error, "cannot remove a request"),
            }
        }
        tokio::select! {
            () = context.shutdown().cancelled() => return,
            () = tokio::time::sleep(PERIOD) => {}
        }
    }
}

fn is_over(request: &Request, now: Timestamp) -> bool {
    let older = |since: Timestamp, limit: i64| now.as_second() - since.as_second() > limit;
    let answered = |found: Option<&CertificateSigningRequestCondition>| {
        found
            .and_then(|condition| condition.last_update_time.as_ref())
            .is_some_and(|at| older(at.0, ANSWERED))
    };
    if answered(condition(request, DENIED)) || answered(condition(request, FAILED)) {
        return true;
    }
    if issued(request) {
        return answered(condition(request, APPROVED));
    }
    let created = request.metadata.creation_timestamp.as_ref();
    created.is_some_and(|at| older(at.0, PENDING))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn requests_go_an_hour_after_the_answer_or_a_day_without_one() {
        let request = |status: serde_json::Value| -> Request {
            serde_json::from_value(json!({
                "metadata": {"name": "r", "creationTimestamp": "2026-01-01T00:00:00Z"},
                "spec": {"request": "", "signerName": "a.b/c"},
                "status": status,
            }))
            .expect("a request")
        };
        let at = |text: &str| text.parse::<Timestamp>().expect("a time");
        let pending = request(json!({}));
        assert!(
            !is_over(&pending, at("2026-01-01T20:00:00Z")) && is_over(&pending, at("2026-01-02T01:00:00Z"))
        );
        let condition =
            |kind: &str| json!([{"type": kind, "status": "True", "lastUpdateTime": "2026-01-01T00:00:00Z"}]);
        let denied = request(json!({"conditions": condition("Denied")}));
        assert!(
            !is_over(&denied, at("2026-01-01T00:30:00Z")) && is_over(&denied, at("2026-01-01T01:30:00Z"))
        );
        let issued = request(json!({"conditions": condition("Approved"), "certificate": "eA=="}));
        assert!(is_over(&issued, at("2026-01-01T01:30:00Z")));
    }
}
