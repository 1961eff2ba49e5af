//! What a stored CustomResourceDefinition says that serving its resource needs.
//!
//! Schemas are not read here: they stay the bytes they are until somebody needs one.

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::conversion::Converter;
use crate::registry::info::Scope;

/// The resource that definitions are.
pub const GROUP: &str = "apiextensions.k8s.io";
/// Where definitions lie in the store.
pub const PREFIX: &str = "apiextensions.k8s.io/customresourcedefinitions";
/// Keeps a definition until its instances are gone.
pub const CLEANUP: &str = "customresourcecleanup.apiextensions.k8s.io";

/// A definition, read.
#[derive(Debug)]
pub struct Definition {
    /// The definition's uid: a new one begins anew.
    pub uid: String,
    /// API group.
    pub group: String,
    /// The names accepted.
    pub names: Names,
    /// Whether objects live in namespaces.
    pub scope: Scope,
    /// Every version, in the definition's order.
    pub versions: Vec<Version>,
    /// Whether the resource is served.
    pub established: bool,
    /// Whether its instances are being deleted.
    pub terminating: bool,
    /// How versions are converted.
    pub conversion: Conversion,
    /// The spec as JSON.
    pub spec: Bytes,
}

/// `status.acceptedNames`
#[derive(Debug, Default, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Names {
    /// `crontabs`
    pub plural: String,
    /// `crontab`
    pub singular: String,
    /// `ct`
    pub short_names: Vec<String>,
    /// `CronTab`
    pub kind: String,
    /// `CronTabList`
    pub list_kind: String,
    /// `all`
    pub categories: Vec<String>,
}

/// `spec.versions[]`, without its schema.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Version {
    /// `v1`
    pub name: String,
    /// Whether it can be asked for.
    #[serde(default)]
    pub served: bool,
    /// Whether objects are stored in it.
    #[serde(default)]
    pub storage: bool,
    /// Whether using it is warned of.
    #[serde(default)]
    pub deprecated: bool,
    /// With which words.
    #[serde(default)]
    pub deprecation_warning: Option<String>,
    /// `status` and `scale`
    #[serde(default)]
    pub subresources: Option<Subresources>,
    /// Columns of the Table form.
    #[serde(default)]
    pub additional_printer_columns: Vec<PrinterColumn>,
    /// Fields that field selectors may name.
    #[serde(default)]
    pub selectable_fields: Vec<SelectableField>,
}

/// `spec.versions[].subresources`
#[derive(Debug, Clone, Deserialize)]
pub struct Subresources {
    /// Present: `status` is written apart.
    #[serde(default)]
    pub status: Option<serde::de::IgnoredAny>,
    /// Where `scale` finds its numbers.
    #[serde(default)]
    pub scale: Option<Scale>,
}

/// `spec.versions[].subresources.scale`
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Scale {
    /// `.spec.replicas`
    pub spec_replicas_path: String,
    /// `.status.replicas`
    pub status_replicas_path: String,
    /// `.status.selector`
    #[serde(default)]
    pub label_selector_path: Option<String>,
}

/// `spec.versions[].additionalPrinterColumns[]`
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PrinterColumn {
    /// Header.
    pub name: String,
    /// `string`, `integer`, `number`, `boolean`, `date`
    #[serde(rename = "type")]
    pub column_type: String,
    /// `name` for the column of names.
    #[serde(default)]
    pub format: Option<String>,
    /// What it shows.
    #[serde(default)]
    pub description: Option<String>,
    /// 0 is always shown.
    #[serde(default)]
    pub priority: i32,
    /// Where its value is.
    pub json_path: String,
}

/// `spec.versions[].selectableFields[]`
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SelectableField {
    /// Where its value is.
    pub json_path: String,
}

/// `spec.conversion`
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
pub struct Conversion {
    /// `None` or `Webhook`
    #[serde(default)]
    strategy: String,
    #[serde(default)]
    webhook: Option<Converter>,
}

impl Conversion {
    /// Who knows how versions differ; `None` where they differ in nothing but their names.
    pub fn webhook(&self) -> Option<&Converter> {
        self.webhook.as_ref().filter(|_| self.strategy == "Webhook")
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Object<'a> {
    metadata: Metadata,
    #[serde(borrow)]
    spec: &'a RawValue,
    #[serde(default)]
    status: Status,
}

#[derive(Deserialize)]
struct Metadata {
    #[serde(default)]
    uid: String,
}

#[derive(Deserialize)]
struct Spec {
    group: String,
    scope: String,
    versions: Vec<Version>,
    #[serde(default)]
    conversion: Conversion,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Status {
    accepted_names: Option<Names>,
    conditions: Option<Vec<Condition>>,
}

#[derive(Deserialize)]
struct Condition {
    #[serde(rename = "type")]
    kind: String,
    status: String,
}

impl Definition {
    /// Reads a definition from its JSON. The spec stays part of the same bytes.
    pub fn read(object: &Bytes) -> Result<Self, serde_json::Error> {
        let read: Object<'_> = serde_json::from_slice(object)?;
        let spec: Spec = serde_json::from_str(read.spec.get())?;
        let conditions = read.status.conditions.unwrap_or_default();
        let holds = |kind: &str| conditions.iter().any(|c| c.kind == kind && c.status == "True");
        let scope = match spec.scope.as_str() {
            "Cluster" => Scope::Cluster,
            _ => Scope::Namespaced,
        };
        Ok(Self {
            uid: read.metadata.uid,
            group: spec.group,
            names: read.status.accepted_names.unwrap_or_default(),
            scope,
            versions: spec.versions,
            established: holds("Established"),
            terminating: holds("Terminating"),
            conversion: spec.conversion,
            spec: object.slice_ref(read.spec.get().as_bytes()),
        })
    }

    /// The version objects are stored in.
    pub fn storage_version(&self) -> Option<usize> {
        self.versions.iter().position(|version| version.storage)
    }

    /// Whether serving one is serving the other.
    pub fn serves_like(&self, other: &Self) -> bool {
        self.uid == other.uid
            && self.established == other.established
            && self.terminating == other.terminating
            && self.names == other.names
            && self.spec == other.spec
    }
}

/// The schema of a version, out of the spec's JSON.
pub fn schema_of(spec: &[u8], version: usize) -> serde_json::Value {
    #[derive(Deserialize)]
    struct Spec<'a> {
        #[serde(borrow)]
        versions: Vec<&'a RawValue>,
    }
    #[derive(Deserialize)]
    struct Version {
        #[serde(default)]
        schema: Option<Validation>,
    }
    #[derive(Deserialize)]
    struct Validation {
        #[serde(default, rename = "openAPIV3Schema")]
        schema: serde_json::Value,
    }
    serde_json::from_slice::<Spec<'_>>(spec)
        .ok()
        .and_then(|spec| serde_json::from_str::<Version>(spec.versions.get(version)?.get()).ok())
        .and_then(|version| version.schema)
        .map(|validation| validation.schema)
        .unwrap_or_default()
}
