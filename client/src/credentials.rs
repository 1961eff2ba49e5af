//! Certificates and tokens, read again when their files change.
//!
//! `keelson_daemon::tls` presents the newest certificate at every handshake. What is added here: a connection dialled
//! with a certificate that has since been replaced is replaced too, and bearer tokens are read again. Nobody watches
//! the files: they are looked at when a call is made, at most once every [`RECHECK`].

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use keelson_daemon::tls::PemSource;
use parking_lot::Mutex;
use tonic::metadata::{Ascii, MetadataValue};

use crate::config::{ClientConfig, ConfigError, TokenSource};

/// Rotated certificates overlap by hours and projected tokens by minutes, so this need not be short.
const RECHECK: Duration = Duration::from_secs(30);

/// Who the client is.
pub(crate) struct Credentials {
    /// What to dial with.
    pub(crate) tls: Arc<rustls::ClientConfig>,
    config: ClientConfig,
    state: Mutex<State>,
}

struct State {
    checked: Instant,
    stamps: Vec<Stamp>,
    token: Option<Token>,
    /// Counts changes, so that a connection can tell whether it was dialled with what is current.
    generation: u64,
}

/// What changes when a file is replaced.
type Stamp = Option<(SystemTime, u64)>;
type Token = MetadataValue<Ascii>;

impl Credentials {
    pub(crate) fn load(config: ClientConfig) -> Result<Self, ConfigError> {
        let authority = match (config.insecure, &config.ca) {
            (true, _) => None,
            (false, Some(ca)) => Some(ca.clone()),
            (false, None) => return Err(ConfigError::NoAuthority),
        };
        let mut tls = keelson_daemon::tls::client_config(authority, config.identity.clone())?;
        tls.alpn_protocols = vec![b"h2".to_vec()];
        let state = State {
            checked: Instant::now(),
            stamps: stamps(&config),
            token: token(&config)?,
            generation: 0,
        };
        Ok(Credentials {
            tls: Arc::new(tls),
            config,
            state: Mutex::new(state),
        })
    }

    /// The bearer token, and which generation of credentials is current.
    pub(crate) fn current(&self) -> (Option<Token>, u64) {
        let mut state = self.state.lock();
        if state.checked.elapsed() >= RECHECK {
            state.checked = Instant::now();
            let stamps = stamps(&self.config);
            if stamps != state.stamps {
                self.reload(&mut state, stamps);
            }
        }
        (state.token.clone(), state.generation)
    }

    fn reload(&self, state: &mut State, stamps: Vec<Stamp>) {
        match token(&self.config) {
            Ok(token) => {
                state.stamps = stamps;
                state.token = token;
                state.generation += 1;
                tracing::info!("client credentials changed");
            }
            Err(error) => {
                tracing::warn!(%error, "the new bearer token is not usable; keeping the previous one")
            }
        }
    }
}

fn stamps(config: &ClientConfig) -> Vec<Stamp> {
    let certificate = config
        .identity
        .as_ref()
        .and_then(|(certificate, _)| match certificate {
            PemSource::File(path) => Some(path),
            PemSource::Inline(_) => None,
        });
    let token = config.token.as_ref().and_then(|source| match source {
        TokenSource::File(path) => Some(path),
        TokenSource::Token(_) => None,
    });
    let stamp = |path: &PathBuf| {
        let metadata = std::fs::metadata(path).ok()?;
        Some((metadata.modified().ok()?, metadata.len()))
    };
    certificate.into_iter().chain(token).map(stamp).collect()
}

fn token(config: &ClientConfig) -> Result<Option<Token>, ConfigError> {
    let token = match &config.token {
        None => return Ok(None),
        Some(TokenSource::Token(token)) => token.clone(),
        Some(TokenSource::File(path)) => read(path)?,
    };
    let mut value: Token = format!("Bearer {}", token.trim())
        .parse()
        .map_err(|_| ConfigError::Token)?;
    value.set_sensitive(true);
    Ok(Some(value))
}

fn read(path: &Path) -> Result<String, ConfigError> {
    std::fs::read_to_string(path).map_err(|source| ConfigError::Read {
        path: path.into(),
        source,
    })
}
