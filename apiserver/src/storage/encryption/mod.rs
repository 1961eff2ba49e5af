//! Encryption at rest: what the store is given for the resources an `EncryptionConfiguration` names.
//!
//! Values are stored as upstream stores them, behind a prefix that says who encrypted them:
//! `k8s:enc:aescbc:v1:KEY:`, `k8s:enc:aesgcm:v1:KEY:`, `k8s:enc:secretbox:v1:KEY:`, `k8s:enc:kms:v2:NAME:`. The first
//! provider of a resource writes, every one of them may have written what is read. A value that any other than the first
//! key of the first provider wrote is stale: the next write replaces it, also one that changes nothing.
//!
//! Only the store sees ciphertext. The watch cache, and everything above it, works with the objects themselves.
//!
//! | module | what lives there |
//! | --- | --- |
//! | [`config`] | the configuration file |
//! | [`ciphers`] | AES-CBC, AES-GCM, secretbox |
//! | [`kms`] | envelope encryption with a KMS plugin |
//! | [`reload`] | follows the file while the server runs |
//!
//! <https://kubernetes.io/docs/tasks/administer-cluster/encrypt-data/>

pub mod ciphers;
pub mod config;
pub mod kms;
pub mod reload;

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use arc_swap::ArcSwap;
use bytes::Bytes;
use keelson_api::field::aggregate;

use super::store::StoreError;
use crate::registry::info::ResourceInfo;
use ciphers::Cipher;
use config::{EncryptionConfiguration, Provider, group_resource};
use kms::Kms;

/// What every encrypted value begins with. No object's JSON does.
const ENCRYPTED: &[u8] = b"k8s:enc:";

/// A value as the server works with it.
#[derive(Debug)]
pub struct Opened {
    /// The object's bytes.
    pub value: Bytes,
    /// Whether it should be written again, with the key in use.
    pub stale: bool,
}

/// Which resources are encrypted, and how; both may change while the server runs.
pub struct Encryption {
    /// `/registry/`
    root: String,
    /// Names and groups of the built-in resources, by where they lie below the root.
    built_in: HashMap<&'static str, (&'static str, &'static str)>,
    rules: ArcSwap<Rules>,
}

/// The providers of every rule, by resource and group; `*` is any.
#[derive(Default)]
pub struct Rules(Vec<Rule>);

struct Rule {
    resource: String,
    group: String,
    providers: Vec<Arc<Sealer>>,
}

/// One provider, ready to work.
struct Sealer {
    /// `k8s:enc:aescbc:v1:`; empty for the one that does nothing.
    prefix: String,
    kind: Kind,
}

enum Kind {
    Identity,
    /// With the names of the keys.
    Own(Vec<(String, Cipher)>),
    Kms(Arc<Kms>),
}

impl Encryption {
    /// Reads the file for a server that keeps these resources below `root`.
    ///
    /// # Errors
    /// What is wrong with the file.
    pub fn load(
        path: &Path,
        root: String,
        resources: impl Iterator<Item = &'static ResourceInfo>,
    ) -> Result<Self, String> {
        let rules = Rules::new(EncryptionConfiguration::load(path)?)?;
        Ok(Self {
            root,
            built_in: resources
                .map(|info| (info.storage_prefix, (info.plural, info.group)))
                .collect(),
            rules: ArcSwap::from_pointee(rules),
        })
    }

    /// Works by other rules from now on.
    pub fn replace(&self, rules: Rules) {
        self.rules.store(Arc::new(rules));
    }

    /// How every KMS plugin in use is.
    ///
    /// # Errors
    /// What is wrong with the first that is not well.
    pub async fn health(&self) -> Result<(), String> {
        let rules = self.rules.load_full();
        for rule in &rules.0 {
            for provider in &rule.providers {
                if let Kind::Kms(kms) = &provider.kind {
                    kms.health().await?;
                }
            }
        }
        Ok(())
    }

