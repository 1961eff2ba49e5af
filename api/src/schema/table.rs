//! Reads the table of types.

use std::collections::HashMap;

use super::{Definition, Field, Shape, Type, TypeId};

/// What a type's name in the table is short for. The empty prefix comes last: it fits everything.
const PREFIXES: [(&str, &str); 4] = [
    ("^", "io.k8s.apimachinery.pkg."),
    ("&", "io.k8s.apiextensions-apiserver.pkg.apis."),
    ("%", "io.k8s.kube-aggregator.pkg.apis."),
    ("", "io.k8s.api."),
];

/// Moments without which there is no typed object.
const MOMENTS: [(&str, &str); 2] = [
    ("^apis.meta.v1.Condition", "lastTransitionTime"),
    ("events.v1.EventSeries", "lastObservedTime"),
];

/// The table in memory: definitions by name, kinds by group, kind and version.
pub(super) struct Table {
    pub(super) definitions: Box<[Definition]>,
    kinds: Box<[(&'static str, &'static str, &'static str, TypeId)]>,
}

impl Table {
    pub(super) fn read(text: &'static str) -> Self {
        let lines = || text.lines().filter(|line| !line.starts_with('#'));
        let mut names: Vec<&'static str> = lines().filter_map(definition_name).collect();
        names.sort_unstable();
        let ids: HashMap<&'static str, TypeId> = names
            .iter()
            .enumerate()
            .map(|(i, name)| (*name, TypeId(u16::try_from(i).unwrap_or(u16::MAX))))
            .collect();

        let mut definitions: Vec<Definition> = Vec::with_capacity(names.len());
        let mut fields: Vec<Field> = Vec::new();
        let close = |definitions: &mut Vec<Definition>, fields: &mut Vec<Field>| {
            if let Some(last) = definitions.last_mut() {
                fields.sort_unstable_by_key(|field| field.name);
                last.fields = std::mem::take(fields).into_boxed_slice();
            }
        };
        for line in lines() {
            let mut columns = line.split('\t');
            let first = columns.next().unwrap_or_default();
            let (second, attributes) = (
                columns.next().unwrap_or_default(),
                columns.next().unwrap_or_default(),
            );
            if let Some(name) = first.strip_prefix('=') {
                close(&mut definitions, &mut fields);
                definitions.push(Definition {
                    name,
                    shape: Shape::Fields,
                    attributes,
                    fields: Box::default(),
                    moment: None,
                });
            } else {
                fields.push(Field::new(first, read_type(second, &ids), attributes));
            }
        }
        close(&mut definitions, &mut fields);
        for definition in &mut definitions {
            definition.shape = shape(definition.name);
            definition.moment = MOMENTS
                .iter()
                .find(|(name, _)| *name == definition.name)
                .and_then(|(_, field)| definition.field_index(field));
        }
        definitions.sort_unstable_by_key(|definition| definition.name);

        let mut kinds: Vec<_> = definitions
            .iter()
            .filter_map(|definition| Some((definition, *ids.get(definition.name)?)))
            .flat_map(|(definition, id)| definition.kinds().map(move |(g, v, k)| (g, k, v, id)))
            .collect();
        kinds.sort_unstable_by_key(|&(group, kind, version, _)| (group, kind, version));
        Self {
            definitions: definitions.into_boxed_slice(),
            kinds: kinds.into_boxed_slice(),
        }
    }

    pub(super) fn by_name(&'static self, full_name: &str) -> Option<&'static Definition> {
        let (short, long) = PREFIXES.iter().find(|(_, long)| full_name.starts_with(long))?;
        let rest = &full_name[long.len()..];
        let index = self.definitions.binary_search_by(|one| {
            let name = one.name.bytes();
            name.cmp(short.bytes().chain(rest.bytes()))
        });
        index.ok().map(|index| &self.definitions[index])
    }

    pub(super) fn by_kind(
        &'static self,
        group: &str,
        version: &str,
        kind: &str,
    ) -> Option<&'static Definition> {
        // Options and events are of every group and version.
        let everywhere = match kind {
            "DeleteOptions" => self.by_name("io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions"),
            "WatchEvent" => self.by_name("io.k8s.apimachinery.pkg.apis.meta.v1.WatchEvent"),
            _ => None,
        };
        if everywhere.is_some() {
            return everywhere;
        }
        let found = self
            .kinds
            .binary_search_by(|&(g, k, v, _)| (g, k, v).cmp(&(group, kind, version)))
            .ok()?;
        Some(self.kinds[found].3.get())
    }
}

fn definition_name(line: &'static str) -> Option<&'static str> {
    line.strip_prefix('=')
        .map(|rest| rest.split('\t').next().unwrap_or(rest))
}

pub(super) fn full_name(name: &str) -> String {
    let (short, long) = PREFIXES
        .iter()
        .find(|(short, _)| name.starts_with(short))
        .copied()
        .unwrap_or_default();
    format!("{long}{}", &name[short.len()..])
}

fn read_type(text: &'static str, ids: &HashMap<&'static str, TypeId>) -> Type {
    if let Some(element) = text.strip_prefix("[]") {
        return Type::List(Box::new(read_type(element, ids)));
    }
    if let Some(element) = text.strip_prefix("{}") {
        return Type::Map(Box::new(read_type(element, ids)));
    }
    match text {
        "s" => Type::String,
        "i" => Type::Int32,
        "l" => Type::Int64,
        "b" => Type::Bool,
        "d" => Type::Double,
        "y" => Type::Bytes,
        _ => match text.strip_prefix('@').and_then(|name| ids.get(name)) {
            Some(id) => Type::Named(*id),
            None => Type::Object,
        },
    }
}

fn shape(name: &str) -> Shape {
    match name {
        "^api.resource.Quantity" => Shape::Quantity,
        "^apis.meta.v1.Time" | "^apis.meta.v1.MicroTime" => Shape::Time,
        "^util.intstr.IntOrString" => Shape::IntOrString,
        "^runtime.RawExtension"
        | "^apis.meta.v1.FieldsV1"
        | "^apis.meta.v1.Patch"
        | "&apiextensions.v1.JSON"
        | "&apiextensions.v1.JSONSchemaPropsOrArray"
        | "&apiextensions.v1.JSONSchemaPropsOrBool"
        | "&apiextensions.v1.JSONSchemaPropsOrStringArray" => Shape::Any,
        _ => Shape::Fields,
    }
}
