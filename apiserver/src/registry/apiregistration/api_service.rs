//! APIServices: who serves which group version.
//!
//! Every group version this server has itself is registered too; those services are local and always available.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use k8s_openapi::kube_aggregator::pkg::apis::apiregistration::v1::{
    APIService, APIServiceCondition, APIServiceSpec, APIServiceStatus,
};
use keelson_api::field::Errors;
use keelson_api::object::Object;
use keelson_api::validation;
use serde_json::Value;

use crate::registry::common::loc::Loc;
use crate::registry::common::{cells, rules};
use crate::registry::strategy::{Column, RequestContext, ResourceInfo, Scope, Strategy, SubresourceInfo};

/// Marks services the server itself registers: `onstart` those of its own kinds, `true` those of custom resources, which
/// come and go with their definitions.
const AUTO_MANAGED: &str = "kube-aggregator.kubernetes.io/automanaged";
const AVAILABLE: &str = "Available";
const HTTPS: i32 = 443;
const GROUP_PRIORITY_MAX: i32 = 20_000;
const VERSION_PRIORITY_MAX: i32 = 1000;

/// Priorities of groups and versions: higher ones are found first. Groups not listed are new ones.
const PRIORITIES: &[(&str, &str, i32, i32)] = &[
    ("", "v1", 18_000, 1),
    ("events.k8s.io", "v1", 17_750, 15),
    ("apps", "v1", 17_800, 15),
    ("authentication.k8s.io", "v1", 17_700, 15),
    ("authorization.k8s.io", "v1", 17_600, 15),
    ("autoscaling", "v1", 17_500, 15),
    ("autoscaling", "v2", 17_500, 30),
    ("batch", "v1", 17_400, 15),
    ("certificates.k8s.io", "v1", 17_300, 15),
    ("networking.k8s.io", "v1", 17_200, 15),
    ("policy", "v1", 17_100, 15),
    ("rbac.authorization.k8s.io", "v1", 17_000, 15),
    ("storage.k8s.io", "v1", 16_800, 15),
    ("apiextensions.k8s.io", "v1", 16_700, 15),
    ("admissionregistration.k8s.io", "v1", 16_700, 15),
    ("scheduling.k8s.io", "v1", 16_600, 15),
    ("coordination.k8s.io", "v1", 16_500, 15),
    ("node.k8s.io", "v1", 16_300, 15),
    ("discovery.k8s.io", "v1", 16_200, 15),
    ("flowcontrol.apiserver.k8s.io", "v1", 16_100, 21),
    ("resource.k8s.io", "v1", 15_900, 30),
];
const PRIORITY_DEFAULT: (i32, i32) = (1000, 15);
const PRIORITY_CUSTOM: (i32, i32) = (1000, 100);

/// The kind's strategy.
pub struct ApiServiceKind;

static INFO: ResourceInfo = ResourceInfo {
    group: "apiregistration.k8s.io",
    kind: "APIService",
    plural: "apiservices",
    singular: "apiservice",
    categories: &["api-extensions"],
    scope: Scope::Cluster,
    storage_prefix: "apiregistration.k8s.io/apiservices",
    name_rule: crate::registry::strategy::NameRule::PathSegment,
    subresources: &[SubresourceInfo::status(
        "apiregistration.k8s.io",
        "v1",
        "APIService",
    )],
    ..ResourceInfo::base()
};

impl Strategy for ApiServiceKind {
    type Object = APIService;

    fn info(&self) -> &'static ResourceInfo {
        &INFO
    }

    fn default(&self, service: &mut APIService) {
        if let Some(reference) = service.spec.as_mut().and_then(|s| s.service.as_mut()) {
            reference.port.get_or_insert(HTTPS);
        }
    }

    fn prepare_create(&self, ctx: &RequestContext<'_>, service: &mut APIService) {
        let local = service.spec.as_ref().is_none_or(|spec| spec.service.is_none());
        service.status = Some(APIServiceStatus {
            conditions: local.then(|| vec![local_condition(ctx.now)]),
        });
    }

    fn prepare_update(&self, _ctx: &RequestContext<'_>, new: &mut APIService, old: &APIService) {
        new.status.clone_from(&old.status);
    }

    fn prepare_subresource_update(&self, _ctx: &RequestContext<'_>, new: &mut APIService, old: &APIService) {
        new.spec.clone_from(&old.spec);
        new.metadata.labels.clone_from(&old.metadata.labels);
        new.metadata.annotations.clone_from(&old.metadata.annotations);
        new.metadata.finalizers.clone_from(&old.metadata.finalizers);
        new.metadata
            .owner_references
            .clone_from(&old.metadata.owner_references);
    }

    fn validate_create(&self, _ctx: &RequestContext<'_>, service: &APIService) -> Errors {
        validate(service)
    }

    fn validate_update(&self, _ctx: &RequestContext<'_>, new: &APIService, _old: &APIService) -> Errors {
        validate(new)
    }

    fn allow_unconditional_update(&self) -> bool {
        false
    }

    fn columns(&self) -> &'static [Column] {
        const COLUMNS: &[Column] = &[
            Column::name(),
            Column::new("Service", "The service that serves the group version."),
            Column::new("Available", "Whether it can be reached."),
            Column::new("Age", "Time since the object was created."),
        ];
        COLUMNS
    }

    fn cells(&self, service: &APIService, now: Timestamp) -> Vec<Value> {
        let reference = service.spec.as_ref().and_then(|s| s.service.as_ref());
        let serves = reference.map_or_else(
            || "Local".to_owned(),
            |r| {
                let part = |text: &Option<String>| text.clone().unwrap_or_default();
                format!("{}/{}", part(&r.namespace), part(&r.name))
            },
        );
        let conditions = service.status.iter().flat_map(|s| s.conditions.iter().flatten());
        let available = conditions.into_iter().find(|c| c.type_ == AVAILABLE).map_or_else(
            || "Unknown".to_owned(),
            |c| match c.reason.as_deref() {
                Some(reason) if c.status != "True" && !reason.is_empty() => {
                    format!("{} ({reason})", c.status)
                }
                _ => c.status.clone(),
            },
        );
        vec![
            cells::name(&service.metadata),
            serves.into(),
            available.into(),
            cells::age(&service.metadata, now),
        ]
    }
}

