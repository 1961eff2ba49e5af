//! Which entries a caller wants: a namespace, a name, labels, fields.

use keelson_api::selector::{FieldSelector, LabelSelector};
use keelson_api::status::{ApiError, ApiResult};

use super::entry::Entry;
use crate::registry::info::{Alias, OtherFields, ResourceInfo};

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
            .map_err(|e| ApiError::bad_request(format!("{e}")))?;
        let fields: FieldSelector = field_selector
            .parse()
            .map_err(|e| ApiError::bad_request(format!("{e}")))?;
        let mut requirements = fields.requirements().to_vec();
        for requirement in &mut requirements {
            let Some(stored) = stored_name(info, alias, &requirement.field) else {
                let served = alias.map_or((info.group, info.version), |a| (a.group, a.version));
                return Err(ApiError::bad_request(
                    info.refusal_of_field(served, &requirement.field),
                ));
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
    match field {
        "metadata.name" => return Some(field),
        "metadata.namespace" if info.namespaced() || info.other_fields == OtherFields::NotKnown => {
            return Some(field);
        }
        _ => {}
    }
    match alias.map(|alias| alias.field_names) {
        None | Some([]) => info.selectable_fields.contains(&field).then_some(field),
        Some(names) => names
            .iter()
            .find(|(served, _)| *served == field)
            .map(|(_, stored)| *stored),
    }
}

#[cfg(test)]
mod tests {
    use keelson_api::k8s::api::batch::v1::CronJob;
    use keelson_api::k8s::api::core::v1::{ConfigMap, Node, Pod};
    use keelson_api::k8s::api::rbac::v1::ClusterRole;
    use keelson_api::k8s::api::resource::v1::ResourceSlice;

    use super::*;
    use crate::registry;
    use crate::registry::catalog::Catalog;

    #[test]
    fn kinds_refuse_other_fields_in_their_own_words() {
        let catalog = Catalog::new(registry::all());
        let config_maps = catalog.of::<ConfigMap>();
        for (cache, fields, labels, refusal) in [
            (
                config_maps,
                "spec.x=a",
                "",
                "\"spec.x\" is not a known field selector: only \"metadata.name\", \"metadata.namespace\"",
            ),
            (catalog.of::<ClusterRole>(), "metadata.namespace=a", "", ""),
            (
                catalog.of::<Pod>(),
                "spec.x=a",
                "",
                "field label not supported: spec.x",
            ),
            (
                catalog.of::<Node>(),
                "metadata.namespace=a",
                "",
                "field label not supported: metadata.namespace",
            ),
            (
                catalog.of::<CronJob>(),
                "spec.x=a",
                "",
                "field label \"spec.x\" not supported for \"CronJob\"",
            ),
            (
                catalog.of::<ResourceSlice>(),
                "spec.x=a",
                "",
                "field label not supported for resource.k8s.io/v1, Kind=ResourceSlice: spec.x",
            ),
            (
                config_maps,
                "",
                "a in b",
                "unable to parse requirement: found 'b', expected: '('",
            ),
        ] {
            let info = cache.expect("a cache").info();
            let refused = Filter::parse(info, None, "", None, labels, fields).err();
            let message = refused.map(|error| error.message().to_owned());
            assert_eq!(message.unwrap_or_default(), refusal, "{fields} {labels}");
        }
    }
}
