//! The rules of definitions, in upstream's words.

use std::collections::BTreeSet;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceColumnDefinition, CustomResourceConversion, CustomResourceDefinition,
    CustomResourceDefinitionNames, CustomResourceDefinitionSpec, CustomResourceDefinitionVersion,
    CustomResourceSubresourceScale, WebhookClientConfig,
};
use keelson_api::field::{Error, Errors, Path};
use keelson_api::jsonpath::JsonPath;
use keelson_api::validation::{dns1035_label, dns1123_subdomain};
use serde_json::Value;

use super::schema_rules::{self, Context};
use crate::custom::schema::formats;

/// Groups that belong to the Kubernetes project: definitions in them need its approval.
const APPROVED: &str = "api-approved.kubernetes.io";
/// Selectable fields of a version at most.
const MAX_SELECTABLE_FIELDS: usize = 8;
const IMMUTABLE: &str = "field is immutable";
const COLUMN_TYPES: [&str; 5] = ["boolean", "date", "integer", "number", "string"];
const COLUMN_FORMATS: [&str; 8] = [
    "byte",
    "date",
    "date-time",
    "double",
    "float",
    "int32",
    "int64",
    "password",
];

/// Checks a new definition.
pub fn create(definition: &CustomResourceDefinition) -> Errors {
    let mut errors = Errors::new();
    let name = definition.metadata.name.as_deref().unwrap_or_default();
    let names = &definition.spec.names;
    if name != format!("{}.{}", names.plural, definition.spec.group) {
        errors.push(Error::invalid(
            &Path::new("metadata").child("name"),
            name,
            "must be spec.names.plural+\".\"+spec.group",
        ));
    }
    errors.extend(spec(&definition.spec, None));
    errors.extend(status(definition));
    errors.extend(stored_versions(definition));
    errors.extend(approval(definition));
    errors
}

/// Checks a changed definition.
pub fn update(new: &CustomResourceDefinition, old: &CustomResourceDefinition) -> Errors {
    let path = Path::new("spec");
    let mut errors = spec(&new.spec, Some(&old.spec));
    let mut same = |path: Path, new: &str, old: &str| {
        if new != old {
            errors.push(Error::invalid(&path, new, IMMUTABLE));
        }
    };
    if established(old) {
        same(path.child("scope"), &new.spec.scope, &old.spec.scope);
        let kind = path.child("names").child("kind");
        same(kind, &new.spec.names.kind, &old.spec.names.kind);
    }
    same(path.child("group"), &new.spec.group, &old.spec.group);
    let plural = path.child("names").child("plural");
    same(plural, &new.spec.names.plural, &old.spec.names.plural);
    errors.extend(status(new));
    errors.extend(stored_versions(new));
    errors
}

fn established(definition: &CustomResourceDefinition) -> bool {
    let status = definition.status.as_ref();
    status
        .and_then(|status| status.conditions.as_ref())
        .into_iter()
        .flatten()
        .any(|condition| condition.type_ == "Established" && condition.status == "True")
}

/// Checks a definition's status.
pub fn status(definition: &CustomResourceDefinition) -> Errors {
    let accepted = definition
        .status
        .as_ref()
        .and_then(|status| status.accepted_names.as_ref());
    accepted.map_or_else(Errors::new, |accepted| {
        names(accepted, &Path::new("status").child("acceptedNames"))
    })
}

/// Formats that nothing checks are worth a word.
pub fn warnings(definition: &CustomResourceDefinition) -> Vec<String> {
    let mut warnings = Vec::new();
    for (index, version) in definition.spec.versions.iter().enumerate() {
        let path = Path::new("spec").child("versions").index(index).child("schema");
        let Some(schema) = schema_of(version) else {
            continue;
        };
        unknown_formats(&schema, &path.child("openAPIV3Schema"), &mut warnings);
    }
    warnings
}

fn unknown_formats(schema: &Value, path: &Path, warnings: &mut Vec<String>) {
    const FORMATS: &[&str] = &["int32", "int64", "float", "double", "binary"];
    if let Some(format) = schema["format"].as_str()
        && !format.is_empty()
        && !FORMATS.contains(&format)
        && !formats::known(format)
    {
        warnings.push(format!(
            "{}: unrecognized format \"{format}\"",
            path.child("format")
        ));
    }
    for (name, inner) in schema["properties"].as_object().into_iter().flatten() {
        unknown_formats(inner, &path.child("properties").key(name.as_str()), warnings);
    }
    for part in ["items", "additionalProperties"] {
        if schema[part].is_object() {
            unknown_formats(&schema[part], &path.child(part), warnings);
        }
    }
}

