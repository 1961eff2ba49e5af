//! Who signs tokens: an issuer, its keys, and what it takes for a token to be one of its own.

use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use base64::Engine as _;
use bytes::Bytes;
use http::{HeaderMap, Method, Uri};
use serde::Deserialize;
use serde_json::{Map, Value};
use tokio::sync::Mutex;

use super::B64;
use super::keys::{self, Algorithm, Key};
use crate::outbound::HttpClient;

/// How long an issuer may take.
pub(super) const TIMEOUT: Duration = Duration::from_secs(10);
/// Keys are not asked for more often: tokens with keys nobody knows would otherwise be requests to the issuer.
const AT_MOST: Duration = Duration::from_secs(1);
/// Clocks may differ by this many seconds where a token is not valid yet.
const LEEWAY: i64 = 300;

#[derive(Deserialize)]
struct Header {
    #[serde(default)]
    alg: String,
    #[serde(default)]
    kid: String,
}

/// What an issuer says of itself (OpenID Connect Discovery, section 4.2).
#[derive(Debug, Deserialize)]
pub struct Discovered {
    /// Its own name.
    pub issuer: String,
    /// Where its keys are.
    pub jwks_uri: String,
}

/// A token taken apart, believed in nothing yet.
pub struct Token<'t> {
    message: &'t str,
    signature: Vec<u8>,
    header: Header,
    /// What it says.
    pub claims: Map<String, Value>,
}

impl<'t> Token<'t> {
    /// Takes a token apart; `None` when it is none.
    pub fn parse(text: &'t str) -> Option<Self> {
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

    /// Who it says made it.
    pub fn issuer(&self) -> Option<&str> {
        self.claims.get("iss")?.as_str()
    }
}

/// An issuer's name, whom its tokens have to be for, and its keys.
pub(super) struct Signer {
    pub(super) url: String,
    discovery: Uri,
    audiences: Vec<String>,
    algorithms: Vec<Algorithm>,
    client: Arc<HttpClient>,
    keys: ArcSwap<Vec<Key>>,
    /// Held while keys are fetched: whoever comes meanwhile gets the same ones.
    fetched: Mutex<Option<Instant>>,
}

impl Signer {
    /// The issuer with this URL, which describes itself below it unless said otherwise.
    ///
    /// # Errors
    /// When that is no URL.
    pub(super) fn new(
        url: &str,
        discovery: Option<&str>,
        audiences: Vec<String>,
        algorithms: Vec<Algorithm>,
        client: Arc<HttpClient>,
    ) -> Result<Self, String> {
        let discovery = match discovery {
            Some(url) if !url.is_empty() => url.to_owned(),
            _ => format!("{}/.well-known/openid-configuration", url.trim_end_matches('/')),
        };
        Ok(Self {
            url: url.to_owned(),
            discovery: discovery
                .parse()
                .map_err(|error| format!("{discovery:?}: {error}"))?,
            audiences,
            algorithms,
            client,
            keys: ArcSwap::default(),
            fetched: Mutex::default(),
        })
    }

    /// Another issuer, asked in the same way and with tokens for the same audiences.
    ///
    /// # Errors
    /// When that is no URL.
    pub(super) fn beside(&self, url: &str) -> Result<Self, String> {
        let (audiences, algorithms) = (self.audiences.clone(), self.algorithms.clone());
        Self::new(url, None, audiences, algorithms, self.client.clone())
    }

    /// How long the token is good.
    pub(super) async fn verify(&self, token: &Token<'_>) -> Result<Duration, String> {
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
        let document = self.get(&self.discovery, HeaderMap::new()).await?;
        let found: Discovered =
            serde_json::from_slice(&document).map_err(|error| format!("{}: {error}", self.discovery))?;
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
        let document = self.get(&place, HeaderMap::new()).await?;
        let keys = keys::of_set(&document).map_err(|error| format!("{place}: {error}"))?;
        tracing::info!(
            issuer = self.url,
            keys = keys.len(),
            "the issuer's keys were fetched"
        );
        self.keys.store(keys.into());
        Ok(())
    }

    /// What is at a URL.
    ///
    /// # Errors
    /// When it is not to be had.
    pub(super) async fn get(&self, url: &Uri, headers: HeaderMap) -> Result<Bytes, String> {
        if url.scheme_str() != Some("https") {
            return Err(format!("{url}: not https"));
        }
        let asked = self
            .client
            .request(Method::GET, url, headers, Bytes::new(), TIMEOUT);
        let answer = asked.await?;
        if !answer.status.is_success() {
            return Err(format!("{url}: {}", answer.status));
        }
        Ok(answer.body)
    }
}
