//! Rules for single fields, put on record at their place.
//!
//! They report into a list instead of returning one, so that a correct object costs no allocation.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::PodTemplateSpec;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use keelson_api::field::{Errors, Path};
use keelson_api::quantity::Amount;
use keelson_api::validation::{self, Complaints};
use serde_json::Value;

use super::loc::Loc;

/// Upstream's text for a number below zero.
pub const NEGATIVE: &str = "must be greater than or equal to 0";
/// Upstream's text for a field that never changes.
pub const IMMUTABLE: &str = "field is immutable";
/// The largest id of a user or group.
const ID_MAX: i64 = i32::MAX as i64;

/// Records each complaint about a value.
pub fn complain(errors: &mut Errors, at: &Loc<'_>, value: &str, complaints: Complaints) {
    for complaint in complaints {
        errors.push(at.invalid(value, complaint));
    }
}

/// RFC 1123 label.
pub fn label(errors: &mut Errors, at: &Loc<'_>, value: &str) {
    complain(errors, at, value, validation::dns1123_label(value));
}

/// RFC 1123 subdomain.
pub fn subdomain(errors: &mut Errors, at: &Loc<'_>, value: &str) {
    complain(errors, at, value, validation::dns1123_subdomain(value));
}

/// A label's or annotation's key.
pub fn qualified_name(errors: &mut Errors, at: &Loc<'_>, value: &str) {
    complain(errors, at, value, validation::qualified_name(value));
}

/// Labels: keys and values. The place is the whole map's, as upstream reports it.
pub fn labels(errors: &mut Errors, at: &Loc<'_>, labels: &BTreeMap<String, String>) {
    for (key, value) in labels {
        qualified_name(errors, at, key);
        complain(errors, at, value, validation::label_value(value));
    }
}

/// Annotations: keys and their total size.
pub fn annotations(errors: &mut Errors, at: &Loc<'_>, annotations: &BTreeMap<String, String>) {
    let mut size = 0;
    for (key, value) in annotations {
        let complaints = validation::qualified_name(key);
        if !complaints.is_empty() {
            let lower = validation::qualified_name(&key.to_lowercase());
            complain(errors, at, key, lower);
        }
        size += key.len() + value.len();
    }
    if size > validation::ANNOTATIONS_MAX {
        errors.push(at.too_long(validation::ANNOTATIONS_MAX));
    }
}

/// The parts of a template's metadata that matter.
pub fn template_metadata(errors: &mut Errors, at: &Loc<'_>, template: &PodTemplateSpec) {
    let Some(metadata) = &template.metadata else {
        return;
    };
    if let Some(map) = &metadata.labels {
        labels(errors, &at.child("labels"), map);
    }
    if let Some(map) = &metadata.annotations {
        annotations(errors, &at.child("annotations"), map);
    }
}

/// A number that must not be below zero.
pub fn not_negative(errors: &mut Errors, at: &Loc<'_>, value: Option<impl Into<i64>>) {
    let value = value.map_or(0, Into::into);
    if value < 0 {
        errors.push(at.invalid(value, NEGATIVE));
    }
}

/// A number within a range, both ends included.
pub fn between(errors: &mut Errors, at: &Loc<'_>, value: i64, low: i64, high: i64) {
    if value < low || value > high {
        errors.push(at.invalid(value, validation::range_error(low, high)));
    }
}

/// A port number.
pub fn port(errors: &mut Errors, at: &Loc<'_>, value: i32) {
    between(errors, at, value.into(), 1, 65535);
}

/// A port's number or name.
pub fn port_or_name(errors: &mut Errors, at: &Loc<'_>, value: &IntOrString) {
    match value {
        IntOrString::Int(number) => port(errors, at, *number),
        IntOrString::String(name) => complain(errors, at, name, validation::port_name(name)),
    }
}

/// The id of a user or group.
pub fn id(errors: &mut Errors, at: &Loc<'_>, value: Option<i64>) {
    if let Some(value) = value {
        between(errors, at, value, 0, ID_MAX);
    }
}

/// One of a fixed set; empty or absent is [`Loc::required`].
pub fn one_of(errors: &mut Errors, at: &Loc<'_>, value: Option<&str>, supported: &[&str]) {
    match value.unwrap_or("") {
        "" => errors.push(at.required("")),
        value => optional_one_of(errors, at, Some(value), supported),
    }
}

/// One of a fixed set, if given.
pub fn optional_one_of(errors: &mut Errors, at: &Loc<'_>, value: Option<&str>, supported: &[&str]) {
    if let Some(value) = value
        && !supported.contains(&value)
    {
        errors.push(at.not_supported(value, supported));
    }
}

