//! Kubeconfig files: where a server is, and who we are to it.

use std::path::{Path, PathBuf};

use base64::Engine as _;
use serde::Deserialize;

use crate::tls::PemSource;
use crate::yaml;

/// A bearer token: given, or in a file that is read again when it changes.
#[derive(Clone)]
pub enum TokenSource {
    /// The token itself.
    Token(String),
    /// A file with the token.
    File(PathBuf),
}

/// What a kubeconfig's current context says (API reference, "Kubeconfig (v1)"). Relative paths in the file are relative
/// to it.
#[derive(Clone)]
pub struct CurrentContext {
    /// The server's URL, as it is written.
    pub server: String,
    /// The cluster's extensions by name.
    pub extensions: Vec<(String, serde_json::Value)>,
    /// Who may have signed the server's certificate.
    pub ca: Option<PemSource>,
    /// The name in the server's certificate, if it is not that of the URL.
    pub tls_server_name: Option<String>,
    /// Accept any server certificate.
    pub insecure: bool,
    /// The client certificate chain and its key.
    pub identity: Option<(PemSource, PemSource)>,
    /// The bearer token.
    pub token: Option<TokenSource>,
    /// A name and a password.
    pub basic: Option<(String, String)>,
}

/// Why a kubeconfig is not usable.
#[derive(Debug, thiserror::Error)]
pub enum KubeconfigError {
    /// It cannot be read: name a readable file.
    #[error("reading {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// It is not YAML of the expected form.
    #[error("parsing kubeconfig {path}: {source}")]
    Parse {
        /// The file.
        path: PathBuf,
        /// What the parser said.
        source: yaml::Unread,
    },
    /// It names a context, cluster or user that it does not define.
    #[error("kubeconfig {path}: {what} {name:?} is not defined")]
    Missing {
        /// The file.
        path: PathBuf,
        /// `context`, `cluster` or `user`.
        what: &'static str,
        /// Its name.
        name: String,
    },
    /// A `*-data` field is not base64.
    #[error("kubeconfig {path}: {field}: {source}")]
    Base64 {
        /// The file.
        path: PathBuf,
        /// The field.
        field: &'static str,
        /// What the decoder said.
        source: base64::DecodeError,
    },
}

impl CurrentContext {
    /// Reads a kubeconfig file.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn read(path: &Path) -> Result<Self, KubeconfigError> {
        let text = std::fs::read_to_string(path).map_err(|source| KubeconfigError::Read {
            path: path.into(),
            source,
        })?;
        let file: Kubeconfig = yaml::from_str(&text).map_err(|source| KubeconfigError::Parse {
            path: path.into(),
            source,
        })?;
        file.resolve(path)
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Kubeconfig {
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
struct NamedUser {
    name: String,
    #[serde(default)]
    user: User,
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
    #[serde(default)]
    extensions: Vec<Extension>,
}

#[derive(Deserialize)]
struct Extension {
    name: String,
    extension: serde_json::Value,
}

#[derive(Deserialize, Default)]
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

impl Kubeconfig {
    fn resolve(self, path: &Path) -> Result<CurrentContext, KubeconfigError> {
        let missing = |what, name: &str| KubeconfigError::Missing {
            path: path.into(),
            what,
            name: name.into(),
        };
        let context = self
            .contexts
            .into_iter()
            .find(|c| c.name == self.current_context)
            .ok_or_else(|| missing("context", &self.current_context))?
            .context;
        let cluster = self
            .clusters
            .into_iter()
            .find(|c| c.name == context.cluster)
            .ok_or_else(|| missing("cluster", &context.cluster))?
            .cluster;
        let user = if context.user.is_empty() {
            User::default()
        } else {
            self.users
                .into_iter()
                .find(|u| u.name == context.user)
                .ok_or_else(|| missing("user", &context.user))?
                .user
        };

        let folder = path.parent().unwrap_or(Path::new("."));
        let material = |field, data: Option<String>, file: Option<PathBuf>| match (data, file) {
            (Some(text), _) => base64::engine::general_purpose::STANDARD
                .decode(text.trim())
                .map(|pem| Some(PemSource::Inline(pem)))
                .map_err(|source| KubeconfigError::Base64 {
                    path: path.into(),
                    field,
                    source,
                }),
            (None, Some(file)) => Ok(Some(PemSource::File(folder.join(file)))),
            (None, None) => Ok(None),
        };
        let ca = material(
            "certificate-authority-data",
            cluster.certificate_authority_data,
            cluster.certificate_authority,
        )?;
        let certificate = material(
            "client-certificate-data",
            user.client_certificate_data,
            user.client_certificate,
        )?;
        let key = material("client-key-data", user.client_key_data, user.client_key)?;
        let token = match (user.token_file, user.token) {
            (Some(file), _) => Some(TokenSource::File(folder.join(file))),
            (None, Some(token)) => Some(TokenSource::Token(token)),
            (None, None) => None,
        };
        let extensions = cluster.extensions.into_iter();
        Ok(CurrentContext {
            server: cluster.server,
            extensions: extensions.map(|e| (e.name, e.extension)).collect(),
            ca,
            tls_server_name: cluster.tls_server_name,
            insecure: cluster.insecure_skip_tls_verify,
            identity: certificate.zip(key),
            token,
            basic: user
                .username
                .map(|name| (name, user.password.unwrap_or_default())),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r#"
apiVersion: v1
kind: Config
current-context: admin@home
clusters:
- name: home
  cluster:
    server: https://10.0.0.1:6443
    certificate-authority: pki/ca.crt
    tls-server-name: inner
users:
- name: admin
  user:
    client-certificate: /etc/admin.crt
    client-key-data: S0VZ
    username: me
contexts:
- name: admin@home
  context: {cluster: home, user: admin}
"#;

    fn resolve(text: &str, path: &str) -> Result<CurrentContext, KubeconfigError> {
        let file: Kubeconfig = yaml::from_str(text).unwrap();
        file.resolve(Path::new(path))
    }

    #[test]
    fn the_current_context_is_resolved() {
        let context = resolve(TEXT, "/etc/keelson/admin.conf").unwrap();
        assert_eq!(context.server, "https://10.0.0.1:6443");
        assert_eq!(context.tls_server_name.as_deref(), Some("inner"));
        assert_eq!(context.basic, Some(("me".to_owned(), String::new())));
        assert!(matches!(context.ca, Some(PemSource::File(p)) if p == Path::new("/etc/keelson/pki/ca.crt")));
        match context.identity {
            Some((PemSource::File(certificate), PemSource::Inline(key))) => {
                assert_eq!(certificate, Path::new("/etc/admin.crt"));
                assert_eq!(key, b"KEY");
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn an_undefined_user_is_named() {
        let text = TEXT.replace("name: admin\n", "name: root\n");
        let error = resolve(&text, "x").err().unwrap().to_string();
        assert_eq!(error, r#"kubeconfig x: user "admin" is not defined"#);
    }
}
