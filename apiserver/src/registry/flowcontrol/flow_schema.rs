//! FlowSchemas: which requests belong to which priority level.

use jiff::Timestamp;
use k8s_openapi::api::flowcontrol::v1::{
    FlowSchema, FlowSchemaStatus, NonResourcePolicyRule, PolicyRulesWithSubjects, ResourcePolicyRule, Subject,
};
use keelson_api::field::Errors;
use keelson_api::object::Object;
use serde_json::Value;

use super::{CATCH_ALL, EXEMPT, bootstrap};
use crate::registry::common::loc::Loc;
use crate::registry::common::meta::{self, spec_and_status};
use crate::registry::common::{cells, rules};
use crate::registry::strategy::{Column, RequestContext, ResourceInfo, Scope, Strategy, SubresourceInfo};

const PRECEDENCE_DEFAULT: i32 = 1000;
const PRECEDENCE_MAX: i32 = 10_000;
const VERBS: &[&str] = &[
    "get",
    "list",
    "watch",
    "create",
    "update",
    "patch",
    "delete",
    "deletecollection",
    "proxy",
    "connect",
];

/// The kind's strategy.
pub struct FlowSchemaKind;

static INFO: ResourceInfo = ResourceInfo {
    group: "flowcontrol.apiserver.k8s.io",
    kind: "FlowSchema",
    plural: "flowschemas",
    singular: "flowschema",
    scope: Scope::Cluster,
    storage_prefix: "flowschemas",
    subresources: &[SubresourceInfo::status(
        "flowcontrol.apiserver.k8s.io",
        "v1",
        "FlowSchema",
    )],
    ..ResourceInfo::base()
};

impl Strategy for FlowSchemaKind {
    type Object = FlowSchema;

    fn info(&self) -> &'static ResourceInfo {
        &INFO
    }

    fn default(&self, schema: &mut FlowSchema) {
        if let Some(spec) = &mut schema.spec
            && spec.matching_precedence.unwrap_or(0) == 0
        {
            spec.matching_precedence = Some(PRECEDENCE_DEFAULT);
        }
    }

    fn prepare_create(&self, _ctx: &RequestContext<'_>, schema: &mut FlowSchema) {
        meta::first_generation(&mut schema.metadata);
        schema.status = Some(FlowSchemaStatus::default());
    }

    spec_and_status!();

    fn validate_create(&self, _ctx: &RequestContext<'_>, schema: &FlowSchema) -> Errors {
        validate(schema)
    }

    fn validate_update(&self, _ctx: &RequestContext<'_>, new: &FlowSchema, _old: &FlowSchema) -> Errors {
        validate(new)
    }

    fn validate_subresource_update(
        &self,
        _ctx: &RequestContext<'_>,
        new: &FlowSchema,
        _old: &FlowSchema,
    ) -> Errors {
        let mut errors = Errors::new();
        let at = Loc::new("status.conditions");
        let conditions = new
            .status
            .as_ref()
            .and_then(|s| s.conditions.as_deref())
            .unwrap_or(&[]);
        for (i, condition) in conditions.iter().enumerate() {
            let at = at.index(i).to_string();
            let at = Loc::new(&at);
            if conditions[..i].iter().any(|other| other.type_ == condition.type_) {
                errors.push(
                    at.child("type")
                        .duplicate(condition.type_.clone().unwrap_or_default()),
                );
            }
            rules::not_empty(&mut errors, &at.child("type"), condition.type_.as_deref());
        }
        errors
    }

    fn columns(&self) -> &'static [Column] {
        const COLUMNS: &[Column] = &[
            Column::name(),
            Column::new("PriorityLevel", "The level of requests that match."),
            Column::new(
                "MatchingPrecedence",
                "Schemas with lower numbers are looked at first.",
            ),
            Column::new(
                "DistinguisherMethod",
                "What makes one flow of requests different from another.",
            ),
            Column::new("Age", "Time since the object was created."),
            Column::new("MissingPL", "Whether the level is missing."),
        ];
        COLUMNS
    }

    fn cells(&self, schema: &FlowSchema, now: Timestamp) -> Vec<Value> {
        let spec = schema.spec.as_ref();
        let method = spec.and_then(|s| s.distinguisher_method.as_ref());
        let conditions = schema.status.iter().flat_map(|s| s.conditions.iter().flatten());
        let dangling = conditions
            .into_iter()
            .find(|c| c.type_.as_deref() == Some("Dangling"))
            .and_then(|c| c.status.as_deref());
        vec![
            cells::name(&schema.metadata),
            spec.map_or("", |s| s.priority_level_configuration.name.as_str())
                .into(),
            spec.and_then(|s| s.matching_precedence).unwrap_or(0).into(),
            method.map_or(cells::NONE, |m| m.type_.as_str()).into(),
            cells::age(&schema.metadata, now),
            dangling.unwrap_or("?").into(),
        ]
    }
}

