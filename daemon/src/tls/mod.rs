//! TLS for servers and clients, by rustls, with key material that is read again when its files change.
//!
//! - [`ServerTls`]: a server's certificate and the authority its clients' certificates come from
//! - [`Peer`]: who is at the other end of a connection
//! - [`client_config`]: what a client trusts and who it is
//! - [`Gathering`]: a connection whose writes go out together
//!
//! A server asks for a client certificate but does not end the handshake over one it does not trust: the
//! caller learns [`Peer::Untrusted`] and can answer with a 401, as Kubernetes does.

mod client;
mod gathering;
mod material;
mod peer;
mod server;

pub use client::client_config;
pub use gathering::{Gate, Gathering};
pub use material::PemSource;
pub use peer::{CertificateIdentity, Peer};
pub use server::ServerTls;

use std::sync::{Arc, LazyLock};

use rustls::CipherSuite;
use rustls::crypto::CryptoProvider;

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

/// The cryptography every connection of the process uses. AES with 128 bits comes first, as Go's servers and so
/// Kubernetes's have it: nobody breaks it either, and a block takes ten rounds instead of the fourteen of 256 bits.
pub(crate) fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: LazyLock<Arc<CryptoProvider>> = LazyLock::new(|| {
        let mut provider = rustls::crypto::ring::default_provider();
        provider
            .cipher_suites
            .sort_by_key(|suite| !takes_ten_rounds(suite.suite()));
        Arc::new(provider)
    });
    PROVIDER.clone()
}

fn takes_ten_rounds(suite: CipherSuite) -> bool {
    matches!(
        suite,
        CipherSuite::TLS13_AES_128_GCM_SHA256
            | CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256
            | CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256
    )
}
