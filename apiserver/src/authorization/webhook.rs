//! A webhook that decides: it is asked with a SubjectAccessReview.
//!
//! <https://kubernetes.io/docs/reference/access-authn-authz/webhook/>

use std::time::Duration;

use bytes::Bytes;
use k8s_openapi::api::authorization::v1::SubjectAccessReviewStatus;
use serde::Deserialize;
use serde_json::{Value, json};

use super::conditions::Conditions;
use super::{Attributes, Opinion, Target, Verdict};
use crate::authentication::User;
use crate::authentication::remembered::{Remembered, hash};
use crate::authentication::webhook::Version;
use crate::outbound::kubeconfig::Webhook;

/// How often the webhook is asked before it counts as gone, and the first wait in between.
const ATTEMPTS: u32 = 3;
const WAIT: Duration = Duration::from_millis(100);

/// What a webhook that cannot be asked means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailurePolicy {
    /// Others decide.
    NoOpinion,
    /// The request is refused.
    Deny,
}

/// The webhook and what it has decided lately.
pub struct WebhookAuthorizer {
    webhook: Webhook,
    version: Version,
    timeout: Duration,
    authorized: Duration,
    unauthorized: Duration,
    failure: FailurePolicy,
    conditions: Conditions,
    remembered: Remembered<(Opinion, String)>,
}

#[derive(Deserialize)]
struct Review {
    #[serde(default)]
    status: SubjectAccessReviewStatus,
}

impl WebhookAuthorizer {
    /// A webhook whose permissions and refusals are kept for these times.
    pub fn new(
        webhook: Webhook,
        version: Version,
        timeout: Duration,
        authorized: Duration,
        unauthorized: Duration,
        failure: FailurePolicy,
        conditions: Conditions,
    ) -> Self {
        Self {
            webhook,
            version,
            timeout,
            authorized,
            unauthorized,
            failure,
            conditions,
            remembered: Remembered::default(),
        }
    }

    /// What it decides about a request.
    pub async fn decide(&self, user: &User, attributes: &Attributes<'_>) -> Verdict {
        let spec = spec(user, attributes);
        if !self.conditions.is_empty() {
            match self.conditions.hold(&spec) {
                Ok(true) => {}
                Ok(false) => return Verdict::no_opinion(""),
                Err(error) => return self.failed(&error),
            }
        }
        let text = spec.to_string();
        let question = hash(&[&text]);
        let (opinion, reason) = match self.remembered.get(&question) {
            Some(known) => known,
            None => match self.ask(&spec).await {
                Ok(answer) => {
                    let kept = match answer.0 {
                        Opinion::Allow => self.authorized,
                        Opinion::Deny | Opinion::None => self.unauthorized,
                    };
                    self.remembered.keep(question, answer.clone(), kept);
                    answer
                }
                Err(error) => return self.failed(&error),
            },
        };
        Verdict::new(opinion, reason)
    }

    fn failed(&self, error: &str) -> Verdict {
        tracing::warn!(error, "the authorization webhook could not be asked");
        let opinion = match self.failure {
            FailurePolicy::NoOpinion => Opinion::None,
            FailurePolicy::Deny => Opinion::Deny,
        };
        Verdict::new(opinion, "")
    }

    async fn ask(&self, spec: &Value) -> Result<(Opinion, String), String> {
        let mut spec = spec.clone();
        if self.version == Version::V1beta1
            && let Some(spec) = spec.as_object_mut()
            && let Some(groups) = spec.remove("groups")
        {
            // The field had another name then.
            spec.insert("group".into(), groups);
        }
        let review = json!({
            "kind": "SubjectAccessReview",
            "apiVersion": format!("authorization.k8s.io/{}", self.version.as_str()),
            "metadata": {},
            "spec": spec,
        });
        let body = Bytes::from(review.to_string());
        let mut wait = WAIT;
        let mut attempt = 1;
        let answer = loop {
            match self.webhook.post(body.clone(), self.timeout).await {
                Ok(answer) => break answer,
                Err(error) if attempt == ATTEMPTS => return Err(error),
                Err(_) => {
                    tokio::time::sleep(wait).await;
                    wait *= 2;
                    attempt += 1;
                }
            }
        };
        opinion_of(&answer)
    }
}