    /// What the store is given for an object.
    ///
    /// # Errors
    /// When it cannot be encrypted: then nothing may be written.
    pub async fn seal(&self, key: &str, value: Bytes) -> Result<Bytes, StoreError> {
        let rules = self.rules.load_full();
        let Some(provider) = self.rule(&rules, key).and_then(|rule| rule.providers.first()) else {
            return Ok(value);
        };
        provider
            .seal(key, value)
            .await
            .map_err(|why| StoreError::Transform(key.to_owned(), why))
    }

    /// What the store's value says.
    ///
    /// # Errors
    /// When no provider of the resource can read it.
    pub async fn open(&self, key: &str, value: Bytes) -> Result<Opened, StoreError> {
        let rules = self.rules.load_full();
        let Some(rule) = self.rule(&rules, key) else {
            return plain(key, value);
        };
        rule.open(key, value)
            .await
            .map_err(|why| StoreError::Transform(key.to_owned(), why))
    }

    fn rule<'r>(&self, rules: &'r Rules, key: &str) -> Option<&'r Rule> {
        let (resource, group) = self.resource(key)?;
        rules.find(resource, group)
    }

    /// Which resource lies under a key.
    fn resource<'k>(&self, key: &'k str) -> Option<(&'k str, &'k str)> {
        let below = key.strip_prefix(&self.root)?;
        let (first, rest) = below.split_once('/')?;
        let second = rest.split_once('/').map(|(second, _)| second);
        // Some resources lie two levels deep: `services/specs`, and all custom ones, under their group.
        if let Some(second) = second {
            if let Some(known) = self.built_in.get(&below[..first.len() + 1 + second.len()]) {
                return Some(*known);
            }
            if first.contains('.') {
                return Some((second, first));
            }
        }
        self.built_in.get(first).copied()
    }
}

/// A value of a resource that nobody encrypts.
///
/// # Errors
/// When somebody has encrypted it all the same.
pub fn plain(key: &str, value: Bytes) -> Result<Opened, StoreError> {
    if value.starts_with(ENCRYPTED) {
        return Err(StoreError::Transform(key.to_owned(), READ_BY_IDENTITY.to_owned()));
    }
    Ok(Opened { value, stale: false })
}

const READ_BY_IDENTITY: &str = "identity transformer tried to read encrypted data";

impl Rules {
    /// # Errors
    /// When a rule can never come into play because of an earlier one.
    pub fn new(config: EncryptionConfiguration) -> Result<Self, String> {
        let mut rules = Self::default();
        let mut masked = Vec::new();
        for one in config.resources {
            let providers: Result<Vec<_>, String> = one
                .providers
                .iter()
                .map(|p| Sealer::new(p).map(Arc::new))
                .collect();
            let providers = providers?;
            for text in &one.resources {
                let (resource, group) = group_resource(text);
                for (name, of) in [("*", group), ("*", "*")] {
                    let hides = rules
                        .0
                        .iter()
                        .any(|rule| rule.resource == name && rule.group == of);
                    if hides {
                        masked.push(format!(
                            "resource {text:?} is masked by earlier rule \"{name}.{of}\""
                        ));
                        break;
                    }
                }
                match rules
                    .0
                    .iter_mut()
                    .find(|r| r.resource == resource && r.group == group)
                {
                    Some(rule) => rule.providers.extend(providers.iter().cloned()),
                    None => rules.0.push(Rule {
                        resource: resource.to_owned(),
                        group: group.to_owned(),
                        providers: providers.clone(),
                    }),
                }
            }
        }
        match masked.is_empty() {
            true => Ok(rules),
            false => Err(aggregate(&masked)),
        }
    }

    fn find(&self, resource: &str, group: &str) -> Option<&Rule> {
        [(resource, group), ("*", group), ("*", "*")]
            .into_iter()
            .find_map(|(resource, group)| self.0.iter().find(|r| r.resource == resource && r.group == group))
    }
}

