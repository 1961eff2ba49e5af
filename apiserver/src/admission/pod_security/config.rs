//! What holds where a namespace says nothing, and who is left in peace: a `PodSecurityConfiguration`.
//!
//! <https://kubernetes.io/docs/tasks/configure-pod-container/enforce-standards-admission-controller/>

use anyhow::{Context as _, bail};
use serde::Deserialize;
use serde_json::Value;

use super::policy::{Bar, Level, Policy, Version};
use crate::files;

/// The configuration.
#[derive(Debug, Clone, Default)]
pub struct PodSecurityConfiguration {
    /// What namespaces ask that say nothing.
    pub defaults: Policy,
    /// Whose pods are not looked at.
    pub exemptions: Exemptions,
}

/// Whose pods are not looked at.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Exemptions {
    /// Users that make pods, or what makes pods.
    #[serde(default)]
    pub usernames: Vec<String>,
    /// Runtime classes of pods.
    #[serde(default)]
    pub runtime_classes: Vec<String>,
    /// Namespaces.
    #[serde(default)]
    pub namespaces: Vec<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct File {
    #[serde(default)]
    api_version: String,
    #[serde(default)]
    kind: String,
    #[serde(default)]
    defaults: Defaults,
    #[serde(default)]
    exemptions: Exemptions,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Defaults {
    #[serde(default)]
    enforce: String,
    #[serde(default)]
    enforce_version: String,
    #[serde(default)]
    audit: String,
    #[serde(default)]
    audit_version: String,
    #[serde(default)]
    warn: String,
    #[serde(default)]
    warn_version: String,
}

impl PodSecurityConfiguration {
    /// From the object in a file.
    ///
    /// # Errors
    /// When it makes no sense.
    pub fn read(given: Value) -> anyhow::Result<Self> {
        let file: File = serde_json::from_value(given).context("cannot be decoded")?;
        let known = ["pod-security.admission.config.k8s.io/v1"];
        files::expect(
            (&file.api_version, &file.kind),
            "PodSecurityConfiguration",
            &known,
        )
        .map_err(anyhow::Error::msg)?;
        let defaults = &file.defaults;
        let config = Self {
            defaults: Policy {
                enforce: bar("enforce", &defaults.enforce, &defaults.enforce_version)?,
                audit: bar("audit", &defaults.audit, &defaults.audit_version)?,
                warn: bar("warn", &defaults.warn, &defaults.warn_version)?,
            },
            exemptions: file.exemptions,
        };
        config.exemptions.check()?;
        Ok(config)
    }
}

fn bar(mode: &str, level: &str, version: &str) -> anyhow::Result<Bar> {
    let mut bar = Bar::LOWEST;
    if !level.is_empty() {
        bar.level = Level::parse(level).with_context(|| {
            format!(
                "defaults.{mode}: Invalid value: {level:?}: must be one of privileged, baseline, restricted"
            )
        })?;
    }
    if !version.is_empty() {
        bar.version = Version::parse(version).with_context(|| {
            format!("defaults.{mode}-version: Invalid value: {version:?}: must be \"latest\" or \"v1.x\"")
        })?;
    }
    Ok(bar)
}

impl Exemptions {
    fn check(&self) -> anyhow::Result<()> {
        for (field, list) in [
            ("namespaces", &self.namespaces),
            ("runtimeClasses", &self.runtime_classes),
            ("usernames", &self.usernames),
        ] {
            for (place, name) in list.iter().enumerate() {
                if name.is_empty() {
                    bail!("exemptions.{field}[{place}]: Invalid value: \"\": must not be empty");
                }
                if list[..place].contains(name) {
                    bail!("exemptions.{field}[{place}]: Duplicate value: {name:?}");
                }
            }
        }
        Ok(())
    }

    /// Why what this user does in this namespace is not looked at, in the word of the audit log.
    pub fn of(&self, namespace: &str, user: &str) -> Option<&'static str> {
        if self.namespace(namespace) {
            return Some("namespace");
        }
        has(&self.usernames, user).then_some("user")
    }

    /// Whether a namespace is exempt.
    pub fn namespace(&self, name: &str) -> bool {
        has(&self.namespaces, name)
    }

    /// Whether pods of a runtime class are exempt.
    pub fn runtime_class(&self, name: Option<&str>) -> bool {
        name.is_some_and(|name| has(&self.runtime_classes, name))
    }
}

fn has(list: &[String], name: &str) -> bool {
    list.iter().any(|known| known == name)
}
