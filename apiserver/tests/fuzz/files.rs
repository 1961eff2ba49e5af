//! Configuration files.

use std::path::{Path as FilePath, PathBuf};

use keelson_apiserver::admission::config::AdmissionConfig;
use keelson_apiserver::audit::policy::Policy;
use keelson_apiserver::authentication::oidc::claims::Mapping;
use keelson_apiserver::authentication::oidc::config::AuthenticationConfiguration;
use keelson_apiserver::authentication::token_file::TokenFile;
use keelson_apiserver::authorization::config::steps_of;
use keelson_apiserver::outbound::kubeconfig::Webhook;
use keelson_apiserver::storage::encryption::config::EncryptionConfiguration;
use keelson_fuzz::bounded;

use super::fuzz;

const FILES: &[&str] = &[
    "apiVersion: ",
    "kind: ",
    "rules:\n",
    "- level: ",
    "resources:\n",
    "providers:\n",
    "- identity: {}\n",
    "aescbc:\n",
    "keys:\n",
    "secret: ",
    "&a",
    "*a",
    "<<: *a",
    "~",
    "[]",
    "{}",
    "\n  ",
    "-1",
    "!!binary ",
    "clusters:\n",
    "users:\n",
    "jwt:\n",
    "issuer: {",
    "claimMappings: {",
    "expression: ",
    "claims.",
    "authorizers:\n",
    "- type: ",
    "matchConditions:\n",
    "plugins:\n",
    "exemptions: {",
    "[*a, *a]",
    "[",
    "{",
    "---\n",
    "\"",
    ",",
    "\r\n",
    "#",
];

/// A decoder that reads files, fed with them.
fn file<T>(name: &str, load: impl Fn(&FilePath) -> T) {
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("fuzz-{name}-{}", std::process::id()));
    let read = |input: &[u8]| {
        std::fs::write(&path, input).expect("the file");
        drop(load(&path));
    };
    fuzz(name).words(FILES).rounds(400).run(bounded(read));
    let _ = std::fs::remove_file(&path);
}

#[test]
fn configurations_of_authentication() {
    let claims = serde_json::json!({"iss": "https://a.example.com", "aud": ["a"], "sub": "jane", "email": "j@example.com",
        "email_verified": true, "groups": ["dev", 1], "deep": {"a": [{"b": null}]}});
    file("authentication", |path| {
        let config = AuthenticationConfiguration::parse(&std::fs::read_to_string(path).unwrap_or_default())?;
        for issuer in &config.jwt {
            let mapping = Mapping::new(issuer).map_err(anyhow::Error::msg)?;
            let _ = mapping.user(claims.as_object().cloned().unwrap_or_default());
        }
        anyhow::Ok(())
    });
}

#[test]
fn configurations_of_authorization() {
    file("authorization", |path| {
        steps_of(&std::fs::read_to_string(path).unwrap_or_default())
    });
}

#[test]
fn configurations_of_admission() {
    file("admission", |path| AdmissionConfig::load(Some(path)));
}

#[test]
fn audit_policies() {
    file("audit-policy", Policy::load);
}

#[test]
fn files_of_keys() {
    file("encryption", EncryptionConfiguration::load);
}

#[test]
fn files_of_tokens() {
    file("token-file", TokenFile::load);
}

#[test]
fn kubeconfigs_of_webhooks() {
    file("webhook-kubeconfig", Webhook::load);
}
