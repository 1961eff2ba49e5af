//! Certificates and requests for them, to begin with.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rcgen::{CertificateParams, DnType};

/// What a node asks to be certified, under a name of its own.
///
/// # Panics
/// When the host is no name.
#[must_use]
pub fn of_a_node(host: &str) -> CertificateParams {
    let mut params = match CertificateParams::new(vec![host.to_owned(), "10.0.0.1".to_owned()]) {
        Ok(params) => params,
        Err(error) => panic!("{host}: {error}"),
    };
    let name = &mut params.distinguished_name;
    name.push(DnType::CommonName, "system:node:n1");
    name.push(DnType::OrganizationName, "system:nodes");
    params
}

/// DER as text: mutations of the text seldom are what they stand for.
#[must_use]
pub fn pem(label: &str, der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    let lines: Vec<&str> = text
        .as_bytes()
        .chunks(64)
        .filter_map(|line| std::str::from_utf8(line).ok())
        .collect();
    format!(
        "-----BEGIN {label}-----\n{}\n-----END {label}-----\n",
        lines.join("\n")
    )
}
