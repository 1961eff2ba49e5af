use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::client::danger::ServerCertVerifier as _;
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use super::trust::Named;

struct Made {
    pem: String,
    der: CertificateDer<'static>,
}

/// A certificate for the service `w` that has signed itself, as quick starts make them.
fn self_signed() -> Made {
    let key = KeyPair::generate().expect("a key");
    let mut params = CertificateParams::new(vec!["w.default.svc".to_owned()]).expect("parameters");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let made = params.self_signed(&key).expect("a certificate");
    Made {
        pem: made.pem(),
        der: made.der().clone(),
    }
}

/// An authority, and a certificate it has signed.
fn signed() -> (Made, CertificateDer<'static>) {
    let key = KeyPair::generate().expect("a key");
    let mut params = CertificateParams::new(Vec::new()).expect("parameters");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = params.self_signed(&key).expect("a certificate");
    let issuer = Issuer::new(params, key);
    let leaf_key = KeyPair::generate().expect("a key");
    let leaf = CertificateParams::new(vec!["w.default.svc".to_owned()]).expect("parameters");
    let leaf = leaf.signed_by(&leaf_key, &issuer).expect("a certificate");
    let authority = Made {
        pem: authority.pem(),
        der: authority.der().clone(),
    };
    (authority, leaf.der().clone())
}

fn trusts(bundle: &str, shown: &CertificateDer<'_>, name: &str) -> bool {
    let (verifier, _) = Named::new(bundle.as_bytes(), None).expect("a verifier");
    let name = ServerName::try_from(name.to_owned()).expect("a name");
    verifier
        .verify_server_cert(shown, &[], &name, &[], UnixTime::now())
        .is_ok()
}

#[test]
fn a_certificate_that_is_named_itself_is_trusted() {
    let (own, other) = (self_signed(), self_signed());
    assert!(trusts(&own.pem, &own.der, "w.default.svc"));
    assert!(!trusts(&own.pem, &own.der, "other.default.svc"));
    assert!(!trusts(&own.pem, &other.der, "w.default.svc"));
}

#[test]
fn a_certificate_of_the_authority_is_trusted() {
    let (authority, leaf) = signed();
    assert!(trusts(&authority.pem, &leaf, "w.default.svc"));
    assert!(!trusts(&self_signed().pem, &leaf, "w.default.svc"));
    assert!(!trusts(&authority.pem, &authority.der, "w.default.svc"));
}
