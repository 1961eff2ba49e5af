//! Webhooks that a file in kubeconfig form describes: the cluster is the webhook, the user is this server.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use http::header::AUTHORIZATION;
use http::{HeaderValue, Method, Uri};
use keelson_daemon::tls::PemSource;
use serde::Deserialize;

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

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct File {
    #[serde(default)]
    clusters: Vec<NamedCluster>,
    #[serde(default)]
    users: Vec<NamedUser>,
    #[serde(default)]
    contexts: Vec<NamedContext>,
    #[serde(default)]
    current_context: String,
}

#[derive(Deserialize)]
struct NamedCluster {
    name: String,
    cluster: Cluster,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Cluster {
    #[serde(default)]
    server: String,
    certificate_authority: Option<PathBuf>,
    certificate_authority_data: Option<String>,
    #[serde(default)]
    insecure_skip_tls_verify: bool,
    tls_server_name: Option<String>,
}

#[derive(Deserialize)]
struct NamedUser {
    name: String,
    #[serde(default)]
    user: User,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct User {
    client_certificate: Option<PathBuf>,
    client_certificate_data: Option<String>,
    client_key: Option<PathBuf>,
    client_key_data: Option<String>,
    token: Option<String>,
    #[serde(rename = "tokenFile")]
    token_file: Option<PathBuf>,
    username: Option<String>,
    password: Option<String>,
}

#[derive(Deserialize)]
struct NamedContext {
    name: String,
    context: Context,
}

#[derive(Deserialize)]
struct Context {
    #[serde(default)]
    cluster: String,
    #[serde(default)]
    user: String,
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
        let text = std::fs::read_to_string(path).context("cannot be read")?;
        let file: File = serde_yaml::from_str(&text).context("is no kubeconfig")?;
        let context = match file.contexts.iter().find(|c| c.name == file.current_context) {
            Some(context) => &context.context,
            None => bail!("context {:?} is not defined", file.current_context),
        };
        let cluster = match file.clusters.iter().find(|c| c.name == context.cluster) {
            Some(cluster) => &cluster.cluster,
            None => bail!("cluster {:?} is not defined", context.cluster),
        };
        let nobody = User::default();
        let user = match file.users.iter().find(|u| u.name == context.user) {
            Some(user) => &user.user,
            None if context.user.is_empty() => &nobody,
            None => bail!("user {:?} is not defined", context.user),
        };
        let url: Uri = cluster
            .server
            .parse()
            .with_context(|| format!("server {:?}", cluster.server))?;
        if url.host().is_none() || !matches!(url.scheme_str(), Some("http" | "https")) {
            bail!("server {:?} is no URL", cluster.server);
        }
        let folder = path.parent().unwrap_or(Path::new("."));
        let material = |data: &Option<String>, file: &Option<PathBuf>| match (data, file) {
            (Some(data), _) => {
                let pem = BASE64
                    .decode(data.trim())
                    .context("a *-data field is no base64")?;
                Ok(Some(PemSource::Inline(pem)))
            }
            (None, Some(file)) => Ok(Some(PemSource::File(folder.join(file)))),
            (None, None) => Ok::<_, anyhow::Error>(None),
        };
        let authority = material(
            &cluster.certificate_authority_data,
            &cluster.certificate_authority,
        )?;
        let certificate = material(&user.client_certificate_data, &user.client_certificate)?;
        let key = material(&user.client_key_data, &user.client_key)?;
        let identity = certificate.zip(key);
        let client = if cluster.insecure_skip_tls_verify {
            HttpClient::trusting_anybody(identity)
        } else if url.scheme_str() == Some("http") && authority.is_none() {
            // Nothing is verified where nothing is encrypted.
            HttpClient::trusting_anybody(None)
        } else {
            HttpClient::new(authority, identity)
        };
        let credentials = match (&user.token, &user.token_file, &user.username) {
            (_, Some(file), _) => Credentials::TokenFile(folder.join(file)),
            (Some(token), ..) => Credentials::Header(secret(&format!("Bearer {token}"))?),
            (None, None, Some(name)) => {
                let password = user.password.as_deref().unwrap_or_default();
                let basic = BASE64.encode(format!("{name}:{password}"));
                Credentials::Header(secret(&format!("Basic {basic}"))?)
            }
            (None, None, None) => Credentials::None,
        };
        Ok(Self {
            client: client
                .map_err(anyhow::Error::msg)?
                .expecting(cluster.tls_server_name.clone()),
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
