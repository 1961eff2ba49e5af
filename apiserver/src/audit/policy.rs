//! `audit.k8s.io/v1` Policy: the first rule that matches a request says how much of it is recorded.

use std::path::Path as FilePath;

use anyhow::{Context as _, anyhow, bail};
use keelson_api::field::{Error, Path, aggregate};
use keelson_daemon::yaml;
use serde::{Deserialize, Serialize};

use super::event::Stage;
use crate::authentication::User;
use crate::authorization::{Attributes, Target};
use crate::files;

/// How much of a request is recorded.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Level {
    /// Nothing.
    #[default]
    None,
    /// Who did what, and when.
    Metadata,
    /// And with what.
    Request,
    /// And what came of it.
    RequestResponse,
}

/// The file.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Policy {
    #[serde(default)]
    api_version: String,
    #[serde(default)]
    kind: String,
    /// Nothing in it concerns a policy.
    #[serde(default, rename = "metadata")]
    _metadata: serde_json::Value,
    #[serde(default)]
    rules: Vec<Rule>,
    #[serde(default)]
    omit_stages: Vec<String>,
    #[serde(default)]
    omit_managed_fields: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Rule {
    #[serde(default)]
    level: String,
    #[serde(default)]
    users: Vec<String>,
    #[serde(default)]
    user_groups: Vec<String>,
    #[serde(default)]
    verbs: Vec<String>,
    #[serde(default)]
    resources: Vec<GroupResources>,
    #[serde(default)]
    namespaces: Vec<String>,
    #[serde(default, rename = "nonResourceURLs")]
    non_resource_urls: Vec<String>,
    #[serde(default)]
    omit_stages: Vec<String>,
    #[serde(default)]
    omit_managed_fields: Option<bool>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct GroupResources {
    #[serde(default)]
    group: String,
    #[serde(default)]
    resources: Vec<String>,
    #[serde(default)]
    resource_names: Vec<String>,
}

/// What a policy says about a request.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Found {
    /// How much is recorded.
    pub level: Level,
    /// Stages no event is made of, a bit each.
    pub omitted: u8,
    /// Whether `metadata.managedFields` are left out of objects.
    pub omit_managed_fields: bool,
}

impl Policy {
    /// Reads and checks the file.
    ///
    /// # Errors
    /// With everything that is wrong.
    pub fn load(path: &FilePath) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("failed to read file path {:?}", path.display().to_string()))?;
        Self::parse(&text).with_context(|| format!("loading audit policy file {}", path.display()))
    }

    pub(super) fn parse(text: &str) -> anyhow::Result<Self> {
        let policy: Self = yaml::from_str(text).context("failed decoding")?;
        files::expect(
            (&policy.api_version, &policy.kind),
            "Policy",
            &["audit.k8s.io/v1"],
        )
        .map_err(|error| anyhow!("failed decoding: {error}"))?;
        if policy.rules.is_empty() {
            bail!("loaded illegal policy with 0 rules");
        }
        let errors = policy.validate();
        if !errors.is_empty() {
            bail!("{}", aggregate(&errors));
        }
        Ok(policy)
    }

    fn validate(&self) -> Vec<Error> {
        let mut errors = Vec::new();
        stages(&self.omit_stages, &Path::new("omitStages"), &mut errors);
        for (i, rule) in self.rules.iter().enumerate() {
            rule.validate(&Path::new("rules").index(i), &mut errors);
        }
        errors
    }

    /// What is recorded of a request.
    pub fn find(&self, user: &User, attributes: &Attributes<'_>) -> Found {
        let Some(rule) = self.rules.iter().find(|rule| rule.matches(user, attributes)) else {
            return Found::default();
        };
        Found {
            level: level(&rule.level).unwrap_or_default(),
            omitted: bits(&self.omit_stages) | bits(&rule.omit_stages),
            omit_managed_fields: rule.omit_managed_fields.unwrap_or(self.omit_managed_fields),
        }
    }
}

fn level(text: &str) -> Option<Level> {
    Some(match text {
        "None" => Level::None,
        "Metadata" => Level::Metadata,
        "Request" => Level::Request,
        "RequestResponse" => Level::RequestResponse,
        _ => return None,
    })
}

fn bits(stages: &[String]) -> u8 {
    stages
        .iter()
        .filter_map(|s| Stage::parse(s))
        .fold(0, |bits, stage| bits | stage.bit())
}

