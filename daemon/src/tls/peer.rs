//! Who is at the other end of a TLS connection.

use sha2::{Digest as _, Sha256};
use x509_parser::prelude::{FromDer, X509Certificate};

/// What a connection's client certificate says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Peer {
    /// No certificate was shown.
    Anonymous,
    /// A certificate was shown that the client authority does not vouch for, with the reason.
    Untrusted(String),
    /// A trusted certificate's subject.
    Certificate(CertificateIdentity),
}

/// The names in a certificate's subject: in Kubernetes the common name is the user and each organization a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateIdentity {
    /// The subject's common name.
    pub common_name: String,
    /// The subject's organizations.
    pub organizations: Vec<String>,
    /// What the certificate itself is known by: `X509SHA256=` and its digest in hexadecimal.
    pub credential_id: String,
    /// When the certificate ends, in seconds since the Unix epoch.
    pub not_after: i64,
}

impl CertificateIdentity {
    /// The names in this certificate.
    ///
    /// # Errors
    /// When it is none, or its names are no text.
    pub fn from_der(certificate: &[u8]) -> Result<Self, String> {
        let digest = Sha256::digest(certificate);
        let (_, certificate) = X509Certificate::from_der(certificate).map_err(|error| error.to_string())?;
        let subject = certificate.subject();
        let text = |attribute: &x509_parser::x509::AttributeTypeAndValue<'_>| {
            attribute
                .as_str()
                .map(str::to_owned)
                .map_err(|error| error.to_string())
        };
        let common_name = subject
            .iter_common_name()
            .next()
            .map(text)
            .transpose()?
            .unwrap_or_default();
        let organizations = subject.iter_organization().map(text).collect::<Result<_, _>>()?;
        Ok(Self {
            common_name,
            organizations,
            credential_id: format!("X509SHA256={digest:x}"),
            not_after: certificate.validity().not_after.timestamp(),
        })
    }
}
