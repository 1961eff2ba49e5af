//! From an approved request to a certificate.

use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use k8s_openapi::api::certificates::v1::CertificateSigningRequestSpec;
use rcgen::{
    CertificateSigningRequestParams, ExtendedKeyUsagePurpose, Issuer, KeyPair, KeyUsagePurpose, SerialNumber,
};
use rustls_pki_types::CertificateSigningRequestDer;

use super::recognize::Asked;

/// Certificates are valid from a little earlier on, for those whose clocks are behind.
const BACKDATE: Duration = Duration::from_secs(5 * 60);

/// The authority that signs.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    /// The end of the authority's own certificate, in seconds since 1970.
    not_after: i64,
}

impl Authority {
    /// Reads the authority's certificate and key.
    pub fn load(certificate: &Path, key: &Path) -> anyhow::Result<Self> {
        let read = |path: &Path| {
            std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
        };
        let pem = read(certificate)?;
        let key = KeyPair::from_pem(&read(key)?).with_context(|| format!("{} is no key", key.display()))?;
        let (_, block) = x509_parser::pem::parse_x509_pem(pem.as_bytes())
            .with_context(|| format!("{} is not PEM", certificate.display()))?;
        let not_after = block
            .parse_x509()
            .with_context(|| format!("{} is no certificate", certificate.display()))?
            .validity()
            .not_after
            .timestamp();
        let issuer = Issuer::from_ca_cert_pem(&pem, key)
            .with_context(|| format!("{} does not fit its key", certificate.display()))?;
        Ok(Self { issuer, not_after })
    }

    /// The certificate for a request, PEM. It lasts as long as asked for, but no longer than `longest` and the authority.
    pub fn sign(
        &self,
        asked: &Asked,
        spec: &CertificateSigningRequestSpec,
        longest: Duration,
    ) -> Result<String, String> {
        let der = CertificateSigningRequestDer::from(asked.der.as_slice());
        let mut request =
            CertificateSigningRequestParams::from_der(&der).map_err(|error| error.to_string())?;
        let wanted = spec
            .expiration_seconds
            .and_then(|seconds| u64::try_from(seconds).ok())
            .map_or(longest, Duration::from_secs)
            .min(longest);
        let now = jiff::Timestamp::now().as_second();
        let backdate = i64::try_from(BACKDATE.as_secs()).unwrap_or_default();
        let seconds = i64::try_from(wanted.as_secs()).unwrap_or(i64::MAX);
        let end = now.saturating_add(seconds).min(self.not_after);
        let at = |seconds: i64| {
            time::OffsetDateTime::from_unix_timestamp(seconds).map_err(|error| error.to_string())
        };
        let params = &mut request.params;
        params.not_before = at(now - backdate)?;
        params.not_after = at(end)?;
        params.serial_number = Some(SerialNumber::from(rand::random::<u64>() >> 1));
        params.use_authority_key_identifier_extension = true;
        params.key_usages.clear();
        params.extended_key_usages.clear();
        for usage in spec.usages.iter().flatten() {
            match usage.as_str() {
                "digital signature" | "signing" => params.key_usages.push(KeyUsagePurpose::DigitalSignature),
                "key encipherment" => params.key_usages.push(KeyUsagePurpose::KeyEncipherment),
                "client auth" => params
                    .extended_key_usages
                    .push(ExtendedKeyUsagePurpose::ClientAuth),
                "server auth" => params
                    .extended_key_usages
                    .push(ExtendedKeyUsagePurpose::ServerAuth),
                other => return Err(format!("unrecognized usage {other:?}")),
            }
        }
        let signed = request
            .signed_by(&self.issuer)
            .map_err(|error| error.to_string())?;
        Ok(signed.pem())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa};

    #[test]
    fn what_is_signed_says_what_was_asked_for() -> anyhow::Result<()> {
        let folder = tempfile::tempdir()?;
        let (certificate, key) = (folder.path().join("ca.crt"), folder.path().join("ca.key"));
        let pair = KeyPair::generate()?;
        let mut ca = CertificateParams::default();
        ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        std::fs::write(&certificate, ca.self_signed(&pair)?.pem())?;
        std::fs::write(&key, pair.serialize_pem())?;
        let authority = Authority::load(&certificate, &key)?;

        let mut wanted = CertificateParams::default();
        wanted.distinguished_name.push(DnType::CommonName, "jane");
        let request = wanted.serialize_request(&KeyPair::generate()?)?.pem()?;
        let asked = Asked::read(request.as_bytes()).map_err(anyhow::Error::msg)?;
        assert_eq!(asked.subject().0, "jane");
        let spec = CertificateSigningRequestSpec {
            expiration_seconds: Some(600),
            usages: Some(vec!["client auth".into()]),
            signer_name: super::super::CLIENT.into(),
            ..CertificateSigningRequestSpec::default()
        };
        assert_eq!(asked.fits_signer(&spec), Some(Ok(())));
        let pem = authority
            .sign(&asked, &spec, Duration::from_secs(3600))
            .map_err(anyhow::Error::msg)?;
        let (_, block) = x509_parser::pem::parse_x509_pem(pem.as_bytes())?;
        let signed = block.parse_x509()?;
        let validity = signed.validity();
        assert_eq!(
            validity.not_after.timestamp() - validity.not_before.timestamp(),
            600 + 300
        );
        let purposes = signed.extended_key_usage()?.context("a purpose")?;
        assert!(purposes.value.client_auth && !purposes.value.server_auth);
        Ok(())
    }
}
