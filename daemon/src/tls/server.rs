//! A server's side of TLS.

use std::path::Path;
use std::sync::Arc;

use rustls::DistinguishedName;
use rustls::RootCertStore;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ClientHello, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{DigitallySignedStruct, SignatureScheme};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::material::{Identity, Load, PemSource, Reloading, Stamp};
use super::peer::{CertificateIdentity, Peer};
use super::{TlsError, provider};

/// A server's certificate, and the authority its clients' certificates are checked against. Clones share
/// both; changed files are picked up by later handshakes.
#[derive(Clone)]
pub struct ServerTls {
    config: Arc<rustls::ServerConfig>,
    clients: Option<Arc<Reloading<ClientAuthority>>>,
    proxies: Option<Arc<Reloading<ClientAuthority>>>,
}

impl ServerTls {
    /// Reads a certificate chain, its key, and the authority for client certificates. Without an authority
    /// no certificate is asked for and every peer is [`Peer::Anonymous`].
    ///
    /// # Errors
    /// When a file cannot be read or holds nothing usable.
    pub fn load(certificate: &Path, key: &Path, client_ca: Option<&Path>) -> Result<Self, TlsError> {
        Self::load_with_proxies(certificate, key, client_ca, None)
    }

    /// The same with a further authority, for the certificates of proxies that vouch for their users:
    /// [`ServerTls::proxy`] says which of them a peer is.
    ///
    /// # Errors
    /// When a file cannot be read or holds nothing usable.
    pub fn load_with_proxies(
        certificate: &Path,
        key: &Path,
        client_ca: Option<&Path>,
        proxy_ca: Option<&Path>,
    ) -> Result<Self, TlsError> {
        let identity = Identity::new(PemSource::File(certificate.into()), PemSource::File(key.into()));
        let resolver = Arc::new(Resolver(Reloading::new(identity)?));
        let builder = rustls::ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(|source| TlsError::Rustls {
                origin: "protocol versions".into(),
                source,
            })?;
        let authority = |path: Option<&Path>| {
            path.map(|path| Reloading::new(ClientAuthority(PemSource::File(path.into()))).map(Arc::new))
                .transpose()
        };
        let (clients, proxies) = (authority(client_ca)?, authority(proxy_ca)?);
        let known: Vec<_> = [&clients, &proxies]
            .into_iter()
            .flatten()
            .map(|a| a.get())
            .collect();
        let builder = if known.is_empty() {
            builder.with_no_client_auth()
        } else {
            let hints = known
                .iter()
                .flat_map(|authority| authority.roots.subjects())
                .collect();
            builder.with_client_cert_verifier(Arc::new(AskButDoNotJudge { hints }))
        };
        let mut config = builder.with_cert_resolver(resolver);
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        // Clients of rustls would have AES with 256 bits.
        config.ignore_client_order = true;
        Ok(Self {
            config: Arc::new(config),
            clients,
            proxies,
        })
    }

    /// Accepts connections with this configuration.
    #[must_use]
    pub fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(self.config.clone())
    }

    /// Who is at the other end of an accepted connection.
    #[must_use]
    pub fn peer<S>(&self, stream: &TlsStream<S>) -> Peer {
        let chain = stream.get_ref().1.peer_certificates().unwrap_or_default();
        let (Some(clients), Some((leaf, intermediates))) = (&self.clients, chain.split_first()) else {
            return Peer::Anonymous;
        };
        if let Err(error) = clients
            .get()
            .verifier
            .verify_client_cert(leaf, intermediates, UnixTime::now())
        {
            return Peer::Untrusted(error.to_string());
        }
        match CertificateIdentity::from_der(leaf) {
            Ok(identity) => Peer::Certificate(identity),
            Err(reason) => Peer::Untrusted(reason),
        }
    }
}

