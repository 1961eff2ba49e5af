//! Webhooks that a file in kubeconfig form describes: the cluster is the webhook, the user is this server.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use http::header::AUTHORIZATION;
use http::{HeaderValue, Method, Uri};
use keelson_daemon::kubeconfig::{CurrentContext, TokenSource};

use super::{HttpClient, json_headers};

/// A webhook, and who we are to it.
pub struct Webhook {
    client: HttpClient,
    url: Uri,
    credentials: Credentials,
}

enum Credentials {
    None,
    Header(HeaderValue),
    /// Read again for each call.
    TokenFile(PathBuf),
}

impl Webhook {
    /// Reads the file. Relative paths in it are relative to it.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn load(path: &Path) -> anyhow::Result<Self> {
        Self::read(path).with_context(|| format!("webhook configuration {}", path.display()))
    }

    fn read(path: &Path) -> anyhow::Result<Self> {
        let context = CurrentContext::read(path)?;
        let url: Uri = context
            .server
            .parse()
            .with_context(|| format!("server {:?}", context.server))?;
        if url.host().is_none() || !matches!(url.scheme_str(), Some("http" | "https")) {
            bail!("server {:?} is no URL", context.server);
        }
        let client = if context.insecure {
            HttpClient::trusting_anybody(context.identity)
        } else if url.scheme_str() == Some("http") && context.ca.is_none() {
            // Nothing is verified where nothing is encrypted.
            HttpClient::trusting_anybody(None)
        } else {
            HttpClient::new(context.ca, context.identity)
        };
        let credentials = match (context.token, context.basic) {
            (Some(TokenSource::File(file)), _) => Credentials::TokenFile(file),
            (Some(TokenSource::Token(token)), _) => Credentials::Header(secret(&format!("Bearer {token}"))?),
            (None, Some((name, password))) => {
                let basic = BASE64.encode(format!("{name}:{password}"));
                Credentials::Header(secret(&format!("Basic {basic}"))?)
            }
            (None, None) => Credentials::None,
        };
        Ok(Self {
            client: client
                .map_err(anyhow::Error::msg)?
                .expecting(context.tls_server_name),
            url,
            credentials,
        })
    }

    /// Posts JSON and brings back the answer's body.
    ///
    /// # Errors
    /// What went wrong, or that the answer was no success.
    pub async fn post(&self, body: Bytes, timeout: Duration) -> Result<Bytes, String> {
        let mut headers = json_headers();
        let credentials = match &self.credentials {
            Credentials::None => None,
            Credentials::Header(value) => Some(value.clone()),
            Credentials::TokenFile(path) => {
                let token = tokio::fs::read_to_string(path)
                    .await
                    .map_err(|error| format!("{}: {error}", path.display()))?;
                let value = secret(&format!("Bearer {}", token.trim())).map_err(|error| error.to_string())?;
                Some(value)
            }
        };
        if let Some(credentials) = credentials {
            headers.insert(AUTHORIZATION, credentials);
        }
        let answer = self
            .client
            .request(Method::POST, &self.url, headers, body, timeout)
            .await?;
        if answer.status.is_success() {
            Ok(answer.body)
        } else {
            Err(format!(
                "the server responded with the status code {} but did not return more information",
                answer.status.as_u16()
            ))
        }
    }
}

fn secret(text: &str) -> anyhow::Result<HeaderValue> {
    let mut value = HeaderValue::from_str(text).context("a credential cannot be sent in a header")?;
    value.set_sensitive(true);
    Ok(value)
}
