//! A certificate authority kept in two files.

use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};

use super::certificate::{Request, set_validity};
use super::{PUBLIC, SECRET};
use crate::cluster::{Paths, write_file};

/// An authority outlives every certificate it signs: ten years.
const VALIDITY: Duration = Duration::from_secs(3650 * 24 * 3600);

/// Signs certificates.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    /// Made just now: certificates from an earlier authority are worthless.
    fresh: bool,
}

impl Authority {
    /// Reads the authority from its files, or makes it.
    ///
    /// # Errors
    /// When the files cannot be read or written; one without the other is an error.
    pub fn ensure(certificate_path: &Path, key_path: &Path, name: &str) -> anyhow::Result<Self> {
        if certificate_path.exists() {
            let certificate = std::fs::read_to_string(certificate_path)
                .with_context(|| format!("reading {}", certificate_path.display()))?;
            let key = std::fs::read_to_string(key_path).with_context(|| {
                format!(
                    "reading {}, the key of {}",
                    key_path.display(),
                    certificate_path.display()
                )
            })?;
            let key = KeyPair::from_pem(&key).with_context(|| format!("reading {}", key_path.display()))?;
            let issuer = Issuer::from_ca_cert_pem(&certificate, key)
                .with_context(|| format!("reading {}", certificate_path.display()))?;
            return Ok(Self { issuer, fresh: false });
        }
        let making = || format!("making the authority {name}");
        let key = KeyPair::generate().with_context(making)?;
        let mut parameters = CertificateParams::new(Vec::new()).with_context(making)?;
        parameters.distinguished_name.remove(DnType::CommonName);
        parameters.distinguished_name.push(DnType::CommonName, name);
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        parameters.key_usages = vec![
            KeyUsagePurpose::DigitalSignature,
            KeyUsagePurpose::KeyCertSign,
            KeyUsagePurpose::CrlSign,
        ];
        set_validity(&mut parameters, VALIDITY);
        let certificate = parameters.self_signed(&key).with_context(making)?;
        write_file(key_path, key.serialize_pem().as_bytes(), SECRET)?;
        write_file(certificate_path, certificate.pem().as_bytes(), PUBLIC)?;
        Ok(Self {
            issuer: Issuer::new(parameters, key),
            fresh: true,
        })
    }

    /// Issues what `request` asks for, good for `validity`, unless the files hold it already. True when it was issued.
    ///
    /// # Errors
    /// When the files cannot be written or the names in the request are not names.
    pub fn ensure_certificate(
        &self,
        paths: &Paths,
        request: &Request,
        validity: Duration,
    ) -> anyhow::Result<bool> {
        let certificate_path = paths.pki(&format!("{}.crt", request.name));
        let key_path = paths.pki(&format!("{}.key", request.name));
        if !self.fresh
            && key_path.exists()
            && std::fs::read(&certificate_path).is_ok_and(|pem| request.is_met_by(&pem, validity))
        {
            return Ok(false);
        }
        let issuing = || format!("issuing the certificate {}", request.name);
        let key = KeyPair::generate().with_context(issuing)?;
        let certificate = request
            .parameters(validity.min(VALIDITY))
            .and_then(|parameters| parameters.signed_by(&key, &self.issuer))
            .with_context(issuing)?;
        write_file(&key_path, key.serialize_pem().as_bytes(), SECRET)?;
        write_file(&certificate_path, certificate.pem().as_bytes(), PUBLIC)?;
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_is_kept_until_it_should_say_something_else() -> anyhow::Result<()> {
        let dir = tempfile::tempdir()?;
        let paths = Paths {
            dir: dir.path().into(),
            run_dir: dir.path().join("run"),
        };
        let ensure = || Authority::ensure(&paths.pki("ca.crt"), &paths.pki("ca.key"), "test");
        let names = vec!["localhost".to_owned(), "10.96.0.1".to_owned(), "::1".to_owned()];
        let request = Request::server("server", "server", names.clone());
        let day = Duration::from_secs(24 * 3600);
        assert!(ensure()?.ensure_certificate(&paths, &request, day)?);
        assert!(
            !ensure()?.ensure_certificate(&paths, &request, day)?,
            "nothing changed"
        );
        assert!(
            !ensure()?.ensure_certificate(&paths, &request, day * 2)?,
            "more than a third of what is wanted is left"
        );
        assert!(
            ensure()?.ensure_certificate(&paths, &request, day * 4)?,
            "less than a third is left"
        );
        let more = Request::server("server", "server", [names, vec!["more".to_owned()]].concat());
        assert!(ensure()?.ensure_certificate(&paths, &more, day)?, "a new name");
        std::fs::remove_file(paths.pki("ca.crt"))?;
        assert!(
            ensure()?.ensure_certificate(&paths, &more, day)?,
            "a new authority"
        );
        Ok(())
    }
}
