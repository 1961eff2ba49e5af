//! A client's side of TLS.

use std::sync::Arc;

use rustls::client::ResolvesClientCert;
use rustls::client::Resumption;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};

use super::material::{Identity, Load, PemSource, Reloading, Stamp};
use super::{TlsError, provider};

/// How a client trusts servers and shows who it is. Files are read again when they change.
///
/// With `authority` of `None`, servers are not checked at all (a kubeconfig's `insecure-skip-tls-verify`).
/// `identity` is a certificate chain and its key.
///
/// # Errors
/// When key material cannot be read or holds nothing usable.
pub fn client_config(
    authority: Option<PemSource>,
    identity: Option<(PemSource, PemSource)>,
) -> Result<ClientConfig, TlsError> {
    let builder = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|source| TlsError::Rustls {
            origin: "protocol versions".into(),
            source,
        })?;
    let verifier: Arc<dyn ServerCertVerifier> = match authority {
        Some(source) => Arc::new(ReloadingVerifier(Reloading::new(ServerAuthority(source))?)),
        None => Arc::new(NoVerification),
    };
    let builder = builder.dangerous().with_custom_certificate_verifier(verifier);
    Ok(match identity {
        Some((certificate, key)) => {
            let identity = Reloading::new(Identity::new(certificate, key))?;
            let mut config = builder.with_client_cert_resolver(Arc::new(Resolver(identity)));
            // A resumed session shows the server the certificate of the first one, though it was replaced since and
            // may have expired.
            config.resumption = Resumption::disabled();
            config
        }
        None => builder.with_no_client_auth(),
    })
}

#[derive(Debug)]
struct Resolver(Reloading<Identity>);

impl ResolvesClientCert for Resolver {
    fn resolve(&self, _hints: &[&[u8]], _schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(self.0.get())
    }

    fn has_certs(&self) -> bool {
        true
    }
}

#[derive(Debug)]
struct ServerAuthority(PemSource);

impl Load for ServerAuthority {
    type Loaded = Arc<WebPkiServerVerifier>;

    fn load(&self) -> Result<Self::Loaded, TlsError> {
        let roots = Arc::new(self.0.roots()?);
        WebPkiServerVerifier::builder_with_provider(roots, provider())
            .build()
            .map_err(|error| TlsError::Pem {
                origin: "certificate authority".into(),
                reason: error.to_string(),
            })
    }

    fn stamp(&self) -> Stamp {
        (self.0.modified(), None)
    }
}

#[derive(Debug)]
struct ReloadingVerifier(Reloading<ServerAuthority>);

impl ServerCertVerifier for ReloadingVerifier {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        self.0
            .get()
            .verify_server_cert(leaf, intermediates, name, ocsp, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0
            .get()
            .verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0
            .get()
            .verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider().signature_verification_algorithms.supported_schemes()
    }
}

/// Trusts every server: what `insecure-skip-tls-verify` asks for.
#[derive(Debug)]
struct NoVerification;

impl ServerCertVerifier for NoVerification {
    fn verify_server_cert(
        &self,
        _leaf: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &provider().signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &provider().signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider().signature_verification_algorithms.supported_schemes()
    }
}
