//! What mutating and validating webhooks have in common.

use jiff::Timestamp;
use k8s_openapi::api::admissionregistration::v1::{
    MatchCondition, RuleWithOperations, ServiceReference, WebhookClientConfig,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use keelson_api::field::Errors;
use keelson_api::validation;
use serde_json::Value;

use super::matching;
use crate::admission::expressions::surroundings::Surroundings;
use crate::registry::common::defaults::fill;
use crate::registry::common::loc::Loc;
use crate::registry::common::{cells, rules, selectors};
use crate::registry::strategy::Column;

/// Versions of AdmissionReview that are spoken.
const REVIEW_VERSIONS: &[&str] = &["v1", "v1beta1"];
const TIMEOUT_DEFAULT: i32 = 10;
const TIMEOUT_MAX: i32 = 30;
const HTTPS: i32 = 443;

/// The table of both kinds of configurations.
pub const COLUMNS: &[Column] = &[
    Column::name(),
    Column::new("Webhooks", "How many webhooks there are.").of("integer"),
    Column::new("Age", "Time since the object was created."),
];

/// The row of a configuration with so many webhooks.
pub fn cells(meta: &ObjectMeta, webhooks: usize, now: Timestamp) -> Vec<Value> {
    vec![cells::name(meta), webhooks.into(), cells::age(meta, now)]
}

/// Kinds of webhooks differ in little: this is what they share.
pub struct Webhook<'a> {
    /// Its name, a domain.
    pub name: &'a str,
    /// Where it is.
    pub client: &'a WebhookClientConfig,
    /// What it is asked about.
    pub rules: &'a [RuleWithOperations],
    /// Objects of these namespaces.
    pub namespaces: Option<&'a LabelSelector>,
    /// Objects with these labels.
    pub objects: Option<&'a LabelSelector>,
    /// Requests for which all of these are true.
    pub conditions: &'a [MatchCondition],
    /// Versions of the review it reads.
    pub review_versions: &'a [String],
    /// `None` or `NoneOnDryRun`.
    pub side_effects: &'a str,
    /// `Fail` or `Ignore`.
    pub failure_policy: &'a str,
    /// `Equivalent` or `Exact`.
    pub match_policy: &'a str,
    /// Seconds it has to answer.
    pub timeout: i32,
    /// `Never` or `IfNeeded`, for mutating ones.
    pub reinvocation: &'a str,
}

/// The view of a webhook of either kind.
macro_rules! view {
    ($webhook:expr, $reinvocation:expr) => {{
        let webhook = $webhook;
        $crate::registry::admissionregistration::webhooks::Webhook {
            name: &webhook.name,
            client: &webhook.client_config,
            rules: webhook.rules.as_deref().unwrap_or(&[]),
            namespaces: webhook.namespace_selector.as_ref(),
            objects: webhook.object_selector.as_ref(),
            conditions: webhook.match_conditions.as_deref().unwrap_or(&[]),
            review_versions: &webhook.admission_review_versions,
            side_effects: &webhook.side_effects,
            failure_policy: webhook.failure_policy.as_deref().unwrap_or("Fail"),
            match_policy: webhook.match_policy.as_deref().unwrap_or("Equivalent"),
            timeout: webhook.timeout_seconds.unwrap_or(10),
            reinvocation: $reinvocation,
        }
    }};
}
pub(crate) use view;

/// What either kind of webhook leaves out.
pub struct Defaults<'a> {
    /// See [`Webhook`].
    pub failure_policy: &'a mut Option<String>,
    /// See [`Webhook`].
    pub match_policy: &'a mut Option<String>,
    /// See [`Webhook`].
    pub namespaces: &'a mut Option<LabelSelector>,
    /// See [`Webhook`].
    pub objects: &'a mut Option<LabelSelector>,
    /// See [`Webhook`].
    pub timeout: &'a mut Option<i32>,
    /// See [`Webhook`].
    pub rules: &'a mut Option<Vec<RuleWithOperations>>,
    /// See [`Webhook`].
    pub service: Option<&'a mut ServiceReference>,
}

