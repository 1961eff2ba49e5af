//! What a request asks for, and whether the signer it names gives such things.

use std::net::IpAddr;

use k8s_openapi::api::certificates::v1::CertificateSigningRequestSpec;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::pem::Pem;
use x509_parser::prelude::FromDer as _;

use super::{CLIENT, KUBELET_CLIENT, KUBELET_SERVING};

const NODES: &str = "system:nodes";
const NODE_PREFIX: &str = "system:node:";

/// The parts of a PKCS #10 request that decide.
#[derive(Debug, Default)]
pub struct Asked {
    /// The request itself.
    pub der: Vec<u8>,
    common_name: String,
    organizations: Vec<String>,
    dns_names: Vec<String>,
    addresses: Vec<IpAddr>,
    /// Names of other kinds: mail addresses, URIs.
    others: usize,
}

impl Asked {
    /// Reads `spec.request`.
    pub fn read(pem: &[u8]) -> Result<Self, String> {
        let Some(Ok(block)) = Pem::iter_from_buffer(pem).next() else {
            return Err("the request is not PEM".into());
        };
        let (_, request) =
            X509CertificationRequest::from_der(&block.contents).map_err(|error| error.to_string())?;
        let subject = &request.certification_request_info.subject;
        let texts = |values: Vec<Result<&str, _>>| -> Vec<String> {
            values
                .into_iter()
                .filter_map(|text: Result<&str, x509_parser::error::X509Error>| text.ok().map(str::to_owned))
                .collect()
        };
        let mut asked = Asked {
            common_name: texts(subject.iter_common_name().map(|name| name.as_str()).collect())
                .pop()
                .unwrap_or_default(),
            organizations: texts(subject.iter_organization().map(|name| name.as_str()).collect()),
            ..Asked::default()
        };
        for extension in request.requested_extensions().into_iter().flatten() {
            let ParsedExtension::SubjectAlternativeName(names) = extension else {
                continue;
            };
            for name in &names.general_names {
                match name {
                    GeneralName::DNSName(name) => asked.dns_names.push((*name).to_owned()),
                    GeneralName::IPAddress(bytes) => match address(bytes) {
                        Some(address) => asked.addresses.push(address),
                        None => asked.others += 1,
                    },
                    _ => asked.others += 1,
                }
            }
        }
        drop(request);
        asked.der = block.contents;
        Ok(asked)
    }

    /// The subject's names.
    pub fn subject(&self) -> (&str, &[String]) {
        (&self.common_name, &self.organizations)
    }

    fn is_node(&self) -> Result<(), &'static str> {
        if self.organizations != [NODES] {
            return Err("organization in subject must be exactly system:nodes");
        }
        if !self.common_name.starts_with(NODE_PREFIX) {
            return Err("subject common name does not begin with system:node:");
        }
        Ok(())
    }

    /// Whether this is a kubelet's client certificate as kubelets ask for it.
    pub fn is_kubelet_client(&self, usages: &[String]) -> Result<(), &'static str> {
        self.is_node()?;
        if !self.dns_names.is_empty() || !self.addresses.is_empty() || self.others > 0 {
            return Err("DNS, IP, email and URI subject alternative names are not allowed");
        }
        usages_are(usages, "client auth")
    }

    fn is_kubelet_serving(&self, usages: &[String], username: &str) -> Result<(), &'static str> {
        self.is_node()?;
        if self.others > 0 {
            return Err("email and URI subject alternative names are not allowed");
        }
        if self.dns_names.is_empty() && self.addresses.is_empty() {
            return Err("at least one DNS or IP subject alternative name is required");
        }
        if self.common_name != username {
            return Err("the subject is not who asks");
        }
        usages_are(usages, "server auth")
    }

    /// Whether the signer the request names gives what it asks for. `None`: the signer is somebody else's.
    pub fn fits_signer(&self, spec: &CertificateSigningRequestSpec) -> Option<Result<(), &'static str>> {
        let usages = spec.usages.as_deref().unwrap_or(&[]);
        Some(match spec.signer_name.as_str() {
            KUBELET_CLIENT => self.is_kubelet_client(usages),
            KUBELET_SERVING => self.is_kubelet_serving(usages, spec.username.as_deref().unwrap_or_default()),
            CLIENT => {
                if usages.iter().any(|usage| usage == "client auth")
                    && usages.iter().all(|usage| {
                        matches!(
                            usage.as_str(),
                            "client auth" | "digital signature" | "key encipherment"
                        )
                    })
                {
                    Ok(())
                } else {
                    Err("usages must be client auth, and may be digital signature and key encipherment")
                }
            }
            _ => return None,
        })
    }
}

fn usages_are(usages: &[String], purpose: &str) -> Result<(), &'static str> {
    let has = |wanted: &str| usages.iter().any(|usage| usage == wanted);
    let known =
        |usage: &String| usage == purpose || usage == "digital signature" || usage == "key encipherment";
    if has(purpose) && has("digital signature") && usages.iter().all(known) {
        Ok(())
    } else {
        Err("usages did not match those of this signer")
    }
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.len() {
        4 => <[u8; 4]>::try_from(bytes).ok().map(IpAddr::from),
        16 => <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node() -> Asked {
        Asked {
            common_name: "system:node:n1".into(),
            organizations: vec![NODES.into()],
            ..Asked::default()
        }
    }

    fn usages(list: &[&str]) -> Vec<String> {
        list.iter().map(|usage| (*usage).to_owned()).collect()
    }

    #[test]
    fn kubelets_ask_for_exactly_this() {
        let client = usages(&["digital signature", "client auth"]);
        assert_eq!(node().is_kubelet_client(&client), Ok(()));
        assert!(node().is_kubelet_client(&usages(&["client auth"])).is_err());
        assert!(
            node()
                .is_kubelet_client(&usages(&["digital signature", "client auth", "server auth"]))
                .is_err()
        );
        let named = Asked {
            dns_names: vec!["n1".into()],
            ..node()
        };
        assert!(named.is_kubelet_client(&client).is_err());
        let serving = usages(&["digital signature", "server auth"]);
        assert_eq!(named.is_kubelet_serving(&serving, "system:node:n1"), Ok(()));
        assert!(named.is_kubelet_serving(&serving, "system:node:n2").is_err());
        let master = Asked {
            organizations: vec![NODES.into(), "system:masters".into()],
            ..node()
        };
        assert!(master.is_kubelet_client(&client).is_err());
    }
}
