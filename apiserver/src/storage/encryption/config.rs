//! `EncryptionConfiguration`: which resources are encrypted, by what, with which keys.
//!
//! <https://kubernetes.io/docs/reference/config-api/apiserver-config.v1/>

use std::path::Path as FilePath;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use keelson_api::field::{Error, Path, aggregate};
use keelson_daemon::yaml;
use serde::Deserialize;

use super::ciphers::{AES_KEYS, BOX_KEYS};
use crate::files;

/// How long a KMS plugin may take when nothing else is said.
const KMS_TIMEOUT: Duration = Duration::from_secs(3);

/// The file.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct EncryptionConfiguration {
    #[serde(default)]
    api_version: String,
    #[serde(default)]
    kind: String,
    /// What is encrypted and how, in order.
    #[serde(default)]
    pub resources: Vec<ResourceConfiguration>,
}

/// Some resources and how they are encrypted.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ResourceConfiguration {
    /// `secrets`, `deployments.apps`, `*.apps`, `*.` for the core group, `*.*` for everything.
    #[serde(default)]
    pub resources: Vec<String>,
    /// The first writes, each may have written what is read.
    #[serde(default)]
    pub providers: Vec<Provider>,
}

/// One provider: exactly one of these.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Provider {
    /// AES-GCM with keys from here.
    pub aesgcm: Option<Keys>,
    /// AES-CBC with keys from here.
    pub aescbc: Option<Keys>,
    /// XSalsa20 and Poly1305 with keys from here.
    pub secretbox: Option<Keys>,
    /// No encryption.
    pub identity: Option<Identity>,
    /// Keys from a plugin.
    pub kms: Option<Kms>,
}

/// Nothing to say about it.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Identity {}

/// Keys; the first encrypts.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Keys {
    /// In order.
    #[serde(default)]
    pub keys: Vec<Key>,
}

/// A key.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Key {
    /// Stored with every value.
    #[serde(default)]
    pub name: String,
    /// In base64.
    #[serde(default)]
    pub secret: String,
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Key({})", self.name)
    }
}

impl Key {
    /// The key's bytes.
    pub fn bytes(&self) -> Option<Vec<u8>> {
        BASE64.decode(&self.secret).ok()
    }
}

/// A KMS plugin.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Kms {
    /// `v2`.
    #[serde(default)]
    pub api_version: String,
    /// Stored with every value.
    #[serde(default)]
    pub name: String,
    #[serde(default)]
    cachesize: Option<i64>,
    /// `unix:///run/kms.sock`
    #[serde(default)]
    pub endpoint: String,
    #[serde(default)]
    timeout: Option<String>,
}

impl Kms {
    /// How long a call may take.
    pub fn timeout(&self) -> Option<Duration> {
        match &self.timeout {
            None => Some(KMS_TIMEOUT),
            Some(text) => keelson_daemon::duration::parse(text).ok(),
        }
    }
}

impl EncryptionConfiguration {
    /// Reads and checks the file.
    ///
    /// # Errors
    /// With everything that is wrong.
    pub fn load(path: &FilePath) -> Result<Self, String> {
        let shown = path.display();
        let text = std::fs::read_to_string(path).map_err(|error| {
            format!("error opening encryption provider configuration file {shown:?}: {error}")
        })?;
        Self::read(&text, path)
    }

    /// Checks what the file says.
    ///
    /// # Errors
    /// With everything that is wrong.
    pub fn read(text: &str, path: &FilePath) -> Result<Self, String> {
        Self::parse(text).map_err(|error| match error {
            Wrong::Syntax(error) => {
                let shown = path.display();
                format!("error decoding encryption provider configuration file {shown:?}: {error}")
            }
            Wrong::Content(errors) => aggregate(&errors),
        })
    }

    fn parse(text: &str) -> Result<Self, Wrong> {
        let config: Self = yaml::from_str(text).map_err(|error| Wrong::Syntax(error.to_string()))?;
        files::expect(
            (&config.api_version, &config.kind),
            "EncryptionConfiguration",
            &["apiserver.config.k8s.io/v1"],
        )
        .map_err(Wrong::Syntax)?;
        let errors = config.validate();
        if errors.is_empty() {
            Ok(config)
        } else {
            Err(Wrong::Content(errors))
        }
    }

    fn validate(&self) -> Vec<Error> {
        let root = Path::new("resources");
        if self.resources.is_empty() {
            return vec![Error::required(&root, "at least one resources is required")];
        }
        let (mut errors, mut names) = (Vec::new(), Vec::new());
        for (i, one) in self.resources.iter().enumerate() {
            let resources = root.index(i).child("resources");
            let providers = root.index(i).child("providers");
            if one.resources.is_empty() {
                errors.push(Error::required(
                    &resources,
                    format!("at least one {resources} is required"),
                ));
            }
            errors.extend(overlaps(&one.resources, &resources));
            errors.extend(names_of_resources(&one.resources, &resources));
            if one.providers.is_empty() {
                errors.push(Error::required(
                    &providers,
                    format!("at least one {providers} is required"),
                ));
            }
            for (j, provider) in one.providers.iter().enumerate() {
                provider.validate(&providers.index(j), &mut names, &mut errors);
            }
        }
        errors
    }
}