/// What a webhook of either kind leaves out.
macro_rules! defaults {
    ($webhook:expr) => {{
        let webhook = $webhook;
        $crate::registry::admissionregistration::webhooks::Defaults {
            failure_policy: &mut webhook.failure_policy,
            match_policy: &mut webhook.match_policy,
            namespaces: &mut webhook.namespace_selector,
            objects: &mut webhook.object_selector,
            timeout: &mut webhook.timeout_seconds,
            rules: &mut webhook.rules,
            service: webhook.client_config.service.as_mut(),
        }
    }};
}
pub(crate) use defaults;

/// Fills it in.
pub fn default(given: Defaults<'_>) {
    fill(given.failure_policy, "Fail");
    fill(given.match_policy, "Equivalent");
    given.namespaces.get_or_insert_default();
    given.objects.get_or_insert_default();
    given.timeout.get_or_insert(TIMEOUT_DEFAULT);
    for rule in given.rules.iter_mut().flatten() {
        fill(&mut rule.scope, "*");
    }
    if let Some(service) = given.service {
        service.port.get_or_insert(HTTPS);
    }
}

/// Rules for all webhooks of a configuration.
pub fn validate(webhooks: &[Webhook<'_>]) -> Errors {
    let mut errors = Errors::new();
    let at = Loc::new("webhooks");
    for (i, webhook) in webhooks.iter().enumerate() {
        let at = at.index(i);
        validate_one(&mut errors, &at, webhook);
        if webhooks[..i].iter().any(|other| other.name == webhook.name) {
            errors.push(at.child("name").duplicate(webhook.name));
        }
    }
    errors
}

fn validate_one(errors: &mut Errors, at: &Loc<'_>, webhook: &Webhook<'_>) {
    qualified_domain(errors, &at.child("name"), webhook.name);
    let at_rules = at.child("rules");
    for (i, rule) in webhook.rules.iter().enumerate() {
        matching::validate_rule(errors, &at_rules.index(i), rule.into());
    }
    rules::optional_one_of(
        errors,
        &at.child("failurePolicy"),
        Some(webhook.failure_policy),
        &["Fail", "Ignore"],
    );
    rules::optional_one_of(
        errors,
        &at.child("matchPolicy"),
        Some(webhook.match_policy),
        &["Equivalent", "Exact"],
    );
    let at_effects = at.child("sideEffects");
    let supported = &["None", "NoneOnDryRun"];
    if webhook.side_effects.is_empty() {
        errors.push(at_effects.required("must specify one of None, NoneOnDryRun"));
    } else {
        rules::optional_one_of(errors, &at_effects, Some(webhook.side_effects), supported);
    }
    if !(1..=TIMEOUT_MAX).contains(&webhook.timeout) {
        let detail = format!("the timeout value must be between 1 and {TIMEOUT_MAX} seconds");
        errors.push(at.child("timeoutSeconds").invalid(webhook.timeout, detail));
    }
    if let Some(selector) = webhook.namespaces {
        selectors::label_selector(errors, &at.child("namespaceSelector"), selector);
    }
    if let Some(selector) = webhook.objects {
        selectors::label_selector(errors, &at.child("objectSelector"), selector);
    }
    review_versions(
        errors,
        &at.child("admissionReviewVersions"),
        webhook.review_versions,
    );
    let surroundings = Surroundings::new().with_authorizer();
    matching::validate_conditions(
        errors,
        &at.child("matchConditions"),
        webhook.conditions,
        &surroundings,
    );
    rules::optional_one_of(
        errors,
        &at.child("reinvocationPolicy"),
        Some(webhook.reinvocation),
        &["IfNeeded", "Never"],
    );
    client(errors, &at.child("clientConfig"), webhook.client);
}

fn review_versions(errors: &mut Errors, at: &Loc<'_>, versions: &[String]) {
    if versions.is_empty() {
        errors.push(at.required(format!("must specify one of {}", REVIEW_VERSIONS.join(", "))));
        return;
    }
    for (i, version) in versions.iter().enumerate() {
        rules::complain(errors, &at.index(i), version, validation::dns1035_label(version));
        if versions[..i].contains(version) {
            errors.push(at.index(i).invalid(version.as_str(), "duplicate version"));
        }
    }
    if !versions.iter().any(|v| REVIEW_VERSIONS.contains(&v.as_str())) {
        let detail = format!("must include at least one of {}", REVIEW_VERSIONS.join(", "));
        errors.push(at.invalid(rules::shown(&versions), detail));
    }
}

/// A domain of three parts at least, so that webhooks of different authors do not collide.
fn qualified_domain(errors: &mut Errors, at: &Loc<'_>, name: &str) {
    if name.is_empty() {
        errors.push(at.required(""));
        return;
    }
    rules::subdomain(errors, at, name);
    if name.split('.').count() < 3 {
        let detail = "should be a domain with at least three segments separated by dots";
        errors.push(at.invalid(name, detail));
    }
}

/// Where a webhook is: a URL or a service, one of them. CRD conversion uses the same rules.
pub fn client(errors: &mut Errors, at: &Loc<'_>, client: &WebhookClientConfig) {
    match (&client.url, &client.service) {
        (None, None) | (Some(_), Some(_)) => {
            errors.push(at.required("exactly one of url or service is required"));
        }
        (Some(url), None) => validate_url(errors, &at.child("url"), url),
        (None, Some(service)) => validate_service(errors, &at.child("service"), service),
    }
}

fn validate_url(errors: &mut Errors, at: &Loc<'_>, url: &str) {
    const FORM: &str = "; desired format: https://host[/path]";
    let Ok(parsed) = url.parse::<http::Uri>() else {
        errors.push(at.required(format!("url must be a valid URL: {url}{FORM}")));
        return;
    };
    if parsed.scheme_str() != Some("https") {
        let scheme = parsed.scheme_str().unwrap_or("");
        errors.push(at.invalid(scheme, format!("'https' is the only allowed URL scheme{FORM}")));
    }
    if parsed.host().unwrap_or("").is_empty() {
        errors.push(at.invalid("", format!("host must be specified{FORM}")));
    }
    if parsed.authority().is_some_and(|a| a.as_str().contains('@')) {
        errors.push(at.invalid(url, format!("user information is not permitted in the URL{FORM}")));
    }
    if parsed.query().is_some() {
        let query = parsed.query().unwrap_or_default();
        errors.push(at.invalid(
            query,
            format!("query parameters are not permitted in the URL{FORM}"),
        ));
    }
}

fn validate_service(errors: &mut Errors, at: &Loc<'_>, service: &ServiceReference) {
    if service.name.is_empty() {
        errors.push(at.child("name").required("service name is required"));
    }
    if service.namespace.is_empty() {
        errors.push(at.child("namespace").required("service namespace is required"));
    }
    if let Some(port) = service.port
        && !(1..=65535).contains(&port)
    {
        let detail = "port is not valid: must be between 1 and 65535, inclusive";
        errors.push(at.child("port").invalid(port, detail));
    }
    let Some(path) = service.path.as_deref() else {
        return;
    };
    let at = at.child("path");
    if path.is_empty() || path == "/" {
        return;
    }
    if path == "//" {
        errors.push(at.invalid(path, "segment[0] may not be empty"));
        return;
    }
    let Some(rest) = path.strip_prefix('/') else {
        errors.push(at.invalid(path, "must start with a '/'"));
        return;
    };
    for (i, segment) in rest.strip_suffix('/').unwrap_or(rest).split('/').enumerate() {
        if segment.is_empty() {
            errors.push(at.invalid(path, format!("segment[{i}] may not be empty")));
            continue;
        }
        for complaint in validation::dns1123_subdomain(segment) {
            errors.push(at.invalid(path, format!("segment[{i}]: {complaint}")));
        }
    }
}
