//! Which entries a caller wants: a namespace, a name, labels, fields.

use keelson_api::selector::{FieldSelector, LabelSelector};
use keelson_api::status::{ApiError, ApiResult};

use super::entry::Entry;
use crate::registry::info::{Alias, ResourceInfo};

/// A filter over one resource.
#[derive(Debug, Default)]
pub struct Filter {
    /// What keys begin with: `default/`, or nothing for all namespaces.
    scope: String,
    /// The only name wanted, if there is one.
    name: Option<String>,
    labels: LabelSelector,
    fields: FieldSelector,
}

impl Filter {
    /// Everything in a namespace; empty for all.
    pub fn namespace(namespace: &str) -> Self {
        let scope = if namespace.is_empty() {
            String::new()
        } else {
            format!("{namespace}/")
        };
        Self {
            scope,
            ..Self::default()
        }
    }

    /// What a request asks for, under an alias or the kind's own name. Selectors that cannot be read or name fields
    /// the kind does not offer answer 400.
    pub fn parse(
        info: &ResourceInfo,
        alias: Option<&Alias>,
        namespace: &str,
        name: Option<&str>,
        label_selector: &str,
        field_selector: &str,
    ) -> ApiResult<Self> {
        let labels: LabelSelector = label_selector
            .parse()
            .map_err(|e| ApiError::bad_request(format!("unable to parse requirement: {e}")))?;
        let fields: FieldSelector = field_selector
            .parse()
            .map_err(|e| ApiError::bad_request(format!("{e}")))?;
        let mut requirements = fields.requirements().to_vec();
        for requirement in &mut requirements {
            let Some(stored) = stored_name(info, alias, &requirement.field) else {
                return Err(ApiError::bad_request(format!(
                    "Unable to find \"{}\" that match label selector \"{label_selector}\", field selector \
                     \"{field_selector}\": field label not supported: {}",
                    gvr(info, alias),
                    requirement.field,
                )));
            };
            if stored != requirement.field {
                requirement.field = stored.to_owned();
            }
        }
        let fields = FieldSelector::of(requirements);
        let mut filter = Self::namespace(namespace);
        // A namespace named by the selector narrows the scan as one in the path does.
        if info.namespaced()
            && namespace.is_empty()
            && let Some(only) = fields.exact_value("metadata.namespace")
        {
            filter.scope = format!("{only}/");
        }
        filter.name = name.map(str::to_owned);
        filter.labels = labels;
        filter.fields = fields;
        Ok(filter)
    }

    /// The same filter without its selectors: for objects that are yet to be converted.
    pub fn without_selectors(&self) -> Self {
        Self {
            scope: self.scope.clone(),
            name: self.name.clone(),
            ..Self::default()
        }
    }

    /// What keys begin with.
    pub fn scope(&self) -> &str {
        &self.scope
    }

    /// Whether nothing but the scope is asked for: then what remains of a list can be counted.
    pub fn only_scope(&self) -> bool {
        self.name.is_none() && self.labels.is_everything() && self.fields.is_everything()
    }

    /// Whether the entry is wanted.
    pub fn matches(&self, entry: &Entry) -> bool {
        entry.key.starts_with(self.scope.as_str())
            && self.name.as_deref().is_none_or(|name| name == entry.name())
            && self.fields.matches_with(|field| Some(entry.field(field)))
            && self.labels.matches_with(|label| entry.label(label))
    }
}

/// What a field of a selector is called in the stored form, if it can be selected by.
fn stored_name<'a>(info: &ResourceInfo, alias: Option<&Alias>, field: &'a str) -> Option<&'a str> {
    if matches!(field, "metadata.name" | "metadata.namespace") {
        return Some(field);
    }
    match alias.map(|alias| alias.field_names) {
        None | Some([]) => info.selectable_fields.contains(&field).then_some(field),
        Some(names) => names
            .iter()
            .find(|(served, _)| *served == field)
            .map(|(_, stored)| *stored),
    }
}

fn gvr(info: &ResourceInfo, alias: Option<&Alias>) -> String {
    let (group, version) = alias.map_or((info.group, info.version), |a| (a.group, a.version));
    format!("{group}/{version}, Resource={}", info.plural)
}
