//! The `apps` group.

pub mod controller_revision;
pub mod daemon_set;

pub mod deployment;
pub mod replica_set;
pub mod stateful_set;

use k8s_openapi::api::core::v1::PodTemplateSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use keelson_api::field::Errors;

use super::common::loc::Loc;
use super::common::{NONE, rules, selectors};
use super::core::pod::validation;
use super::core::replication_controller::long_running;
use super::strategy::SubresourceInfo;

/// The `status` of a kind of this group.
const fn status(kind: &'static str) -> SubresourceInfo {
    SubresourceInfo::status("apps", "v1", kind)
}

/// A selector that must be there and ask for something. `what` is the kind as upstream's message names it.
fn selector(errors: &mut Errors, at: &Loc<'_>, selector: &LabelSelector, what: &str) {
    // A selector that is left out reads as an empty one: the field is not optional.
    if selectors::is_empty(selector) {
        if selector.match_labels.is_none() && selector.match_expressions.is_none() {
            errors.push(at.required(""));
        } else {
            let detail = format!("empty selector is invalid for {what}");
            errors.push(at.invalid(rules::shown(selector), detail));
        }
    } else {
        selectors::label_selector(errors, at, selector);
    }
}

/// A template whose pods run forever and carry the labels they are selected by.
fn template(
    errors: &mut Errors,
    at: &Loc<'_>,
    template: &PodTemplateSpec,
    selector: &LabelSelector,
    kind: &str,
) {
    let labels = template
        .metadata
        .as_ref()
        .and_then(|m| m.labels.as_ref())
        .unwrap_or(&NONE);
    if !selectors::is_empty(selector) && !selectors::matches(selector, labels) {
        let detail = "`selector` does not match template `labels`";
        errors.push(at.child("metadata.labels").invalid(rules::shown(labels), detail));
    }
    validation::pod_template(errors, at, template);
    long_running(errors, at, template, kind);
}

/// The containers of a template.
fn containers(template: &PodTemplateSpec) -> &[k8s_openapi::api::core::v1::Container] {
    template
        .spec
        .as_ref()
        .map(|s| s.containers.as_slice())
        .unwrap_or(&[])
}
