//! TLS for servers and clients, by rustls, with key material that is read again when its files change.
//!
//! - [`ServerTls`]: a server's certificate and the authority its clients' certificates come from
//! - [`Peer`]: who is at the other end of a connection
//! - [`client_config`]: what a client trusts and who it is
//!
//! A server asks for a client certificate but does not end the handshake over one it does not trust: the
//! caller learns [`Peer::Untrusted`] and can answer with a 401, as Kubernetes does.

mod client;
mod material;
mod peer;
mod server;

pub use client::client_config;
pub use material::PemSource;
pub use peer::{CertificateIdentity, Peer};
pub use server::ServerTls;

/// Why TLS cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file of key material cannot be read.
    #[error("reading {path}: {source}")]
    Read {
        /// The file.
        path: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// PEM data holds no usable certificate or key.
    #[error("{origin}: {reason}")]
    Pem {
        /// A file's path, or "inline data".
        origin: String,
        /// What is missing or malformed.
        reason: String,
    },
    /// rustls refuses the certificate, the key or the authority.
    #[error("{origin}: {source}")]
    Rustls {
        /// A file's path, or "inline data".
        origin: String,
        /// Why.
        source: rustls::Error,
    },
}

/// The cryptography every connection of the process uses.
pub(crate) fn provider() -> std::sync::Arc<rustls::crypto::CryptoProvider> {
    static PROVIDER: std::sync::LazyLock<std::sync::Arc<rustls::crypto::CryptoProvider>> =
        std::sync::LazyLock::new(|| std::sync::Arc::new(rustls::crypto::ring::default_provider()));
    PROVIDER.clone()
}
