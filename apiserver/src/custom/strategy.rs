//! One version of one custom resource behind the same contract as the built-in kinds.
//!
//! Objects are untyped. Where versions differ in nothing but their names they carry the storage version's `apiVersion`
//! while the handlers have them; what the caller sees is put on at the door, as for built-in kinds with several
//! versions. Where a webhook converts them the handlers have them in the version asked for.

use std::sync::{Arc, OnceLock};

use async_trait::async_trait;
use bytes::Bytes;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{DeleteOptions, Time};
use keelson_api::apply::Schema as Ownership;
use keelson_api::field::{Error, ErrorType, Errors, Path};
use keelson_api::jsonpath;
use keelson_api::names::split_api_version;
use keelson_api::object::{Object, Unstructured};
use keelson_api::status::{ApiError, ApiResult};
use keelson_api::strict;
use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};

use super::conversion::Converter;
use super::definition::schema_of;
use super::names::{self, Form, ScalePaths};
use super::scale::CustomScale;
use super::schema::ownership::Root;
use super::schema::{Schema, check, defaults, embedded, prune, rules};
use crate::registry::common::cells;
use crate::registry::info::ResourceInfo;
use crate::registry::selected::{self, Selected};
use crate::registry::strategy::{
    Column, ErasedStrategy, Fields, Request, RequestContext, Reservation, Subresource,
};

/// What a version of a custom resource is made of.
pub struct Parts {
    /// The version's names and columns.
    pub form: &'static Form,
    /// Those of every version of the definition.
    pub forms: Vec<&'static Form>,
    /// `apiVersion` of what is stored.
    pub stored_as: &'static str,
    /// The definition's spec.
    pub spec: Bytes,
    /// Which of its versions this is.
    pub version: usize,
    /// Nothing is created any more while the definition goes.
    pub terminating: bool,
    /// Who knows how versions differ, where they do.
    pub converter: Option<Arc<Converter>>,
}

/// One version of a custom resource.
pub struct CustomStrategy {
    form: &'static Form,
    forms: Vec<&'static Form>,
    /// `apiVersion` of objects while the handlers have them.
    handled_as: &'static str,
    spec: Bytes,
    version: usize,
    terminating: bool,
    converter: Option<Arc<Converter>>,
    schema: OnceLock<Schema>,
    /// The schemas of the other versions, for what is known of fields managed in them.
    others: OnceLock<Vec<Root>>,
    tag: OnceLock<String>,
}

impl CustomStrategy {
    /// The strategy of a version of a definition.
    pub fn new(parts: Parts) -> Self {
        let own = names::keep(&parts.form.info.api_version());
        Self {
            form: parts.form,
            forms: parts.forms,
            handled_as: if parts.converter.is_some() {
                own
            } else {
                parts.stored_as
            },
            spec: parts.spec,
            version: parts.version,
            terminating: parts.terminating,
            converter: parts.converter,
            schema: OnceLock::new(),
            others: OnceLock::new(),
            tag: OnceLock::new(),
        }
    }

    /// Who knows how the versions differ, where they do.
    pub fn converter(&self) -> Option<&Arc<Converter>> {
        self.converter.as_ref()
    }

    /// The schema of another version.
    fn other(&self, version: &str) -> Option<&Root> {
        let index = self.forms.iter().position(|form| form.info.version == version)?;
        let others = self.others.get_or_init(|| {
            let compile = |index| Root(Schema::compile(&schema_of(&self.spec, index)));
            (0..self.forms.len()).map(compile).collect()
        });
        others.get(index)
    }

    /// The schema, compiled when it is first asked for.
    pub fn schema(&self) -> &Schema {
        self.schema
            .get_or_init(|| Schema::compile(&schema_of(&self.spec, self.version)))
    }

    /// The schema as the definition has it.
    pub fn raw_schema(&self) -> Value {
        schema_of(&self.spec, self.version)
    }

    /// Changes when the schema does.
    pub fn schema_tag(&self) -> &str {
        self.tag.get_or_init(|| {
            let hash = Sha256::digest(&self.spec);
            hash.iter().take(8).map(|byte| format!("{byte:02x}")).collect()
        })
    }

