//! What a claim asks for: defaults and rules shared by claims and their templates.

use k8s_openapi::api::resource::v1::{
    DeviceClaim, DeviceConstraint, DeviceRequest, DeviceSelector, DeviceToleration,
    OpaqueDeviceConfiguration, ResourceClaimSpec,
};
use keelson_api::field::Errors;
use keelson_api::validation;

use crate::registry::common::loc::Loc;
use crate::registry::common::rules;

/// Upstream's bounds (`resource.k8s.io/v1`, constants of the same meaning).
const REQUESTS_MAX: usize = 32;
const CONSTRAINTS_MAX: usize = 32;
const CONFIGS_MAX: usize = 32;
const SUBREQUESTS_MAX: usize = 8;
const SELECTORS_MAX: usize = 32;
const TOLERATIONS_MAX: usize = 16;
const EXPRESSION_MAX: usize = 10 * 1024;
const PARAMETERS_MAX: usize = 10 * 1024;
const DRIVER_NAME_MAX: usize = 63;
const MODES: &[&str] = &["All", "ExactCount"];

/// How many devices a request wants and how they are counted.
struct Wanted<'a> {
    mode: Option<&'a str>,
    count: Option<i64>,
    class: &'a str,
    selectors: &'a [DeviceSelector],
    tolerations: &'a [DeviceToleration],
}

/// Fills in modes, counts and operators.
pub fn default(spec: &mut ResourceClaimSpec) {
    let requests = spec
        .devices
        .iter_mut()
        .flat_map(|d| d.requests.iter_mut().flatten());
    for request in requests {
        if let Some(exact) = &mut request.exactly {
            count(&mut exact.allocation_mode, &mut exact.count);
            tolerate(&mut exact.tolerations);
        }
        for alternative in request.first_available.iter_mut().flatten() {
            count(&mut alternative.allocation_mode, &mut alternative.count);
            tolerate(&mut alternative.tolerations);
        }
    }
}

fn count(mode: &mut Option<String>, count: &mut Option<i64>) {
    let mode = mode.get_or_insert_with(|| "ExactCount".to_owned());
    *count = count.filter(|n| *n != 0);
    if mode == "ExactCount" {
        count.get_or_insert(1);
    }
}

fn tolerate(tolerations: &mut Option<Vec<DeviceToleration>>) {
    for toleration in tolerations.iter_mut().flatten() {
        toleration.operator.get_or_insert_with(|| "Equal".to_owned());
    }
}

/// The rules for a claim.
pub fn validate(errors: &mut Errors, at: &Loc<'_>, spec: &ResourceClaimSpec) {
    if let Some(devices) = &spec.devices {
        validate_devices(errors, &at.child("devices"), devices);
    }
}

fn bounded(errors: &mut Errors, at: &Loc<'_>, count: usize, max: usize) {
    if count > max {
        errors.push(at.too_many(count, max));
    }
}

fn validate_devices(errors: &mut Errors, at: &Loc<'_>, devices: &DeviceClaim) {
    let requests = devices.requests.as_deref().unwrap_or(&[]);
    let at_requests = at.child("requests");
    bounded(errors, &at_requests, requests.len(), REQUESTS_MAX);
    for (i, request) in requests.iter().enumerate() {
        let at = at_requests.index(i);
        label(errors, &at.child("name"), &request.name);
        if requests[..i].iter().any(|other| other.name == request.name) {
            errors.push(at.child("name").duplicate(request.name.as_str()));
        }
        validate_request(errors, &at, request);
    }
    let constraints = devices.constraints.as_deref().unwrap_or(&[]);
    let at_constraints = at.child("constraints");
    bounded(errors, &at_constraints, constraints.len(), CONSTRAINTS_MAX);
    for (i, constraint) in constraints.iter().enumerate() {
        validate_constraint(errors, &at_constraints.index(i), constraint, requests);
    }
    let configs = devices.config.as_deref().unwrap_or(&[]);
    let at_configs = at.child("config");
    bounded(errors, &at_configs, configs.len(), CONFIGS_MAX);
    for (i, config) in configs.iter().enumerate() {
        let at = at_configs.index(i);
        let named = config.requests.as_deref().unwrap_or(&[]);
        validate_references(errors, &at.child("requests"), named, requests);
        configuration(errors, &at, config.opaque.as_ref());
    }
}

