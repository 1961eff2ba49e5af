//! What a certificate is to say, and whether an existing one says it.

use std::collections::BTreeSet;
use std::time::Duration;

use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, KeyUsagePurpose};
use x509_parser::extensions::GeneralName;
use x509_parser::pem::parse_x509_pem;

/// A clock that is this much behind does not refuse a new certificate.
const SLOW_CLOCK: Duration = Duration::from_secs(24 * 3600);

/// What a certificate may be used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// To serve.
    Server,
    /// To call.
    Client,
    /// To do both: members of the store.
    Both,
}

/// One certificate to be issued.
#[derive(Debug, Clone)]
pub struct Request {
    /// Its files are `NAME.crt` and `NAME.key`.
    pub name: String,
    common_name: String,
    organization: Option<String>,
    names: Vec<String>,
    purpose: Purpose,
}

impl Request {
    /// A certificate to serve under `names` (DNS names and addresses).
    #[must_use]
    pub fn server(name: &str, common_name: &str, names: Vec<String>) -> Self {
        Self {
            name: name.into(),
            common_name: common_name.into(),
            organization: None,
            names,
            purpose: Purpose::Server,
        }
    }

    /// A certificate to call as `common_name`.
    #[must_use]
    pub fn client(name: &str, common_name: &str) -> Self {
        Self {
            name: name.into(),
            common_name: common_name.into(),
            organization: None,
            names: Vec::new(),
            purpose: Purpose::Client,
        }
    }

    /// The Kubernetes group.
    #[must_use]
    pub fn organization(self, organization: &str) -> Self {
        Self {
            organization: Some(organization.into()),
            ..self
        }
    }

    /// Another purpose.
    #[must_use]
    pub fn purpose(self, purpose: Purpose) -> Self {
        Self { purpose, ..self }
    }

    pub(super) fn parameters(&self, validity: Duration) -> Result<CertificateParams, rcgen::Error> {
        let names: BTreeSet<String> = self.names.iter().cloned().collect();
        let mut parameters = CertificateParams::new(names.into_iter().collect::<Vec<_>>())?;
        parameters.distinguished_name.remove(DnType::CommonName);
        parameters
            .distinguished_name
            .push(DnType::CommonName, self.common_name.clone());
        if let Some(organization) = &self.organization {
            parameters
                .distinguished_name
                .push(DnType::OrganizationName, organization.clone());
        }
        parameters.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        parameters.extended_key_usages = match self.purpose {
            Purpose::Server => vec![ExtendedKeyUsagePurpose::ServerAuth],
            Purpose::Client => vec![ExtendedKeyUsagePurpose::ClientAuth],
            Purpose::Both => vec![
                ExtendedKeyUsagePurpose::ServerAuth,
                ExtendedKeyUsagePurpose::ClientAuth,
            ],
        };
        parameters.use_authority_key_identifier_extension = true;
        set_validity(&mut parameters, validity);
        Ok(parameters)
    }

    /// Whether `pem` says what this request asks for and will for more than the last third of `validity`.
    pub(super) fn is_met_by(&self, pem: &[u8], validity: Duration) -> bool {
        let Ok((_, pem)) = parse_x509_pem(pem) else {
            return false;
        };
        let Ok(certificate) = pem.parse_x509() else {
            return false;
        };
        let subject = certificate.subject();
        let common_name = subject
            .iter_common_name()
            .next()
            .and_then(|name| name.as_str().ok());
        let organization = subject
            .iter_organization()
            .next()
            .and_then(|name| name.as_str().ok());
        let names: BTreeSet<String> = match certificate.subject_alternative_name() {
            Ok(Some(extension)) => extension.value.general_names.iter().filter_map(text).collect(),
            _ => BTreeSet::new(),
        };
        let left = certificate.validity().not_after.timestamp() - jiff::Timestamp::now().as_second();
        common_name == Some(&self.common_name)
            && organization == self.organization.as_deref()
            && names == self.names.iter().cloned().collect()
            && u64::try_from(left).is_ok_and(|left| left > validity.as_secs() / 3)
    }
}

fn text(name: &GeneralName<'_>) -> Option<String> {
    match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        GeneralName::IPAddress(bytes) => match bytes.len() {
            4 => Some(std::net::Ipv4Addr::from(<[u8; 4]>::try_from(*bytes).ok()?).to_string()),
            16 => Some(std::net::Ipv6Addr::from(<[u8; 16]>::try_from(*bytes).ok()?).to_string()),
            _ => None,
        },
        _ => None,
    }
}

/// From a while ago, so that a clock that is behind does not refuse it, and for so long from now.
pub(super) fn set_validity(parameters: &mut CertificateParams, validity: Duration) {
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap_or_default();
    parameters.not_before = epoch + now.saturating_sub(SLOW_CLOCK);
    // RFC 5280, section 4.1.2.5: the last moment a certificate can name.
    let end_of_time = rcgen::date_time_ymd(9999, 12, 31);
    let longest = u64::try_from((end_of_time - epoch).whole_seconds()).unwrap_or(0);
    parameters.not_after = epoch + now.saturating_add(validity).min(Duration::from_secs(longest));
}