    /// Names, columns and paths.
    pub fn form(&self) -> &'static Form {
        self.form
    }

    /// Prunes what this server or a webhook has at hand, and fills in defaults.
    pub fn normalize(&self, value: &mut Value) {
        prune::object(value, self.schema(), &mut Vec::new());
        embedded::repair(value, self.schema());
        defaults::apply(value, self.schema());
    }

    /// The same for what a client sends; the paths of what was removed.
    fn normalize_sent(&self, value: &mut Value) -> Result<Vec<String>, Error> {
        let mut removed = Vec::new();
        prune::object(value, self.schema(), &mut removed);
        removed.sort();
        let mut in_embedded = Vec::new();
        embedded::read(value, self.schema(), &mut in_embedded)?;
        in_embedded.sort();
        removed.append(&mut in_embedded);
        defaults::apply(value, self.schema());
        Ok(removed)
    }

    fn untyped(&self, value: Value) -> Result<Unstructured, String> {
        let mut object = Unstructured::from_value(value).map_err(|error| error.message().to_owned())?;
        self.handled_as.clone_into(&mut object.api_version);
        self.form.info.kind.clone_into(&mut object.kind);
        Ok(object)
    }

    /// The object as the caller's version has it.
    fn as_served(&self, object: &Unstructured) -> Value {
        let mut value = object.to_value();
        value["apiVersion"] = self.form.info.api_version().into();
        value
    }

    fn validate(&self, ctx: &RequestContext<'_>, new: &Unstructured, old: Option<&Unstructured>) -> Errors {
        let value = self.as_served(new);
        let old = old.map(|old| self.as_served(old));
        let mut errors = check::object(&value, old.as_ref(), self.schema());
        if self.schema().has_validations {
            if errors.iter().any(blocks_rules) {
                errors.push(Error::invalid(
                    &Path::root(),
                    Value::Null,
                    "some validation rules were not checked because the object was invalid; correct the existing errors \
                     to complete validation",
                ));
            } else {
                let found = rules::run(&value, old.as_ref(), self.schema());
                found.known.iter().for_each(|error| ctx.warn(error.to_string()));
                errors.extend(found.errors);
            }
        }
        if let Some(scale) = &self.form.scale {
            errors.extend(replicas(&value, scale));
        }
        errors
    }

    /// What is wrong with the metadata's fields, and the metadata in the form the API accepts.
    fn metadata(value: &mut Value) -> Result<Vec<String>, String> {
        let Some(metadata) = value.get_mut("metadata").filter(|m| !m.is_null()) else {
            return Ok(Vec::new());
        };
        let Some(definition) =
            keelson_api::schema::by_name("io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta")
        else {
            return Ok(Vec::new());
        };
        let text = metadata.to_string();
        let checked = strict::check(definition, text.as_bytes())?;
        if let std::borrow::Cow::Owned(rewritten) = &checked.json {
            *metadata = serde_json::from_slice(rewritten).map_err(|error| error.to_string())?;
        }
        Ok(checked
            .complaints
            .into_iter()
            .map(|complaint| complaint.replacen("field \"", "field \"metadata.", 1))
            .collect())
    }
}

/// Whether a mistake leaves an object that rules cannot be trusted with.
fn blocks_rules(error: &Error) -> bool {
    matches!(
        error.kind,
        ErrorType::Required | ErrorType::TooLong | ErrorType::TooMany | ErrorType::TypeInvalid
    )
}

/// The number of replicas is one.
fn replicas(value: &Value, scale: &ScalePaths) -> Errors {
    let mut errors = Errors::new();
    for fields in [&scale.spec, &scale.status] {
        let pointer: String = fields.iter().map(|field| format!("/{field}")).collect();
        let Some(found) = value.pointer(&pointer).and_then(Value::as_i64) else {
            continue;
        };
        let path = Path::new(format!(".{}", fields.join(".")));
        if found < 0 {
            errors.push(Error::invalid(&path, found, "should be a non-negative integer"));
        } else if found > i64::from(i32::MAX) {
            let detail = format!("should be less than or equal to {}", i32::MAX);
            errors.push(Error::invalid(&path, found, detail));
        }
    }
    errors
}

fn untyped(object: &dyn Object) -> ApiResult<&Unstructured> {
    object
        .as_any()
        .downcast_ref()
        .ok_or_else(|| ApiError::internal("an object of a custom resource is not untyped"))
}