fn validate(schema: &FlowSchema) -> Errors {
    let mut errors = Errors::new();
    let at = Loc::new("spec");
    let Some(spec) = &schema.spec else {
        return vec![at.required("")];
    };
    let name = schema.name();
    if matches!(name, EXEMPT | CATCH_ALL)
        && let Some(fixed) = bootstrap::flow_schemas().into_iter().find(|s| s.name() == name)
        && fixed.spec.as_ref() != Some(spec)
    {
        let detail = format!("spec of '{name}' must equal the fixed value");
        errors.push(at.invalid(rules::shown(spec), detail));
    }
    let at_precedence = at.child("matchingPrecedence");
    let precedence = spec.matching_precedence.unwrap_or(0);
    if precedence <= 0 {
        errors.push(at_precedence.invalid(precedence, "must be a positive value"));
    }
    if precedence > PRECEDENCE_MAX {
        let detail = format!("must not be greater than {PRECEDENCE_MAX}");
        errors.push(at_precedence.invalid(precedence, detail));
    }
    if precedence == 1 && name != EXEMPT {
        let detail = "only the schema named 'exempt' may have matchingPrecedence 1";
        errors.push(at_precedence.invalid(precedence, detail));
    }
    if let Some(method) = &spec.distinguisher_method {
        let at = at.child("distinguisherMethod");
        rules::optional_one_of(
            &mut errors,
            &at.child("type"),
            Some(&method.type_),
            &["ByNamespace", "ByUser"],
        );
    }
    let at_level = at.child("priorityLevelConfiguration.name");
    let level = &spec.priority_level_configuration.name;
    if level.is_empty() {
        errors.push(at_level.required("must reference a priority level"));
    } else {
        rules::subdomain(&mut errors, &at_level, level);
    }
    let at_rules = at.child("rules");
    for (i, rule) in spec.rules.iter().flatten().enumerate() {
        validate_rule(&mut errors, &at_rules.index(i), rule);
    }
    errors
}

fn validate_rule(errors: &mut Errors, at: &Loc<'_>, rule: &PolicyRulesWithSubjects) {
    let at_subjects = at.child("subjects");
    if rule.subjects.is_empty() {
        errors.push(at_subjects.required("subjects must contain at least one value"));
    }
    for (i, subject) in rule.subjects.iter().enumerate() {
        validate_subject(errors, &at_subjects.index(i), subject);
    }
    let resources = rule.resource_rules.as_deref().unwrap_or(&[]);
    let others = rule.non_resource_rules.as_deref().unwrap_or(&[]);
    if resources.is_empty() && others.is_empty() {
        errors.push(at.required("at least one of resourceRules and nonResourceRules has to be non-empty"));
    }
    let at_resources = at.child("resourceRules");
    for (i, rule) in resources.iter().enumerate() {
        validate_resource_rule(errors, &at_resources.index(i), rule);
    }
    let at_others = at.child("nonResourceRules");
    for (i, rule) in others.iter().enumerate() {
        validate_other_rule(errors, &at_others.index(i), rule);
    }
}

