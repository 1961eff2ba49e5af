//! What the server calls custom resources.
//!
//! The generic handlers know a resource by names that live as long as the program. Those of a definition are made once
//! for each form it ever had and kept: some hundred bytes each, shared by all definitions that say the same.

use std::collections::HashMap;
use std::sync::LazyLock;

use keelson_api::jsonpath::JsonPath;
use parking_lot::Mutex;

use super::definition::{Names, Version};
use crate::registry::common::scale;
use crate::registry::info::{
    GET_PATCH_UPDATE, NameRule, OtherFields, ResourceInfo, Scope, SubresourceForm, SubresourceInfo, Verb,
};
use crate::registry::strategy::Column;

/// One version of a custom resource, as the handlers see it.
#[derive(Debug)]
pub struct Form {
    /// Names, scope, verbs, subresources.
    pub info: ResourceInfo,
    /// Columns of the Table form: the name, then those of the definition.
    pub columns: Vec<Column>,
    /// What the columns after the first show.
    pub paths: Vec<JsonPath>,
    /// Where the selectable fields are.
    pub fields: Vec<(&'static str, JsonPath)>,
    /// What the JSON of objects in this version begins with.
    pub opening: String,
    /// The kind of lists.
    pub list_kind: &'static str,
    /// Sent as a warning with every answer.
    pub deprecation: Option<&'static str>,
    /// Whether `status` is written apart from the rest.
    pub has_status: bool,
    /// Where the `scale` subresource finds its numbers.
    pub scale: Option<ScalePaths>,
}

/// `spec.versions[].subresources.scale`
#[derive(Debug)]
pub struct ScalePaths {
    /// `.spec.replicas`
    pub spec: Vec<String>,
    /// `.status.replicas`
    pub status: Vec<String>,
    /// `.status.selector`
    pub selector: Option<Vec<String>>,
}

static TEXTS: LazyLock<Mutex<HashMap<&'static str, ()>>> = LazyLock::new(Mutex::default);
static FORMS: LazyLock<Mutex<HashMap<String, &'static Form>>> = LazyLock::new(Mutex::default);

/// The text, kept for as long as the program runs; equal texts are kept once.
pub fn keep(text: &str) -> &'static str {
    let mut texts = TEXTS.lock();
    if let Some((kept, ())) = texts.get_key_value(text) {
        return kept;
    }
    let kept: &'static str = Box::leak(text.to_owned().into_boxed_str());
    texts.insert(kept, ());
    kept
}

fn keep_all(texts: &[String]) -> &'static [&'static str] {
    let kept: Vec<&'static str> = texts.iter().map(|text| keep(text)).collect();
    Box::leak(kept.into_boxed_slice())
}

/// The form of a version, kept for as long as the program runs; equal forms are kept once.
pub fn form(group: &str, names: &Names, scope: Scope, version: &Version) -> &'static Form {
    let key = format!("{group} {scope:?} {names:?} {version:?}");
    if let Some(form) = FORMS.lock().get(&key) {
        return form;
    }
    let form: &'static Form = Box::leak(Box::new(build(group, names, scope, version)));
    // Two threads that make the same form keep both; the next one finds the last.
    FORMS.lock().insert(key, form);
    form
}

fn build(group: &str, names: &Names, scope: Scope, version: &Version) -> Form {
    let (group, version_name) = (keep(group), keep(&version.name));
    let (kind, plural) = (keep(&names.kind), keep(&names.plural));
    let subresources = version.subresources.as_ref();
    let has_status = subresources.is_some_and(|s| s.status.is_some());
    let scale = subresources
        .and_then(|s| s.scale.as_ref())
        .map(|scale| ScalePaths {
            spec: fields(&scale.spec_replicas_path),
            status: fields(&scale.status_replicas_path),
            selector: scale
                .label_selector_path
                .as_deref()
                .filter(|path| !path.is_empty())
                .map(fields),
        });
    let mut info_subresources = Vec::new();
    if has_status {
        info_subresources.push(SubresourceInfo {
            name: "status",
            kind,
            group,
            version: version_name,
            verbs: GET_PATCH_UPDATE,
            form: SubresourceForm::Object,
        });
    }
    if scale.is_some() {
        info_subresources.push(scale::INFO);
    }
    let selectable: Vec<(&'static str, JsonPath)> = version
        .selectable_fields
        .iter()
        .filter_map(|field| {
            let path = JsonPath::parse(&field.json_path).ok()?;
            Some((keep(field.json_path.trim_start_matches('.')), path))
        })
        .collect();
    let selectable_names: Vec<&'static str> = selectable.iter().map(|(name, _)| *name).collect();
    let (columns, paths) = columns(version);
    let deprecation = version.deprecated.then(|| match &version.deprecation_warning {
        Some(text) => keep(text),
        None => keep(&format!("{group}/{version_name} {kind} is deprecated")),
    });
    Form {
        info: ResourceInfo {
            group,
            version: version_name,
            kind,
            plural,
            singular: keep(&names.singular),
            short_names: keep_all(&names.short_names),
            categories: keep_all(&names.categories),
            scope,
            verbs: Verb::ALL,
            storage_prefix: keep(&format!("{group}/{plural}")),
            name_rule: NameRule::Subdomain,
            selectable_fields: Box::leak(selectable_names.into_boxed_slice()),
            other_fields: OtherFields::NotSupported,
            subresources: Box::leak(info_subresources.into_boxed_slice()),
            ..ResourceInfo::base()
        },
        columns,
        paths,
        fields: selectable,
        opening: format!(r#"{{"apiVersion":"{group}/{version_name}","#),
        list_kind: keep(&names.list_kind),
        deprecation,
        has_status,
        scale,
    }
}

fn fields(path: &str) -> Vec<String> {
    JsonPath::parse(path)
        .ok()
        .and_then(|path| {
            let fields = path.fields()?;
            Some(fields.into_iter().map(str::to_owned).collect())
        })
        .unwrap_or_default()
}

/// What the Age column of definitions without columns of their own says about itself.
const AGE: &str = "CreationTimestamp is a timestamp representing the server time when this object was created. It is \
                   not guaranteed to be set in happens-before order across separate operations. Clients may not set \
                   this value. It is represented in RFC3339 form and is in UTC.";

fn columns(version: &Version) -> (Vec<Column>, Vec<JsonPath>) {
    let mut columns = vec![Column::name()];
    let mut paths = Vec::new();
    if version.additional_printer_columns.is_empty() {
        columns.push(Column::new("Age", AGE).of("date"));
        paths.extend(JsonPath::parse(".metadata.creationTimestamp"));
    }
    for column in &version.additional_printer_columns {
        let Ok(path) = JsonPath::parse(&column.json_path) else {
            continue;
        };
        let description = match column.description.as_deref() {
            Some(text) if !text.is_empty() => keep(text),
            _ => keep(&format!(
                "Custom resource definition column (in JSONPath format): {}",
                column.json_path
            )),
        };
        columns.push(Column {
            name: keep(&column.name),
            kind: keep(&column.column_type),
            format: keep(column.format.as_deref().unwrap_or_default()),
            description,
            priority: column.priority,
        });
        paths.push(path);
    }
    (columns, paths)
}
