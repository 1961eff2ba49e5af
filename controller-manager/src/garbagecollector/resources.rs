//! Which resources there are to watch.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use keelson_api::names::{Gvr, split_api_version};
use keelson_client::Discovery;

/// A resource whose objects can own and be owned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resource {
    /// Group, version and plural name.
    pub gvr: Gvr,
    /// The kind of its objects.
    pub kind: String,
    /// Whether its objects live in namespaces.
    pub namespaced: bool,
}

/// Resources by group and kind.
#[derive(Debug, Default)]
pub struct Resources {
    by_kind: HashMap<(String, String), Arc<Resource>>,
    /// Group versions of which nobody can say at the moment what they are.
    stale: HashSet<String>,
}

impl Resources {
    /// From what the server says it serves: what can be listed, watched and deleted, each in one version.
    #[must_use]
    pub fn new(discovered: Discovery) -> Self {
        let mut by_kind = HashMap::new();
        for found in discovered.resources {
            let can = |verb: &str| found.verbs.iter().any(|own| own == verb);
            // What the group `extensions` serves are the objects of other groups under old names; events are many,
            // own nothing, and go by themselves.
            if found.group == "extensions"
                || found.plural.contains('/')
                || found.plural == "events"
                || !(can("list") && can("watch") && can("delete"))
            {
                continue;
            }
            let resource = Resource {
                gvr: Gvr::new(found.group.clone(), found.version, found.plural),
                kind: found.kind.clone(),
                namespaced: found.namespaced,
            };
            by_kind
                .entry((found.group, found.kind))
                .or_insert_with(|| Arc::new(resource));
        }
        Self {
            by_kind,
            stale: discovered.stale.into_iter().collect(),
        }
    }

    /// The resource of an owner, whatever version the reference names.
    #[must_use]
    pub fn of_owner(&self, owner: &OwnerReference) -> Option<Arc<Resource>> {
        let (group, _) = split_api_version(&owner.api_version);
        self.of_kind(group, &owner.kind)
    }

    /// The resource of a kind.
    #[must_use]
    pub fn of_kind(&self, group: &str, kind: &str) -> Option<Arc<Resource>> {
        self.by_kind.get(&(group.to_owned(), kind.to_owned())).cloned()
    }

    /// Whether a resource is served for all anybody knows: it is, or its server does not answer.
    #[must_use]
    pub fn may_have(&self, gvr: &Gvr) -> bool {
        self.all().any(|resource| resource.gvr == *gvr)
            || self.stale.contains(&format!("{}/{}", gvr.group, gvr.version))
    }

    /// Every resource.
    pub fn all(&self) -> impl Iterator<Item = &Arc<Resource>> {
        self.by_kind.values()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use keelson_client::ApiResource;

    #[test]
    fn what_cannot_be_watched_is_left_out() {
        let found = |group: &str, kind: &str, plural: &str, verbs: &[&str]| ApiResource {
            group: group.into(),
            version: "v1".into(),
            kind: kind.into(),
            plural: plural.into(),
            namespaced: true,
            verbs: verbs.iter().map(|verb| (*verb).to_owned()).collect(),
        };
        let all = ["list", "watch", "delete"];
        let resources = Resources::new(Discovery {
            resources: vec![
                found("apps", "Deployment", "deployments", &all),
                found("", "Event", "events", &all),
                found("", "Binding", "bindings", &["create"]),
            ],
            stale: vec!["example.com/v1".to_owned()],
        });
        assert_eq!(resources.all().count(), 1);
        let may_have = |group: &str, version: &str, plural: &str| {
            resources.may_have(&Gvr::new(group.to_owned(), version.to_owned(), plural.to_owned()))
        };
        assert!(may_have("apps", "v1", "deployments") && may_have("example.com", "v1", "things"));
        assert!(!may_have("apps", "v2", "deployments") && !may_have("example.com", "v2", "things"));
        let owner = OwnerReference {
            api_version: "apps/v1beta2".into(),
            kind: "Deployment".into(),
            ..OwnerReference::default()
        };
        assert_eq!(
            resources
                .of_owner(&owner)
                .map(|found| found.gvr.to_string())
                .as_deref(),
            Some("apps/v1, Resource=deployments")
        );
    }
}