fn validate_subject(errors: &mut Errors, at: &Loc<'_>, subject: &Subject) {
    let missing = |errors: &mut Errors, field: &str, kind: &str| {
        let detail = format!("{field} is required when subject kind is '{kind}'");
        errors.push(at.child(field).required(detail));
    };
    match subject.kind.as_str() {
        "User" => match &subject.user {
            Some(user) => rules::not_empty(errors, &at.child("user.name"), Some(&user.name)),
            None => missing(errors, "user", "User"),
        },
        "Group" => match &subject.group {
            Some(group) => rules::not_empty(errors, &at.child("group.name"), Some(&group.name)),
            None => missing(errors, "group", "Group"),
        },
        "ServiceAccount" => match &subject.service_account {
            Some(account) => {
                rules::not_empty(errors, &at.child("serviceAccount.name"), Some(&account.name));
                if account.namespace.is_empty() {
                    let detail = "must specify namespace for service account";
                    errors.push(at.child("serviceAccount.namespace").required(detail));
                }
            }
            None => missing(errors, "serviceAccount", "ServiceAccount"),
        },
        other => errors.push(
            at.child("kind")
                .not_supported(other, &["Group", "ServiceAccount", "User"]),
        ),
    }
    for (field, given, kind) in [
        ("user", subject.user.is_some(), "User"),
        ("group", subject.group.is_some(), "Group"),
        (
            "serviceAccount",
            subject.service_account.is_some(),
            "ServiceAccount",
        ),
    ] {
        if given && subject.kind != kind {
            let detail = format!("{field} is forbidden when subject kind is not '{kind}'");
            errors.push(at.child(field).forbidden(detail));
        }
    }
}

/// A list that has to say something, and nothing beside a `*`.
fn listed(errors: &mut Errors, at: &Loc<'_>, values: &[String], what: &str) {
    if values.is_empty() {
        errors.push(at.required(format!("{what} must contain at least one value")));
    }
    if values.len() > 1 && values.iter().any(|v| v == "*") {
        let detail = format!("if '*' is present, must not specify other {what}");
        errors.push(at.invalid(rules::shown(&values), detail));
    }
}

fn verbs(errors: &mut Errors, at: &Loc<'_>, verbs: &[String]) {
    listed(errors, at, verbs, "verbs");
    if !verbs.iter().all(|v| v == "*" || VERBS.contains(&v.as_str())) {
        errors.push(at.not_supported(rules::shown(&verbs), VERBS));
    }
}

fn validate_resource_rule(errors: &mut Errors, at: &Loc<'_>, rule: &ResourcePolicyRule) {
    verbs(errors, &at.child("verbs"), &rule.verbs);
    listed(errors, &at.child("apiGroups"), &rule.api_groups, "api groups");
    listed(errors, &at.child("resources"), &rule.resources, "resources");
    let namespaces = rule.namespaces.as_deref().unwrap_or(&[]);
    let at_namespaces = at.child("namespaces");
    if namespaces.is_empty() && rule.cluster_scope != Some(true) {
        let detail = "resource rules that are not cluster scoped must supply at least one namespace";
        errors.push(at_namespaces.required(detail));
    }
    if !namespaces.is_empty() {
        listed(errors, &at_namespaces, namespaces, "namespaces");
    }
}

fn validate_other_rule(errors: &mut Errors, at: &Loc<'_>, rule: &NonResourcePolicyRule) {
    listed(errors, &at.child("verbs"), &rule.verbs, "verbs");
    let at_urls = at.child("nonResourceURLs");
    listed(errors, &at_urls, &rule.non_resource_urls, "non-resource URLs");
    for (i, url) in rule.non_resource_urls.iter().enumerate() {
        let at = at_urls.index(i);
        if url == "*" {
            continue;
        }
        if !url.starts_with('/') {
            errors.push(at.invalid(url.as_str(), "must start with slash"));
        }
        if url.contains("//") {
            errors.push(at.invalid(url.as_str(), "must not contain double slash"));
        }
        if url.contains(' ') {
            errors.push(at.invalid(url.as_str(), "must not contain white-space"));
        }
        if url.contains('*') && (url.find('*') != Some(url.len() - 1) || !url.ends_with("/*")) {
            errors.push(at.invalid(url.as_str(), "wildcard can only do suffix matching"));
        }
    }
}
