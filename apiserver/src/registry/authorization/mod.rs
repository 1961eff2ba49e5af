//! The `authorization.k8s.io` group: what somebody may do, answered and never stored.
//!
//! <https://kubernetes.io/docs/reference/access-authn-authz/authorization/>

pub mod local_subject_access_review;
pub mod self_subject_access_review;
pub mod self_subject_rules_review;
pub mod subject_access_review;

use k8s_openapi::api::authorization::v1::{
    NonResourceAttributes, ResourceAttributes, SubjectAccessReviewSpec, SubjectAccessReviewStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{
    FieldSelectorRequirement, LabelSelectorRequirement, ObjectMeta,
};
use keelson_api::field::Errors;

use crate::authentication::User;
use crate::authorization::{Attributes, Opinion, Selectors, Target};
use crate::registry::common::loc::Loc;
use crate::registry::common::rules;
use crate::state::Server;

const GROUP: &str = "authorization.k8s.io";

/// What is asked: either of the two.
struct Question<'a> {
    resource: Option<&'a ResourceAttributes>,
    path: Option<&'a NonResourceAttributes>,
}

fn text(text: &Option<String>) -> &str {
    text.as_deref().unwrap_or_default()
}

impl Question<'_> {
    fn validate(&self, errors: &mut Errors) {
        let at = Loc::new("spec");
        match (self.resource, self.path) {
            (Some(_), Some(_)) => errors.push(at.child("nonResourceAttributes").invalid(
                rules::shown(&self.path),
                "cannot be specified in combination with resourceAttributes",
            )),
            (None, None) => errors.push(at.child("resourceAttributes").invalid(
                serde_json::Value::Null,
                "exactly one of nonResourceAttributes or resourceAttributes must be specified",
            )),
            _ => {}
        }
        let Some(resource) = self.resource else { return };
        let at = Loc::new("spec.resourceAttributes");
        if let Some(selector) = &resource.field_selector {
            let at = at.child("fieldSelector");
            let (raw, many) = (
                text(&selector.raw_selector),
                selector.requirements.as_deref().unwrap_or(&[]),
            );
            if !raw.is_empty() && !many.is_empty() {
                errors.push(
                    at.child("rawSelector")
                        .invalid(raw, "may not specified at the same time as requirements"),
                );
            } else if raw.is_empty() && many.is_empty() {
                errors
                    .push(at.child("requirements").required(
                        "when fieldSelector is specified, requirements or rawSelector is required",
                    ));
            }
        }
        if let Some(selector) = &resource.label_selector {
            let at = at.child("labelSelector");
            let (raw, many) = (
                text(&selector.raw_selector),
                selector.requirements.as_deref().unwrap_or(&[]),
            );
            if !raw.is_empty() && !many.is_empty() {
                errors.push(
                    at.child("rawSelector")
                        .invalid(raw, "may not specified at the same time as requirements"),
                );
            } else if raw.is_empty() && many.is_empty() {
                errors
                    .push(at.child("requirements").required(
                        "when labelSelector is specified, requirements or rawSelector is required",
                    ));
            }
        }
    }

    async fn answer(&self, server: &Server, user: &User) -> SubjectAccessReviewStatus {
        let (field, label);
        let attributes = match (self.resource, self.path) {
            (Some(asked), _) => {
                field = asked.field_selector.as_ref().map(|s| {
                    let many = s.requirements.as_deref().unwrap_or(&[]);
                    selector_text(text(&s.raw_selector), many, field_requirement)
                });
                label = asked.label_selector.as_ref().map(|s| {
                    let many = s.requirements.as_deref().unwrap_or(&[]);
                    selector_text(text(&s.raw_selector), many, label_requirement)
                });
                Attributes {
                    verb: text(&asked.verb),
                    target: Target::Resource {
                        group: text(&asked.group),
                        version: text(&asked.version),
                        resource: text(&asked.resource),
                        subresource: text(&asked.subresource),
                        namespace: text(&asked.namespace),
                        name: text(&asked.name),
                    },
                    selectors: Selectors {
                        field: field.as_deref().unwrap_or_default(),
                        label: label.as_deref().unwrap_or_default(),
                    },
                }
            }
            (None, Some(asked)) => Attributes::path(text(&asked.verb), text(&asked.path)),
            // Refused by validation.
            (None, None) => return SubjectAccessReviewStatus::default(),
        };
        let verdict = server.authorizer.authorize(user, &attributes).await;
        SubjectAccessReviewStatus {
            allowed: verdict.allowed(),
            denied: (verdict.opinion == Opinion::Deny).then_some(true),
            reason: Some(verdict.reason.to_string()).filter(|reason| !reason.is_empty()),
            evaluation_error: None,
        }
    }
}

