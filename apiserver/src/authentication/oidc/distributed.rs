//! Distributed claims: a token that does not say the groups, but where they are to be asked for.
//!
//! The answer is a token, too, which its own issuer has signed. Only the claim that says the groups is asked for.
//!
//! <https://openid.net/specs/openid-connect-core-1_0.html#AggregatedDistributedClaims>

use std::collections::HashMap;
use std::sync::Arc;

use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderValue, Uri};
use parking_lot::Mutex;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::signer::{Signer, Token};

/// Other issuers whose keys are kept at most.
const MOST: usize = 64;

/// Where a claim is to be had.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Source {
    endpoint: String,
    access_token: String,
}

/// A claim that may be elsewhere, and who was seen to say it.
pub(super) struct Distributed {
    claim: String,
    signers: Mutex<HashMap<String, Arc<Signer>>>,
}

/// Where these claims say that `claim` is to be had, if they do not have it themselves.
fn source(claims: &Map<String, Value>, claim: &str) -> Result<Option<Source>, String> {
    if claims.contains_key(claim) {
        return Ok(None);
    }
    let Some(names) = claims.get("_claim_names") else {
        return Ok(None);
    };
    let names: HashMap<String, String> = serde_json::from_value(names.clone())
        .map_err(|error| format!("oidc: error parsing distributed claim names: {error}"))?;
    let sources = claims.get("_claim_sources").ok_or("oidc: no claim sources")?;
    let mut sources: HashMap<String, Source> = serde_json::from_value(sources.clone())
        .map_err(|error| format!("oidc: could not parse claim sources: {error}"))?;
    let Some(name) = names.get(claim) else {
        return Ok(None);
    };
    let source = sources.remove(name).ok_or_else(|| {
        format!("id token _claim_names contained a source {name} missing in _claims_sources")
    })?;
    // Without an endpoint it is an aggregated claim, which nobody asks for.
    Ok((!source.endpoint.is_empty()).then_some(source))
}

impl Distributed {
    pub(super) fn new(claim: &str) -> Self {
        Self {
            claim: claim.to_owned(),
            signers: Mutex::default(),
        }
    }

    /// Adds the claim to those of a token that was found good, if they say where it is.
    ///
    /// # Errors
    /// When it is not to be had there, or nobody vouches for it.
    pub(super) async fn expand(&self, own: &Signer, claims: &mut Map<String, Value>) -> Result<(), String> {
        let claim = &self.claim;
        let Some(source) = source(claims, claim)? else {
            return Ok(());
        };
        let endpoint = &source.endpoint;
        let text = ask(own, &source)
            .await
            .map_err(|error| format!("while getting distributed claim {claim:?}: {error}"))?;
        let mut token = Token::parse(text.trim()).ok_or_else(|| {
            format!(
                "getting untrusted issuer from endpoint {endpoint} failed for claim {claim:?}: malformed JWT"
            )
        })?;
        let issuer = token.issuer().unwrap_or_default();
        let verified = if issuer == own.url {
            own.verify(&token).await
        } else {
            let signer = self
                .signer(own, issuer)
                .map_err(|error| format!("verifying untrusted issuer {issuer} failed: {error}"))?;
            signer.verify(&token).await
        };
        verified.map_err(|error| format!("verify distributed claim token: {error}"))?;
        let value = token.claims.remove(claim).ok_or_else(|| {
            format!("jwt returned by distributed claim endpoint {endpoint:?} did not contain claim: {claim}")
        })?;
        claims.insert(claim.clone(), value);
        Ok(())
    }

    fn signer(&self, own: &Signer, url: &str) -> Result<Arc<Signer>, String> {
        let mut signers = self.signers.lock();
        if let Some(known) = signers.get(url) {
            return Ok(known.clone());
        }
        let signer = Arc::new(own.beside(url)?);
        if signers.len() >= MOST {
            signers.clear();
        }
        signers.insert(url.to_owned(), signer.clone());
        Ok(signer)
    }
}

async fn ask(own: &Signer, source: &Source) -> Result<String, String> {
    let url: Uri = source
        .endpoint
        .parse()
        .map_err(|error| format!("while calling {}: {error}", source.endpoint))?;
    let mut headers = HeaderMap::new();
    if !source.access_token.is_empty() {
        let mut value = HeaderValue::from_str(&format!("Bearer {}", source.access_token))
            .map_err(|error| format!("while calling {}: {error}", source.endpoint))?;
        value.set_sensitive(true);
        headers.insert(AUTHORIZATION, value);
    }
    let body = own.get(&url, headers).await?;
    String::from_utf8(body.to_vec()).map_err(|_| "could not decode distributed claim response".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn endpoint(claims: Value) -> Result<Option<String>, String> {
        let claims = claims.as_object().cloned().unwrap_or_default();
        source(&claims, "groups").map(|source| source.map(|source| source.endpoint))
    }

    #[test]
    fn a_claim_is_asked_for_where_the_token_says() {
        let sources = json!({"s": {"endpoint": "https://a", "access_token": "x"}, "inside": {"JWT": "y"}});
        let named = |claim: &str, source: &str| {
            endpoint(json!({"_claim_names": {claim: source}, "_claim_sources": sources}))
        };
        assert_eq!(named("groups", "s"), Ok(Some("https://a".into())));
        assert_eq!(named("groups", "inside"), Ok(None));
        assert_eq!(named("others", "s"), Ok(None));
        assert_eq!(
            named("groups", "t"),
            Err("id token _claim_names contained a source t missing in _claims_sources".into())
        );
        assert_eq!(endpoint(json!({})), Ok(None));
        assert_eq!(
            endpoint(json!({"groups": [], "_claim_names": {"groups": "s"}})),
            Ok(None)
        );
        assert_eq!(
            endpoint(json!({"_claim_names": {"groups": "s"}})),
            Err("oidc: no claim sources".into())
        );
        assert!(endpoint(json!({"_claim_names": 1})).is_err());
        assert!(endpoint(json!({"_claim_names": {}, "_claim_sources": []})).is_err());
    }
}
