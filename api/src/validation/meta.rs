//! The rules for metadata, labels, selectors and request options.

use std::collections::BTreeSet;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{
    LabelSelector, LabelSelectorRequirement, ManagedFieldsEntry, ObjectMeta, OwnerReference,
};
use serde_json::Value;

use super::*;
use crate::deletion::{FOREGROUND_FINALIZER, ORPHAN_FINALIZER};
use crate::text::quote;

/// The detail of every refused change of a field that may not change.
pub const IMMUTABLE: &str = "field is immutable";

/// Which rule an object's name follows.
pub type NameRule = fn(&str) -> Complaints;

/// A path segment: what names of objects with free names (roles, bindings) must be.
pub fn path_segment(name: &str) -> Complaints {
    match name {
        "." | ".." => return vec![format!("may not be '{name}'")],
        _ => {}
    }
    ["/", "%"]
        .into_iter()
        .filter(|illegal| name.contains(illegal))
        .map(|illegal| format!("may not contain '{illegal}'"))
        .collect()
}

/// A prefix under `generateName` may end in what a name may not end in: it is checked with that masked.
pub fn mask_trailing_dash(prefix: &str) -> String {
    match prefix.strip_suffix('-') {
        Some(rest) if !rest.is_empty() => format!("{rest}a"),
        _ => prefix.to_owned(),
    }
}

/// Checks metadata on creation, after the name has been generated.
pub fn object_meta(meta: &ObjectMeta, namespaced: bool, rule: NameRule, path: &Path) -> Errors {
    let mut errors = Errors::new();
    if let Some(prefix) = meta.generate_name.as_deref().filter(|prefix| !prefix.is_empty()) {
        let complaints = rule(&mask_trailing_dash(prefix));
        let at = || path.child("generateName");
        errors.extend(complaints.into_iter().map(|c| Error::invalid(&at(), prefix, c)));
    }
    match meta.name.as_deref().unwrap_or_default() {
        "" => errors.push(Error::required(
            &path.child("name"),
            "name or generateName is required",
        )),
        name => {
            errors.extend(
                rule(name)
                    .into_iter()
                    .map(|c| Error::invalid(&path.child("name"), name, c)),
            );
        }
    }
    let namespace = meta.namespace.as_deref().unwrap_or_default();
    if namespaced && namespace.is_empty() {
        errors.push(Error::required(&path.child("namespace"), ""));
    } else if namespaced {
        let complaints = dns1123_label(namespace);
        let at = || path.child("namespace");
        errors.extend(
            complaints
                .into_iter()
                .map(|c| Error::invalid(&at(), namespace, c)),
        );
    } else if !namespace.is_empty() {
        errors.push(Error::forbidden(
            &path.child("namespace"),
            "not allowed on this type",
        ));
    }
    if let Some(generation) = meta.generation {
        errors.extend(non_negative(&path.child("generation"), generation));
    }
    common_meta(meta, path, &mut errors);
    errors
}

fn common_meta(meta: &ObjectMeta, path: &Path, errors: &mut Errors) {
    if let Some(map) = &meta.labels {
        errors.extend(labels(&path.child("labels"), map));
    }
    if let Some(map) = &meta.annotations {
        errors.extend(annotations(&path.child("annotations"), map));
    }
    if let Some(owners) = &meta.owner_references {
        errors.extend(owner_references(&path.child("ownerReferences"), owners));
    }
    if let Some(names) = &meta.finalizers {
        errors.extend(finalizers(&path.child("finalizers"), names));
    }
    if let Some(entries) = &meta.managed_fields {
        errors.extend(managed_fields(&path.child("managedFields"), entries));
    }
}

/// Checks metadata on update against what was stored.
pub fn object_meta_update(new: &ObjectMeta, old: &ObjectMeta, path: &Path) -> Errors {
    let mut errors = Errors::new();
    if old.deletion_timestamp.is_some() {
        let had: BTreeSet<&String> = old.finalizers.iter().flatten().collect();
        let extra: BTreeSet<&String> = new
            .finalizers
            .iter()
            .flatten()
            .filter(|name| !had.contains(name))
            .collect();
        if !extra.is_empty() {
            let names: Vec<String> = extra.into_iter().map(|name| quote(name)).collect();
            errors.push(Error::forbidden(
                &path.child("finalizers"),
                format!(
                    "no new finalizers can be added if the object is being deleted, found new finalizers []string{{{}}}",
                    names.join(", ")
                ),
            ));
        }
    }
    if new.resource_version.as_deref().unwrap_or_default().is_empty() {
        let at = path.child("resourceVersion");
        errors.push(Error::invalid(&at, "", "must be specified for an update"));
    }
    let generation = new.generation.unwrap_or_default();
    if generation < old.generation.unwrap_or_default() {
        errors.push(Error::invalid(
            &path.child("generation"),
            generation,
            "must not be decremented",
        ));
    }
    let unset = String::new();
    let mut same = |field: &'static str, new: &Option<String>, old: &Option<String>| {
        let (new, old) = (new.as_ref().unwrap_or(&unset), old.as_ref().unwrap_or(&unset));
        if new != old {
            errors.push(Error::invalid(&path.child(field), new.clone(), IMMUTABLE));
        }
    };
    same("name", &new.name, &old.name);
    same("namespace", &new.namespace, &old.namespace);
    same("uid", &new.uid, &old.uid);
    let mut same_value = |field: &'static str, equal: bool, new: Result<Value, serde_json::Error>| {
        if !equal {
            errors.push(Error::invalid(
                &path.child(field),
                new.unwrap_or_default(),
                IMMUTABLE,
            ));
        }
    };
    same_value(
        "creationTimestamp",
        new.creation_timestamp == old.creation_timestamp,
        serde_json::to_value(&new.creation_timestamp),
    );
    same_value(
        "deletionTimestamp",
        new.deletion_timestamp == old.deletion_timestamp,
        serde_json::to_value(&new.deletion_timestamp),
    );
    same_value(
        "deletionGracePeriodSeconds",
        new.deletion_grace_period_seconds == old.deletion_grace_period_seconds,
        serde_json::to_value(new.deletion_grace_period_seconds),
    );
    common_meta(new, path, &mut errors);
    errors
}

