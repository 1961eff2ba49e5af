//! ID tokens of OpenID Connect issuers: signatures, claims, and whom they make of a caller.
//!
//! | module | what lives there |
//! | --- | --- |
//! | [`config`] | flags, and `AuthenticationConfiguration` |
//! | [`expressions`] | what is computed from claims in CEL |
//! | [`keys`] | an issuer's keys |
//! | [`claims`] | from claims to a user |
//!
//! <https://kubernetes.io/docs/reference/access-authn-authz/authentication/#openid-connect-tokens>

pub mod claims;
pub mod config;
pub mod expressions;
pub mod keys;

use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as B64;
use bytes::Bytes;
use http::{HeaderMap, Method, Uri};
use keelson_daemon::tls::PemSource;
use serde::Deserialize;
use serde_json::{Map, Value};
use tokio::sync::Mutex;

use super::User;
use super::remembered::{Remembered, hash};
use crate::outbound::HttpClient;
use claims::Mapping;
use config::JwtAuthenticator;
use keys::{Algorithm, Key};

/// How long an issuer may take.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Keys are not asked for more often: tokens with keys nobody knows would otherwise be requests to the issuer.
const AT_MOST: Duration = Duration::from_secs(1);
/// Clocks may differ by this many seconds where a token is not valid yet.
const LEEWAY: i64 = 300;
/// How long a token that was found good is not looked at again.
const REMEMBER: Duration = Duration::from_secs(10);

/// One issuer.
pub struct Issuer {
    url: String,
    discovery: Uri,
    audiences: Vec<String>,
    algorithms: Vec<Algorithm>,
    client: HttpClient,
    mapping: Mapping,
    keys: ArcSwap<Vec<Key>>,
    /// Held while keys are fetched: whoever comes meanwhile gets the same ones.
    fetched: Mutex<Option<Instant>>,
    remembered: Remembered<User>,
}

#[derive(Deserialize)]
struct Header {
    #[serde(default)]
    alg: String,
    #[serde(default)]
    kid: String,
}

#[derive(Deserialize)]
struct Discovered {
    issuer: String,
    jwks_uri: String,
}

#[derive(Deserialize)]
struct KeySet {
    #[serde(default)]
    keys: Vec<Value>,
}

/// A token taken apart, believed in nothing yet.
struct Token<'t> {
    message: &'t str,
    signature: Vec<u8>,
    header: Header,
    claims: Map<String, Value>,
}

impl<'t> Token<'t> {
    fn parse(text: &'t str) -> Option<Self> {
        let (message, signature) = text.rsplit_once('.')?;
        let (header, claims) = message.split_once('.')?;
        Some(Self {
            message,
            signature: B64.decode(signature).ok()?,
            header: serde_json::from_slice(&B64.decode(header).ok()?).ok()?,
            claims: serde_json::from_slice(&B64.decode(claims).ok()?).ok()?,
        })
    }

    fn number(&self, claim: &str) -> Option<i64> {
        let value = self.claims.get(claim)?;
        value
            .as_i64()
            .or_else(|| value.as_f64().map(|number| number as i64))
    }
}

impl Issuer {
    /// An issuer whose configuration has been checked.
    ///
    /// # Errors
    /// When its authorities cannot be used.
    pub fn new(config: &JwtAuthenticator, algorithms: Vec<Algorithm>) -> Result<Self, String> {
        let issuer = &config.issuer;
        let authority = match issuer.certificate_authority.as_str() {
            "" => None,
            pem => Some(PemSource::Inline(pem.as_bytes().to_vec())),
        };
        let discovery = match issuer.discovery_url.as_deref() {
            Some(url) if !url.is_empty() => url.to_owned(),
            _ => format!(
                "{}/.well-known/openid-configuration",
                issuer.url.trim_end_matches('/')
            ),
        };
        Ok(Self {
            url: issuer.url.clone(),
            discovery: discovery
                .parse()
                .map_err(|error| format!("{discovery:?}: {error}"))?,
            audiences: issuer.audiences.clone(),
            algorithms,
            client: HttpClient::new(authority, None)?,
            mapping: Mapping::new(config)?,
            keys: ArcSwap::default(),
            fetched: Mutex::default(),
            remembered: Remembered::default(),
        })
    }

