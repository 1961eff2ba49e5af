//! Tokens that a webhook knows: it is asked with a TokenReview.
//!
//! <https://kubernetes.io/docs/reference/access-authn-authz/authentication/#webhook-token-authentication>

use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use clap::{Args, ValueEnum};
use k8s_openapi::api::authentication::v1::TokenReviewStatus;
use serde::Deserialize;
use serde_json::json;

use super::User;
use super::remembered::{Remembered, hash};
use crate::outbound::kubeconfig::Webhook;

/// How long the webhook may take.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Flags of the webhook.
#[derive(Debug, Clone, Args)]
pub struct TokenWebhookArgs {
    /// Kubeconfig of a webhook that is asked about tokens nobody else knows.
    #[arg(long)]
    pub authentication_token_webhook_config_file: Option<PathBuf>,
    /// Version of authentication.k8s.io it speaks.
    #[arg(long, value_enum, default_value_t = Version::V1beta1)]
    pub authentication_token_webhook_version: Version,
    /// How long its answers are kept.
    #[arg(long, default_value = "2m", value_parser = keelson_daemon::duration::parse)]
    pub authentication_token_webhook_cache_ttl: Duration,
}

/// Versions of reviews.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Version {
    /// `v1`
    #[value(name = "v1")]
    V1,
    /// `v1beta1`
    #[value(name = "v1beta1")]
    V1beta1,
}

impl Version {
    /// As it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Version::V1 => "v1",
            Version::V1beta1 => "v1beta1",
        }
    }
}

/// A user and audiences, or why there are none.
pub type Found = Result<(User, Vec<String>), String>;

/// The webhook and what it has said lately.
pub struct TokenWebhook {
    webhook: Webhook,
    version: Version,
    lifetime: Duration,
    remembered: Remembered<Found>,
}

#[derive(Deserialize)]
struct Review {
    #[serde(default)]
    status: TokenReviewStatus,
}

impl TokenWebhook {
    /// Reads the webhook's configuration, if there is to be one.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn load(args: &TokenWebhookArgs) -> anyhow::Result<Option<Self>> {
        let Some(path) = args.authentication_token_webhook_config_file.as_deref() else {
            return Ok(None);
        };
        Ok(Some(Self {
            webhook: Webhook::load(path)?,
            version: args.authentication_token_webhook_version,
            lifetime: args.authentication_token_webhook_cache_ttl,
            remembered: Remembered::default(),
        }))
    }

    /// Whose token it is, and for which of `audiences`. What could not be asked is asked again the next time.
    pub async fn review(&self, token: &str, audiences: &[String]) -> Found {
        let mut question = vec![token];
        question.extend(audiences.iter().map(String::as_str));
        let question = hash(&question);
        if let Some(known) = self.remembered.get(&question) {
            return known;
        }
        let review = json!({
            "kind": "TokenReview",
            "apiVersion": format!("authentication.k8s.io/{}", self.version.as_str()),
            "metadata": {},
            "spec": {"token": token, "audiences": audiences},
        });
        let answer = self
            .webhook
            .post(Bytes::from(review.to_string()), TIMEOUT)
            .await?;
        let found = judge(status_of(&answer)?, audiences);
        self.remembered.keep(question, found.clone(), self.lifetime);
        found
    }
}

/// What a webhook has found out.
///
/// # Errors
/// When its answer is no review.
pub fn status_of(answer: &[u8]) -> Result<TokenReviewStatus, String> {
    let review: Review = serde_json::from_slice(answer).map_err(|error| error.to_string())?;
    Ok(review.status)
}

/// Whose token it is, and for which of `audiences`.
///
/// # Errors
/// Why it is nobody's.
pub fn judge(status: TokenReviewStatus, audiences: &[String]) -> Found {
    if status.authenticated != Some(true) {
        return Err(match status.error {
            Some(error) if !error.is_empty() => error,
            _ => "the webhook does not know the token".into(),
        });
    }
    let common: Vec<String> = match status.audiences {
        // A webhook that knows nothing of audiences speaks of this server's.
        None => audiences.to_vec(),
        Some(named) if named.is_empty() => audiences.to_vec(),
        Some(named) => audiences.iter().filter(|a| named.contains(a)).cloned().collect(),
    };
    if common.is_empty() && !audiences.is_empty() {
        return Err("the token is for other audiences".into());
    }
    let info = status.user.unwrap_or_default();
    let mut user = User::named(info.username.unwrap_or_default(), info.groups.unwrap_or_default());
    user.uid = info.uid.unwrap_or_default();
    user.extra = info.extra.unwrap_or_default();
    Ok((user, common))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_taken_at_their_word() {
        let status = |text: &str| serde_json::from_str::<Review>(text).expect("a review").status;
        let audiences = ["api".to_owned()];
        let known = status(
            r#"{"status":{"authenticated":true,"user":{"username":"jane","uid":"7","groups":["dev"],"extra":{"a":["b"]}}}}"#,
        );
        let (jane, common) = judge(known, &audiences).expect("jane");
        assert_eq!(
            (jane.name.as_str(), jane.uid.as_str(), common),
            ("jane", "7", audiences.to_vec())
        );
        assert_eq!(jane.groups, ["dev", "system:authenticated"]);
        let other =
            status(r#"{"status":{"authenticated":true,"audiences":["vault"],"user":{"username":"j"}}}"#);
        assert!(judge(other, &audiences).is_err());
        let unknown = status(r#"{"status":{"authenticated":false,"error":"no"}}"#);
        assert_eq!(judge(unknown, &audiences), Err("no".into()));
        assert!(judge(status("{}"), &audiences).is_err());
    }
}
