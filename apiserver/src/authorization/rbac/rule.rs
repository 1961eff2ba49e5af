//! One rule of a role, ready to be held against requests.

use k8s_openapi::api::rbac::v1::PolicyRule;

use crate::authorization::{Attributes, Target};

/// Verbs that have a bit of their own; all others share one and are compared as text.
const KNOWN: &[&str] = &[
    "get",
    "list",
    "watch",
    "create",
    "update",
    "patch",
    "delete",
    "deletecollection",
    "impersonate",
    "bind",
    "escalate",
    "approve",
    "sign",
    "use",
];
/// The bit of all verbs that have none of their own.
pub(super) const OTHER: u16 = 1 << 15;
/// Every verb there can be.
pub(super) const EVERY: u16 = u16::MAX;

/// The bit of a verb.
fn bit(verb: &str) -> u16 {
    match KNOWN.iter().position(|known| *known == verb) {
        Some(at) => 1 << at,
        None => OTHER,
    }
}

type Texts = Box<[Box<str>]>;

/// A rule. Its lists are as they were written.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Rule {
    pub(super) mask: u16,
    /// `get`, `*`.
    pub verbs: Texts,
    /// API groups.
    pub groups: Texts,
    /// `pods`, `pods/log`, `*/scale`, `*`.
    pub resources: Texts,
    /// Names of objects; none means all.
    pub names: Texts,
    /// `/healthz`, `/api/*`.
    pub urls: Texts,
}

fn texts(list: Option<&Vec<String>>) -> Texts {
    list.into_iter()
        .flatten()
        .map(|text| text.as_str().into())
        .collect()
}

fn has(list: &Texts, wanted: &str) -> bool {
    list.iter().any(|text| &**text == wanted)
}

fn all(list: &Texts, wanted: &Texts) -> bool {
    wanted.iter().all(|text| has(list, text))
}

impl Rule {
    /// From the object's form.
    pub fn new(rule: &PolicyRule) -> Self {
        let verbs = texts(Some(&rule.verbs));
        Self {
            mask: if has(&verbs, "*") {
                EVERY
            } else {
                verbs.iter().fold(0, |mask, verb| mask | bit(verb))
            },
            verbs,
            groups: texts(rule.api_groups.as_ref()),
            resources: texts(rule.resources.as_ref()),
            names: texts(rule.resource_names.as_ref()),
            urls: texts(rule.non_resource_urls.as_ref()),
        }
    }

    /// To the object's form.
    pub fn policy(&self) -> PolicyRule {
        let list = |texts: &Texts| texts.iter().map(ToString::to_string).collect::<Vec<_>>();
        let some = |texts: &Texts| (!texts.is_empty()).then(|| list(texts));
        PolicyRule {
            verbs: list(&self.verbs),
            api_groups: some(&self.groups),
            resources: some(&self.resources),
            resource_names: some(&self.names),
            non_resource_urls: some(&self.urls),
        }
    }

    /// Whether the rule lets a request pass.
    pub fn allows(&self, attributes: &Attributes<'_>) -> bool {
        let verb = attributes.verb;
        if self.mask & bit(verb) == 0 || (self.mask != EVERY && bit(verb) == OTHER && !has(&self.verbs, verb))
        {
            return false;
        }
        match attributes.target {
            Target::Path(path) => self.urls.iter().any(|url| url_covers(url, path)),
            Target::Resource {
                group,
                resource,
                subresource,
                name,
                ..
            } => {
                self.groups
                    .iter()
                    .any(|known| &**known == "*" || &**known == group)
                    && self
                        .resources
                        .iter()
                        .any(|known| resource_fits(known, resource, subresource))
                    && (self.names.is_empty() || has(&self.names, name))
            }
        }
    }

    /// The verbs that have no bit of their own.
    pub(super) fn odd_verbs(&self) -> impl Iterator<Item = &str> {
        self.verbs
            .iter()
            .map(AsRef::as_ref)
            .filter(|verb| bit(verb) == OTHER)
    }

    /// Whether everything `other` allows is allowed by this rule, too.
    pub fn covers(&self, other: &Rule) -> bool {
        (has(&self.verbs, "*") || all(&self.verbs, &other.verbs))
            && (has(&self.groups, "*") || all(&self.groups, &other.groups))
            && (has(&self.resources, "*")
                || other.resources.iter().all(|wanted| self.covers_resource(wanted)))
            && other
                .urls
                .iter()
                .all(|wanted| self.urls.iter().any(|url| url_covers(url, wanted)))
            && (self.names.is_empty() || (!other.names.is_empty() && all(&self.names, &other.names)))
    }

    fn covers_resource(&self, wanted: &str) -> bool {
        if has(&self.resources, wanted) {
            return true;
        }
        let Some((_, subresource)) = wanted.split_once('/') else {
            return false;
        };
        self.resources
            .iter()
            .any(|known| known.strip_prefix("*/") == Some(subresource))
    }