fn selector_text<T>(raw: &str, many: &[T], write: impl Fn(&T) -> Option<String>) -> String {
    if many.is_empty() {
        return raw.to_owned();
    }
    many.iter().filter_map(write).collect::<Vec<_>>().join(",")
}

/// Requirements that cannot be written down are left out, which makes the request wider, never narrower.
fn field_requirement(requirement: &FieldSelectorRequirement) -> Option<String> {
    let [value] = requirement.values.as_deref()? else {
        return None;
    };
    match requirement.operator.as_str() {
        "In" => Some(format!("{}={value}", requirement.key)),
        "NotIn" => Some(format!("{}!={value}", requirement.key)),
        _ => None,
    }
}

fn label_requirement(requirement: &LabelSelectorRequirement) -> Option<String> {
    let key = &requirement.key;
    let values = requirement.values.as_deref().unwrap_or(&[]).join(",");
    match requirement.operator.as_str() {
        "In" => Some(format!("{key} in ({values})")),
        "NotIn" => Some(format!("{key} notin ({values})")),
        "Exists" => Some(key.clone()),
        "DoesNotExist" => Some(format!("!{key}")),
        _ => None,
    }
}

fn no_metadata(errors: &mut Errors, metadata: &ObjectMeta, complaint: &'static str) {
    let mut rest = metadata.clone();
    rest.managed_fields = None;
    if rest != ObjectMeta::default() {
        errors.push(Loc::new("metadata").invalid(rules::shown(metadata), complaint));
    }
}

fn has_subject(errors: &mut Errors, spec: &SubjectAccessReviewSpec) {
    if text(&spec.user).is_empty() && spec.groups.as_ref().is_none_or(Vec::is_empty) {
        errors.push(Loc::new("spec.user").invalid(
            text(&spec.user),
            "at least one of user or group must be specified",
        ));
    }
}

fn question(spec: &SubjectAccessReviewSpec) -> Question<'_> {
    Question {
        resource: spec.resource_attributes.as_ref(),
        path: spec.non_resource_attributes.as_ref(),
    }
}

/// Exactly who was named: nobody is put into further groups.
fn subject(spec: &SubjectAccessReviewSpec) -> User {
    User {
        name: text(&spec.user).to_owned(),
        uid: text(&spec.uid).to_owned(),
        groups: spec.groups.clone().unwrap_or_default(),
        extra: spec.extra.clone().unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn questions_have_one_object() {
        let check = |spec: serde_json::Value| -> Vec<String> {
            let spec: SubjectAccessReviewSpec = serde_json::from_value(spec).expect("a spec");
            let mut errors = Errors::new();
            question(&spec).validate(&mut errors);
            has_subject(&mut errors, &spec);
            errors.iter().map(ToString::to_string).collect()
        };
        assert!(check(json!({"user": "u", "resourceAttributes": {"verb": "get"}})).is_empty());
        let errors = check(json!({}));
        assert_eq!(errors.len(), 2, "{errors:?}");
        assert!(errors[1].contains("at least one of user or group must be specified"));
        let both =
            check(json!({"user": "u", "resourceAttributes": {}, "nonResourceAttributes": {"path": "/"}}));
        assert!(both[0].contains("cannot be specified in combination with resourceAttributes"));
    }

    #[test]
    fn selectors_are_written_down() {
        let many: Vec<FieldSelectorRequirement> = serde_json::from_value(json!([
            {"key": "spec.nodeName", "operator": "In", "values": ["n1"]},
            {"key": "status.phase", "operator": "NotIn", "values": ["Failed"]},
            {"key": "x", "operator": "Exists"},
        ]))
        .expect("requirements");
        assert_eq!(
            selector_text("", &many, field_requirement),
            "spec.nodeName=n1,status.phase!=Failed"
        );
    }
}