/// A number that may not be negative.
pub fn non_negative(path: &Path, value: i64) -> Errors {
    if value >= 0 {
        return Errors::new();
    }
    vec![Error::invalid(path, value, "must be greater than or equal to 0")]
}

/// The key of a label.
pub fn label_name(path: &Path, name: &str) -> Errors {
    qualified_name(name)
        .into_iter()
        .map(|c| Error::invalid(path, name, c))
        .collect()
}

/// An object's labels.
pub fn labels(path: &Path, labels: &BTreeMap<String, String>) -> Errors {
    let mut errors = Errors::new();
    for (key, value) in labels {
        errors.extend(label_name(path, key));
        errors.extend(
            label_value(value)
                .into_iter()
                .map(|c| Error::invalid(path, value.as_str(), c)),
        );
    }
    errors
}

/// An object's annotations: keys are checked without regard to case, values only for their size.
pub fn annotations(path: &Path, annotations: &BTreeMap<String, String>) -> Errors {
    let mut errors = Errors::new();
    let mut size = 0;
    for (key, value) in annotations {
        let complaints = qualified_name(&key.to_lowercase());
        errors.extend(
            complaints
                .into_iter()
                .map(|c| Error::invalid(path, key.as_str(), c)),
        );
        size += key.len() + value.len();
    }
    if size > ANNOTATIONS_MAX {
        errors.push(Error::too_long(path, ANNOTATIONS_MAX));
    }
    errors
}

/// An object's owners.
pub fn owner_references(path: &Path, owners: &[OwnerReference]) -> Errors {
    let mut errors = Errors::new();
    let mut controller: Option<String> = None;
    for owner in owners {
        let (group, version) = crate::names::split_api_version(&owner.api_version);
        let mut filled = |field: &'static str, value: &str, present: bool, detail: &'static str| {
            if !present {
                errors.push(Error::invalid(&path.child(field), value, detail));
            }
        };
        filled(
            "apiVersion",
            &owner.api_version,
            !version.is_empty(),
            "version must not be empty",
        );
        filled("kind", &owner.kind, !owner.kind.is_empty(), "must not be empty");
        filled("name", &owner.name, !owner.name.is_empty(), "must not be empty");
        filled("uid", &owner.uid, !owner.uid.is_empty(), "must not be empty");
        if group.is_empty() && version == "v1" && owner.kind == "Event" {
            let shown = serde_json::to_value(owner).unwrap_or_default();
            errors.push(Error::invalid(
                path,
                shown,
                "/v1, Kind=Event is disallowed from being an owner",
            ));
        }
        if owner.controller == Some(true) {
            let name = format!("{}/{}", owner.kind, owner.name);
            match &controller {
                Some(first) => {
                    let detail = format!(
                        "Only one reference can have Controller set to true. Found \"true\" in references for {first} and {name}"
                    );
                    let shown = serde_json::to_value(owners).unwrap_or_default();
                    errors.push(Error::invalid(path, shown, detail));
                }
                None => controller = Some(name),
            }
        }
    }
    errors
}

/// An object's finalizers.
pub fn finalizers(path: &Path, names: &[String]) -> Errors {
    let mut errors = Errors::new();
    for name in names {
        errors.extend(
            qualified_name(name)
                .into_iter()
                .map(|c| Error::invalid(path, name.as_str(), c)),
        );
    }
    let has = |wanted: &str| names.iter().any(|name| name == wanted);
    if has(ORPHAN_FINALIZER) && has(FOREGROUND_FINALIZER) {
        errors.push(Error::invalid(
            path,
            names.to_vec(),
            format!("finalizer {ORPHAN_FINALIZER} and {FOREGROUND_FINALIZER} cannot be both set"),
        ));
    }
    errors
}

