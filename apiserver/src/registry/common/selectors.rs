//! Rules for label selectors.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use keelson_api::field::Errors;
use keelson_api::validation;

use super::loc::Loc;
use super::rules;

/// Keys, operators and values of a selector.
pub fn label_selector(errors: &mut Errors, at: &Loc<'_>, selector: &LabelSelector) {
    if let Some(labels) = &selector.match_labels {
        rules::labels(errors, &at.child("matchLabels"), labels);
    }
    let expressions = at.child("matchExpressions");
    for (i, requirement) in selector.match_expressions.iter().flatten().enumerate() {
        let at = expressions.index(i);
        let values = requirement.values.as_deref().unwrap_or(&[]);
        match requirement.operator.as_str() {
            "In" | "NotIn" if values.is_empty() => {
                let detail = "must be specified when `operator` is 'In' or 'NotIn'";
                errors.push(at.child("values").required(detail));
            }
            "Exists" | "DoesNotExist" if !values.is_empty() => {
                let detail = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'";
                errors.push(at.child("values").forbidden(detail));
            }
            "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
            other => errors.push(
                at.child("operator")
                    .invalid(other, "not a valid selector operator"),
            ),
        }
        rules::qualified_name(errors, &at.child("key"), &requirement.key);
        for (j, value) in values.iter().enumerate() {
            let all = at.child("values");
            rules::complain(errors, &all.index(j), value, validation::label_value(value));
        }
    }
}

/// Whether a selector asks for nothing, and so would match everything.
pub fn is_empty(selector: &LabelSelector) -> bool {
    selector.match_labels.as_ref().is_none_or(BTreeMap::is_empty)
        && selector.match_expressions.as_ref().is_none_or(Vec::is_empty)
}

/// Whether labels satisfy a selector.
pub fn matches(selector: &LabelSelector, labels: &BTreeMap<String, String>) -> bool {
    let by_labels = selector
        .match_labels
        .iter()
        .flatten()
        .all(|(key, value)| labels.get(key).is_some_and(|v| v == value));
    by_labels
        && selector.match_expressions.iter().flatten().all(|requirement| {
            let value = labels.get(&requirement.key);
            let listed = |v: &String| requirement.values.iter().flatten().any(|one| one == v);
            match requirement.operator.as_str() {
                "In" => value.is_some_and(listed),
                "NotIn" => !value.is_some_and(listed),
                "Exists" => value.is_some(),
                "DoesNotExist" => value.is_none(),
                _ => false,
            }
        })
}