    /// Whose token it is; `None` when another issuer made it.
    pub async fn authenticate(&self, text: &str) -> Option<Result<User, String>> {
        let token = Token::parse(text)?;
        if token.claims.get("iss").and_then(Value::as_str) != Some(&self.url) {
            return None;
        }
        let question = hash(&[text]);
        if let Some(user) = self.remembered.get(&question) {
            return Some(Ok(user));
        }
        Some(match self.verify(&token).await {
            Ok(left) => {
                let user = self.mapping.user(token.claims);
                if let Ok(user) = &user {
                    self.remembered.keep(question, user.clone(), REMEMBER.min(left));
                }
                user
            }
            Err(error) => Err(format!("oidc: verify token: {error}")),
        })
    }

    /// How long the token is good.
    async fn verify(&self, token: &Token<'_>) -> Result<Duration, String> {
        let audiences: Vec<&str> = match token.claims.get("aud") {
            Some(Value::String(one)) => vec![one],
            Some(Value::Array(many)) => many.iter().filter_map(Value::as_str).collect(),
            _ => Vec::new(),
        };
        if !self.audiences.iter().any(|own| audiences.contains(&own.as_str())) {
            return Err(format!(
                "expected audience in {:?} got {audiences:?}",
                self.audiences
            ));
        }
        let now = jiff::Timestamp::now().as_second();
        let left = token.number("exp").map_or(0, |end| end.saturating_sub(now));
        if left <= 0 {
            return Err("token is expired".into());
        }
        if token.number("nbf").is_some_and(|begin| begin > now + LEEWAY) {
            return Err("current time is before the nbf (not before) time".into());
        }
        let algorithm = Algorithm::parse(&token.header.alg).filter(|a| self.algorithms.contains(a));
        let Some(algorithm) = algorithm else {
            return Err(format!(
                "id token signed with unsupported algorithm {:?}",
                token.header.alg
            ));
        };
        let signed = |keys: &[Key]| {
            keys.iter()
                .filter(|key| token.header.kid.is_empty() || key.id.is_empty() || key.id == token.header.kid)
                .any(|key| key.verifies(algorithm, token.message.as_bytes(), &token.signature))
        };
        if !signed(&self.keys.load()) {
            // A key that is not known yet, most likely.
            self.fetch().await?;
            if !signed(&self.keys.load()) {
                return Err("failed to verify signature: failed to verify id token signature".into());
            }
        }
        Ok(Duration::from_secs(left.unsigned_abs()))
    }

    /// Asks the issuer for its keys, unless that was done a moment ago.
    async fn fetch(&self) -> Result<(), String> {
        let mut fetched = self.fetched.lock().await;
        if fetched.is_some_and(|when| when.elapsed() < AT_MOST) {
            return Ok(());
        }
        *fetched = Some(Instant::now());
        let found: Discovered = self.read(&self.discovery).await?;
        if found.issuer != self.url {
            return Err(format!(
                "oidc: issuer did not match the issuer returned by provider, expected {:?} got {:?}",
                self.url, found.issuer
            ));
        }
        let place: Uri = found
            .jwks_uri
            .parse()
            .map_err(|error| format!("jwks_uri {:?}: {error}", found.jwks_uri))?;
        let set: KeySet = self.read(&place).await?;
        // Keys for other purposes and of kinds nobody here knows may be among them.
        let keys: Vec<Key> = set.keys.iter().filter_map(Key::parse).collect();
        tracing::info!(
            issuer = self.url,
            keys = keys.len(),
            "the issuer's keys were fetched"
        );
        self.keys.store(keys.into());
        Ok(())
    }

    async fn read<T: for<'d> Deserialize<'d>>(&self, url: &Uri) -> Result<T, String> {
        if url.scheme_str() != Some("https") {
            return Err(format!("{url}: not https"));
        }
        let asked = self
            .client
            .request(Method::GET, url, HeaderMap::new(), Bytes::new(), TIMEOUT);
        let answer = asked.await?;
        if !answer.status.is_success() {
            return Err(format!("{url}: {}", answer.status));
        }
        serde_json::from_slice(&answer.body).map_err(|error| format!("{url}: {error}"))
    }
}

#[cfg(test)]
mod tests;
