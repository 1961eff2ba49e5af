//! Certificates and keys: where they come from, and reading them again when their files change.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use rustls::RootCertStore;
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use super::{TlsError, provider};

/// How long a loaded file is trusted to be current. Renewed certificates overlap with their predecessors by
/// far more than this.
const RECHECK: Duration = Duration::from_secs(10);

/// Where PEM data comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PemSource {
    /// A file, read again when it changes.
    File(PathBuf),
    /// The data itself, as in a kubeconfig's `certificate-authority-data`.
    Inline(Vec<u8>),
}

impl PemSource {
    fn origin(&self) -> String {
        match self {
            Self::File(path) => path.display().to_string(),
            Self::Inline(_) => "inline data".into(),
        }
    }

    fn read(&self) -> Result<Vec<u8>, TlsError> {
        match self {
            Self::File(path) => std::fs::read(path).map_err(|source| TlsError::Read {
                path: path.display().to_string(),
                source,
            }),
            Self::Inline(data) => Ok(data.clone()),
        }
    }

    /// When the file was last written.
    pub(super) fn modified(&self) -> Option<SystemTime> {
        match self {
            Self::File(path) => std::fs::metadata(path).and_then(|meta| meta.modified()).ok(),
            Self::Inline(_) => None,
        }
    }

    /// Every certificate in the data, in order.
    pub(super) fn certificates(&self) -> Result<Vec<CertificateDer<'static>>, TlsError> {
        let data = self.read()?;
        let certificates: Vec<_> = CertificateDer::pem_slice_iter(&data)
            .collect::<Result<_, _>>()
            .map_err(|error| TlsError::Pem {
                origin: self.origin(),
                reason: error.to_string(),
            })?;
        if certificates.is_empty() {
            return Err(TlsError::Pem {
                origin: self.origin(),
                reason: "holds no PEM certificate".into(),
            });
        }
        Ok(certificates)
    }

    /// The certificates as trust anchors.
    pub(super) fn roots(&self) -> Result<RootCertStore, TlsError> {
        let mut roots = RootCertStore::empty();
        for certificate in self.certificates()? {
            roots.add(certificate).map_err(|source| TlsError::Rustls {
                origin: self.origin(),
                source,
            })?;
        }
        Ok(roots)
    }
}

/// A certificate chain and its key.
#[derive(Debug)]
pub(super) struct Identity {
    certificate: PemSource,
    key: PemSource,
}

impl Identity {
    pub(super) fn new(certificate: PemSource, key: PemSource) -> Self {
        Self { certificate, key }
    }
}

impl Load for Identity {
    type Loaded = CertifiedKey;

    fn load(&self) -> Result<CertifiedKey, TlsError> {
        let chain = self.certificate.certificates()?;
        let key = PrivateKeyDer::from_pem_slice(&self.key.read()?).map_err(|error| TlsError::Pem {
            origin: self.key.origin(),
            reason: error.to_string(),
        })?;
        CertifiedKey::from_der(chain, key, &provider()).map_err(|source| TlsError::Rustls {
            origin: self.certificate.origin(),
            source,
        })
    }

    fn stamp(&self) -> Stamp {
        (self.certificate.modified(), self.key.modified())
    }
}

/// When the files behind something were last written.
pub(super) type Stamp = (Option<SystemTime>, Option<SystemTime>);

/// Something made from files.
pub(super) trait Load {
    type Loaded;

    fn load(&self) -> Result<Self::Loaded, TlsError>;
    fn stamp(&self) -> Stamp;
}

/// A loaded thing that is loaded again, when asked for, after its files have changed. While the new files
/// do not load, the old thing stays.
#[derive(Debug)]
pub(super) struct Reloading<L: Load> {
    source: L,
    current: ArcSwap<L::Loaded>,
    seen: Mutex<(Instant, Stamp)>,
}

impl<L: Load> Reloading<L> {
    pub(super) fn new(source: L) -> Result<Self, TlsError> {
        let stamp = source.stamp();
        let current = ArcSwap::from_pointee(source.load()?);
        Ok(Self {
            source,
            current,
            seen: Mutex::new((Instant::now(), stamp)),
        })
    }

    pub(super) fn get(&self) -> Arc<L::Loaded> {
        self.recheck(RECHECK);
        self.current.load_full()
    }

    fn recheck(&self, after: Duration) {
        let mut seen = self.seen.lock();
        if seen.0.elapsed() < after {
            return;
        }
        seen.0 = Instant::now();
        let stamp = self.source.stamp();
        if stamp == seen.1 {
            return;
        }
        match self.source.load() {
            Ok(loaded) => {
                self.current.store(Arc::new(loaded));
                seen.1 = stamp;
                tracing::info!("reloaded changed key material");
            }
            Err(error) => tracing::warn!(%error, "changed key material does not load, keeping the old"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_renewed_certificate_is_picked_up_and_a_broken_one_is_not() -> Result<(), Box<dyn std::error::Error>>
    {
        let dir = tempfile::tempdir()?;
        let (certificate, key) = (dir.path().join("tls.crt"), dir.path().join("tls.key"));
        let write = || -> Result<(), Box<dyn std::error::Error>> {
            let made = rcgen::generate_simple_self_signed(vec!["localhost".into()])?;
            std::fs::write(&certificate, made.cert.pem())?;
            std::fs::write(&key, made.signing_key.serialize_pem())?;
            Ok(())
        };
        write()?;
        let reloading = Reloading::new(Identity::new(
            PemSource::File(certificate.clone()),
            PemSource::File(key.clone()),
        ))?;
        let first = reloading.get();

        write()?;
        reloading.recheck(Duration::ZERO);
        let second = reloading.get();
        assert_ne!(first.cert, second.cert);

        std::fs::write(&certificate, "not a certificate")?;
        reloading.recheck(Duration::ZERO);
        assert_eq!(reloading.get().cert, second.cert);
        Ok(())
    }
}