fn schema_of(version: &CustomResourceDefinitionVersion) -> Option<Value> {
    let schema = version.schema.as_ref()?.open_api_v3_schema.as_ref()?;
    serde_json::to_value(schema).ok()
}

fn stored_versions(definition: &CustomResourceDefinition) -> Errors {
    let path = Path::new("status").child("storedVersions");
    let stored = definition
        .status
        .as_ref()
        .and_then(|status| status.stored_versions.clone())
        .unwrap_or_default();
    if stored.is_empty() {
        return vec![Error::invalid(
            &path,
            stored,
            "must have at least one stored version",
        )];
    }
    let mut errors = Errors::new();
    let versions = &definition.spec.versions;
    for version in versions.iter().filter(|version| version.storage) {
        if !stored.contains(&version.name) {
            let detail = format!("must have the storage version {}", version.name);
            errors.push(Error::invalid(&path, stored.clone(), detail));
        }
    }
    for (index, name) in stored.iter().enumerate() {
        if !versions.iter().any(|version| version.name == *name) {
            let detail = format!(
                "missing from spec.versions; {name} was previously a storage version, and must remain in spec.versions \
                 until a storage migration ensures no data remains persisted in {name} and removes {name} from \
                 status.storedVersions"
            );
            errors.push(Error::invalid(&path.index(index), name.as_str(), detail));
        }
    }
    errors
}

fn approval(definition: &CustomResourceDefinition) -> Errors {
    let group = definition.spec.group.as_str();
    let protected = ["k8s.io", "kubernetes.io"]
        .iter()
        .any(|own| group == *own || group.strip_suffix(own).is_some_and(|rest| rest.ends_with('.')));
    if !protected {
        return Errors::new();
    }
    let path = Path::new("metadata").child("annotations").key(APPROVED);
    let annotations = definition.metadata.annotations.as_ref();
    match annotations.and_then(|annotations| annotations.get(APPROVED)) {
        None => vec![Error::required(
            &path,
            format!(
                "protected groups must have approval annotation \"{APPROVED}\", see \
                 https://github.com/kubernetes/enhancements/pull/1111"
            ),
        )],
        Some(value) if value.starts_with("unapproved") || value.starts_with("https://") => Errors::new(),
        Some(value) => vec![Error::invalid(
            &path,
            value.as_str(),
            "protected groups must have approval annotation, see https://github.com/kubernetes/enhancements/pull/1111",
        )],
    }
}

fn joined(path: &Path, value: &str, complaints: Vec<String>, before: &str) -> Option<Error> {
    (!complaints.is_empty()).then(|| Error::invalid(path, value, format!("{before}{}", complaints.join(","))))
}

fn spec(spec: &CustomResourceDefinitionSpec, old: Option<&CustomResourceDefinitionSpec>) -> Errors {
    let path = Path::new("spec");
    let mut errors = Errors::new();
    let group = path.child("group");
    if spec.group.is_empty() {
        errors.push(Error::required(&group, ""));
    } else if let Some(error) = joined(&group, &spec.group, dns1123_subdomain(&spec.group), "") {
        errors.push(error);
    } else if !spec.group.contains('.') {
        errors.push(Error::invalid(
            &group,
            spec.group.as_str(),
            "should be a domain with at least one dot",
        ));
    }
    match spec.scope.as_str() {
        "Cluster" | "Namespaced" => {}
        "" => errors.push(Error::required(&path.child("scope"), "")),
        other => errors.push(Error::not_supported(
            &path.child("scope"),
            other,
            &["Cluster", "Namespaced"],
        )),
    }
    if spec.preserve_unknown_fields == Some(true) {
        errors.push(Error::invalid(
            &path.child("preserveUnknownFields"),
            true,
            "cannot set to true, set x-kubernetes-preserve-unknown-fields to true in spec.versions[*].schema instead",
        ));
    }
    versions(spec, old, &path.child("versions"), &mut errors);
    let at = path.child("names");
    let required = [
        ("plural", spec.names.plural.as_str()),
        ("singular", spec.names.singular.as_deref().unwrap_or_default()),
        ("kind", spec.names.kind.as_str()),
        ("listKind", spec.names.list_kind.as_deref().unwrap_or_default()),
    ];
    for (name, value) in required {
        if value.is_empty() {
            errors.push(Error::required(&at.child(name), ""));
        }
    }
    errors.extend(names(&spec.names, &at));
    if let Some(given) = &spec.conversion {
        conversion(given, &path.child("conversion"), &mut errors);
    }
    errors
}