impl ServerTls {
    /// The common name of the proxy at the other end of an accepted connection, if the proxies' authority
    /// vouches for its certificate.
    #[must_use]
    pub fn proxy<S>(&self, stream: &TlsStream<S>) -> Option<String> {
        let proxies = self.proxies.as_ref()?.get();
        let (leaf, intermediates) = stream.get_ref().1.peer_certificates()?.split_first()?;
        proxies
            .verifier
            .verify_client_cert(leaf, intermediates, UnixTime::now())
            .ok()?;
        let identity = CertificateIdentity::from_der(leaf).ok()?;
        Some(identity.common_name)
    }
}

#[derive(Debug)]
struct Resolver(Reloading<Identity>);

impl ResolvesServerCert for Resolver {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.get())
    }
}

#[derive(Debug)]
struct ClientAuthority(PemSource);

struct LoadedAuthority {
    roots: Arc<RootCertStore>,
    verifier: Arc<dyn ClientCertVerifier>,
}

impl Load for ClientAuthority {
    type Loaded = LoadedAuthority;

    fn load(&self) -> Result<LoadedAuthority, TlsError> {
        let roots = Arc::new(self.0.roots()?);
        let verifier = WebPkiClientVerifier::builder_with_provider(roots.clone(), provider())
            .build()
            .map_err(|error| TlsError::Pem {
                origin: "client certificate authority".into(),
                reason: error.to_string(),
            })?;
        Ok(LoadedAuthority { roots, verifier })
    }

    fn stamp(&self) -> Stamp {
        (self.0.modified(), None)
    }
}

/// Has the client prove that it holds the key of the certificate it shows, and leaves the question whether
/// that certificate is any good to [`ServerTls::peer`].
#[derive(Debug)]
struct AskButDoNotJudge {
    hints: Vec<DistinguishedName>,
}

