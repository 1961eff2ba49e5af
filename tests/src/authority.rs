//! A certificate authority of a test's own.

use std::path::{Path, PathBuf};

use anyhow::Result;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, date_time_ymd,
};

/// An authority and where its files are.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    directory: PathBuf,
    /// Its certificate, PEM.
    pub certificate: PathBuf,
}

impl Authority {
    /// A new authority whose files lie in `directory`.
    ///
    /// # Errors
    /// When the files cannot be written.
    pub fn new(directory: &Path, name: &str) -> Result<Self> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let certificate = directory.join(format!("{name}.crt"));
        std::fs::write(&certificate, params.self_signed(&key)?.pem())?;
        std::fs::write(directory.join(format!("{name}.key")), key.serialize_pem())?;
        Ok(Self {
            issuer: Issuer::new(params, key),
            directory: directory.to_path_buf(),
            certificate,
        })
    }

    /// A certificate and its key, for a server on the loopback address and for a client of this name and groups.
    ///
    /// # Errors
    /// When the files cannot be written.
    pub fn issue(&self, name: &str, groups: &[&str]) -> Result<(PathBuf, PathBuf)> {
        self.write(name, groups, |_| {})
    }

    /// The same, good until some time ago.
    ///
    /// # Errors
    /// When the files cannot be written.
    pub fn issue_expired(&self, name: &str, groups: &[&str]) -> Result<(PathBuf, PathBuf)> {
        self.write(name, groups, |params| {
            params.not_before = date_time_ymd(2020, 1, 1);
            params.not_after = date_time_ymd(2021, 1, 1);
        })
    }

    fn write(
        &self,
        name: &str,
        groups: &[&str],
        change: impl FnOnce(&mut CertificateParams),
    ) -> Result<(PathBuf, PathBuf)> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new(vec!["localhost".into(), "127.0.0.1".into()])?;
        params.distinguished_name.push(DnType::CommonName, name);
        for group in groups {
            params.distinguished_name.push(DnType::OrganizationName, *group);
        }
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        change(&mut params);
        let file = name.replace([':', '/'], "-");
        let (cert_file, key_file) = (
            self.directory.join(format!("{file}.crt")),
            self.directory.join(format!("{file}.key")),
        );
        std::fs::write(&cert_file, params.signed_by(&key, &self.issuer)?.pem())?;
        std::fs::write(&key_file, key.serialize_pem())?;
        Ok((cert_file, key_file))
    }
}