fn versions(
    spec: &CustomResourceDefinitionSpec,
    old: Option<&CustomResourceDefinitionSpec>,
    path: &Path,
    errors: &mut Errors,
) {
    let mut seen = BTreeSet::new();
    let mut unique = true;
    for (index, version) in spec.versions.iter().enumerate() {
        unique &= seen.insert(&version.name);
        let path = path.index(index);
        errors.extend(joined(
            &path.child("name"),
            &version.name,
            dns1035_label(&version.name),
            "",
        ));
        let before = old.and_then(|old| old.versions.iter().find(|one| one.name == version.name));
        one_version(version, before, &path, errors);
    }
    // The list itself is long and says little.
    let shown: Vec<&str> = spec
        .versions
        .iter()
        .map(|version| version.name.as_str())
        .collect();
    if !unique {
        errors.push(Error::invalid(
            path,
            shown.clone(),
            "must contain unique version names",
        ));
    }
    if spec.versions.iter().filter(|version| version.storage).count() != 1 {
        errors.push(Error::invalid(
            path,
            shown,
            "must have exactly one version marked as storage version",
        ));
    }
}

fn one_version(
    version: &CustomResourceDefinitionVersion,
    old: Option<&CustomResourceDefinitionVersion>,
    path: &Path,
    errors: &mut Errors,
) {
    deprecation(version, path, errors);
    let schema = schema_of(version);
    let at = path.child("schema").child("openAPIV3Schema");
    match &schema {
        None => errors.push(Error::required(&at, "")),
        Some(schema) => {
            let has_status = version
                .subresources
                .as_ref()
                .is_some_and(|subresources| subresources.status.is_some());
            let unchanged = old.is_some_and(|old| old.schema == version.schema);
            let context = Context {
                has_status,
                unchanged,
            };
            errors.extend(schema_rules::check(schema, &at, &context));
        }
    }
    if let Some(scale) = version
        .subresources
        .as_ref()
        .and_then(|subresources| subresources.scale.as_ref())
    {
        scale_paths(scale, &path.child("subresources"), errors);
    }
    for (index, column) in version.additional_printer_columns.iter().flatten().enumerate() {
        printer_column(
            column,
            &path.child("additionalPrinterColumns").index(index),
            errors,
        );
    }
    selectable_fields(version, schema.as_ref(), &path.child("selectableFields"), errors);
}

fn deprecation(version: &CustomResourceDefinitionVersion, path: &Path, errors: &mut Errors) {
    let Some(text) = &version.deprecation_warning else {
        return;
    };
    let path = path.child("deprecationWarning");
    let mut complain = |detail: String| errors.push(Error::invalid(&path, text.as_str(), detail));
    if version.deprecated != Some(true) {
        return complain("can only be set for deprecated versions".into());
    }
    if text.len() > 256 {
        complain("must be <= 256 characters long".into());
    }
    if text.is_empty() {
        complain("must not be an empty string".into());
    }
    if let Some((at, _)) = text.char_indices().find(|(_, c)| c.is_control()) {
        complain(format!(
            "must only contain printable UTF-8 characters; non-printable character found at index {at}"
        ));
    }
}

fn simple_path(text: &str, path: &Path) -> Option<Error> {
    if text.is_empty() {
        return Some(Error::invalid(path, text, "must not be empty"));
    }
    if !text.starts_with('.') {
        return Some(Error::invalid(
            path,
            text,
            "must be a simple json path starting with .",
        ));
    }
    JsonPath::parse(text)
        .err()
        .map(|why| Error::invalid(path, text, format!("is an invalid path: {why}")))
}

