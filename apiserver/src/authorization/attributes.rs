//! What somebody wants to do, as authorizers see it.

/// One thing somebody wants to do.
#[derive(Debug, Clone, Copy)]
pub struct Attributes<'a> {
    /// `get`, `list`, ..., or the lower-case HTTP method for paths.
    pub verb: &'a str,
    /// What it is done to.
    pub target: Target<'a>,
    /// Which part of a collection it is done to.
    pub selectors: Selectors<'a>,
}

/// What something is done to.
#[derive(Debug, Clone, Copy)]
pub enum Target<'a> {
    /// A resource.
    Resource {
        /// API group.
        group: &'a str,
        /// Version; authorization does not look at it, but webhooks and audit logs are told.
        version: &'a str,
        /// Plural.
        resource: &'a str,
        /// Empty for the resource itself.
        subresource: &'a str,
        /// Empty: cluster scope or all namespaces. A namespace is in itself.
        namespace: &'a str,
        /// Empty for collections.
        name: &'a str,
    },
    /// A path outside of the resources.
    Path(&'a str),
}

/// The selectors of a list, a watch or the deletion of a collection, as they were sent.
#[derive(Debug, Clone, Copy, Default)]
pub struct Selectors<'a> {
    /// `app=web`.
    pub label: &'a str,
    /// `spec.nodeName=n1`.
    pub field: &'a str,
}

impl<'a> Selectors<'a> {
    /// The one value a field may have, if the selector says so.
    pub fn exact_field(&self, field: &str) -> Option<&'a str> {
        let text = self.field;
        text.split(',').find_map(|part| {
            let value = part.trim().strip_prefix(field)?.strip_prefix('=')?;
            let value = value.strip_prefix('=').unwrap_or(value);
            (!value.contains('\\')).then_some(value)
        })
    }
}

/// The parts of a resource, to be named when attributes are made.
#[derive(Debug, Clone, Copy, Default)]
pub struct Resource<'a> {
    /// API group.
    pub group: &'a str,
    /// Version.
    pub version: &'a str,
    /// Plural.
    pub resource: &'a str,
    /// Empty for the resource itself.
    pub subresource: &'a str,
    /// Empty: cluster scope or all namespaces.
    pub namespace: &'a str,
    /// Empty for collections.
    pub name: &'a str,
}

impl<'a> Attributes<'a> {
    /// Something done to a resource.
    pub fn resource(verb: &'a str, target: Resource<'a>) -> Self {
        let of_namespace =
            target.group.is_empty() && target.resource == "namespaces" && target.namespace.is_empty();
        Self {
            verb,
            target: Target::Resource {
                group: target.group,
                version: target.version,
                resource: target.resource,
                subresource: target.subresource,
                // A role in a namespace may let somebody read that namespace.
                namespace: if of_namespace {
                    target.name
                } else {
                    target.namespace
                },
                name: target.name,
            },
            selectors: Selectors::default(),
        }
    }

    /// Something done to a path that is no resource.
    pub fn path(verb: &'a str, path: &'a str) -> Self {
        Self {
            verb,
            target: Target::Path(path),
            selectors: Selectors::default(),
        }
    }

    /// The same with selectors. One that names a single object makes it the request's name.
    pub fn selecting(mut self, selectors: Selectors<'a>) -> Self {
        self.selectors = selectors;
        if let Target::Resource { name, .. } = &mut self.target
            && name.is_empty()
            && matches!(self.verb, "list" | "watch" | "deletecollection")
            && let Some(only) = selectors.exact_field("metadata.name")
        {
            *name = only;
        }
        self
    }

    /// The namespace, empty for paths and cluster scope.
    pub fn namespace(&self) -> &'a str {
        match self.target {
            Target::Resource { namespace, .. } => namespace,
            Target::Path(_) => "",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selectors_that_name_one_object_and_namespaces_that_contain_themselves() {
        let secrets = Resource {
            resource: "secrets",
            namespace: "a",
            ..Resource::default()
        };
        let selectors = Selectors {
            label: "",
            field: "type!=x,metadata.name==s",
        };
        let listed = Attributes::resource("watch", secrets).selecting(selectors);
        assert!(matches!(listed.target, Target::Resource { name: "s", .. }));
        let created = Attributes::resource("create", secrets).selecting(selectors);
        assert!(matches!(created.target, Target::Resource { name: "", .. }));
        assert_eq!(selectors.exact_field("type"), None);
        let namespace = Resource {
            resource: "namespaces",
            name: "a",
            ..Resource::default()
        };
        assert_eq!(Attributes::resource("get", namespace).namespace(), "a");
    }
}