#[derive(Debug)]
enum Wrong {
    Syntax(String),
    Content(Vec<Error>),
}

/// A resource's name and group: `deployments.apps` is `deployments` of `apps`.
pub fn group_resource(text: &str) -> (&str, &str) {
    text.split_once('.').unwrap_or((text, ""))
}

fn overlaps(resources: &[String], path: &Path) -> Vec<Error> {
    let parsed: Vec<_> = resources.iter().map(|r| group_resource(r)).collect();
    let (mut twice, mut overlapping) = (false, false);
    for (i, one) in parsed.iter().enumerate() {
        for (j, other) in parsed.iter().enumerate() {
            if i == j {
                continue;
            }
            if one == other {
                twice = true;
            } else if *one == ("*", "*") || one.1 == other.1 && (one.0 == "*" || other.0 == "*") {
                overlapping = true;
            }
        }
    }
    let invalid = |detail: &'static str| Error::invalid(path, serde_json::json!(resources), detail);
    let twice = twice.then(|| invalid("the same resource cannot be specified multiple times"));
    let overlapping = overlapping.then(|| {
        invalid(
            "using overlapping resources such as 'secrets' and '*.' in the same resource list is not allowed as they \
             will be masked",
        )
    });
    twice.into_iter().chain(overlapping).collect()
}

fn names_of_resources(resources: &[String], path: &Path) -> Vec<Error> {
    let wrong = |text: &str| {
        let (resource, group) = group_resource(text);
        if text.to_lowercase() != text {
            return Some("resource name should not contain capital letters");
        }
        if text == "*" {
            return Some(
                "use '*.' to encrypt all the resources from core API group or *.* to encrypt all resources",
            );
        }
        if matches!(
            text,
            "apiserveripinfo" | "serviceipallocations" | "servicenodeportallocations"
        ) {
            return Some("resources which do not have REST API/s cannot be encrypted");
        }
        match group {
            "events.k8s.io" => Some(
                "'*.events.k8s.io' objects are stored using the 'events' API group in etcd. Use 'events' instead in \
                 the config file",
            ),
            "extensions" => Some("'extensions' group has been removed and cannot be used for encryption"),
            "*" if resource != "*" => Some("encrypting the same resource across groups is not supported"),
            _ => None,
        }
    };
    resources
        .iter()
        .enumerate()
        .filter_map(|(i, text)| {
            wrong(text).map(|detail| Error::invalid(&path.index(i), text.clone(), detail))
        })
        .collect()
}

impl Provider {
    fn validate(&self, path: &Path, names: &mut Vec<String>, errors: &mut Vec<Error>) {
        let given = [
            self.aesgcm.is_some(),
            self.aescbc.is_some(),
            self.secretbox.is_some(),
            self.identity.is_some(),
            self.kms.is_some(),
        ];
        match given.into_iter().filter(|given| *given).count() {
            1 => {}
            0 => {
                return errors.push(Error::invalid(
                    path,
                    "",
                    "provider does not contain any of the expected providers: KMS, AESGCM, AESCBC, Secretbox, Identity",
                ));
            }
            _ => {
                return errors.push(Error::invalid(
                    path,
                    "",
                    "more than one provider specified in a single element, should split into different list elements",
                ));
            }
        }
        for (field, keys, lengths) in [
            ("aesgcm", &self.aesgcm, AES_KEYS),
            ("aescbc", &self.aescbc, AES_KEYS),
            ("secretbox", &self.secretbox, BOX_KEYS),
        ] {
            if let Some(keys) = keys {
                validate_keys(&keys.keys, &path.child(field).child("keys"), lengths, errors);
            }
        }
        if let Some(kms) = &self.kms {
            kms.validate(&path.child("kms"), names, errors);
            names.push(kms.name.clone());
        }
    }
}

fn validate_keys(keys: &[Key], path: &Path, lengths: &[usize], errors: &mut Vec<Error>) {
    if keys.is_empty() {
        errors.push(Error::required(path, "at least one keys is required"));
    }
    for (i, key) in keys.iter().enumerate() {
        let path = path.index(i);
        if key.name.is_empty() {
            errors.push(Error::required(
                &path.child("name"),
                "name is a mandatory field for a key",
            ));
        }
        let secret = path.child("secret");
        if key.secret.is_empty() {
            errors.push(Error::required(&secret, "secret is a mandatory field for a key"));
            continue;
        }
        match key.bytes() {
            None => errors.push(Error::invalid(
                &secret,
                "REDACTED",
                "secrets must be base64 encoded",
            )),
            Some(bytes) if !lengths.contains(&bytes.len()) => {
                let wanted: Vec<String> = lengths.iter().map(usize::to_string).collect();
                errors.push(Error::invalid(
                    &secret,
                    "REDACTED",
                    format!(
                        "secret is not of the expected length, got {}, expected one of [{}]",
                        bytes.len(),
                        wanted.join(" ")
                    ),
                ));
            }
            Some(_) => {}
        }
    }
}