/// A text that must not be empty.
pub fn not_empty(errors: &mut Errors, at: &Loc<'_>, value: Option<&str>) {
    if value.unwrap_or("").is_empty() {
        errors.push(at.required(""));
    }
}

/// An IP address.
pub fn ip(errors: &mut Errors, at: &Loc<'_>, value: &str) {
    if validation::parse_ip(value).is_none() {
        errors.extend(validation::ip(&Path::new(at.to_string()), value));
    }
}

/// Addresses that pods cannot be reached at.
pub fn not_special_ip(errors: &mut Errors, at: &Loc<'_>, value: &str) {
    let Some(address) = validation::parse_ip(value) else {
        errors.push(at.invalid(
            value,
            "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)",
        ));
        return;
    };
    // IPv4 in the clothes of IPv6 is what it is.
    let address = address.to_canonical();
    if address.is_unspecified() {
        errors.push(at.invalid(value, format!("may not be unspecified ({value})")));
    }
    if address.is_loopback() {
        errors.push(at.invalid(value, "may not be in the loopback range (127.0.0.0/8, ::1/128)"));
    }
    if validation::is_link_local(address) {
        errors.push(at.invalid(
            value,
            "may not be in the link-local range (169.254.0.0/16, fe80::/10)",
        ));
    }
    if validation::is_link_local_multicast(address) {
        errors.push(at.invalid(
            value,
            "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)",
        ));
    }
}

/// A relative path that does not climb out of where it starts.
pub fn descending_path(errors: &mut Errors, at: &Loc<'_>, path: &str) {
    if path.starts_with('/') {
        errors.push(at.invalid(path, "must be a relative path"));
    }
    no_backsteps(errors, at, path);
}

/// A path without `..`.
pub fn no_backsteps(errors: &mut Errors, at: &Loc<'_>, path: &str) {
    if path.split('/').any(|part| part == "..") {
        errors.push(at.invalid(path, "must not contain '..'"));
    }
}

/// A path of a file in a volume: names that start with `..` are the kubelet's own.
pub fn file_path(errors: &mut Errors, at: &Loc<'_>, path: &str) {
    descending_path(errors, at, path);
    if path.starts_with("..") && !path.split('/').any(|part| part == "..") {
        errors.push(at.invalid(path, "must not start with '..'"));
    }
}

/// A quantity that can be read and is not below zero.
pub fn quantity(errors: &mut Errors, at: &Loc<'_>, value: &Quantity) -> Option<Amount> {
    match Amount::try_from(value) {
        Ok(amount) => {
            if amount.is_negative() {
                errors.push(at.invalid(value.0.as_str(), NEGATIVE));
            }
            Some(amount)
        }
        Err(error) => {
            errors.push(at.invalid(value.0.as_str(), error.to_string()));
            None
        }
    }
}

/// A field that may not change.
pub fn immutable<T: PartialEq + serde::Serialize>(errors: &mut Errors, at: &Loc<'_>, new: &T, old: &T) {
    if new != old {
        errors.push(at.invalid(shown(new), IMMUTABLE));
    }
}

/// A value as error messages show it.
#[cold]
pub fn shown(value: &impl serde::Serialize) -> Value {
    serde_json::to_value(value).unwrap_or_default()
}

/// A whole number or a percentage, neither below zero.
pub fn count_or_percent(errors: &mut Errors, at: &Loc<'_>, value: &IntOrString) {
    match value {
        IntOrString::Int(number) => not_negative(errors, at, Some(*number)),
        IntOrString::String(text) => complain(errors, at, text, validation::percent(text)),
    }
}

/// A percentage above 100 makes no sense here.
pub fn at_most_hundred_percent(errors: &mut Errors, at: &Loc<'_>, value: &IntOrString) {
    if percent_of(value).is_some_and(|p| p > 100) {
        errors.push(at.invalid(shown(value), "must not be greater than 100%"));
    }
}

/// The number before the `%`.
pub fn percent_of(value: &IntOrString) -> Option<i64> {
    match value {
        IntOrString::Int(_) => None,
        IntOrString::String(text) => text.strip_suffix('%')?.parse().ok(),
    }
}

/// The number itself, or the number before the `%`.
pub fn count_of(value: &IntOrString) -> i64 {
    match value {
        IntOrString::Int(number) => (*number).into(),
        IntOrString::String(_) => percent_of(value).unwrap_or(0),
    }
}
