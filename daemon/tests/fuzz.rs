//! What every daemon reads at its start and of its callers, fed with what nobody should send.

use std::path::{Path, PathBuf};

use clap::Parser;
use keelson_daemon::jwt::{self, PublicKey, SigningKey};
use keelson_daemon::kubeconfig::CurrentContext;
use keelson_daemon::tls::{CertificateIdentity, PemSource, ServerTls, client_config};
use keelson_daemon::yaml::{self, Twice};
use keelson_daemon::{config, duration};
use keelson_fuzz::certificates::of_a_node;
use keelson_fuzz::{Counted, Fuzz, bounded};
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384};
use serde_json::{Value, json};

#[global_allocator]
static ALLOCATOR: Counted = Counted;

/// The tags and lengths certificates and keys are made of, and where they begin and end as text.
const PEM: &[&str] = &[
    "-----BEGIN CERTIFICATE-----\n",
    "-----END CERTIFICATE-----\n",
    "-----BEGIN PRIVATE KEY-----\n",
    "-----BEGIN EC PRIVATE KEY-----\n",
    "-----BEGIN RSA PRIVATE KEY-----\n",
    "-----BEGIN PUBLIC KEY-----\n",
    "-----END PUBLIC KEY-----\n",
    "-----\n",
    "\r\n",
    "=",
    "MIIB",
    "\x30\x03",
    "\x30\x00",
    "\x02\x01",
    "\x06\x03\x55\x04\x0a",
    "\x06\x03\x55\x04\x03",
    "\x17\x0d",
    "\x18\x0f",
];

const YAML: &[&str] = &[
    "clusters:\n",
    "users:\n",
    "contexts:\n",
    "current-context: ",
    "- name: a\n",
    "  cluster: {",
    "certificate-authority-data: ",
    "client-key-data: ",
    "token: ",
    "tokenFile: ",
    "extensions:\n",
    "&a ",
    "*a",
    "<<: *a",
    "[*a, *a]",
    "[",
    "{",
    "- ",
    "? ",
    ": ",
    "!!binary ",
    "!!int ",
    "---\n",
    "\n  ",
    "~",
    "port: ",
    "quiet: ",
];

fn fuzz(name: &str) -> Fuzz {
    Fuzz::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/corpus"), name)
}

fn scratch(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("fuzz-{name}-{}", std::process::id()))
}

/// A decoder that reads files, as one that reads bytes.
fn from_file<T>(path: &Path, load: impl Fn(&Path) -> T) -> impl Fn(&[u8]) {
    move |input: &[u8]| {
        std::fs::write(path, input).expect("the file");
        drop(load(path));
    }
}

fn keys() -> Vec<KeyPair> {
    [&PKCS_ECDSA_P256_SHA256, &PKCS_ECDSA_P384_SHA384]
        .into_iter()
        .map(|kind| KeyPair::generate_for(kind).expect("a key"))
        .collect()
}

fn certificate(key: &KeyPair) -> rcgen::Certificate {
    let params = of_a_node("n1.example.com");
    params.self_signed(key).expect("a certificate")
}

#[test]
fn kubeconfigs() {
    let path = scratch("kubeconfig");
    fuzz("kubeconfig")
        .words(YAML)
        .rounds(300)
        .run(bounded(from_file(&path, CurrentContext::read)));
    let _ = std::fs::remove_file(&path);
}

#[test]
fn documents_in_yaml() {
    let read = |input: &[u8]| {
        let Ok(text) = std::str::from_utf8(input) else {
            return;
        };
        let strictly = yaml::read::<Value>(text, Twice::Refused);
        let leniently = yaml::read::<Value>(text, Twice::Last);
        match strictly {
            Ok(value) => {
                let json = serde_json::to_vec(&value).expect("a value is JSON");
                serde_json::from_slice::<Value>(&json).expect("no deeper than JSON may be");
                assert_eq!(leniently, Ok(value));
            }
            Err(why) => assert!(why.to_string().len() < 4_096, "{why}"),
        }
    };
    let words = [
        "&a ",
        "*a",
        "<<: *a",
        "---\n",
        "...\n",
        "- ",
        ": ",
        "? ",
        "|\n  ",
        ">-\n  ",
        "!!str ",
        "!!binary ",
        "!!int ",
        "[*a, *a]",
        "{a: *a}",
        "[",
        "{",
        "\n  ",
        "\n",
        "# ",
        "%YAML 1.2\n",
        "%TAG ! tag:a,2026:\n",
        "0o17",
        ".inf",
        "~",
        "on",
        "2026-01-02",
        "\"\\x41\"",
    ];
    fuzz("yaml").words(&words).rounds(500).run(bounded(read));
}

