//! Secrets and chosen kinds, unreadable to whoever has the store.

use std::path::Path;
use std::time::Duration;

use anyhow::{Result, ensure};
use keelson_tests::process::eventually;

use keelson_tests::control_plane::ControlPlane;

/// Found in the store's files only if it was stored in the clear: long, and nothing compresses it away.
const PLAIN: &str = "the-quick-brown-fox-1f6bd3a7c9e05248";

const ONE: &str = "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=";
const TWO: &str = "AgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgI=";

fn configure(file: &Path, providers: &str) -> Result<()> {
    let text = format!(
        "apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\nresources:\n\
         - resources: [secrets, crontabs.stable.example.com]\n  providers: [{providers}]\n"
    );
    // In one step, as an editor does it: a reader sees the old file or the new one.
    let new = file.with_extension("new");
    std::fs::write(&new, text)?;
    std::fs::rename(new, file)?;
    Ok(())
}

fn secret(name: &str, value: &str) -> String {
    format!(
        r#"{{"apiVersion":"v1","kind":"Secret","metadata":{{"name":"{name}"}},"stringData":{{"k":"{value}"}}}}"#
    )
}

const SECRETS: &str = "/api/v1/namespaces/default/secrets";

fn stored(plane: &ControlPlane, name: &str) -> Result<String> {
    let key = format!("/registry/secrets/default/{name}");
    plane.etcdctl(&["get", "--print-value-only", &key])
}

#[test]
fn secrets_are_encrypted_and_keys_rotate() -> Result<()> {
    let aescbc = |keys: &[(&str, &str)]| {
        let keys: Vec<String> = keys
            .iter()
            .map(|(name, secret)| format!("{{name: {name}, secret: '{secret}'}}"))
            .collect();
        format!("{{aescbc: {{keys: [{}]}}}}, {{identity: {{}}}}", keys.join(", "))
    };
    // Before anything is encrypted.
    let mut plane = ControlPlane::up(|_, _| Ok(Vec::new()))?;
    let old = plane.admin("POST", SECRETS, Some(&secret("old", "not-encrypted-yet")))?;
    ensure!(old.code == 201, "{old:?}");

    let file = plane.path("encryption.yaml");
    configure(&file, &aescbc(&[("key1", ONE)]))?;
    plane.restart(vec![
        format!("--encryption-provider-config={}", file.display()),
        "--encryption-provider-config-automatic-reload=true".into(),
    ])?;
    let made = plane.admin("POST", SECRETS, Some(&secret("one", PLAIN)))?;
    ensure!(made.code == 201, "{made:?}");
    ensure!(stored(&plane, "one")?.starts_with("k8s:enc:aescbc:v1:key1:"));
    // What was there before can be read, and a write that changes nothing encrypts it.
    ensure!(stored(&plane, "old")?.starts_with('{'));
    rewrite(&plane, "old")?;
    ensure!(stored(&plane, "old")?.starts_with("k8s:enc:aescbc:v1:key1:"));
    // Other kinds are stored as ever.
    let config = r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"c"}}"#;
    plane.admin("POST", "/api/v1/namespaces/default/configmaps", Some(config))?;
    let config = plane.etcdctl(&["get", "--print-value-only", "/registry/configmaps/default/c"])?;
    ensure!(config.starts_with('{'), "{config}");

    // A second key writes; the first still reads; a write that changes nothing moves a value from one to the other.
    configure(&file, &aescbc(&[("key2", TWO), ("key1", ONE)]))?;
    let rotated = || {
        plane.admin("DELETE", &format!("{SECRETS}/two"), None)?;
        plane.admin("POST", SECRETS, Some(&secret("two", PLAIN)))?;
        ensure!(stored(&plane, "two")?.starts_with("k8s:enc:aescbc:v1:key2:"));
        Ok(())
    };
    eventually("the new key is in use", Duration::from_secs(30), rotated)?;
    ensure!(stored(&plane, "one")?.starts_with("k8s:enc:aescbc:v1:key1:"));
    for name in ["one", "old"] {
        rewrite(&plane, name)?;
        ensure!(stored(&plane, name)?.starts_with("k8s:enc:aescbc:v1:key2:"));
    }
    let read = plane.admin("GET", &format!("{SECRETS}/one"), None)?;
    ensure!(read.code == 200 && read.body.contains(&base64(PLAIN)), "{read:?}");
    // Neither the log nor the state of the store has ever seen it, also not as the base64 that objects carry.
    ensure!(!plane.store_contains(PLAIN.as_bytes())?);
    ensure!(!plane.store_contains(base64(PLAIN).as_bytes())?);
    ensure!(plane.store_contains(b"k8s:enc:aescbc:v1:key2:")?);

    // A key that is lost loses what it wrote, and says so instead of leaving it out.
    configure(
        &file,
        &format!("{{aesgcm: {{keys: [{{name: key3, secret: '{ONE}'}}]}}}}"),
    )?;
    plane.restart(vec![format!("--encryption-provider-config={}", file.display())])?;
    for path in [SECRETS.to_owned(), format!("{SECRETS}/one")] {
        let refused = plane.admin("GET", &path, None)?;
        ensure!(
            refused.code == 500
                && refused.body.contains("unable to transform key")
                && refused.body.contains("no matching prefix found"),
            "{refused:?}"
        );
    }
    let other = plane.admin("GET", "/api/v1/namespaces/default/configmaps", None)?;
    ensure!(other.code == 200, "{other:?}");
    Ok(())
}

/// Replaces an object by itself.
fn rewrite(plane: &ControlPlane, name: &str) -> Result<()> {
    let path = format!("{SECRETS}/{name}");
    let read = plane.admin("GET", &path, None)?;
    ensure!(read.code == 200, "{read:?}");
    let written = plane.admin("PUT", &path, Some(&read.body))?;
    ensure!(written.code == 200, "{written:?}");
    Ok(())
}

fn base64(text: &str) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::new();
    for part in text.as_bytes().chunks(3) {
        let bits =
            part.iter().fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - part.len()));
        for place in 0..4 {
            if place <= part.len() {
                out.push(char::from(DIGITS[(bits >> (18 - 6 * place)) as usize & 63]));
            } else {
                out.push('=');
            }
        }
    }
    out
}
