//! Tokens, keys, certificates and requests for them.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use keelson_apiserver::authentication::oidc::keys::{self, Algorithm};
use keelson_apiserver::authentication::oidc::signer::Token;
use keelson_apiserver::registry::certificates::request;
use keelson_apiserver::webhook::trusting;
use keelson_fuzz::bounded;
use keelson_fuzz::certificates::{of_a_node, pem};
use rcgen::KeyPair;

use super::{fuzz, text};

const PEM: &[&str] = &[
    "-----BEGIN CERTIFICATE REQUEST-----\n",
    "-----BEGIN CERTIFICATE-----\n",
    "-----END CERTIFICATE REQUEST-----\n",
    "-----END CERTIFICATE-----\n",
    "-----\n",
    "\x30\x03",
    "\x06\x03\x55\x04\x0a",
    "\x06\x03\x55\x04\x03",
    "\x0c\x01",
    "\x1e\x02",
];

#[test]
fn requests_for_certificates() {
    let read = |input: &[u8]| {
        for text in [input, pem("CERTIFICATE REQUEST", input).as_bytes()] {
            let _ = (request::complaint(text), request::organizations(text));
        }
    };
    let key = KeyPair::generate().expect("a key");
    let whole = of_a_node("n1").serialize_request(&key).expect("a request");
    let examples = [whole.der().to_vec(), whole.pem().expect("text").into_bytes()];
    fuzz("certificate-request")
        .examples(examples)
        .words(PEM)
        .rounds(500)
        .run(bounded(read));
}

#[test]
fn bundles_of_authorities() {
    let read = |input: &[u8]| {
        for text in [input, pem("CERTIFICATE", input).as_bytes()] {
            let _ = request::chain_complaint(text);
            let _ = trusting(text, None);
        }
    };
    let key = KeyPair::generate().expect("a key");
    let whole = of_a_node("n1").self_signed(&key).expect("a certificate");
    let examples = [
        whole.der().to_vec(),
        whole.pem().into_bytes(),
        whole.pem().repeat(3).into_bytes(),
    ];
    fuzz("bundle")
        .examples(examples)
        .words(PEM)
        .rounds(300)
        .run(bounded(read));
}

/// Tokens, and what they are made of before it is encoded: three lines for their three parts.
#[test]
fn tokens_of_issuers() {
    let read = |input: &[u8]| {
        let whole = text(input);
        let encoded: Vec<String> = whole
            .split('\n')
            .map(|part| URL_SAFE_NO_PAD.encode(part))
            .collect();
        for token in [whole.as_ref(), &encoded.join(".")] {
            if let Some(token) = Token::parse(token) {
                let _ = (token.issuer(), token.claims.len());
            }
        }
    };
    let examples = [
        b"{\"alg\":\"RS256\",\"kid\":\"a\"}\n{\"iss\":\"https://a\",\"aud\":[\"b\"],\"exp\":1e300}\nx"
            .to_vec(),
        b"eyJhbGciOiJSUzI1NiJ9.eyJpc3MiOiJodHRwczovL2EifQ.AAAA".to_vec(),
    ];
    let words = [
        ".",
        "\n",
        "{}",
        "\"alg\":\"none\"",
        "\"kid\":",
        "\"iss\":",
        "\"aud\":",
        "\"exp\":-1",
        "[",
        "=",
    ];
    fuzz("id-token")
        .examples(examples)
        .words(&words)
        .run(bounded(read));
}

#[test]
fn keys_of_issuers() {
    let read = |input: &[u8]| {
        for key in keys::of_set(input).unwrap_or_default() {
            for algorithm in Algorithm::ALL {
                assert!(!key.verifies(algorithm, b"message", &[1; 64]), "{key:?}");
            }
        }
    };
    let words = [
        "\"keys\":[",
        "{\"kty\":\"RSA\",",
        "{\"kty\":\"EC\",",
        "\"crv\":\"P-256\"",
        "\"crv\":\"P-384\"",
        "\"n\":",
        "\"e\":\"AQAB\"",
        "\"x\":",
        "\"y\":",
        "\"use\":\"sig\"",
        "\"kid\":",
        "AAAA",
        "____",
        "null",
    ];
    fuzz("jwks").words(&words).rounds(500).run(bounded(read));
}