impl ClientCertVerifier for AskButDoNotJudge {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &self.hints
    }

    fn verify_client_cert(
        &self,
        _leaf: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        Ok(ClientCertVerified::assertion())
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

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
    use rustls::CipherSuite;
    use rustls::pki_types::ServerName;

    type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

    struct Authority(CertifiedIssuer<'static, KeyPair>);

    impl Authority {
        fn new() -> Result<Self> {
            let mut params = CertificateParams::new(Vec::new())?;
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            Ok(Self(CertifiedIssuer::self_signed(params, KeyPair::generate()?)?))
        }

        fn issue(&self, user: &str, group: &str) -> Result<(PemSource, PemSource)> {
            let mut params = CertificateParams::new(vec!["localhost".to_owned()])?;
            params.distinguished_name.push(DnType::CommonName, user);
            params.distinguished_name.push(DnType::OrganizationName, group);
            let key = KeyPair::generate()?;
            let certificate = params.signed_by(&key, &self.0)?;
            Ok((
                PemSource::Inline(certificate.pem().into()),
                PemSource::Inline(key.serialize_pem().into()),
            ))
        }
    }

    async fn peer_seen(server: &ServerTls, client: rustls::ClientConfig) -> Result<Peer> {
        let (near, far) = tokio::io::duplex(16 * 1024);
        let connector = tokio_rustls::TlsConnector::from(Arc::new(client));
        let name = ServerName::try_from("localhost")?;
        let (connected, accepted) =
            tokio::join!(connector.connect(name, near), server.acceptor().accept(far));
        connected?;
        Ok(server.peer(&accepted?))
    }

    fn server(authority: &Authority, dir: &Path) -> Result<ServerTls> {
        let path = |name: &str| dir.join(name);
        let (PemSource::Inline(certificate), PemSource::Inline(key)) =
            authority.issue("server", "servers")?
        else {
            return Err("issued inline".into());
        };
        std::fs::write(path("tls.crt"), certificate)?;
        std::fs::write(path("tls.key"), key)?;
        std::fs::write(path("ca.crt"), authority.0.pem())?;
        Ok(ServerTls::load(
            &path("tls.crt"),
            &path("tls.key"),
            Some(&path("ca.crt")),
        )?)
    }

    #[tokio::test]
    async fn a_client_shows_its_certificate_at_every_connection() -> Result<()> {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let ours = Authority::new()?;
        let dir = tempfile::tempdir()?;
        let server = server(&ours, dir.path())?;
        let trust = Some(PemSource::File(dir.path().join("ca.crt")));
        let client = super::super::client_config(trust, Some(ours.issue("admin", "system:masters")?))?;
        let connector = tokio_rustls::TlsConnector::from(Arc::new(client));
        for _ in 0..2 {
            let (near, far) = tokio::io::duplex(16 * 1024);
            let name = ServerName::try_from("localhost")?;
            let (connected, accepted) =
                tokio::join!(connector.connect(name, near), server.acceptor().accept(far));
            let (mut connected, mut accepted) = (connected?, accepted?);
            // What a session could be resumed with comes after the handshake, with the first data.
            accepted.write_all(b"x").await?;
            accepted.flush().await?;
            connected.read_u8().await?;
            assert_eq!(
                accepted.get_ref().1.handshake_kind(),
                Some(rustls::HandshakeKind::Full)
            );
        }
        Ok(())
    }

    #[tokio::test]
    async fn aes_with_128_bits_is_chosen_whatever_the_client_puts_first() -> Result<()> {
        let ours = Authority::new()?;
        let dir = tempfile::tempdir()?;
        let server = server(&ours, dir.path())?;
        let usual = Arc::new(rustls::crypto::ring::default_provider());
        for (version, chosen) in [
            (&rustls::version::TLS13, CipherSuite::TLS13_AES_128_GCM_SHA256),
            (
                &rustls::version::TLS12,
                CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
            ),
        ] {
            let client = rustls::ClientConfig::builder_with_provider(usual.clone())
                .with_protocol_versions(&[version])?
                .with_root_certificates(PemSource::Inline(ours.0.pem().into()).roots()?)
                .with_no_client_auth();
            assert_ne!(usual.cipher_suites[0].suite(), chosen, "the client's own choice");
            let (near, far) = tokio::io::duplex(16 * 1024);
            let connector = tokio_rustls::TlsConnector::from(Arc::new(client));
            let (connected, accepted) = tokio::join!(
                connector.connect(ServerName::try_from("localhost")?, near),
                server.acceptor().accept(far)
            );
            accepted?;
            let suite = connected?.get_ref().1.negotiated_cipher_suite();
            assert_eq!(suite.map(|suite| suite.suite()), Some(chosen));
        }
        Ok(())
    }

    #[tokio::test]
    async fn a_stranger_s_certificate_is_seen_but_not_trusted() -> Result<()> {
        let (ours, theirs) = (Authority::new()?, Authority::new()?);
        let dir = tempfile::tempdir()?;
        let server = server(&ours, dir.path())?;
        let trust = || Some(PemSource::File(dir.path().join("ca.crt")));

        let nobody = super::super::client_config(trust(), None)?;
        assert_eq!(peer_seen(&server, nobody).await?, Peer::Anonymous);

        let admin = super::super::client_config(trust(), Some(ours.issue("admin", "system:masters")?))?;
        match peer_seen(&server, admin).await? {
            Peer::Certificate(identity) => {
                assert_eq!(identity.common_name, "admin");
                assert_eq!(identity.organizations, ["system:masters"]);
                let digest = identity.credential_id.strip_prefix("X509SHA256=");
                assert_eq!(digest.map(str::len), Some(64), "{identity:?}");
            }
            other => return Err(format!("{other:?}").into()),
        }

        let stranger = super::super::client_config(trust(), Some(theirs.issue("admin", "system:masters")?))?;
        assert!(matches!(peer_seen(&server, stranger).await?, Peer::Untrusted(_)));
        Ok(())
    }
}
