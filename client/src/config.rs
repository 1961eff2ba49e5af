//! Where the apiservers are and who we are: kubeconfig files.

use std::path::{Path, PathBuf};

use base64::Engine as _;
use keelson_daemon::tls::{PemSource, TlsError};
use serde::Deserialize;

/// The name of the cluster extension that lists further servers of a highly available control plane.
const SERVERS_EXTENSION: &str = "keelson.dev/servers";

/// Where a pod finds its service account.
const SERVICE_ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// A bearer token: given, or in a file that is read again when it changes.
#[derive(Clone)]
pub enum TokenSource {
    /// The token itself.
    Token(String),
    /// A file with the token.
    File(PathBuf),
}

/// One kubeconfig's current context: endpoints, CA, client identity or token.
#[derive(Clone)]
pub struct ClientConfig {
    /// `https://host:port` each; tried in turn until one answers.
    pub servers: Vec<String>,
    /// Who may have signed the server's certificate.
    pub ca: Option<PemSource>,
    /// The client certificate chain and its key.
    pub identity: Option<(PemSource, PemSource)>,
    /// The bearer token.
    pub token: Option<TokenSource>,
    /// Accept any server certificate.
    pub insecure: bool,
}

/// Why a configuration is not usable.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The kubeconfig, a certificate, a key or a token cannot be read: name a readable file.
    #[error("reading {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The kubeconfig is not YAML of the expected form.
    #[error("parsing kubeconfig {path}: {source}")]
    Parse {
        /// The kubeconfig.
        path: PathBuf,
        /// What the parser said.
        source: serde_yaml::Error,
    },
    /// The kubeconfig names a context, cluster or user that it does not define.
    #[error("kubeconfig {path}: {what} {name:?} is not defined")]
    Missing {
        /// The kubeconfig.
        path: PathBuf,
        /// `context`, `cluster` or `user`.
        what: &'static str,
        /// Its name.
        name: String,
    },
    /// A `*-data` field is not base64.
    #[error("kubeconfig {path}: {field}: {source}")]
    Base64 {
        /// The kubeconfig.
        path: PathBuf,
        /// The field.
        field: &'static str,
        /// What the decoder said.
        source: base64::DecodeError,
    },
    /// A server is not `https://host:port`.
    #[error("server {server:?}: {reason}")]
    Server {
        /// As configured.
        server: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Nothing says which servers to trust: name a certificate authority, or skip verification.
    #[error("no certificate-authority is configured, and insecure-skip-tls-verify is not set")]
    NoAuthority,
    /// The certificates do not make a TLS configuration.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The bearer token cannot be sent: it is not one line of plain characters.
    #[error("the bearer token has characters that a header cannot carry")]
    Token,
}

impl ClientConfig {
    /// The current context of a kubeconfig file. Relative paths in it are relative to the file.
    pub fn from_kubeconfig(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read(path).map_err(|source| ConfigError::Read {
            path: path.into(),
            source,
        })?;
        let file: Kubeconfig = serde_yaml::from_slice(&text).map_err(|source| ConfigError::Parse {
            path: path.into(),
            source,
        })?;
        file.resolve(path)
    }

    /// What a pod uses: the service account mounted into it and the `kubernetes` service.
    pub fn in_cluster() -> Result<Self, ConfigError> {
        let variable = |name: &str| {
            std::env::var(name).map_err(|_| ConfigError::Server {
                server: String::new(),
                reason: format!("{name} is not set: not running in a pod"),
            })
        };
        let host = variable("KUBERNETES_SERVICE_HOST")?;
        let port = variable("KUBERNETES_SERVICE_PORT")?;
        let host = if host.contains(':') {
            format!("[{host}]")
        } else {
            host
        };
        let mounted = Path::new(SERVICE_ACCOUNT);
        Ok(ClientConfig {
            servers: vec![format!("https://{host}:{port}")],
            ca: Some(PemSource::File(mounted.join("ca.crt"))),
            identity: None,
            token: Some(TokenSource::File(mounted.join("token"))),
            insecure: false,
        })
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
    cluster: String,
    #[serde(default)]
    user: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Cluster {
    server: String,
    certificate_authority: Option<PathBuf>,
    certificate_authority_data: Option<String>,
    #[serde(default)]
    insecure_skip_tls_verify: bool,
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
}

impl Kubeconfig {
    fn resolve(self, path: &Path) -> Result<ClientConfig, ConfigError> {
        let missing = |what, name: &str| ConfigError::Missing {
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
                .map_err(|source| ConfigError::Base64 {
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

        let mut servers = vec![cluster.server];
        for extension in cluster.extensions.iter().filter(|e| e.name == SERVERS_EXTENSION) {
            let listed = extension
                .extension
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(|s| s.as_str());
            for server in listed {
                if !servers.iter().any(|known| known == server) {
                    servers.push(server.to_owned());
                }
            }
        }
        Ok(ClientConfig {
            servers,
            ca,
            identity: certificate.zip(key),
            token,
            insecure: cluster.insecure_skip_tls_verify,
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
    extensions:
    - name: keelson.dev/servers
      extension: ["https://10.0.0.1:6443", "https://10.0.0.2:6443"]
users:
- name: admin
  user:
    client-certificate: /etc/admin.crt
    client-key-data: S0VZ
contexts:
- name: admin@home
  context: {cluster: home, user: admin}
"#;

    #[test]
    fn the_current_context_is_resolved() {
        let file: Kubeconfig = serde_yaml::from_str(TEXT).unwrap();
        let config = file.resolve(Path::new("/etc/keelson/admin.conf")).unwrap();
        assert_eq!(config.servers, ["https://10.0.0.1:6443", "https://10.0.0.2:6443"]);
        assert!(matches!(config.ca, Some(PemSource::File(p)) if p == Path::new("/etc/keelson/pki/ca.crt")));
        match config.identity {
            Some((PemSource::File(certificate), PemSource::Inline(key))) => {
                assert_eq!(certificate, Path::new("/etc/admin.crt"));
                assert_eq!(key, b"KEY");
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn an_undefined_user_is_named() {
        let file: Kubeconfig = serde_yaml::from_str(&TEXT.replace("name: admin\n", "name: root\n")).unwrap();
        let error = file.resolve(Path::new("x")).err().unwrap().to_string();
        assert_eq!(error, r#"kubeconfig x: user "admin" is not defined"#);
    }
}
