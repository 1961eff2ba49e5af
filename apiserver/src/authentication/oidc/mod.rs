//! ID tokens of OpenID Connect issuers: signatures, claims, and whom they make of a caller.
//!
//! | module | what lives there |
//! | --- | --- |
//! | [`config`] | flags, and `AuthenticationConfiguration` |
//! | [`expressions`] | what is computed from claims in CEL |
//! | [`keys`] | an issuer's keys |
//! | [`signer`] | an issuer, and whether a token is one of its own |
//! | `distributed` | groups that a token does not say but says where to ask for |
//! | [`claims`] | from claims to a user |
//!
//! <https://kubernetes.io/docs/reference/access-authn-authz/authentication/#openid-connect-tokens>

pub mod claims;
pub mod config;
mod distributed;
pub mod expressions;
pub mod keys;
pub mod signer;

use std::sync::Arc;
use std::time::Duration;

use base64::engine::general_purpose::URL_SAFE_NO_PAD as B64;
use keelson_daemon::tls::PemSource;

use super::User;
use super::remembered::{Remembered, hash};
use crate::outbound::HttpClient;
use claims::Mapping;
use config::JwtAuthenticator;
use distributed::Distributed;
use keys::Algorithm;
use signer::{Signer, Token};

/// How long a token that was found good is not looked at again.
const REMEMBER: Duration = Duration::from_secs(10);

/// One issuer.
pub struct Issuer {
    signer: Signer,
    mapping: Mapping,
    /// Where groups come from that are not in the token, if a claim is what says them.
    distributed: Option<Distributed>,
    remembered: Remembered<User>,
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
        let groups = &config.claim_mappings.groups.claim;
        Ok(Self {
            signer: Signer::new(
                &issuer.url,
                issuer.discovery_url.as_deref(),
                issuer.audiences.clone(),
                algorithms,
                Arc::new(HttpClient::new(authority, None)?),
            )?,
            mapping: Mapping::new(config)?,
            distributed: (!groups.is_empty()).then(|| Distributed::new(groups)),
            remembered: Remembered::default(),
        })
    }

    /// Whose token it is; `None` when another issuer made it.
    pub async fn authenticate(&self, text: &str) -> Option<Result<User, String>> {
        let token = Token::parse(text)?;
        if token.issuer() != Some(&self.signer.url) {
            return None;
        }
        let question = hash(&[text]);
        if let Some(user) = self.remembered.get(&question) {
            return Some(Ok(user));
        }
        let found = self.user(token).await;
        if let Ok((user, left)) = &found {
            self.remembered.keep(question, user.clone(), REMEMBER.min(*left));
        }
        Some(found.map(|(user, _)| user))
    }

    /// Whom a token makes, and for how long.
    async fn user(&self, mut token: Token<'_>) -> Result<(User, Duration), String> {
        let left = self.signer.verify(&token).await;
        let left = left.map_err(|error| format!("oidc: verify token: {error}"))?;
        if let Some(distributed) = &self.distributed {
            let expanded = distributed.expand(&self.signer, &mut token.claims).await;
            expanded.map_err(|error| format!("oidc: could not expand distributed claims: {error}"))?;
        }
        Ok((self.mapping.user(token.claims)?, left))
    }
}

#[cfg(test)]
mod tests;