fn scale_paths(scale: &CustomResourceSubresourceScale, path: &Path, errors: &mut Errors) {
    let mut check = |name: &'static str, text: &str, roots: &[&str], words: &'static str| {
        let path = path.child(name);
        if let Some(error) = simple_path(text, &path) {
            errors.push(error);
        } else if !roots.iter().any(|root| text.starts_with(root)) {
            errors.push(Error::invalid(&path, text, words));
        } else if JsonPath::parse(text).is_ok_and(|path| path.fields().is_none()) {
            errors.push(Error::invalid(
                &path,
                text,
                "must be a simple json path without array notation",
            ));
        }
    };
    check(
        "scale.specReplicasPath",
        &scale.spec_replicas_path,
        &[".spec."],
        "should be a json path under .spec",
    );
    check(
        "scale.statusReplicasPath",
        &scale.status_replicas_path,
        &[".status."],
        "should be a json path under .status",
    );
    if let Some(selector) = scale
        .label_selector_path
        .as_deref()
        .filter(|path| !path.is_empty())
    {
        check(
            "scale.labelSelectorPath",
            selector,
            &[".spec.", ".status."],
            "should be a json path under either .spec or .status",
        );
    }
}

fn printer_column(column: &CustomResourceColumnDefinition, path: &Path, errors: &mut Errors) {
    if column.name.is_empty() {
        errors.push(Error::required(&path.child("name"), ""));
    }
    let types = || format!("must be one of {}", COLUMN_TYPES.join(","));
    if column.type_.is_empty() {
        errors.push(Error::required(&path.child("type"), types()));
    } else if !COLUMN_TYPES.contains(&column.type_.as_str()) {
        errors.push(Error::invalid(
            &path.child("type"),
            column.type_.as_str(),
            types(),
        ));
    }
    if let Some(format) = column.format.as_deref().filter(|format| !format.is_empty())
        && !COLUMN_FORMATS.contains(&format)
    {
        let detail = format!("must be one of {}", COLUMN_FORMATS.join(","));
        errors.push(Error::invalid(&path.child("format"), format, detail));
    }
    if column.json_path.is_empty() {
        errors.push(Error::required(&path.child("jsonPath"), ""));
    } else {
        errors.extend(simple_path(&column.json_path, &path.child("jsonPath")));
    }
}

fn selectable_fields(
    version: &CustomResourceDefinitionVersion,
    schema: Option<&Value>,
    path: &Path,
    errors: &mut Errors,
) {
    let mut seen = BTreeSet::new();
    for (index, field) in version.selectable_fields.iter().flatten().enumerate() {
        let path = path.index(index).child("jsonPath");
        let text = field.json_path.as_str();
        if text.is_empty() {
            errors.push(Error::required(&path, ""));
            continue;
        }
        let fields = JsonPath::parse(text).ok().filter(|_| text.starts_with('.'));
        let Some(fields) = fields.as_ref().and_then(JsonPath::fields) else {
            errors.push(Error::invalid(
                &path,
                text,
                "is an invalid path: does not refer to a valid field",
            ));
            continue;
        };
        if fields.first() == Some(&"metadata") {
            errors.push(Error::invalid(
                &path,
                text,
                "must not point to fields in metadata",
            ));
        }
        let found = schema.and_then(|schema| {
            fields
                .iter()
                .try_fold(schema, |schema, name| schema["properties"].get(*name))
        });
        match found {
            None => errors.push(Error::invalid(
                &path,
                text,
                format!("is an invalid path: does not refer to a valid field: {text}"),
            )),
            Some(found) if !matches!(found["type"].as_str(), Some("string" | "boolean" | "integer")) => {
                errors.push(Error::invalid(
                    &path,
                    text,
                    "must point to a field of type string, boolean or integer. Enum string fields and strings with \
                     formats are allowed.",
                ));
            }
            Some(_) => {}
        }
        if !seen.insert(text) {
            errors.push(Error::duplicate(&path, text));
        }
    }
    if seen.len() > MAX_SELECTABLE_FIELDS {
        errors.push(Error::too_many(path, seen.len(), MAX_SELECTABLE_FIELDS));
    }
}

