//! Tokens in secrets of type `kubernetes.io/service-account-token`: the controller manager makes them, they name no end,
//! and they are good as long as their secret holds them.
//!
//! <https://kubernetes.io/docs/concepts/configuration/secret/#service-account-token-secrets>

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Secret, ServiceAccount};
use serde::Deserialize;

use super::{Reference, check};
use crate::authentication::User;
use crate::state::Server;

/// What such tokens are from.
pub const ISSUER: &str = "kubernetes/serviceaccount";
/// The day the token was last used.
const LAST_USED: &str = "kubernetes.io/legacy-token-last-used";
/// The day since which the token is no longer good: it had not been used for long.
const INVALID_SINCE: &str = "kubernetes.io/legacy-token-invalid-since";

/// What such a token says beside its subject.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct Claims {
    #[serde(default, rename = "kubernetes.io/serviceaccount/namespace")]
    namespace: String,
    #[serde(default, rename = "kubernetes.io/serviceaccount/secret.name")]
    secret: String,
    #[serde(default, rename = "kubernetes.io/serviceaccount/service-account.name")]
    account: String,
    #[serde(default, rename = "kubernetes.io/serviceaccount/service-account.uid")]
    uid: String,
}

/// Whose token it is, whose signature is good.
///
/// # Errors
/// Why it is nobody's.
pub async fn judge(
    server: &Arc<Server>,
    token: &str,
    subject: &str,
    claims: &Claims,
) -> Result<User, String> {
    if [&claims.namespace, &claims.secret, &claims.account, &claims.uid]
        .iter()
        .any(|part| part.is_empty())
    {
        return Err("the token's claims are incomplete".into());
    }
    let name = format!("system:serviceaccount:{}:{}", claims.namespace, claims.account);
    if subject != name {
        return Err("sub claim does not match the service account".into());
    }
    let secret = secret(server, claims).await?;
    let data = secret.data.as_ref();
    if data
        .and_then(|data| data.get("token"))
        .is_none_or(|kept| kept.0 != token.as_bytes())
    {
        return Err("the token does not match the server's copy".into());
    }
    let label = |key: &str| secret.metadata.labels.as_ref().and_then(|labels| labels.get(key));
    if label(INVALID_SINCE).is_some() {
        return Err("the token has been marked as invalid, since it was not used for long".into());
    }
    let account = Reference {
        name: claims.account.clone(),
        uid: claims.uid.clone(),
    };
    check::<ServiceAccount>(server, &claims.namespace, &account).await?;
    let today = jiff::Timestamp::now().strftime("%Y-%m-%d").to_string();
    if label(LAST_USED) != Some(&today) {
        tokio::spawn(note_use(server.clone(), claims.clone(), today));
    }
    let mut user = User::named(
        name,
        [
            "system:serviceaccounts".to_owned(),
            format!("system:serviceaccounts:{}", claims.namespace),
        ],
    );
    user.uid.clone_from(&claims.uid);
    Ok(user)
}

/// A cache that lags behind must not refuse a fresh token.
async fn secret(server: &Arc<Server>, claims: &Claims) -> Result<Arc<Secret>, String> {
    let (namespace, name) = (claims.namespace.as_str(), claims.secret.as_str());
    let secret = match server.cached::<Secret>(namespace, name) {
        Some(secret)
            if secret
                .data
                .as_ref()
                .is_some_and(|data| data.contains_key("token")) =>
        {
            secret
        }
        _ => Arc::new(
            server
                .fresh::<Secret>(namespace, name)
                .await
                .map_err(|_| "the token has been invalidated".to_owned())?,
        ),
    };
    if secret.metadata.deletion_timestamp.is_some() {
        return Err("the token is deleted and awaiting removal".into());
    }
    Ok(secret)
}

async fn note_use(server: Arc<Server>, claims: Claims, today: String) {
    let place = (claims.namespace.as_str(), claims.secret.as_str(), "");
    let noted = server
        .update::<Secret>(&User::loopback(), place, |secret| {
            let labels = secret.metadata.labels.get_or_insert_default();
            labels.insert(LAST_USED.to_owned(), today.clone());
            Ok(())
        })
        .await;
    if let Err(error) = noted {
        tracing::warn!(secret = claims.secret, %error, "the use of a token cannot be noted");
    }
}