/// Who owns which fields.
pub fn managed_fields(path: &Path, entries: &[ManagedFieldsEntry]) -> Errors {
    let mut errors = Errors::new();
    for (i, entry) in entries.iter().enumerate() {
        let path = path.index(i);
        let operation = entry.operation.as_deref().unwrap_or_default();
        if !matches!(operation, "Apply" | "Update") {
            errors.push(Error::invalid(
                &path.child("operation"),
                operation,
                "must be `Apply` or `Update`",
            ));
        }
        match entry.fields_type.as_deref() {
            None | Some("" | "FieldsV1") => {}
            Some(other) => {
                errors.push(Error::invalid(
                    &path.child("fieldsType"),
                    other,
                    "must be `FieldsV1`",
                ));
            }
        }
        let manager = entry.manager.as_deref().unwrap_or_default();
        errors.extend(field_manager(&path.child("manager"), manager));
        if entry.subresource.as_ref().is_some_and(|name| name.len() > 256) {
            errors.push(Error::too_long(&path.child("subresource"), 256));
        }
    }
    errors
}

/// The name of a field manager: at most 128 bytes, all printable.
pub fn field_manager(path: &Path, name: &str) -> Errors {
    let mut errors = Errors::new();
    if name.len() > 128 {
        errors.push(Error::too_long(path, 128));
    }
    for (position, c) in name.char_indices().filter(|(_, c)| c.is_control()) {
        let detail = format!("invalid character U+{:04X} (at position {position})", c as u32);
        errors.push(Error::invalid(path, name, detail));
    }
    errors
}

/// The `dryRun` parameter: `All` or nothing.
pub fn dry_run(path: &Path, values: &[String]) -> Errors {
    if values.iter().all(|value| value == "All") {
        return Errors::new();
    }
    vec![Error::not_supported(path, values.to_vec(), &["All"])]
}

/// The `fieldValidation` parameter.
pub fn field_validation(path: &Path, value: &str) -> Errors {
    if matches!(value, "" | "Ignore" | "Strict" | "Warn") {
        return Errors::new();
    }
    vec![Error::not_supported(
        path,
        value,
        &["", "Ignore", "Strict", "Warn"],
    )]
}

/// A label selector inside an object.
pub fn label_selector(path: &Path, selector: &LabelSelector) -> Errors {
    let mut errors = Errors::new();
    if let Some(map) = &selector.match_labels {
        errors.extend(labels(&path.child("matchLabels"), map));
    }
    for (i, requirement) in selector.match_expressions.iter().flatten().enumerate() {
        errors.extend(label_selector_requirement(
            &path.child("matchExpressions").index(i),
            requirement,
        ));
    }
    errors
}

fn label_selector_requirement(path: &Path, requirement: &LabelSelectorRequirement) -> Errors {
    let mut errors = Errors::new();
    let values = requirement.values.as_deref().unwrap_or_default();
    match requirement.operator.as_str() {
        "In" | "NotIn" => {
            if values.is_empty() {
                errors.push(Error::required(
                    &path.child("values"),
                    "must be specified when `operator` is 'In' or 'NotIn'",
                ));
            }
        }
        "Exists" | "DoesNotExist" => {
            if !values.is_empty() {
                errors.push(Error::forbidden(
                    &path.child("values"),
                    "may not be specified when `operator` is 'Exists' or 'DoesNotExist'",
                ));
            }
        }
        other => errors.push(Error::invalid(
            &path.child("operator"),
            other,
            "not a valid selector operator",
        )),
    }
    errors.extend(label_name(&path.child("key"), &requirement.key));
    for (i, value) in values.iter().enumerate() {
        let complaints = label_value(value);
        let at = || path.child("values").index(i);
        errors.extend(
            complaints
                .into_iter()
                .map(|c| Error::invalid(&at(), value.as_str(), c)),
        );
    }
    errors
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_on_creation_and_update() {
        let path = Path::new("metadata");
        let good = ObjectMeta {
            name: Some("a".into()),
            namespace: Some("b".into()),
            generate_name: Some("a-".into()),
            ..ObjectMeta::default()
        };
        assert!(object_meta(&good, true, dns1123_subdomain, &path).is_empty());
        let messages: Vec<String> = object_meta(&ObjectMeta::default(), true, dns1123_subdomain, &path)
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(
            messages,
            [
                "metadata.name: Required value: name or generateName is required",
                "metadata.namespace: Required value"
            ]
        );
        let changed = ObjectMeta {
            name: Some("c".into()),
            resource_version: Some("1".into()),
            ..good.clone()
        };
        assert_eq!(
            object_meta_update(&changed, &good, &path)[0].to_string(),
            "metadata.name: Invalid value: \"c\": field is immutable"
        );
    }

    #[test]
    fn names_that_must_fit_into_a_path() {
        assert!(path_segment("system:admin").is_empty());
        assert_eq!(path_segment(".."), ["may not be '..'"]);
        assert_eq!(path_segment("a/b"), ["may not contain '/'"]);
    }
}
