//! Where the apiservers are and who we are: kubeconfig files.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use keelson_daemon::kubeconfig::{CurrentContext, KubeconfigError};
use keelson_daemon::tls::{PemSource, TlsError};
use parking_lot::Mutex;
use tokio::sync::Notify;
use tonic::metadata::{Ascii, MetadataValue};

pub use keelson_daemon::kubeconfig::TokenSource;

/// The name of the cluster extension that lists further servers of a highly available control plane.
const SERVERS_EXTENSION: &str = "keelson.dev/servers";

/// Where a pod finds its service account.
const SERVICE_ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// A bearer token that is replaced while it is in use. Clones share it.
#[derive(Clone, Default)]
pub struct LiveToken(Arc<Live>);

#[derive(Default)]
struct Live {
    held: Mutex<Option<Held>>,
    stale: Notify,
}

struct Held {
    header: MetadataValue<Ascii>,
    valid: Range<SystemTime>,
}

impl LiveToken {
    /// Calls from now on carry this token, which is good at these times.
    ///
    /// # Errors
    /// When it cannot be sent.
    pub fn set(&self, token: &str, valid: Range<SystemTime>) -> Result<(), ConfigError> {
        let mut header: MetadataValue<Ascii> = format!("Bearer {}", token.trim())
            .parse()
            .map_err(|_| ConfigError::Token)?;
        header.set_sensitive(true);
        *self.0.held.lock() = Some(Held { header, valid });
        Ok(())
    }

    /// Waits until a call was made at a time when the token is not good: the clock was set, or the machine has slept.
    pub async fn stale(&self) {
        self.0.stale.notified().await;
    }

    pub(crate) fn get(&self) -> Option<MetadataValue<Ascii>> {
        let held = self.0.held.lock();
        let held = held.as_ref()?;
        if !held.valid.contains(&SystemTime::now()) {
            self.0.stale.notify_one();
        }
        Some(held.header.clone())
    }
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
    /// The kubeconfig is not usable.
    #[error(transparent)]
    Kubeconfig(#[from] KubeconfigError),
    /// A token cannot be read: name a readable file.
    #[error("reading {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
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
        let context = CurrentContext::read(path)?;
        let further = context
            .extensions
            .iter()
            .filter(|(name, _)| name == SERVERS_EXTENSION)
            .filter_map(|(_, servers)| servers.as_array())
            .flatten()
            .filter_map(|server| server.as_str());
        let mut servers = vec![context.server.clone()];
        for server in further {
            if !servers.iter().any(|known| known == server) {
                servers.push(server.to_owned());
            }
        }
        Ok(Self {
            servers,
            ca: context.ca,
            identity: context.identity,
            token: context.token,
            insecure: context.insecure,
        })
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_token_is_stale_outside_of_its_time() {
        use std::time::Duration;

        let (token, now) = (LiveToken::default(), SystemTime::now());
        let hour = Duration::from_secs(3600);
        let noticed = || tokio::time::timeout(Duration::from_millis(10), token.stale());
        token.set("t", now - hour..now + hour).unwrap();
        assert!(token.get().is_some());
        assert!(noticed().await.is_err());
        for wrong in [now - 2 * hour..now - hour, now + hour..now + 2 * hour] {
            token.set("t", wrong).unwrap();
            assert!(token.get().is_some());
            assert!(noticed().await.is_ok());
        }
    }

    #[test]
    fn further_servers_come_after_the_first() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let text = r#"
current-context: c
clusters:
- name: home
  cluster:
    server: https://10.0.0.1:6443
    extensions:
    - name: keelson.dev/servers
      extension: ["https://10.0.0.1:6443", "https://10.0.0.2:6443"]
contexts:
- {name: c, context: {cluster: home}}
"#;
        std::fs::write(file.path(), text).unwrap();
        let config = ClientConfig::from_kubeconfig(file.path()).unwrap();
        assert_eq!(config.servers, ["https://10.0.0.1:6443", "https://10.0.0.2:6443"]);
    }
}
