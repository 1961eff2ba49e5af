//! Authorities and the certificates they issue, as files.

use std::path::PathBuf;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};

/// A folder of certificates and keys.
#[derive(Clone)]
pub struct Certificates(pub PathBuf);

impl Certificates {
    pub fn path(&self, name: &str) -> String {
        self.0.join(name).display().to_string()
    }

    /// Writes `NAME.crt` and `NAME.key`, for this machine as server and as client.
    pub fn issue(&self, name: &str, issuer: &Issuer<'_, KeyPair>) -> anyhow::Result<()> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new(vec!["localhost".into(), "127.0.0.1".into()])?;
        params.distinguished_name.push(DnType::CommonName, name);
        let certificate = params.signed_by(&key, issuer)?;
        std::fs::write(self.path(&format!("{name}.crt")), certificate.pem())?;
        std::fs::write(self.path(&format!("{name}.key")), key.serialize_pem())?;
        Ok(())
    }

    /// Makes an authority and writes `NAME.crt`.
    pub fn authority(&self, name: &str) -> anyhow::Result<Issuer<'static, KeyPair>> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new(Vec::new())?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        std::fs::write(self.path(&format!("{name}.crt")), params.self_signed(&key)?.pem())?;
        Ok(Issuer::new(params, key))
    }

    /// A member's flags: both its sides talk only to those with a certificate of `ca`.
    pub fn member_flags(&self) -> Vec<String> {
        let file = |flag: &str, name: &str| format!("--{flag}={}", self.path(name));
        vec![
            file("cert-file", "server.crt"),
            file("key-file", "server.key"),
            file("trusted-ca-file", "ca.crt"),
            "--client-cert-auth".into(),
            file("peer-cert-file", "server.crt"),
            file("peer-key-file", "server.key"),
            file("peer-trusted-ca-file", "ca.crt"),
            "--peer-client-cert-auth".into(),
        ]
    }
}