fn names(names: &CustomResourceDefinitionNames, path: &Path) -> Errors {
    let mut errors = Errors::new();
    let mut label = |path: Path, value: &str| {
        if !value.is_empty() {
            errors.extend(joined(&path, value, dns1035_label(value), ""));
        }
    };
    label(path.child("plural"), &names.plural);
    label(
        path.child("singular"),
        names.singular.as_deref().unwrap_or_default(),
    );
    let list_kind = names.list_kind.as_deref().unwrap_or_default();
    for (name, value) in [("kind", names.kind.as_str()), ("listKind", list_kind)] {
        if !value.is_empty() {
            errors.extend(joined(
                &path.child(name),
                value,
                dns1035_label(&value.to_lowercase()),
                "may have mixed case, but should otherwise match: ",
            ));
        }
    }
    for (field, values) in [
        ("shortNames", &names.short_names),
        ("categories", &names.categories),
    ] {
        for (index, value) in values.iter().flatten().enumerate() {
            let path = path.child(field).index(index);
            errors.extend(joined(&path, value, dns1035_label(value), ""));
        }
    }
    if !names.kind.is_empty() && names.kind == list_kind {
        errors.push(Error::invalid(
            &path.child("listKind"),
            list_kind,
            "kind and listKind may not be the same",
        ));
    }
    errors
}

fn conversion(conversion: &CustomResourceConversion, path: &Path, errors: &mut Errors) {
    let config = path.child("webhookClientConfig");
    let reviews = path.child("conversionReviewVersions");
    match conversion.strategy.as_str() {
        "Webhook" => {}
        "None" => {
            if conversion.webhook.is_some() {
                errors.push(Error::forbidden(
                    &config,
                    "should not be set when strategy is not set to Webhook",
                ));
            }
            return;
        }
        "" => return errors.push(Error::required(&path.child("strategy"), "")),
        other => {
            return errors.push(Error::not_supported(
                &path.child("strategy"),
                other,
                &["None", "Webhook"],
            ));
        }
    }
    let webhook = conversion.webhook.as_ref();
    match webhook.and_then(|webhook| webhook.client_config.as_ref()) {
        None => errors.push(Error::required(
            &config,
            "required when strategy is set to Webhook",
        )),
        Some(client) => client_config(client, &config, errors),
    }
    let versions = webhook
        .map(|webhook| webhook.conversion_review_versions.as_slice())
        .unwrap_or_default();
    if versions.is_empty() {
        return errors.push(Error::required(&reviews, ""));
    }
    let mut seen = BTreeSet::new();
    for (index, version) in versions.iter().enumerate() {
        let path = reviews.index(index);
        if !seen.insert(version) {
            errors.push(Error::invalid(&path, version.as_str(), "duplicate version"));
            continue;
        }
        for complaint in dns1035_label(version) {
            errors.push(Error::invalid(&path, version.as_str(), complaint));
        }
    }
    if !versions
        .iter()
        .any(|version| matches!(version.as_str(), "v1" | "v1beta1"))
    {
        errors.push(Error::invalid(
            &reviews,
            versions.to_vec(),
            "must include at least one of v1, v1beta1",
        ));
    }
}

fn client_config(client: &WebhookClientConfig, path: &Path, errors: &mut Errors) {
    match (&client.url, &client.service) {
        (Some(url), None) => {
            let path = path.child("url");
            match url.strip_prefix("https://") {
                None => errors.push(Error::invalid(
                    &path,
                    url.as_str(),
                    "'https' is the only allowed URL scheme",
                )),
                Some(rest) => {
                    let host = rest.split('/').next().unwrap_or_default();
                    if host.is_empty() {
                        errors.push(Error::invalid(&path, url.as_str(), "host must be specified"));
                    }
                    if host.contains('@') {
                        errors.push(Error::invalid(
                            &path,
                            url.as_str(),
                            "user information is not permitted in the URL",
                        ));
                    }
                    if rest.contains('#') {
                        errors.push(Error::invalid(
                            &path,
                            url.as_str(),
                            "fragments are not permitted in the URL",
                        ));
                    }
                    if rest.contains('?') {
                        errors.push(Error::invalid(
                            &path,
                            url.as_str(),
                            "query parameters are not permitted in the URL",
                        ));
                    }
                }
            }
        }
        (None, Some(service)) => {
            let path = path.child("service");
            if service.name.is_empty() {
                errors.push(Error::required(&path.child("name"), "service name is required"));
            }
            if service.namespace.is_empty() {
                errors.push(Error::required(
                    &path.child("namespace"),
                    "service namespace is required",
                ));
            }
            if let Some(port) = service.port
                && !(1..=65535).contains(&port)
            {
                errors.push(Error::invalid(
                    &path.child("port"),
                    port,
                    "port is not valid: must be between 1 and 65535, inclusive",
                ));
            }
        }
        _ => errors.push(Error::required(path, "exactly one of url or service is required")),
    }
}
