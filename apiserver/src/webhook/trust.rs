//! Whom a webhook's certificate has to be signed by; or whether it is one of those trusted itself.
//!
//! Many webhooks show a certificate they have signed themselves and name that very certificate as their authority. Go
//! accepts it; a path from an end to an authority it is not, so that it is looked for by its bytes here.

use std::sync::Arc;

use keelson_daemon::tls::{PemSource, client_config};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use x509_parser::prelude::{FromDer as _, X509Certificate};

/// A configuration that trusts the authorities in this PEM text, and the certificates there themselves. `identity` is
/// the certificate shown and its key.
pub fn trusting(bundle: &[u8], identity: Option<(PemSource, PemSource)>) -> Result<ClientConfig, String> {
    let (verifier, mut config) = Named::new(bundle, identity)?;
    config.dangerous().set_certificate_verifier(Arc::new(verifier));
    Ok(config)
}

/// Trusts what authorities have signed, and certificates by their bytes.
#[derive(Debug)]
pub struct Named {
    paths: Arc<WebPkiServerVerifier>,
    named: Vec<CertificateDer<'static>>,
}

impl Named {
    /// The verifier, and a configuration it fits into.
    pub fn new(
        bundle: &[u8],
        identity: Option<(PemSource, PemSource)>,
    ) -> Result<(Self, ClientConfig), String> {
        let failed = |error: &dyn std::fmt::Display| format!("unable to load root certificates: {error}");
        let named: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(bundle)
            .collect::<Result<_, _>>()
            .map_err(|error| failed(&error))?;
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(named.iter().cloned());
        let source = PemSource::Inline(bundle.to_vec());
        let config = client_config(Some(source), identity).map_err(|error| failed(&error))?;
        let provider = config.crypto_provider().clone();
        let paths = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider)
            .build()
            .map_err(|error| failed(&error))?;
        Ok((Self { paths, named }, config))
    }
}

impl ServerCertVerifier for Named {
    fn verify_server_cert(
        &self,
        end: &CertificateDer<'_>,
        between: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if !self.named.iter().any(|named| named == end) {
            return self.paths.verify_server_cert(end, between, name, ocsp, now);
        }
        rustls::client::verify_server_name(&ParsedCertificate::try_from(end)?, name)?;
        let (_, parsed) = X509Certificate::from_der(end).map_err(|_| CertificateError::BadEncoding)?;
        let moment = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
        let validity = parsed.validity();
        if moment > validity.not_after.timestamp() {
            return Err(CertificateError::Expired.into());
        }
        if moment < validity.not_before.timestamp() {
            return Err(CertificateError::NotValidYet.into());
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.paths.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.paths.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.paths.supported_verify_schemes()
    }
}
