//! Service account tokens: issued by the TokenRequest API, verified on every request.
//!
//! Tokens that are kept in secrets are in [`legacy`].

pub mod legacy;

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use k8s_openapi::api::core::v1::{Node, Pod, Secret, ServiceAccount};
use keelson_api::object::Kind;
use keelson_api::status::{ApiError, ApiResult};
use keelson_daemon::jwt::{PublicKey, SigningKey, verify};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::{CREDENTIAL_ID, User};
use crate::config::Config;
use crate::state::Server;

/// Tokens whose signature has been checked lately are not checked again for this long.
const REMEMBER: Duration = Duration::from_secs(10);
/// Tokens remembered at most.
const REMEMBERED: usize = 4096;
/// Clocks may differ by this many seconds.
const LEEWAY: i64 = 10;

/// An object a token is bound to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reference {
    /// Its name.
    pub name: String,
    /// Its uid, so that a successor of the same name does not inherit the token.
    #[serde(default)]
    pub uid: String,
}

/// The private claims of a token.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct KubernetesClaims {
    /// Namespace of the service account and of what the token is bound to.
    pub namespace: String,
    /// The account.
    pub serviceaccount: Option<Reference>,
    /// The pod the token is bound to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pod: Option<Reference>,
    /// The secret the token is bound to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret: Option<Reference>,
    /// The node of the pod, or the node the token is bound to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node: Option<Reference>,
    /// When a client should have asked for a new one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub warnafter: Option<i64>,
}

/// What a token says.
#[derive(Debug, Clone, Deserialize)]
struct Claims {
    #[serde(default)]
    iss: String,
    #[serde(default)]
    sub: String,
    #[serde(default)]
    aud: Value,
    exp: Option<i64>,
    nbf: Option<i64>,
    #[serde(default)]
    jti: String,
    #[serde(rename = "kubernetes.io")]
    kubernetes: Option<KubernetesClaims>,
    #[serde(flatten)]
    legacy: legacy::Claims,
}

impl Claims {
    fn audiences(&self) -> Vec<&str> {
        match &self.aud {
            Value::String(one) => vec![one],
            Value::Array(many) => many.iter().filter_map(Value::as_str).collect(),
            _ => Vec::new(),
        }
    }
}

/// A new token.
pub struct Issued {
    /// The token.
    pub token: String,
    /// When it ends, in seconds since 1970.
    pub expires: i64,
}

/// Issues and verifies tokens.
pub struct ServiceAccountTokens {
    signer: Option<SigningKey>,
    keys: Vec<PublicKey>,
    issuers: Vec<String>,
    audiences: Vec<String>,
    verified: Mutex<HashMap<[u8; 32], (Claims, Instant)>>,
}

impl ServiceAccountTokens {
    /// Reads the keys the configuration names; `None` when it names none.
    pub fn load(config: &Config) -> anyhow::Result<Option<Self>> {
        let signer = match &config.service_account_signing_key_file {
            Some(path) => Some(SigningKey::load(path).context("--service-account-signing-key-file")?),
            None => None,
        };
        let mut keys = Vec::new();
        for path in &config.service_account_key_file {
            keys.extend(PublicKey::load(path).context("--service-account-key-file")?);
        }
        if let (Some(path), Some(signer)) = (&config.service_account_signing_key_file, &signer)
            && !keys.iter().any(|key| key.id() == signer.public.id())
        {
            keys.extend(PublicKey::load(path).context("--service-account-signing-key-file")?);
        }
        if keys.is_empty() {
            return Ok(None);
        }
        Ok(Some(Self {
            signer,
            keys,
            issuers: config.service_account_issuer.clone(),
            audiences: config.audiences().to_vec(),
            verified: Mutex::default(),
        }))
    }

    /// The public keys as a JSON Web Key Set.
    pub fn jwks(&self) -> Value {
        json!({"keys": self.keys.iter().map(PublicKey::jwk).collect::<Vec<_>>()})
    }

    /// The algorithms that tokens are signed with.
    pub fn algorithms(&self) -> BTreeSet<String> {
        let keys = self.keys.iter().map(PublicKey::jwk);
        keys.filter_map(|key| key["alg"].as_str().map(str::to_owned))
            .collect()
    }

    /// A token for a service account that ends after `lifetime` seconds, for these audiences (none: the server's own).
    pub fn issue(&self, claims: &KubernetesClaims, audiences: &[String], lifetime: i64) -> ApiResult<Issued> {
        let signer = self
            .signer
            .as_ref()
            .ok_or_else(|| ApiError::internal("no key to sign service account tokens with"))?;
        let account = claims
            .serviceaccount
            .as_ref()
            .map_or("", |account| account.name.as_str());
        let now = jiff::Timestamp::now().as_second();
        let audiences = if audiences.is_empty() {
            &self.audiences
        } else {
            audiences
        };
        let body = json!({
            "iss": self.issuers.first(),
            "sub": format!("system:serviceaccount:{}:{account}", claims.namespace),
            "aud": audiences,
            "exp": now + lifetime,
            "iat": now,
            "nbf": now,
            "jti": uuid::Uuid::new_v4().to_string(),
            "kubernetes.io": claims,
        });
        let token = signer.sign(&body).map_err(ApiError::internal)?;
        Ok(Issued {
            token,
            expires: now + lifetime,
        })
    }

