//! Who is calling: client certificates, static tokens, service account tokens, or nobody in particular.
//!
//! A caller that shows nothing is `system:anonymous`; one that shows something wrong is refused with 401.

pub mod impersonation;
pub mod jwt;
pub mod service_account;
pub mod token_file;

use std::collections::BTreeMap;

use http::HeaderMap;
use http::header::AUTHORIZATION;
use keelson_api::status::{ApiError, ApiResult};
use keelson_daemon::tls::Peer;

use service_account::ServiceAccountTokens;
use token_file::TokenFile;

use crate::state::Server;

/// The group of everybody who proved to be somebody.
pub const AUTHENTICATED: &str = "system:authenticated";
/// The group of everybody else.
pub const UNAUTHENTICATED: &str = "system:unauthenticated";
/// The name of everybody who shows nothing.
pub const ANONYMOUS: &str = "system:anonymous";
/// The group that may do everything.
pub const MASTERS: &str = "system:masters";

/// A caller.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct User {
    /// `system:node:n1`, `system:serviceaccount:default:default`, ...
    pub name: String,
    /// Unique over time, where the authenticator knows such a thing.
    pub uid: String,
    /// `system:masters`, `system:authenticated`, ...
    pub groups: Vec<String>,
    /// What else the authenticator knows.
    pub extra: BTreeMap<String, Vec<String>>,
}

impl User {
    /// Somebody known by name.
    pub fn named(name: impl Into<String>, groups: impl IntoIterator<Item = String>) -> Self {
        let mut groups: Vec<String> = groups.into_iter().collect();
        if !groups.iter().any(|g| g == AUTHENTICATED) {
            groups.push(AUTHENTICATED.to_owned());
        }
        Self {
            name: name.into(),
            groups,
            ..Self::default()
        }
    }

    /// Nobody in particular.
    pub fn anonymous() -> Self {
        Self {
            name: ANONYMOUS.into(),
            groups: vec![UNAUTHENTICATED.into()],
            ..Self::default()
        }
    }

    /// The server itself: what its own controllers act as.
    pub fn loopback() -> Self {
        Self::named("system:apiserver", [MASTERS.to_owned()])
    }

    /// Whether the caller is a member of `group`.
    pub fn in_group(&self, group: &str) -> bool {
        self.groups.iter().any(|g| g == group)
    }

    /// The node's name if the caller is a node.
    pub fn node_name(&self) -> Option<&str> {
        let name = self.name.strip_prefix("system:node:")?;
        self.in_group("system:nodes").then_some(name)
    }
}

/// Every way of proving to be somebody that is configured.
pub struct Authenticator {
    /// `--anonymous-auth`.
    pub anonymous: bool,
    /// `--token-auth-file`.
    pub tokens: Option<TokenFile>,
    /// `--service-account-key-file`.
    pub service_accounts: Option<ServiceAccountTokens>,
}

impl Authenticator {
    /// The caller of a request that came with these headers over a connection from `peer`.
    pub async fn authenticate(&self, server: &Server, peer: &Peer, headers: &HeaderMap) -> ApiResult<User> {
        if let Peer::Certificate(identity) = peer
            && !identity.common_name.is_empty()
            && identity.not_after >= jiff::Timestamp::now().as_second()
        {
            return Ok(User::named(
                identity.common_name.clone(),
                identity.organizations.iter().cloned(),
            ));
        }
        if let Some(token) = bearer_token(headers) {
            return self.bearer(server, token).await;
        }
        match peer {
            Peer::Anonymous if self.anonymous => Ok(User::anonymous()),
            _ => Err(unauthorized()),
        }
    }

    /// Whose token it is, and for which of `audiences` it is meant. Tokens that know nothing of audiences are for this server.
    ///
    /// # Errors
    /// With the reason, when it is nobody's.
    pub async fn review(
        &self,
        server: &Server,
        token: &str,
        audiences: &[String],
    ) -> Result<(User, Vec<String>), String> {
        if let Some(user) = self.tokens.as_ref().and_then(|tokens| tokens.user(token)) {
            let own = server.config.audiences();
            let common: Vec<String> = audiences.iter().filter(|a| own.contains(a)).cloned().collect();
            return if common.is_empty() {
                Err("the token is for other audiences".into())
            } else {
                Ok((user, common))
            };
        }
        match &self.service_accounts {
            Some(service_accounts) => service_accounts.review(server, token, audiences).await,
            None => Err("invalid bearer token".into()),
        }
    }

    async fn bearer(&self, server: &Server, token: &str) -> ApiResult<User> {
        if let Some(user) = self.tokens.as_ref().and_then(|tokens| tokens.user(token)) {
            return Ok(user);
        }
        if let Some(service_accounts) = &self.service_accounts {
            match service_accounts.authenticate(server, token).await {
                Ok(user) => return Ok(user),
                Err(reason) => tracing::debug!(%reason, "token refused"),
            }
        }
        Err(unauthorized())
    }
}

fn bearer_token(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(AUTHORIZATION)?.to_str().ok()?.trim();
    let (scheme, token) = value.split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
}

fn unauthorized() -> ApiError {
    ApiError::unauthorized("Unauthorized")
}