/// What a webhook thinks, and why.
///
/// # Errors
/// When its answer is no review, or contradicts itself.
pub fn opinion_of(answer: &[u8]) -> Result<(Opinion, String), String> {
    let review: Review = serde_json::from_slice(answer).map_err(|error| error.to_string())?;
    judge(review.status)
}

fn judge(status: SubjectAccessReviewStatus) -> Result<(Opinion, String), String> {
    let opinion = match (status.allowed, status.denied == Some(true)) {
        (true, true) => {
            return Err("webhook subject access review returned both allow and deny response".into());
        }
        (false, true) => Opinion::Deny,
        (true, false) => Opinion::Allow,
        (false, false) => Opinion::None,
    };
    Ok((opinion, status.reason.unwrap_or_default()))
}

/// The spec of the review; what is empty is left out.
fn spec(user: &User, attributes: &Attributes<'_>) -> Value {
    let mut spec = json!({"user": user.name, "groups": user.groups});
    if !user.uid.is_empty() {
        spec["uid"] = json!(user.uid);
    }
    if !user.extra.is_empty() {
        spec["extra"] = json!(user.extra);
    }
    match attributes.target {
        Target::Path(path) => spec["nonResourceAttributes"] = json!({"path": path, "verb": attributes.verb}),
        Target::Resource {
            group,
            version,
            resource,
            subresource,
            namespace,
            name,
        } => {
            let mut of = json!({"verb": attributes.verb});
            for (key, value) in [
                ("group", group),
                ("version", version),
                ("resource", resource),
                ("subresource", subresource),
                ("namespace", namespace),
                ("name", name),
            ] {
                if !value.is_empty() {
                    of[key] = json!(value);
                }
            }
            for (key, selector) in [
                ("fieldSelector", attributes.selectors.field),
                ("labelSelector", attributes.selectors.label),
            ] {
                if !selector.is_empty() {
                    of[key] = json!({"rawSelector": selector});
                }
            }
            spec["resourceAttributes"] = of;
        }
    }
    spec
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::authorization::attributes::Resource;

    #[test]
    fn reviews_say_who_wants_what() {
        let user = User::named("jane", ["dev".to_owned()]);
        let pods = Resource {
            version: "v1",
            resource: "pods",
            namespace: "a",
            ..Resource::default()
        };
        assert_eq!(
            spec(&user, &Attributes::resource("list", pods)),
            json!({
                "user": "jane", "groups": ["dev", "system:authenticated"],
                "resourceAttributes": {"verb": "list", "version": "v1", "resource": "pods", "namespace": "a"},
            })
        );
        assert_eq!(
            spec(&user, &Attributes::path("get", "/metrics"))["nonResourceAttributes"],
            json!({"path": "/metrics", "verb": "get"})
        );
    }

    #[test]
    fn answers_are_permissions_refusals_or_nothing() {
        let status = |text: &str| judge(serde_json::from_str::<Review>(text).expect("a review").status);
        assert_eq!(
            status(r#"{"status":{"allowed":true,"reason":"r"}}"#),
            Ok((Opinion::Allow, "r".into()))
        );
        assert_eq!(
            status(r#"{"status":{"allowed":false,"denied":true}}"#),
            Ok((Opinion::Deny, String::new()))
        );
        assert_eq!(
            status(r#"{"status":{"allowed":false}}"#),
            Ok((Opinion::None, String::new()))
        );
        assert!(status(r#"{"status":{"allowed":true,"denied":true}}"#).is_err());
    }
}
