//! Who manages which fields of what is written: `metadata.managedFields`.
//!
//! Worked out once a write, after defaults and before admission: what admission and the server itself put into an object
//! is nobody's. Source: KEP-555.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ManagedFieldsEntry, ObjectMeta};
use keelson_api::apply::{self, Deduced, FieldSet, Managed, Manager, Operation, Schema, Tree, View};
use keelson_api::names::split_api_version;
use keelson_api::object::Object;
use keelson_api::schema;
use keelson_api::status::{ApiError, ApiResult};
use serde_json::Value;

use super::Call;
use super::update::Extent;
use crate::custom::conversion::Converter;
use crate::registry::extensions;
use crate::registry::info::Alias;
use crate::registry::strategy::Warnings;

/// Bytes a manager's name may have.
const MAX_NAME: usize = 128;

/// Whose a write is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Tracking {
    /// Nobody's: the managed fields of the object stay what they are in it.
    #[default]
    AsGiven,
    /// That of the manager in the request's options.
    Manager,
    /// The same, through a subresource that is carried out as a change of the object itself.
    Through(&'static str),
}

/// The manager of a request that names none: the program that makes it, from `User-Agent`.
pub fn from_user_agent(agent: &str) -> String {
    let program = agent.split('/').next().unwrap_or_default();
    let mut name = String::new();
    for c in program.chars().filter(|c| !c.is_control()) {
        if name.len() + c.len_utf8() > MAX_NAME {
            break;
        }
        name.push(c);
    }
    name
}

/// The manager a call writes for.
pub fn of_call(call: &Call<'_>, operation: Operation) -> Manager {
    Manager {
        name: call.options.field_manager.clone(),
        operation,
        version: call.served.api_version(),
        subresource: match call.options.tracking {
            Tracking::Through(subresource) => subresource.to_owned(),
            _ => call.subresource.to_owned(),
        },
    }
}

/// Fields that the kind sets back when it is written this way.
pub fn reset_fields(call: &Call<'_>) -> FieldSet {
    FieldSet::of_fields(call.strategy().reset_fields(call.subresource))
}

/// Notes who made a new object.
pub fn created(call: &Call<'_>, object: &mut dyn Object) -> ApiResult<()> {
    if call.options.tracking == Tracking::AsGiven {
        return Ok(());
    }
    let given = object.meta_mut().managed_fields.take();
    let managed = given
        .filter(|entries| !is_reset(entries))
        .and_then(|entries| Managed::read(&entries).ok())
        .unwrap_or_default();
    track(call, object, None, Extent::Whole, managed);
    Ok(())
}

/// Notes who changed an object. A client may write the managed fields, too: forget them all, or change what others are
/// said to manage. What cannot be read is as if it had not been written.
pub fn changed(call: &Call<'_>, new: &mut dyn Object, old: &dyn Object, extent: Extent) {
    if call.options.tracking == Tracking::AsGiven {
        return;
    }
    let given = new.meta_mut().managed_fields.take();
    let before = &old.meta().managed_fields;
    let managed = match given {
        // As it was read: nothing in it has to be looked at.
        Some(given) if before.as_ref() == Some(&given) => Managed::stored(given),
        None => stored(before),
        // Through a subresource nobody else's fields are changed.
        Some(_) if !call.subresource.is_empty() => stored(before),
        Some(given) if is_reset(&given) => Managed::default(),
        Some(given) => match Managed::read(&given) {
            Ok(managed) if !managed.is_empty() => managed,
            _ => stored(before),
        },
    };
    track(call, new, Some(old), extent, managed);
}

fn track(
    call: &Call<'_>,
    new: &mut dyn Object,
    old: Option<&dyn Object>,
    extent: Extent,
    mut managed: Managed,
) {
    match update(call, new, old, extent, &mut managed) {
        Ok(()) => new.meta_mut().managed_fields = managed.into_entries(),
        Err(error) => {
            let (kind, name) = (call.info().kind, new.name());
            tracing::warn!(
                kind,
                name,
                error = error.message(),
                "managed fields stay as they were"
            );
            new.meta_mut().managed_fields = old.and_then(|old| old.meta().managed_fields.clone());
        }
    }
}

/// Puts back what somebody who changed the object on its way made unreadable, and says so.
pub fn restore(warnings: &Warnings, new: &mut ObjectMeta, before: Option<Vec<ManagedFieldsEntry>>) {
    if new.managed_fields == before {
        return;
    }
    if let Some(Err(why)) = new.managed_fields.as_deref().map(Managed::read) {
        warnings.add(format!(
            ".metadata.managedFields was in an invalid state after admission; this could be caused by an outdated \
             mutating admission controller; please fix your requests: {why}"
        ));
        new.managed_fields = before;
    }
}

