//! `--admission-control-config-file`: an `AdmissionConfiguration`, which says how plugins are to work.
//!
//! <https://kubernetes.io/docs/reference/config-api/apiserver-config.v1/#apiserver-k8s-io-v1-AdmissionConfiguration>

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use keelson_daemon::yaml;
use serde::Deserialize;
use serde_json::Value;

use super::pod_security::config::PodSecurityConfiguration;
use crate::files;

/// How plugins work that can be told.
#[derive(Debug, Clone, Default)]
pub struct AdmissionConfig {
    /// PodSecurity.
    pub pod_security: PodSecurityConfiguration,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct File {
    api_version: String,
    kind: String,
    #[serde(default)]
    plugins: Vec<Plugin>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Plugin {
    name: String,
    #[serde(default)]
    path: PathBuf,
    configuration: Option<Value>,
}

impl AdmissionConfig {
    /// What the file says, or else what plugins do by themselves.
    ///
    /// # Errors
    /// When the file or one it names cannot be read or makes no sense, or is about a plugin that cannot be told anything.
    pub fn load(path: Option<&Path>) -> anyhow::Result<Self> {
        let Some(path) = path else {
            return Ok(Self::default());
        };
        let at = || format!("--admission-control-config-file: {}", path.display());
        let text = std::fs::read_to_string(path).with_context(at)?;
        let folder = path.parent().unwrap_or(Path::new("."));
        Self::parse(&text, folder).with_context(at)
    }

    fn parse(text: &str, folder: &Path) -> anyhow::Result<Self> {
        let file: File = yaml::from_str(text).context("cannot be decoded")?;
        let known = ["apiserver.config.k8s.io/v1", "apiserver.k8s.io/v1"];
        files::expect((&file.api_version, &file.kind), "AdmissionConfiguration", &known)
            .map_err(anyhow::Error::msg)?;
        let mut config = Self::default();
        for plugin in file.plugins {
            if plugin.name != "PodSecurity" {
                bail!("the plugin {:?} cannot be configured", plugin.name);
            }
            let given = match plugin.configuration {
                Some(given) => given,
                None if plugin.path.as_os_str().is_empty() => continue,
                None => {
                    // Beside the file that names it, unless said otherwise.
                    let path = folder.join(&plugin.path);
                    let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
                    yaml::from_str(&text).with_context(|| path.display().to_string())?
                }
            };
            config.pod_security = PodSecurityConfiguration::read(given).context("PodSecurity")?;
        }
        Ok(config)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plugins_are_told_in_place_or_in_a_file_of_their_own() {
        let folder = tempfile::tempdir().expect("a folder");
        let told = "apiVersion: pod-security.admission.config.k8s.io/v1\nkind: PodSecurityConfiguration\n\
                    exemptions: {usernames: [jane]}\n";
        std::fs::write(folder.path().join("told.yaml"), told).expect("written");
        let head = "apiVersion: apiserver.config.k8s.io/v1\nkind: AdmissionConfiguration\nplugins:\n";
        let file = format!("{head}- {{name: PodSecurity, path: told.yaml}}\n");
        let config = AdmissionConfig::parse(&file, folder.path()).expect("a configuration");
        assert_eq!(config.pod_security.exemptions.usernames, ["jane"]);
        let other = format!("{head}- {{name: Nonesuch}}\n");
        assert!(AdmissionConfig::parse(&other, folder.path()).is_err());
        assert!(AdmissionConfig::parse("kind: x\napiVersion: y\n", folder.path()).is_err());
    }
}