#[derive(Parser)]
struct Args {
    #[arg(long)]
    config: Option<PathBuf>,
    #[arg(long, default_value_t = 1)]
    port: u16,
    #[arg(long)]
    server: Vec<String>,
    #[arg(long, value_parser = duration::parse)]
    after: Option<std::time::Duration>,
}

#[test]
fn files_of_flags() {
    let path = scratch("flags");
    let load = |path: &Path| {
        let flag = format!("--config={}", path.display());
        config::try_parse::<Args>(["daemon".into(), flag.into()])
            .map(|args| (args.config, args.port, args.server, args.after))
    };
    fuzz("flags")
        .words(YAML)
        .rounds(300)
        .run(bounded(from_file(&path, load)));
    let _ = std::fs::remove_file(&path);
}

#[test]
fn keys_and_certificates_in_files() {
    let (path, own) = (scratch("material"), scratch("material-own"));
    let keys = keys();
    std::fs::write(&own, keys[0].serialize_pem()).expect("the key");
    let examples = keys.iter().flat_map(|key| {
        [
            key.serialize_pem(),
            key.public_key_pem(),
            certificate(key).pem(),
            format!("{}{}", certificate(key).pem(), key.serialize_pem()),
        ]
        .map(String::into_bytes)
    });
    let load = |path: &Path| {
        let text = || PemSource::Inline(std::fs::read(path).unwrap_or_default());
        let _ = (PublicKey::load(path), SigningKey::load(path));
        let _ = client_config(Some(text()), Some((text(), text())));
        let _ = ServerTls::load_with_proxies(path, &own, Some(path), Some(path));
    };
    fuzz("material")
        .examples(examples)
        .words(PEM)
        .rounds(500)
        .run(bounded(from_file(&path, load)));
    for path in [path, own] {
        let _ = std::fs::remove_file(path);
    }
}

#[test]
fn certificates_of_callers() {
    let examples = keys()
        .iter()
        .map(|key| certificate(key).der().to_vec())
        .collect::<Vec<_>>();
    fuzz("peer")
        .examples(examples)
        .words(PEM)
        .rounds(4_000)
        .run(bounded(|input: &[u8]| {
            let _ = CertificateIdentity::from_der(input);
        }));
}

#[test]
fn tokens() {
    let path = scratch("tokens");
    let mut known = Vec::new();
    let mut examples = Vec::new();
    for key in keys() {
        std::fs::write(&path, key.serialize_pem()).expect("the key");
        let signer = SigningKey::load(&path).expect("a key to sign with");
        let claims = json!({"iss": "https://a", "sub": "system:serviceaccount:a:b", "aud": ["a"], "exp": 1,
            "kubernetes.io": {"namespace": "a", "serviceaccount": {"name": "b", "uid": "c"}}});
        let token = signer.sign(&claims).expect("a token");
        assert_eq!(
            jwt::verify::<Value>(&token, std::slice::from_ref(&signer.public)),
            Ok(claims)
        );
        examples.push(token.into_bytes());
        known.push(signer.public);
    }
    let _ = std::fs::remove_file(&path);
    let words = [
        ".",
        "..",
        "e30",
        "e30.",
        "eyJhbGciOiJFUzI1NiJ9.",
        "eyJhbGciOiJFUzM4NCJ9.",
        "eyJhbGciOiJub25lIn0.",
        "AAAA",
        "____",
        "=",
    ];
    fuzz("token")
        .examples(examples.clone())
        .words(&words)
        .rounds(1_000)
        .run(bounded(|input: &[u8]| {
            let text = String::from_utf8_lossy(input);
            let verified = jwt::verify::<Value>(&text, &known);
            // Nobody but the keys' owner makes tokens.
            let is_signed = |example: &Vec<u8>| {
                let of = |bytes: &[u8]| {
                    bytes
                        .iter()
                        .rposition(|byte| *byte == b'.')
                        .map(|end| bytes[..end].to_vec())
                };
                of(example) == of(input)
            };
            assert!(verified.is_err() || examples.iter().any(is_signed), "{text}");
        }));
}