fn local_condition(now: Timestamp) -> APIServiceCondition {
    APIServiceCondition {
        type_: AVAILABLE.to_owned(),
        status: "True".to_owned(),
        last_transition_time: Some(Time(now)),
        reason: Some("Local".to_owned()),
        message: Some("Local APIServices are always available".to_owned()),
    }
}

/// What registers a group version of the server's own kinds.
pub fn local(group: &str, version: &str) -> APIService {
    let priorities = PRIORITIES
        .iter()
        .find(|(g, v, ..)| (*g, *v) == (group, version))
        .map_or(PRIORITY_DEFAULT, |(_, _, g, v)| (*g, *v));
    registration(group, version, priorities, "onstart")
}

/// What registers a group version of custom resources.
pub fn custom(group: &str, version: &str) -> APIService {
    registration(group, version, PRIORITY_CUSTOM, "true")
}

/// Whether a service registers custom resources, and nobody has made it their own.
pub fn is_custom(service: &APIService) -> bool {
    let labels = service.metadata.labels.as_ref();
    labels
        .and_then(|labels| labels.get(AUTO_MANAGED))
        .is_some_and(|managed| managed == "true")
}

fn registration(group: &str, version: &str, (of_group, of_version): (i32, i32), managed: &str) -> APIService {
    APIService {
        metadata: ObjectMeta {
            name: Some(name(group, version)),
            labels: Some([(AUTO_MANAGED.to_owned(), managed.to_owned())].into()),
            ..ObjectMeta::default()
        },
        spec: Some(APIServiceSpec {
            group: Some(group.to_owned()).filter(|group| !group.is_empty()),
            version: Some(version.to_owned()),
            group_priority_minimum: of_group,
            version_priority: of_version,
            ..APIServiceSpec::default()
        }),
        status: None,
    }
}

/// The name of the service that registers a group version.
pub fn name(group: &str, version: &str) -> String {
    format!("{version}.{group}")
}

fn validate(service: &APIService) -> Errors {
    let mut errors = Errors::new();
    let at = Loc::new("spec");
    let Some(spec) = &service.spec else {
        return vec![at.required("")];
    };
    let (group, version) = (
        spec.group.as_deref().unwrap_or(""),
        spec.version.as_deref().unwrap_or(""),
    );
    let expected = name(group, version);
    if service.name() != expected {
        let detail = format!("must be `spec.version+\".\"+spec.group`: {expected:?}");
        errors.push(Loc::new("metadata.name").invalid(service.name(), detail));
    }
    let at_group = at.child("group");
    if group.is_empty() {
        if version != "v1" {
            errors.push(at_group.required("only v1 may have an empty group and it better be legacy kube"));
        }
    } else {
        for complaint in validation::dns1123_subdomain(group) {
            errors.push(at_group.invalid(group, complaint));
        }
    }
    for complaint in validation::dns1035_label(version) {
        errors.push(at.child("version").invalid(version, complaint));
    }
    for (field, value, max) in [
        (
            "groupPriorityMinimum",
            spec.group_priority_minimum,
            GROUP_PRIORITY_MAX,
        ),
        ("versionPriority", spec.version_priority, VERSION_PRIORITY_MAX),
    ] {
        if value <= 0 || value > max {
            let detail = format!("must be positive and less than {max}");
            errors.push(at.child(field).invalid(value, detail));
        }
    }
    let bundle = spec.ca_bundle.as_ref().is_some_and(|bundle| !bundle.0.is_empty());
    let insecure = spec.insecure_skip_tls_verify == Some(true);
    match &spec.service {
        None => {
            if bundle {
                let detail = "local APIServices may not have a caBundle";
                errors.push(
                    at.child("caBundle")
                        .invalid(format!("{} bytes", bundle_size(spec)), detail),
                );
            }
            if insecure {
                let detail = "local APIServices may not have insecureSkipTLSVerify";
                errors.push(at.child("insecureSkipTLSVerify").invalid(true, detail));
            }
        }
        Some(reference) => {
            let at_service = at.child("service");
            rules::not_empty(
                &mut errors,
                &at_service.child("namespace"),
                reference.namespace.as_deref(),
            );
            rules::not_empty(&mut errors, &at_service.child("name"), reference.name.as_deref());
            if let Some(port) = reference.port
                && !(1..=65535).contains(&port)
            {
                let detail = "port is not valid: must be between 1 and 65535, inclusive";
                errors.push(at_service.child("port").invalid(port, detail));
            }
            if insecure && bundle {
                let detail = "may not be true if caBundle is present";
                errors.push(at.child("insecureSkipTLSVerify").invalid(true, detail));
            }
        }
    }
    errors
}

fn bundle_size(spec: &APIServiceSpec) -> usize {
    spec.ca_bundle.as_ref().map_or(0, |bundle| bundle.0.len())
}
