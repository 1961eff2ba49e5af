use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::*;
use crate::registry;

fn encryption(resources: &str) -> Encryption {
    let file = tempfile::NamedTempFile::new().expect("a file");
    let text = format!(
        "apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\nresources:\n{resources}"
    );
    std::fs::write(file.path(), text).expect("written");
    let strategies = registry::all();
    let infos: Vec<_> = strategies.iter().map(|strategy| strategy.info()).collect();
    Encryption::load(file.path(), "/registry/".into(), infos.into_iter()).expect("a configuration")
}

fn key(name: &str, byte: u8) -> String {
    format!("{{name: {name}, secret: '{}'}}", STANDARD.encode([byte; 32]))
}

const SECRET: &str = "/registry/secrets/default/s";

async fn sealed(encryption: &Encryption, key: &str) -> Bytes {
    let value = encryption.seal(key, Bytes::from_static(b"{}")).await;
    value.expect("sealed")
}

#[tokio::test]
async fn prefixes_are_upstream_s_and_only_named_resources_are_touched() {
    let all = encryption(&format!(
        "- resources: [secrets]\n  providers: [{{aescbc: {{keys: [{k}]}}}}]\n\
         - resources: ['*.apps']\n  providers: [{{aesgcm: {{keys: [{k}]}}}}]\n\
         - resources: [crontabs.stable.example.com]\n  providers: [{{secretbox: {{keys: [{k}]}}}}]\n",
        k = key("key1", 1)
    ));
    for (key, prefix) in [
        (SECRET, "k8s:enc:aescbc:v1:key1:"),
        ("/registry/deployments/a/b", "k8s:enc:aesgcm:v1:key1:"),
        (
            "/registry/stable.example.com/crontabs/a/b",
            "k8s:enc:secretbox:v1:key1:",
        ),
    ] {
        let value = sealed(&all, key).await;
        assert!(value.starts_with(prefix.as_bytes()), "{key}: {value:?}");
        let opened = all.open(key, value).await.expect("opened");
        assert_eq!((&*opened.value, opened.stale), (b"{}".as_slice(), false));
    }
    for key in [
        "/registry/configmaps/a/b",
        "/registry/services/specs/a/b",
        "/registry/other.example.com/crontabs/a/b",
        "/registry/ranges/serviceips/1",
    ] {
        assert_eq!(&*sealed(&all, key).await, b"{}");
    }
    let everything = encryption(&format!(
        "- resources: ['*.*']\n  providers: [{{secretbox: {{keys: [{}]}}}}]\n",
        key("k", 1)
    ));
    assert!(
        sealed(&everything, "/registry/services/specs/a/b")
            .await
            .starts_with(b"k8s:enc:secretbox:v1:k:")
    );
    assert_eq!(
        &*sealed(&everything, "/registry/ranges/serviceips/1").await,
        b"{}"
    );
}

#[tokio::test]
async fn keys_rotate_and_what_older_ones_wrote_is_stale() {
    let config =
        |providers: &str| encryption(&format!("- resources: [secrets]\n  providers: [{providers}]\n"));
    let (one, two) = (key("one", 1), key("two", 2));
    let old = config(&format!("{{aesgcm: {{keys: [{one}]}}}}"));
    let value = sealed(&old, SECRET).await;
    let both = config(&format!(
        "{{aesgcm: {{keys: [{two}, {one}]}}}}, {{identity: {{}}}}"
    ));
    assert!(both.open(SECRET, value.clone()).await.expect("opened").stale);
    let plain = both
        .open(SECRET, Bytes::from_static(b"{}"))
        .await
        .expect("opened");
    assert!(
        plain.stale,
        "what was stored before encryption is to be encrypted"
    );
    assert!(sealed(&both, SECRET).await.starts_with(b"k8s:enc:aesgcm:v1:two:"));
    let away = config(&format!("{{identity: {{}}}}, {{aesgcm: {{keys: [{one}]}}}}"));
    assert!(away.open(SECRET, value.clone()).await.expect("opened").stale);
    let lost = config(&format!("{{aesgcm: {{keys: [{two}]}}}}"));
    let error = lost.open(SECRET, value.clone()).await.expect_err("no key");
    assert_eq!(
        error.to_string(),
        "unable to transform key \"/registry/secrets/default/s\": no matching key was found for the provided AES \
         transformer"
    );
    let other = config(&format!("{{secretbox: {{keys: [{one}]}}}}"));
    let error = other.open(SECRET, value.clone()).await.expect_err("no provider");
    assert!(error.to_string().ends_with("no matching prefix found"), "{error}");
    assert!(plain_is_refused(value));
}

fn plain_is_refused(value: Bytes) -> bool {
    plain(SECRET, value).is_err()
}

#[test]
fn a_rule_that_can_never_apply_is_refused() {
    let text = "apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\nresources:\n\
                - {resources: ['*.*'], providers: [{identity: {}}]}\n\
                - {resources: [secrets], providers: [{identity: {}}]}\n";
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), text).expect("written");
    let error = EncryptionConfiguration::load(file.path())
        .and_then(Rules::new)
        .err();
    assert_eq!(
        error.as_deref(),
        Some("resource \"secrets\" is masked by earlier rule \"*.*\"")
    );
}