/// Whether managed fields differ in nothing but when they were written.
pub fn differ_in_time_alone(a: &[ManagedFieldsEntry], b: &[ManagedFieldsEntry]) -> bool {
    let alike = |a: &ManagedFieldsEntry, b: &ManagedFieldsEntry| {
        (&a.manager, &a.operation, &a.api_version, &a.subresource)
            == (&b.manager, &b.operation, &b.api_version, &b.subresource)
            && (&a.fields_type, &a.fields_v1) == (&b.fields_type, &b.fields_v1)
    };
    a != b && a.len() == b.len() && a.iter().zip(b).all(|(a, b)| alike(a, b))
}

/// An object's managed fields as the store has them.
pub fn stored(entries: &Option<Vec<ManagedFieldsEntry>>) -> Managed {
    Managed::stored(entries.clone().unwrap_or_default())
}

/// Whether a client wants nobody to manage anything: an empty list, or one empty entry.
fn is_reset(entries: &[ManagedFieldsEntry]) -> bool {
    match entries {
        [] => true,
        [only] => *only == ManagedFieldsEntry::default(),
        _ => false,
    }
}

fn update(
    call: &Call<'_>,
    new: &dyn Object,
    old: Option<&dyn Object>,
    extent: Extent,
    managed: &mut Managed,
) -> ApiResult<()> {
    if managed.is_empty() && old.is_some() {
        return Ok(());
    }
    let manager = of_call(call, Operation::Update);
    let reset = reset_fields(call);
    let forms = Forms { call, extent };
    let own = forms.view(&manager.version, new, old, &reset)?;
    let now = call.now;
    apply::update(managed, manager, now, &own, &mut |version| {
        forms.place(version)?;
        Some(
            forms
                .view(version, new, old, &reset)
                .map_err(|e| e.message().to_owned()),
        )
    })
    .map_err(ApiError::internal)
}

/// A kind's objects in the versions it is served in.
pub struct Forms<'c, 'a> {
    call: &'c Call<'a>,
    /// How much of them is looked at where they are compared.
    extent: Extent,
}

impl<'c, 'a> Forms<'c, 'a> {
    /// The versions of the call's resource.
    pub fn new(call: &'c Call<'a>) -> Self {
        Self {
            call,
            extent: Extent::Whole,
        }
    }

    /// What has to be known of a version; `None` when the resource is not served in it.
    pub fn place(&self, version: &str) -> Option<&'c dyn Schema> {
        match self.call.served.definition() {
            Some(definition) if self.is_storage(version) => Some(definition),
            _ => self.call.strategy().ownership(version),
        }
    }

    fn view(
        &self,
        version: &str,
        new: &dyn Object,
        old: Option<&dyn Object>,
        reset: &'c FieldSet,
    ) -> ApiResult<View<'c>> {
        Ok(View {
            schema: self.place(version).unwrap_or(&Deduced),
            old: old.map(|old| self.tree(version, old)).transpose()?,
            new: self.tree(version, new)?,
            reset,
            shapes: Some(&self.call.server.shapes),
        })
    }

    /// An object of the handlers' version as that version has it.
    fn tree(&self, version: &str, object: &dyn Object) -> ApiResult<Tree> {
        if self.is_storage(version) {
            return match self.extent {
                Extent::Whole => object.tree(),
                Extent::Metadata => object.tree_of_metadata(),
            };
        }
        let mut value = object.to_value()?;
        match self.call.served.converter() {
            Some(converter) => value = self.ask(converter, value, version)?,
            None => self.serve_as(&mut value, version)?,
        }
        Tree::of_object(&value).map_err(ApiError::internal)
    }

    fn is_storage(&self, version: &str) -> bool {
        let info = self.call.info();
        split_api_version(version) == (info.group, info.version)
    }

    /// The version, if it is another than the stored one.
    fn alias(&self, version: &str) -> Option<&'static Alias> {
        let (group, name) = split_api_version(version);
        let mut aliases = self.call.info().aliases.iter();
        aliases.find(|alias| (alias.group, alias.version) == (group, name))
    }

    /// Asks the webhook of the definition. What works out who manages what is not written to wait, and seldom has to:
    /// only where one object is managed in several versions.
    fn ask(&self, converter: &Converter, object: Value, version: &str) -> ApiResult<Value> {
        let asked = converter.convert(self.call.server, vec![object], version);
        let answer = tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(asked))?;
        answer
            .into_iter()
            .next()
            .ok_or_else(|| ApiError::internal("an object got lost while it was converted"))
    }

    fn serve_as(&self, value: &mut Value, version: &str) -> ApiResult<()> {
        if let Some(alias) = self.alias(version) {
            (alias.from_storage)(value);
            value["apiVersion"] = version.into();
        }
        Ok(())
    }

    fn store_from(&self, value: &mut Value, version: &str) -> ApiResult<()> {
        if let Some(alias) = self.alias(version) {
            (alias.to_storage)(value)?;
            value["apiVersion"] = self.call.info().api_version().into();
        }
        Ok(())
    }
}