fn untyped_mut(object: &mut dyn Object) -> ApiResult<&mut Unstructured> {
    object
        .as_any_mut()
        .downcast_mut()
        .ok_or_else(|| ApiError::internal("an object of a custom resource is not untyped"))
}

/// Everything but the metadata.
fn content(object: &Unstructured) -> &Map<String, Value> {
    &object.fields
}

#[async_trait]
impl ErasedStrategy for CustomStrategy {
    fn info(&self) -> &'static ResourceInfo {
        &self.form.info
    }

    fn list_kind(&self) -> Option<&'static str> {
        Some(self.form.list_kind)
    }

    fn deprecation(&self) -> Option<&'static str> {
        self.form.deprecation
    }

    fn decode(&self, json: &[u8]) -> Result<Box<dyn Object>, serde_json::Error> {
        self.decode_value(serde_json::from_slice(json)?)
    }

    fn decode_value(&self, mut value: Value) -> Result<Box<dyn Object>, serde_json::Error> {
        self.normalize(&mut value);
        let object = self.untyped(value).map_err(serde::de::Error::custom)?;
        Ok(Box::new(object))
    }

    fn read(&self, mut value: Value) -> Result<Request, String> {
        let mut complaints = Self::metadata(&mut value)?;
        let removed = self
            .normalize_sent(&mut value)
            .map_err(|error| error.to_string())?;
        complaints.extend(removed.iter().map(|path| format!("unknown field \"{path}\"")));
        let object = Box::new(self.untyped(value)?);
        Ok(Request { object, complaints })
    }

    fn stored(&self, json: &[u8]) -> Option<Vec<u8>> {
        let before: Value = serde_json::from_slice(json).ok()?;
        if self.converter.is_some() && before["apiVersion"] != self.handled_as {
            // It is converted, and then made what it should be, for those who ask for it.
            return None;
        }
        let mut value = before.clone();
        self.normalize(&mut value);
        value["apiVersion"] = self.handled_as.into();
        (value != before).then(|| value.to_string().into_bytes())
    }

    fn default(&self, _object: &mut dyn Object) -> ApiResult<()> {
        // Defaults were filled in when the object was read.
        Ok(())
    }

    fn prepare_create(&self, _ctx: &RequestContext<'_>, object: &mut dyn Object) -> ApiResult<()> {
        if self.terminating {
            return Err(ApiError::method_not_supported(
                &self.form.info.group_resource(),
                "create",
            ));
        }
        let object = untyped_mut(object)?;
        if self.form.has_status {
            object.fields.remove("status");
        }
        object.metadata.generation = Some(1);
        Ok(())
    }

    fn prepare_update(
        &self,
        ctx: &RequestContext<'_>,
        new: &mut dyn Object,
        old: &dyn Object,
    ) -> ApiResult<()> {
        let (new, old) = (untyped_mut(new)?, untyped(old)?);
        if ctx.subresource == "status" {
            let status = new.fields.remove("status");
            new.fields.clone_from(&old.fields);
            match status {
                Some(status) => new.fields.insert("status".into(), status),
                None => new.fields.remove("status"),
            };
            let version = new.metadata.resource_version.take();
            let managed = new.metadata.managed_fields.take();
            new.metadata.clone_from(&old.metadata);
            new.metadata.resource_version = version;
            new.metadata.managed_fields = managed;
            return Ok(());
        }
        if self.form.has_status {
            match old.fields.get("status") {
                Some(status) => new.fields.insert("status".into(), status.clone()),
                None => new.fields.remove("status"),
            };
        }
        if content(new) != content(old) {
            new.metadata.generation = Some(old.metadata.generation.unwrap_or_default() + 1);
        }
        Ok(())
    }

    fn validate_create(&self, ctx: &RequestContext<'_>, object: &dyn Object) -> ApiResult<Errors> {
        Ok(self.validate(ctx, untyped(object)?, None))
    }

    fn validate_update(
        &self,
        ctx: &RequestContext<'_>,
        new: &dyn Object,
        old: &dyn Object,
    ) -> ApiResult<Errors> {
        Ok(self.validate(ctx, untyped(new)?, Some(untyped(old)?)))
    }

    fn warnings(&self, _object: &dyn Object, _old: Option<&dyn Object>) -> Vec<String> {
        Vec::new()
    }

    /// The fields of every version: one form of an object serves them all.
    fn selected(&self, json: &[u8]) -> Result<Selected, serde_json::Error> {
        let labels = selected::labels(json)?;
        let mut fields = Fields::new();
        if self.forms.iter().any(|form| !form.fields.is_empty()) {
            let value: Value = serde_json::from_slice(json)?;
            for (name, path) in self.forms.iter().flat_map(|form| &form.fields) {
                if !fields.iter().any(|(known, _)| known == name) {
                    let found = path.find(&value).first().map(|found| jsonpath::print(found));
                    fields.push((*name, found.unwrap_or_default()));
                }
            }
        }
        Ok(Selected { labels, fields })
    }

    fn columns(&self) -> &'static [Column] {
        &self.form.columns
    }

    fn cells(&self, object: &dyn Object, now: Timestamp) -> Vec<Value> {
        let Ok(object) = untyped(object) else {
            return Vec::new();
        };
        let value = object.to_value();
        let mut row = vec![cells::name(&object.metadata)];
        let columns = self.form.columns.iter().skip(1);
        row.extend(columns.zip(&self.form.paths).map(|(column, path)| {
            path.find(&value)
                .first()
                .map_or(Value::Null, |found| cell(column.kind, found, now))
        }));
        row
    }

    fn delete_grace(&self, _object: &dyn Object, _options: &DeleteOptions) -> Option<i64> {
        None
    }

    fn begin_delete(&self, _ctx: &RequestContext<'_>, _object: &mut dyn Object) -> ApiResult<()> {
        Ok(())
    }

    fn finalizing(&self, _object: &dyn Object) -> bool {
        false
    }

    fn row_conditions(&self, _object: &dyn Object) -> Vec<Value> {
        Vec::new()
    }

    fn metadata_has_defaults(&self) -> bool {
        false
    }

    fn allow_create_on_update(&self) -> bool {
        false
    }

    fn allow_unconditional_update(&self) -> bool {
        false
    }

    async fn begin_create(
        &self,
        _ctx: &RequestContext<'_>,
        _object: &mut dyn Object,
    ) -> ApiResult<Reservation> {
        Ok(Reservation::none())
    }

    async fn begin_update(
        &self,
        _ctx: &RequestContext<'_>,
        _new: &mut dyn Object,
        _old: &dyn Object,
    ) -> ApiResult<Reservation> {
        Ok(Reservation::none())
    }

    async fn after_update(&self, _ctx: &RequestContext<'_>, _new: &dyn Object, _old: &dyn Object) {}

    async fn after_delete(&self, _ctx: &RequestContext<'_>, _object: &dyn Object) {}

    fn ownership(&self, version: &str) -> Option<&dyn Ownership> {
        let (group, version) = split_api_version(version);
        if group != self.form.info.group {
            return None;
        }
        if version == self.form.info.version {
            return Some(self);
        }
        self.other(version).map(|root| root as &dyn Ownership)
    }

    fn reset_fields(&self, subresource: &str) -> &'static [&'static [&'static str]] {
        match subresource {
            "status" => &[&["spec"], &["metadata"]],
            _ if self.form.has_status => &[&["status"]],
            _ => &[],
        }
    }

    fn handler(&self, subresource: &str) -> Option<Arc<dyn Subresource>> {
        match (subresource, &self.form.scale) {
            ("scale", Some(_)) => Some(Arc::new(CustomScale { form: self.form })),
            _ => None,
        }
    }
}

/// A value in a column of this type; what does not fit is shown empty.
fn cell(kind: &str, value: &Value, now: Timestamp) -> Value {
    match kind {
        "string" => match value {
            Value::Null => Value::Null,
            value => jsonpath::print(value).into(),
        },
        "integer" => match value {
            Value::Number(number) if number.is_f64() => number
                .as_f64()
                .map(|n| Value::from(n.trunc() as i64))
                .unwrap_or_default(),
            Value::Number(_) => value.clone(),
            _ => Value::Null,
        },
        "number" => match value {
            Value::Number(_) => value.clone(),
            _ => Value::Null,
        },
        "boolean" => match value {
            Value::Bool(_) => value.clone(),
            _ => Value::Null,
        },
        "date" => match value {
            Value::String(text) => text.parse::<Timestamp>().map_or_else(
                |_| "<invalid>".into(),
                |time| cells::since(Some(&Time(time)), now).into(),
            ),
            _ => Value::Null,
        },
        _ => Value::Null,
    }
}
