//! What controllers read of users' making, fed with what nobody should send.

use k8s_openapi::api::certificates::v1::CertificateSigningRequestSpec;
use keelson_controller_manager::certificates::recognize::Asked;
use keelson_fuzz::certificates::{of_a_node, pem};
use keelson_fuzz::{Counted, Fuzz, bounded};
use rcgen::{KeyPair, SanType};

#[global_allocator]
static ALLOCATOR: Counted = Counted;

/// Signers that look at what is asked for.
const SIGNERS: [&str; 3] = [
    "kubernetes.io/kube-apiserver-client",
    "kubernetes.io/kube-apiserver-client-kubelet",
    "kubernetes.io/kubelet-serving",
];

fn request() -> rcgen::CertificateSigningRequest {
    let mut params = of_a_node("n1");
    let mail = "a@example.com".try_into().expect("an address");
    params.subject_alt_names.push(SanType::Rfc822Name(mail));
    let key = KeyPair::generate().expect("a key");
    params.serialize_request(&key).expect("a request")
}

/// As text, and what is in it as if it had been text.
#[test]
fn requests_for_certificates() {
    let decode = |input: &[u8]| {
        let framed = pem("CERTIFICATE REQUEST", input);
        for text in [input, framed.as_bytes()] {
            let Ok(asked) = Asked::read(text) else {
                continue;
            };
            let _ = asked.subject();
            for signer in SIGNERS {
                let _ = asked.fits_signer(&CertificateSigningRequestSpec {
                    signer_name: signer.to_owned(),
                    usages: Some(vec!["client auth".to_owned(), "digital signature".to_owned()]),
                    username: Some("system:node:n1".to_owned()),
                    ..CertificateSigningRequestSpec::default()
                });
            }
        }
    };
    let request = request();
    let examples = [request.der().to_vec(), request.pem().expect("text").into_bytes()];
    let words = [
        "-----BEGIN CERTIFICATE REQUEST-----\n",
        "-----END CERTIFICATE REQUEST-----\n",
        "-----\n",
        "\x30\x03",
        "\x06\x03\x55\x04\x0a",
        "\x06\x03\x55\x1d\x11",
    ];
    Fuzz::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/corpus"), "request")
        .examples(examples)
        .words(&words)
        .run(bounded(decode));
}