impl apply::Converter for Forms<'_, '_> {
    fn schema(&self, version: &str) -> Option<&dyn Schema> {
        self.place(version)
    }

    fn convert(&self, object: &Value, from: &str, to: &str) -> Option<Result<Value, String>> {
        self.place(from)?;
        self.place(to)?;
        let mut value = object.clone();
        if let Some(converter) = self.call.served.converter() {
            value["apiVersion"] = from.into();
            value["kind"] = self.call.info().kind.into();
            let converted = self.ask(converter, value, to);
            return Some(converted.map_err(|error| error.message().to_owned()));
        }
        let converted = self
            .store_from(&mut value, from)
            .and_then(|()| self.serve_as(&mut value, to));
        Some(converted.map(|()| value).map_err(|e| e.message().to_owned()))
    }
}

/// What the table of types says of a built-in kind in a version it is served in.
pub fn built_in(info: &crate::registry::info::ResourceInfo, version: &str) -> Option<&'static dyn Schema> {
    let (group, name) = split_api_version(version);
    let own = (info.group, info.version) == (group, name);
    let mut aliases = info.aliases.iter();
    if !own && !aliases.any(|alias| (alias.group, alias.version) == (group, name)) {
        return None;
    }
    let today = || schema::by_kind(info.group, info.version, info.kind);
    Some(match schema::by_kind(group, name, info.kind) {
        Some(definition) => definition,
        // A version of old that the table does not have.
        None if extensions::OTHER_SHAPES.contains(&info.kind) => &Deduced,
        None => today().map_or(&Deduced as &dyn Schema, |definition| definition),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_word_of_the_program_is_the_manager() {
        assert_eq!(
            from_user_agent("kubectl/v1.30.0 (linux/amd64) kubernetes/abc"),
            "kubectl"
        );
        assert_eq!(from_user_agent("Mozilla\u{7} 5.0"), "Mozilla 5.0");
        assert_eq!(from_user_agent(""), "");
        assert_eq!(from_user_agent(&"x".repeat(200)).len(), MAX_NAME);
        assert_eq!(from_user_agent(&"é".repeat(200)).len(), MAX_NAME);
    }

    #[test]
    fn times_alone_are_no_difference() {
        let entry = |manager: &str, time: &str| ManagedFieldsEntry {
            manager: Some(manager.to_owned()),
            time: serde_json::from_value(time.into()).ok(),
            ..ManagedFieldsEntry::default()
        };
        let (old, new) = (
            entry("m", "2024-01-01T00:00:00Z"),
            entry("m", "2024-01-01T00:00:01Z"),
        );
        assert!(differ_in_time_alone(
            std::slice::from_ref(&old),
            std::slice::from_ref(&new)
        ));
        assert!(!differ_in_time_alone(
            std::slice::from_ref(&old),
            std::slice::from_ref(&old)
        ));
        assert!(!differ_in_time_alone(
            &[entry("n", "2024-01-01T00:00:00Z")],
            &[new]
        ));
    }

    #[test]
    fn what_admission_broke_is_put_back() {
        let good = ManagedFieldsEntry {
            manager: Some("m".to_owned()),
            operation: Some("Update".to_owned()),
            api_version: Some("v1".to_owned()),
            fields_type: Some("FieldsV1".to_owned()),
            ..ManagedFieldsEntry::default()
        };
        let broken = ManagedFieldsEntry {
            operation: Some("Nonsense".to_owned()),
            ..good.clone()
        };
        let mut meta = ObjectMeta {
            managed_fields: Some(vec![broken]),
            ..ObjectMeta::default()
        };
        let warnings = Warnings::default();
        restore(&warnings, &mut meta, Some(vec![good.clone()]));
        assert_eq!(meta.managed_fields, Some(vec![good]));
        assert!(
            warnings.all()[0].starts_with(".metadata.managedFields was in an invalid state after admission")
        );
    }

    #[test]
    fn one_empty_entry_or_none_forgets_everybody() {
        assert!(is_reset(&[]) && is_reset(&[ManagedFieldsEntry::default()]));
        let named = ManagedFieldsEntry {
            manager: Some("m".to_owned()),
            ..ManagedFieldsEntry::default()
        };
        assert!(!is_reset(&[named]));
    }
}
