//! Credentials for registries, from the secrets a pod names.

use std::collections::BTreeMap;

use base64::Engine as _;
use k8s_openapi::api::core::v1::Secret;
use keelson_proto::cri;
use serde::Deserialize;

use super::reference;

#[derive(Deserialize, Default)]
struct Entry {
    #[serde(default)]
    username: String,
    #[serde(default)]
    password: String,
    #[serde(default)]
    auth: String,
    #[serde(default)]
    identitytoken: String,
    #[serde(default)]
    registrytoken: String,
}

#[derive(Deserialize, Default)]
struct DockerConfig {
    #[serde(default)]
    auths: BTreeMap<String, Entry>,
}

fn entries(secret: &Secret) -> BTreeMap<String, Entry> {
    let data = secret.data.as_ref();
    let get = |key: &str| {
        data.and_then(|data| data.get(key))
            .map(|value| value.0.as_slice())
    };
    match secret.type_.as_deref() {
        Some("kubernetes.io/dockerconfigjson") => {
            get(".dockerconfigjson")
                .and_then(|bytes| serde_json::from_slice::<DockerConfig>(bytes).ok())
                .unwrap_or_default()
                .auths
        }
        Some("kubernetes.io/dockercfg") => get(".dockercfg")
            .and_then(|bytes| serde_json::from_slice(bytes).ok())
            .unwrap_or_default(),
        _ => BTreeMap::new(),
    }
}

/// Credentials that fit an image, the most specific first.
pub fn matching(image: &str, secrets: &[Secret]) -> Vec<cri::AuthConfig> {
    let repository = reference::repository(image);
    let mut found: Vec<(usize, cri::AuthConfig)> = Vec::new();
    for (place, entry) in secrets.iter().flat_map(entries) {
        let key = normalized(&place);
        if !fits(&key, &repository) {
            continue;
        }
        found.push((key.len(), credential(entry)));
    }
    found.sort_by_key(|(length, _)| std::cmp::Reverse(*length));
    found.into_iter().map(|(_, credential)| credential).collect()
}

fn credential(entry: Entry) -> cri::AuthConfig {
    let (mut username, mut password) = (entry.username, entry.password);
    if username.is_empty()
        && let Ok(bytes) = base64::engine::general_purpose::STANDARD.decode(entry.auth.trim())
        && let Ok(text) = String::from_utf8(bytes)
        && let Some((user, secret)) = text.split_once(':')
    {
        (username, password) = (user.to_owned(), secret.trim_end_matches('\0').to_owned());
    }
    cri::AuthConfig {
        username,
        password,
        auth: String::new(),
        // Whom the credentials are for is settled here. containerd takes what stands here for a URL, which
        // `host:port` is not.
        server_address: String::new(),
        identity_token: entry.identitytoken,
        registry_token: entry.registrytoken,
    }
}

/// Registries are written as URLs, with versions of their API behind them.
fn normalized(place: &str) -> String {
    let place = place
        .trim_start_matches("https://")
        .trim_start_matches("http://")
        .trim_end_matches('/');
    let place = place.trim_end_matches("/v1").trim_end_matches("/v2");
    match place {
        "index.docker.io" | "registry-1.docker.io" => "docker.io".into(),
        other => other.into(),
    }
}

/// The host must be the same, `*` standing for any part of it; the path must begin the image's.
fn fits(key: &str, repository: &str) -> bool {
    let (key_host, key_path) = key.split_once('/').unwrap_or((key, ""));
    let (host, path) = repository.split_once('/').unwrap_or((repository, ""));
    let (mut wanted, mut given) = (key_host.split('.'), host.split('.'));
    let same_host = loop {
        match (wanted.next(), given.next()) {
            (None, None) => break true,
            (Some("*"), Some(_)) => {}
            (Some(one), Some(other)) if one == other => {}
            _ => break false,
        }
    };
    same_host && path.starts_with(key_path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_most_specific_comes_first() {
        let auths = json!({"auths": {
            "https://index.docker.io/v1/": {"auth": "dTpw"},
            "docker.io/team": {"username": "t", "password": "q"},
            "*.example.com": {"username": "x", "password": "y"}}})
        .to_string();
        let secret: Secret = serde_json::from_value(json!({"type": "kubernetes.io/dockerconfigjson",
            "data": {".dockerconfigjson": base64::engine::general_purpose::STANDARD.encode(auths)}}))
        .expect("a secret");
        let users = |image: &str| {
            matching(image, std::slice::from_ref(&secret))
                .into_iter()
                .map(|auth| auth.username)
                .collect::<Vec<_>>()
        };
        assert_eq!(users("team/app"), ["t", "u"]);
        assert_eq!(users("nginx"), ["u"]);
        assert_eq!(users("a.example.com/z"), ["x"]);
        assert!(users("example.com/z").is_empty());
        let all = matching("team/app", std::slice::from_ref(&secret));
        assert!(all.iter().all(|auth| auth.server_address.is_empty()));
    }
}