impl Rule {
    async fn open(&self, key: &str, value: Bytes) -> Result<Opened, String> {
        let mut errors = Vec::new();
        for (place, provider) in self.providers.iter().enumerate() {
            if !value.starts_with(provider.prefix.as_bytes()) {
                continue;
            }
            match provider.open(key, &value).await {
                Ok(mut opened) => {
                    opened.stale |= place > 0;
                    return Ok(opened);
                }
                // Encrypted by one of the others.
                Err(_) if matches!(provider.kind, Kind::Identity) => {}
                Err(error) => errors.push(error),
            }
        }
        if errors.is_empty() {
            Err("no matching prefix found".into())
        } else {
            Err(aggregate(&errors))
        }
    }
}

impl Sealer {
    fn new(provider: &Provider) -> Result<Self, String> {
        let own = [
            (
                &provider.aescbc,
                "aescbc",
                Cipher::cbc as fn(&[u8]) -> Option<Cipher>,
            ),
            (&provider.aesgcm, "aesgcm", Cipher::gcm),
            (&provider.secretbox, "secretbox", Cipher::secretbox),
        ];
        for (keys, name, cipher) in own {
            let Some(keys) = keys else { continue };
            let keys: Option<Vec<(String, Cipher)>> = keys
                .keys
                .iter()
                .map(|key| Some((format!("{}:", key.name), cipher(&key.bytes()?)?)))
                .collect();
            return Ok(Self {
                prefix: format!("k8s:enc:{name}:v1:"),
                kind: Kind::Own(keys.ok_or_else(|| format!("{name}: a key cannot be used"))?),
            });
        }
        Ok(match &provider.kms {
            Some(kms) => Self {
                prefix: format!("k8s:enc:kms:v2:{}:", kms.name),
                kind: Kind::Kms(Kms::start(kms)?),
            },
            None => Self {
                prefix: String::new(),
                kind: Kind::Identity,
            },
        })
    }

    async fn seal(&self, key: &str, value: Bytes) -> Result<Bytes, String> {
        let (name, sealed) = match &self.kind {
            Kind::Identity => return Ok(value),
            Kind::Own(keys) => {
                let (name, cipher) = keys.first().ok_or("there is no key")?;
                (name.as_str(), cipher.seal(&value, key.as_bytes())?)
            }
            Kind::Kms(kms) => ("", kms.seal(&value, key.as_bytes()).await?),
        };
        Ok([self.prefix.as_bytes(), name.as_bytes(), &sealed].concat().into())
    }

    async fn open(&self, key: &str, value: &Bytes) -> Result<Opened, String> {
        let sealed = value.slice(self.prefix.len()..);
        match &self.kind {
            Kind::Identity if value.starts_with(ENCRYPTED) => Err(READ_BY_IDENTITY.into()),
            Kind::Identity => Ok(Opened {
                value: value.clone(),
                stale: false,
            }),
            Kind::Own(keys) => {
                let mut errors = Vec::new();
                for (place, (name, cipher)) in keys.iter().enumerate() {
                    let Some(sealed) = sealed.strip_prefix(name.as_bytes()) else {
                        continue;
                    };
                    match cipher.open(sealed, key.as_bytes()) {
                        Ok(plain) => {
                            return Ok(Opened {
                                value: plain.into(),
                                stale: place > 0,
                            });
                        }
                        Err(error) => errors.push(error),
                    }
                }
                if errors.is_empty() {
                    let name = self.prefix.split(':').nth(2).unwrap_or_default();
                    let cipher = if name.starts_with("aes") { "AES" } else { name };
                    return Err(format!(
                        "no matching key was found for the provided {cipher} transformer"
                    ));
                }
                Err(aggregate(&errors))
            }
            Kind::Kms(kms) => kms.open(&sealed, key.as_bytes()).await,
        }
    }
}

#[cfg(test)]
mod tests;