fn stages(names: &[String], path: &Path, errors: &mut Vec<Error>) {
    for (i, name) in names.iter().enumerate() {
        if Stage::parse(name).is_none() {
            errors.push(Error::invalid(
                &path.index(i),
                name.clone(),
                "allowed stages are RequestReceived, ResponseStarted, ResponseComplete, Panic",
            ));
        }
    }
}

impl Rule {
    fn validate(&self, path: &Path, errors: &mut Vec<Error>) {
        if self.level.is_empty() {
            errors.push(Error::required(&path.child("level"), ""));
        } else if level(&self.level).is_none() {
            errors.push(Error::not_supported(
                &path.child("level"),
                self.level.clone(),
                &["Metadata", "None", "Request", "RequestResponse"],
            ));
        }
        let urls = path.child("nonResourceURLs");
        let of_resources = !self.resources.is_empty() || !self.namespaces.is_empty();
        if of_resources && !self.non_resource_urls.is_empty() {
            errors.push(Error::invalid(
                &urls,
                serde_json::json!(self.non_resource_urls),
                "rules cannot apply to both regular resources and non-resource URLs",
            ));
        }
        for (i, url) in self.non_resource_urls.iter().enumerate() {
            let wrong = match url.as_str() {
                "*" => None,
                "" => Some("non-resource URL rules must begin with a '/' character"),
                url if !url.starts_with('/') => {
                    Some("non-resource URL rules must begin with a '/' character")
                }
                url if url[..url.len() - 1].contains('*') => {
                    Some("non-resource URL wildcards '*' must be the final character of the rule")
                }
                _ => None,
            };
            if let Some(detail) = wrong {
                errors.push(Error::invalid(&urls.index(i), url.clone(), detail));
            }
        }
        for (i, one) in self.resources.iter().enumerate() {
            let at = path.child("resources").index(i);
            if one.resources.is_empty() && !one.resource_names.is_empty() {
                errors.push(Error::invalid(
                    &at.child("resourceNames"),
                    serde_json::json!(one.resource_names),
                    "using resourceNames requires at least one resource",
                ));
            }
        }
        stages(&self.omit_stages, &path.child("omitStages"), errors);
    }

    fn matches(&self, user: &User, attributes: &Attributes<'_>) -> bool {
        let has = |list: &[String], value: &str| list.iter().any(|one| one == value);
        if !self.users.is_empty() && !has(&self.users, &user.name) {
            return false;
        }
        if !self.user_groups.is_empty() && !user.groups.iter().any(|group| has(&self.user_groups, group)) {
            return false;
        }
        if !self.verbs.is_empty() && !has(&self.verbs, attributes.verb) {
            return false;
        }
        let about_resources = !(self.namespaces.is_empty() && self.resources.is_empty());
        match attributes.target {
            Target::Resource {
                group,
                resource,
                subresource,
                namespace,
                name,
                ..
            } => {
                if !about_resources {
                    return self.non_resource_urls.is_empty();
                }
                (self.namespaces.is_empty() || has(&self.namespaces, namespace))
                    && (self.resources.is_empty()
                        || self
                            .resources
                            .iter()
                            .any(|one| one.group == group && one.contains(resource, subresource, name)))
            }
            Target::Path(_) if about_resources => false,
            Target::Path(path) => {
                self.non_resource_urls.is_empty()
                    || self
                        .non_resource_urls
                        .iter()
                        .any(|spec| match spec.strip_suffix('*') {
                            Some(prefix) => path.starts_with(prefix),
                            None => spec == path,
                        })
            }
        }
    }
}

impl GroupResources {
    fn contains(&self, resource: &str, subresource: &str, name: &str) -> bool {
        if self.resources.is_empty() {
            return true;
        }
        if !self.resource_names.is_empty() && !self.resource_names.iter().any(|one| one == name) {
            return false;
        }
        self.resources
            .iter()
            .any(|pattern| match pattern.split_once('/') {
                _ if pattern == "*" => true,
                None => subresource.is_empty() && pattern == resource,
                Some((before, after)) => {
                    let whole = before == resource && after == subresource && !subresource.is_empty();
                    let any_resource = before == "*" && after == subresource && !subresource.is_empty();
                    whole || any_resource || after == "*" && before == resource
                }
            })
    }
}