fn label(errors: &mut Errors, at: &Loc<'_>, name: &str) {
    if name.is_empty() {
        errors.push(at.required(""));
    } else {
        rules::label(errors, at, name);
    }
}

fn validate_request(errors: &mut Errors, at: &Loc<'_>, request: &DeviceRequest) {
    const ONE: &str = "exactly one of `exactly` or `firstAvailable` is required";
    let alternatives = request.first_available.as_deref().unwrap_or(&[]);
    match (&request.exactly, alternatives) {
        (None, []) => errors.push(at.required(ONE)),
        (Some(_), [_, ..]) => {
            let detail =
                "exactly one of `exactly` or `firstAvailable` is required, but multiple fields are set";
            errors.push(at.invalid("", detail));
        }
        (Some(exact), []) => wanted(
            errors,
            &at.child("exactly"),
            &Wanted {
                mode: exact.allocation_mode.as_deref(),
                count: exact.count,
                class: &exact.device_class_name,
                selectors: exact.selectors.as_deref().unwrap_or(&[]),
                tolerations: exact.tolerations.as_deref().unwrap_or(&[]),
            },
        ),
        (None, alternatives) => {
            let at = at.child("firstAvailable");
            bounded(errors, &at, alternatives.len(), SUBREQUESTS_MAX);
            for (i, alternative) in alternatives.iter().enumerate() {
                let at = at.index(i);
                label(errors, &at.child("name"), &alternative.name);
                if alternatives[..i]
                    .iter()
                    .any(|other| other.name == alternative.name)
                {
                    errors.push(at.child("name").duplicate(alternative.name.as_str()));
                }
                let given = Wanted {
                    mode: alternative.allocation_mode.as_deref(),
                    count: alternative.count,
                    class: &alternative.device_class_name,
                    selectors: alternative.selectors.as_deref().unwrap_or(&[]),
                    tolerations: alternative.tolerations.as_deref().unwrap_or(&[]),
                };
                wanted(errors, &at, &given);
            }
        }
    }
}

fn wanted(errors: &mut Errors, at: &Loc<'_>, wanted: &Wanted<'_>) {
    let at_class = at.child("deviceClassName");
    if wanted.class.is_empty() {
        errors.push(at_class.required(""));
    } else {
        rules::subdomain(errors, &at_class, wanted.class);
    }
    let at_count = at.child("count");
    match (wanted.mode.unwrap_or(""), wanted.count) {
        ("ExactCount", count) if count.unwrap_or(0) <= 0 => {
            errors.push(at_count.invalid(count.unwrap_or(0), "must be greater than zero"));
        }
        ("All", Some(count)) if count != 0 => {
            let detail = "must not be specified when allocationMode is 'All'";
            errors.push(at_count.invalid(count, detail));
        }
        ("ExactCount" | "All", _) => {}
        (other, _) => errors.push(at.child("allocationMode").not_supported(other, MODES)),
    }
    selectors(errors, &at.child("selectors"), wanted.selectors);
    let at_tolerations = at.child("tolerations");
    bounded(errors, &at_tolerations, wanted.tolerations.len(), TOLERATIONS_MAX);
    for (i, toleration) in wanted.tolerations.iter().enumerate() {
        validate_toleration(errors, &at_tolerations.index(i), toleration);
    }
}

fn validate_toleration(errors: &mut Errors, at: &Loc<'_>, toleration: &DeviceToleration) {
    let key = toleration.key.as_deref().unwrap_or("");
    if !key.is_empty() {
        rules::qualified_name(errors, &at.child("key"), key);
    }
    match toleration.operator.as_deref().unwrap_or("") {
        "Exists" => {
            if let Some(value) = toleration.value.as_deref().filter(|value| !value.is_empty()) {
                let detail = "must be empty for operator `Exists`";
                errors.push(at.child("value").invalid(value, detail));
            }
        }
        "Equal" => {
            if key.is_empty() {
                errors.push(
                    at.child("operator")
                        .invalid("Equal", "must be 'Exists' when `key` is empty"),
                );
            }
        }
        other => errors.push(at.child("operator").not_supported(other, &["Equal", "Exists"])),
    }
    let effect = toleration.effect.as_deref().filter(|effect| !effect.is_empty());
    rules::optional_one_of(
        errors,
        &at.child("effect"),
        effect,
        &["NoExecute", "NoSchedule", "None"],
    );
}