impl Kms {
    fn validate(&self, path: &Path, names: &[String], errors: &mut Vec<Error>) {
        let name = path.child("name");
        if self.name.is_empty() {
            errors.push(Error::required(&name, "name is a mandatory field for a provider"));
        }
        if self.name.contains(':') {
            let detail = format!("invalid KMS provider name {}, must not contain ':'", self.name);
            errors.push(Error::invalid(&name, self.name.clone(), detail));
        }
        if names.contains(&self.name) {
            let detail = format!("duplicate KMS provider name {}, names must be unique", self.name);
            errors.push(Error::invalid(&name, self.name.clone(), detail));
        }
        if self.timeout().is_none_or(|timeout| timeout.is_zero()) {
            errors.push(Error::invalid(
                &path.child("timeout"),
                self.timeout.clone().unwrap_or_default(),
                "timeout should be a positive value",
            ));
        }
        let endpoint = path.child("endpoint");
        if self.endpoint.is_empty() {
            errors.push(Error::invalid(
                &endpoint,
                "",
                "endpoint is a mandatory field for a kms",
            ));
        } else if !self.endpoint.starts_with("unix://") {
            let scheme = self.endpoint.split_once("://").map_or("", |(scheme, _)| scheme);
            let detail = format!("unsupported scheme {scheme:?} for KMS provider, only unix is supported");
            errors.push(Error::invalid(&endpoint, self.endpoint.clone(), detail));
        }
        if let Some(size) = self.cachesize {
            errors.push(Error::invalid(
                &path.child("cachesize"),
                size,
                "cachesize is not supported in v2",
            ));
        }
        match self.api_version.as_str() {
            "v2" => {}
            "v1" | "" => errors.push(Error::invalid(
                &path.child("apiVersion"),
                self.api_version.clone(),
                "KMSv1 is deprecated and will only receive security updates going forward. Use KMSv2 instead",
            )),
            other => errors.push(Error::invalid(
                &path.child("apiVersion"),
                other,
                "unsupported apiVersion apiVersion for KMS provider, only v1 and v2 are supported",
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn errors(resources: &str) -> Vec<String> {
        let text = format!(
            "apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\nresources:\n{resources}"
        );
        match EncryptionConfiguration::parse(&text) {
            Ok(_) => Vec::new(),
            Err(Wrong::Syntax(error)) => vec![error],
            Err(Wrong::Content(errors)) => errors.iter().map(ToString::to_string).collect(),
        }
    }

    #[test]
    fn a_whole_file_is_read() {
        let key = BASE64.encode([1; 32]);
        let good = format!(
            "- resources: [secrets, '*.apps']\n  providers:\n  - aescbc: {{keys: [{{name: k1, secret: '{key}'}}]}}\n  \
             - kms: {{apiVersion: v2, name: p, endpoint: 'unix:///run/kms.sock', timeout: 1s}}\n  - identity: {{}}\n"
        );
        assert_eq!(errors(&good), Vec::<String>::new());
    }

    #[test]
    fn mistakes_are_named_in_upstream_s_words() {
        let short =
            errors("- resources: [secrets]\n  providers: [{secretbox: {keys: [{name: a, secret: MTIz}]}}]\n");
        assert_eq!(
            short,
            [
                "resources[0].providers[0].secretbox.keys[0].secret: Invalid value: \"REDACTED\": secret is not of the \
              expected length, got 3, expected one of [32]"
            ]
        );
        let masked = errors("- resources: [secrets, '*.']\n  providers: [{identity: {}}]\n");
        assert!(masked[0].contains("using overlapping resources"), "{masked:?}");
        let twice = errors("- resources: [secrets, secrets]\n  providers: [{identity: {}}]\n");
        assert!(
            twice[0].contains("cannot be specified multiple times"),
            "{twice:?}"
        );
        let star = errors("- resources: ['*']\n  providers: [{identity: {}}]\n");
        assert!(star[0].contains("use '*.' to encrypt"), "{star:?}");
        let none = errors("- resources: []\n  providers: []\n");
        assert_eq!(none.len(), 2, "{none:?}");
        let two = errors("- resources: [secrets]\n  providers: [{identity: {}, secretbox: {keys: []}}]\n");
        assert!(two[0].contains("more than one provider"), "{two:?}");
        let kms = errors(
            "- resources: [secrets]\n  providers: [{kms: {apiVersion: v2, name: 'a:b', endpoint: 'http://x'}}]\n",
        );
        assert_eq!(kms.len(), 2, "{kms:?}");
        assert!(errors("- resurces: []\n")[0].contains("resurces"));
    }
}
