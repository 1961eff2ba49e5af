//! Who is calling: proxies' users, client certificates, tokens of several sorts, or nobody in particular.
//!
//! | module | who is known by it |
//! | --- | --- |
//! | [`request_header`] | users a proxy vouches for |
//! | [`token_file`] | users of a file of tokens |
//! | [`service_account`] | service accounts |
//! | [`bootstrap_token`] | machines that join |
//! | [`oidc`] | users of OpenID Connect issuers |
//! | [`webhook`] | users a webhook knows |
//! | [`impersonation`] | whom they act as |
//!
//! A caller that shows nothing is `system:anonymous`; one that shows something wrong is refused with 401.

pub mod bootstrap_token;
pub mod impersonation;
pub mod oidc;
pub mod remembered;
pub mod request_header;
pub mod service_account;
pub mod token_file;
pub mod webhook;

use std::collections::BTreeMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use http::HeaderMap;
use http::header::AUTHORIZATION;
use keelson_api::field::aggregate;
use keelson_api::status::{ApiError, ApiResult};
use keelson_daemon::tls::Peer;

use oidc::Issuer;
use oidc::config::{AuthenticationConfiguration, JwtAuthenticator};
use oidc::keys::Algorithm;
use service_account::ServiceAccountTokens;
use token_file::TokenFile;
use webhook::TokenWebhook;

use crate::aggregator::flags::AggregatorArgs;
use crate::config::Config;
use crate::http::Connection;
use crate::reload;
use crate::state::Server;

/// Among a user's extras: what the credential itself is known by.
pub const CREDENTIAL_ID: &str = "authentication.kubernetes.io/credential-id";
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

/// Who is served without credentials.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Anonymous {
    /// Nobody.
    #[default]
    Nowhere,
    /// Everybody.
    Everywhere,
    /// Everybody who asks for one of these paths.
    At(Vec<String>),
}

impl Anonymous {
    fn allows(&self, path: &str) -> bool {
        match self {
            Anonymous::Nowhere => false,
            Anonymous::Everywhere => true,
            Anonymous::At(paths) => paths.iter().any(|allowed| allowed == path),
        }
    }
}

/// Every way of proving to be somebody that is configured.
pub struct Authenticator {
    anonymous: Anonymous,
    /// `--token-auth-file`.
    tokens: Option<TokenFile>,
    /// `--service-account-key-file`.
    pub service_accounts: Option<ServiceAccountTokens>,
    /// Whether bootstrap tokens count.
    bootstrap: bool,
    issuers: ArcSwap<Vec<Issuer>>,
    webhook: Option<TokenWebhook>,
    proxies: AggregatorArgs,
}

impl Authenticator {
    /// Everything the configuration names.
    ///
    /// # Errors
    /// When a file cannot be read, or what it says makes no sense.
    pub fn load(config: &Config) -> anyhow::Result<Self> {
        let (issuers, algorithms, anonymous) = config.oidc.configured()?;
        let anonymous = match anonymous {
            Some(given) if !given.enabled => Anonymous::Nowhere,
            Some(given) if given.conditions.is_empty() => Anonymous::Everywhere,
            Some(given) => Anonymous::At(given.conditions.into_iter().map(|c| c.path).collect()),
            None if config.anonymous_auth => Anonymous::Everywhere,
            None => Anonymous::Nowhere,
        };
        let issuers = ready(&issuers, &algorithms, config).map_err(anyhow::Error::msg)?;
        Ok(Self {
            anonymous,
            tokens: config
                .token_auth_file
                .as_deref()
                .map(TokenFile::load)
                .transpose()?,
            service_accounts: ServiceAccountTokens::load(config)?,
            bootstrap: config.enable_bootstrap_token_auth,
            issuers: ArcSwap::from_pointee(issuers),
            webhook: TokenWebhook::load(&config.token_webhook)?,
            proxies: config.aggregator.clone(),
        })
    }

    /// Believes other issuers from now on. Who is served without credentials stays as it was at the start.
    ///
    /// # Errors
    /// Everything that is wrong with the `AuthenticationConfiguration`.
    fn replace(&self, text: &str, server: &Config) -> Result<(), String> {
        let config = AuthenticationConfiguration::parse(text).map_err(|error| format!("{error:#}"))?;
        let issuers = ready(&config.jwt, &Algorithm::ALL, server)?;
        self.issuers.store(Arc::new(issuers));
        Ok(())
    }