/// Expressions that choose devices.
pub fn selectors(errors: &mut Errors, at: &Loc<'_>, selectors: &[DeviceSelector]) {
    bounded(errors, at, selectors.len(), SELECTORS_MAX);
    for (i, selector) in selectors.iter().enumerate() {
        let at = at.index(i).to_string();
        let at = Loc::new(&at);
        match &selector.cel {
            None => errors.push(at.child("cel").required("")),
            Some(cel) => {
                let at_expression = at.child("cel.expression");
                if cel.expression.is_empty() {
                    errors.push(at_expression.required(""));
                } else if cel.expression.len() > EXPRESSION_MAX {
                    errors.push(at_expression.too_long(EXPRESSION_MAX));
                }
            }
        }
    }
}

fn validate_constraint(
    errors: &mut Errors,
    at: &Loc<'_>,
    constraint: &DeviceConstraint,
    requests: &[DeviceRequest],
) {
    let named = constraint.requests.as_deref().unwrap_or(&[]);
    validate_references(errors, &at.child("requests"), named, requests);
    match (&constraint.match_attribute, &constraint.distinct_attribute) {
        (None, None) => {
            let detail = "exactly one of `matchAttribute` or `distinctAttribute` is required";
            errors.push(at.required(detail));
        }
        (Some(attribute), _) => fully_qualified(errors, &at.child("matchAttribute"), attribute),
        (_, Some(attribute)) => fully_qualified(errors, &at.child("distinctAttribute"), attribute),
    }
}

/// `domain/identifier`.
fn fully_qualified(errors: &mut Errors, at: &Loc<'_>, name: &str) {
    match name.split_once('/') {
        None if name.is_empty() => errors.push(at.required("name")),
        None => errors.push(at.invalid(name, "must include a domain")),
        Some((domain, id)) => {
            driver(errors, at, domain);
            rules::complain(errors, at, id, validation::c_identifier(id));
        }
    }
}

/// References to requests: `name`, or `name/alternative`.
fn validate_references(errors: &mut Errors, at: &Loc<'_>, names: &[String], requests: &[DeviceRequest]) {
    bounded(errors, at, names.len(), REQUESTS_MAX);
    for (i, name) in names.iter().enumerate() {
        if names[..i].contains(name) {
            errors.push(at.index(i).duplicate(name.as_str()));
        }
        let (main, alternative) = name
            .split_once('/')
            .map_or((name.as_str(), None), |(m, a)| (m, Some(a)));
        let known = requests.iter().find(|r| r.name == main).is_some_and(|request| {
            let alternatives = request.first_available.as_deref().unwrap_or(&[]);
            alternative.is_none_or(|wanted| alternatives.iter().any(|a| a.name == wanted))
        });
        if !known {
            let detail = "must be the name of a request in the claim or the name of a request and a subrequest \
                          separated by '/'";
            errors.push(at.index(i).invalid(name.as_str(), detail));
        }
    }
}

/// Settings only the driver understands.
pub fn configuration(errors: &mut Errors, at: &Loc<'_>, opaque: Option<&OpaqueDeviceConfiguration>) {
    let Some(opaque) = opaque else {
        errors.push(
            at.child("opaque")
                .required("exactly one of the configuration types is required"),
        );
        return;
    };
    driver(errors, &at.child("opaque.driver"), &opaque.driver);
    let at = at.child("opaque.parameters");
    match &opaque.parameters.0 {
        serde_json::Value::Object(_) => {
            let size = opaque.parameters.0.to_string().len();
            if size > PARAMETERS_MAX {
                errors.push(at.too_long(PARAMETERS_MAX));
            }
        }
        serde_json::Value::Null => errors.push(at.required("")),
        _ => errors.push(at.invalid("", "must be a valid JSON object")),
    }
}

/// The name of a driver.
pub fn driver(errors: &mut Errors, at: &Loc<'_>, name: &str) {
    if name.is_empty() {
        errors.push(at.required(""));
        return;
    }
    if name.len() > DRIVER_NAME_MAX {
        errors.push(at.too_long(DRIVER_NAME_MAX));
    }
    let lower = name.to_lowercase();
    rules::complain(errors, at, name, validation::dns1123_subdomain(&lower));
}
