//! TLS, with the cluster's own authority or with none.

use std::io::{Result, Write};
use std::net::TcpStream;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    ClientConfig, ClientConnection, DigitallySignedStruct, RootCertStore, SignatureScheme, StreamOwned,
};

use crate::exchange::{read_to_end, wrong};

/// Where every pod finds the cluster's authority.
const MOUNTED: &str = "/var/run/secrets/kubernetes.io/serviceaccount/ca.crt";

/// Whose certificates are believed.
#[derive(Clone)]
pub enum Trust {
    /// Anybody's.
    Anybody,
    /// Those signed by the authorities in a file.
    File(String),
    /// Those signed by the cluster's authority.
    Cluster,
}

/// Sends `request` and returns everything that comes back.
pub fn converse(stream: TcpStream, host: &str, trust: &Trust, request: &[u8]) -> Result<Vec<u8>> {
    let name =
        ServerName::try_from(host.to_owned()).map_err(|_| wrong(format!("{host:?} is not a host name")))?;
    let connection =
        ClientConnection::new(Arc::new(config(trust)?), name).map_err(|error| wrong(error.to_string()))?;
    let mut stream = StreamOwned::new(connection, stream);
    stream.write_all(request)?;
    let mut received = Vec::new();
    read_to_end(&mut stream, &mut received)?;
    Ok(received)
}

fn config(trust: &Trust) -> Result<ClientConfig> {
    let provider = Arc::new(ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|error| wrong(error.to_string()))?;
    let file = match trust {
        Trust::Anybody => {
            let verifier = Arc::new(Believe(provider));
            return Ok(builder
                .dangerous()
                .with_custom_certificate_verifier(verifier)
                .with_no_client_auth());
        }
        Trust::File(file) => file,
        Trust::Cluster => MOUNTED,
    };
    let mut roots = RootCertStore::empty();
    let certificates =
        CertificateDer::pem_file_iter(file).map_err(|error| wrong(format!("reading {file}: {error}")))?;
    roots.add_parsable_certificates(certificates.flatten());
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}

/// Believes every certificate; the handshake's signatures must still be right.
#[derive(Debug)]
struct Believe(Arc<CryptoProvider>);

impl ServerCertVerifier for Believe {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> std::result::Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(
            message,
            certificate,
            signature,
            &self.0.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(
            message,
            certificate,
            signature,
            &self.0.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