    /// The caller of a request for `path` that came with these headers.
    pub async fn authenticate(
        &self,
        server: &Arc<Server>,
        connection: &Connection,
        path: &str,
        headers: &HeaderMap,
    ) -> ApiResult<User> {
        if let Some(proxy) = &connection.proxy
            && let Some(user) = request_header::user(&self.proxies, proxy, headers)
        {
            return Ok(user);
        }
        let peer = connection.peer.as_ref();
        if let Peer::Certificate(identity) = peer
            && !identity.common_name.is_empty()
            && identity.not_after >= jiff::Timestamp::now().as_second()
        {
            let mut user = User::named(
                identity.common_name.clone(),
                identity.organizations.iter().cloned(),
            );
            user.extra
                .insert(CREDENTIAL_ID.to_owned(), vec![identity.credential_id.clone()]);
            return Ok(user);
        }
        if let Some(token) = bearer_token(headers) {
            return match self.review(server, token, server.config.audiences()).await {
                Ok((user, _)) => Ok(user),
                Err(reason) => {
                    tracing::debug!(%reason, "token refused");
                    Err(unauthorized())
                }
            };
        }
        match peer {
            Peer::Anonymous if self.anonymous.allows(path) => Ok(User::anonymous()),
            _ => Err(unauthorized()),
        }
    }

    /// Whose token it is, and for which of `audiences` it is meant. Tokens that know nothing of audiences are for this server.
    ///
    /// # Errors
    /// With the reason, when it is nobody's.
    pub async fn review(
        &self,
        server: &Arc<Server>,
        token: &str,
        audiences: &[String],
    ) -> Result<(User, Vec<String>), String> {
        let own = || {
            let own = server.config.audiences();
            let common: Vec<String> = audiences.iter().filter(|a| own.contains(a)).cloned().collect();
            match common.is_empty() {
                true => Err("the token is for other audiences".to_owned()),
                false => Ok(common),
            }
        };
        if let Some(user) = self.tokens.as_ref().and_then(|tokens| tokens.user(token)) {
            return own().map(|common| (user, common));
        }
        let mut reasons = Vec::new();
        if let Some(service_accounts) = &self.service_accounts {
            match service_accounts.review(server, token, audiences).await {
                Ok(found) => return Ok(found),
                Err(reason) => reasons.push(reason),
            }
        }
        if self.bootstrap
            && let Some(found) = bootstrap_token::authenticate(server, token)
        {
            match found {
                Ok(user) => return own().map(|common| (user, common)),
                Err(reason) => reasons.push(reason),
            }
        }
        let issuers = self.issuers.load_full();
        for issuer in issuers.iter() {
            match issuer.authenticate(token).await {
                None => {}
                Some(Ok(user)) => return own().map(|common| (user, common)),
                Some(Err(reason)) => reasons.push(reason),
            }
        }
        if let Some(webhook) = &self.webhook {
            match webhook.review(token, audiences).await {
                Ok(found) => return Ok(found),
                Err(reason) => reasons.push(reason),
            }
        }
        if reasons.is_empty() {
            return Err("invalid bearer token".into());
        }
        Err(aggregate(&reasons))
    }
}

/// Issuers, ready to be asked.
fn ready(
    configured: &[JwtAuthenticator],
    algorithms: &[Algorithm],
    server: &Config,
) -> Result<Vec<Issuer>, String> {
    let own = &server.service_account_issuer;
    let issuers = configured.iter().enumerate();
    issuers
        .map(|(place, issuer)| {
            let url = &issuer.issuer.url;
            if own.contains(url) {
                return Err(format!(
                    "jwt[{place}].issuer.url: Invalid value: {url:?}: URL must not overlap with disallowed issuers: {own:?}"
                ));
            }
            Issuer::new(issuer, algorithms.to_vec())
        })
        .collect()
}

/// Follows the file of `--authentication-config`, if there is one.
pub fn start(server: &Arc<Server>) {
    if let Some(path) = &server.config.oidc.authentication_config {
        let this = server.clone();
        reload::follow_for(
            server,
            ("--authentication-config", "authentication"),
            path,
            move |text| this.authenticator.replace(text, &this.config),
        );
    }
}

/// The token of a request's `Authorization` header (RFC 6750, section 2.1).
pub fn bearer_token(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(AUTHORIZATION)?.to_str().ok()?.trim();
    let (scheme, token) = value.split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
}

fn unauthorized() -> ApiError {
    ApiError::unauthorized("Unauthorized")
}