    /// Whose token it is, and for which of `audiences`.
    pub async fn review(
        &self,
        server: &Arc<Server>,
        token: &str,
        audiences: &[String],
    ) -> Result<(User, Vec<String>), String> {
        let claims = self.claims(token)?;
        if claims.iss == legacy::ISSUER {
            let common: Vec<String> = audiences
                .iter()
                .filter(|audience| self.audiences.contains(audience))
                .cloned()
                .collect();
            if common.is_empty() {
                return Err(format!("the token is for {:?}", self.audiences));
            }
            let user = legacy::judge(server, token, &claims.sub, &claims.legacy).await?;
            return Ok((user, common));
        }
        let now = jiff::Timestamp::now().as_second();
        if !self.issuers.contains(&claims.iss) {
            return Err(format!("unknown issuer {:?}", claims.iss));
        }
        if claims.exp.is_some_and(|exp| exp.saturating_add(LEEWAY) < now) {
            return Err("the token has expired".into());
        }
        if claims.nbf.is_some_and(|nbf| nbf.saturating_sub(LEEWAY) > now) {
            return Err("the token is not valid yet".into());
        }
        let common: Vec<String> = claims
            .audiences()
            .into_iter()
            .map(str::to_owned)
            .filter(|a| audiences.contains(a))
            .collect();
        if common.is_empty() {
            return Err(format!("the token is for {:?}", claims.audiences()));
        }
        let bound = claims
            .kubernetes
            .as_ref()
            .ok_or("not a service account's token")?;
        let account = bound
            .serviceaccount
            .as_ref()
            .ok_or("not a service account's token")?;
        if claims.sub != format!("system:serviceaccount:{}:{}", bound.namespace, account.name) {
            return Err("the token's subject is not its service account".into());
        }
        check::<ServiceAccount>(server, &bound.namespace, account).await?;
        let mut user = User::named(
            claims.sub.clone(),
            [
                "system:serviceaccounts".to_owned(),
                format!("system:serviceaccounts:{}", bound.namespace),
            ],
        );
        user.uid.clone_from(&account.uid);
        let mut extra = |key: &str, value: &str| {
            user.extra.insert(key.to_owned(), vec![value.to_owned()]);
        };
        if !claims.jti.is_empty() {
            extra(CREDENTIAL_ID, &format!("JTI={}", claims.jti));
        }
        if let Some(pod) = &bound.pod {
            check::<Pod>(server, &bound.namespace, pod).await?;
            extra("authentication.kubernetes.io/pod-name", &pod.name);
            extra("authentication.kubernetes.io/pod-uid", &pod.uid);
        }
        if let Some(secret) = &bound.secret {
            check::<Secret>(server, &bound.namespace, secret).await?;
        }
        if let Some(node) = &bound.node {
            if bound.pod.is_none() {
                check::<Node>(server, "", node).await?;
            }
            extra("authentication.kubernetes.io/node-name", &node.name);
            extra("authentication.kubernetes.io/node-uid", &node.uid);
        }
        Ok((user, common))
    }

    fn claims(&self, token: &str) -> Result<Claims, String> {
        let hash: [u8; 32] = Sha256::digest(token).into();
        if let Some((claims, since)) = self.verified.lock().get(&hash)
            && since.elapsed() < REMEMBER
        {
            return Ok(claims.clone());
        }
        let claims: Claims = verify(token, &self.keys)?;
        let mut verified = self.verified.lock();
        if verified.len() >= REMEMBERED {
            verified.clear();
        }
        verified.insert(hash, (claims.clone(), Instant::now()));
        Ok(claims)
    }
}

/// What a token is bound to must still be there. A cache that lags behind must not refuse a fresh token, so a miss is
/// looked at again once the cache has caught up.
async fn check<K: Kind>(server: &Server, namespace: &str, reference: &Reference) -> Result<(), String> {
    let same = |object: &K| {
        (reference.uid.is_empty() || object.uid() == reference.uid)
            && object.meta().deletion_timestamp.is_none()
            || object.uid() == reference.uid && K::KIND == "Pod"
    };
    if server
        .cached::<K>(namespace, &reference.name)
        .is_some_and(|object| same(&object))
    {
        return Ok(());
    }
    match server.fresh::<K>(namespace, &reference.name).await {
        Ok(object) if same(&object) => Ok(()),
        Ok(_) => Err(format!("{} {} is another one now", K::KIND, reference.name)),
        Err(error) => Err(error.to_string()),
    }
}