    /// The rule as many rules, each with one verb for one resource or URL.
    pub fn pieces(&self) -> Vec<Rule> {
        let one = |text: &str| -> Texts { Box::new([text.into()]) };
        let piece = |verb: &str| Rule {
            mask: if verb == "*" { EVERY } else { bit(verb) },
            verbs: one(verb),
            groups: Texts::default(),
            resources: Texts::default(),
            names: Texts::default(),
            urls: Texts::default(),
        };
        let mut pieces = Vec::new();
        for group in &self.groups {
            for resource in &self.resources {
                for verb in &self.verbs {
                    let whole = Rule {
                        groups: one(group),
                        resources: one(resource),
                        ..piece(verb)
                    };
                    if self.names.is_empty() {
                        pieces.push(whole);
                        continue;
                    }
                    pieces.extend(self.names.iter().map(|name| Rule {
                        names: one(name),
                        ..whole.clone()
                    }));
                }
            }
        }
        for url in &self.urls {
            pieces.extend(self.verbs.iter().map(|verb| Rule {
                urls: one(url),
                ..piece(verb)
            }));
        }
        pieces
    }

    /// The same rule with the verbs of `other`, too.
    pub fn with_verbs_of(mut self, other: &Rule) -> Self {
        self.mask |= other.mask;
        let verbs = self.verbs.iter().chain(&other.verbs).cloned();
        self.verbs = verbs.collect();
        self
    }
}

fn resource_fits(known: &str, resource: &str, subresource: &str) -> bool {
    if known == "*" {
        return true;
    }
    if subresource.is_empty() {
        return known == resource;
    }
    let Some((parent, child)) = known.split_once('/') else {
        return false;
    };
    child == subresource && (parent == resource || parent == "*")
}

/// Whether a URL of a rule covers a path: the same, or all that begins alike before a final `*`.
fn url_covers(url: &str, path: &str) -> bool {
    url == path || (url.ends_with('*') && path.starts_with(url.trim_end_matches('*')))
}

impl std::fmt::Display for Rule {
    /// As upstream names a rule that is missing: `{APIGroups:[""], Resources:["pods"], Verbs:["get"]}`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let parts = [
            ("APIGroups", &self.groups),
            ("Resources", &self.resources),
            ("NonResourceURLs", &self.urls),
            ("ResourceNames", &self.names),
            ("Verbs", &self.verbs),
        ];
        f.write_str("{")?;
        let mut separator = "";
        for (name, list) in parts.into_iter().filter(|(_, list)| !list.is_empty()) {
            let quoted: Vec<String> = list.iter().map(|text| keelson_api::text::quote(text)).collect();
            write!(f, "{separator}{name}:[{}]", quoted.join(" "))?;
            separator = ", ";
        }
        f.write_str("}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::authorization::attributes::Resource;
    use serde_json::json;

    fn rule(json: serde_json::Value) -> Rule {
        Rule::new(&serde_json::from_value(json).expect("a rule"))
    }

    fn pods(verb: &'static str, subresource: &'static str, name: &'static str) -> Attributes<'static> {
        Attributes::resource(
            verb,
            Resource {
                resource: "pods",
                subresource,
                name,
                namespace: "default",
                ..Resource::default()
            },
        )
    }

    #[test]
    fn subresources_names_and_wildcards() {
        let logs = rule(json!({"verbs": ["get"], "apiGroups": [""], "resources": ["pods/log"]}));
        assert!(logs.allows(&pods("get", "log", "a")) && !logs.allows(&pods("get", "", "a")));
        let scale = rule(json!({"verbs": ["*"], "apiGroups": ["*"], "resources": ["*/scale"]}));
        assert!(scale.allows(&pods("update", "scale", "a")) && !scale.allows(&pods("update", "", "a")));
        let named =
            rule(json!({"verbs": ["get"], "apiGroups": [""], "resources": ["pods"], "resourceNames": ["a"]}));
        assert!(named.allows(&pods("get", "", "a")) && !named.allows(&pods("get", "", "b")));
        let odd = rule(json!({"verbs": ["dance"], "apiGroups": [""], "resources": ["pods"]}));
        assert!(odd.allows(&pods("dance", "", "")) && !odd.allows(&pods("sing", "", "")));
        let all = rule(json!({"verbs": ["get"], "apiGroups": [""], "resources": ["*"]}));
        assert!(all.allows(&pods("get", "log", "a")));
    }

    #[test]
    fn urls_may_end_in_a_star() {
        let urls = rule(json!({"verbs": ["get"], "nonResourceURLs": ["/api/*", "/version"]}));
        assert!(urls.allows(&Attributes::path("get", "/api/v1")));
        assert!(!urls.allows(&Attributes::path("get", "/api")));
        assert!(urls.allows(&Attributes::path("get", "/version")));
        assert!(!urls.allows(&Attributes::path("post", "/version")));
    }

    #[test]
    fn a_rule_covers_what_it_contains() {
        let owner = rule(json!({"verbs": ["*"], "apiGroups": [""], "resources": ["pods", "*/status"]}));
        let wanted = rule(json!({"verbs": ["get"], "apiGroups": [""], "resources": ["services/status"]}));
        assert!(owner.covers(&wanted));
        let named =
            rule(json!({"verbs": ["get"], "apiGroups": [""], "resources": ["pods"], "resourceNames": ["a"]}));
        assert!(owner.covers(&named) && !named.covers(&owner));
        assert_eq!(
            named.to_string(),
            r#"{APIGroups:[""], Resources:["pods"], ResourceNames:["a"], Verbs:["get"]}"#
        );
        assert_eq!(owner.pieces().len(), 2);
    }
}
