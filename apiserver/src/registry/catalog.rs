//! Finds the resource a request means.

use std::collections::HashMap;
use std::sync::Arc;

use keelson_api::object::Kind;
use serde_json::Value;

use super::info::{Alias, ResourceInfo, group_version};
use super::strategy::ErasedStrategy;
use crate::storage::cache::ResourceCache;

/// A resource as one group version serves it.
#[derive(Clone)]
pub struct Served {
    /// The resource's objects.
    pub cache: Arc<ResourceCache>,
    /// Set when the form served is not the stored one.
    pub alias: Option<&'static Alias>,
}

impl Served {
    /// The resource.
    pub fn info(&self) -> &'static ResourceInfo {
        self.cache.info()
    }

    /// What is known about its kind.
    pub fn strategy(&self) -> &Arc<dyn ErasedStrategy> {
        self.cache.strategy()
    }

    /// Group served.
    pub fn group(&self) -> &'static str {
        self.alias.map_or(self.info().group, |a| a.group)
    }

    /// Version served.
    pub fn version(&self) -> &'static str {
        self.alias.map_or(self.info().version, |a| a.version)
    }

    /// `apiVersion` of objects served.
    pub fn api_version(&self) -> String {
        group_version(self.group(), self.version())
    }

    /// From the served form to the stored one.
    pub fn to_storage(&self, object: &mut Value) -> keelson_api::status::ApiResult<()> {
        if let Some(alias) = self.alias {
            (alias.to_storage)(object)?;
            object["apiVersion"] = self.info().api_version().into();
            object["kind"] = self.info().kind.into();
        }
        Ok(())
    }

    /// From the stored form to the served one.
    pub fn from_storage(&self, object: &mut Value) {
        if let Some(alias) = self.alias {
            (alias.from_storage)(object);
            object["apiVersion"] = self.api_version().into();
        }
    }
}

/// Every resource, by how it is asked for.
pub struct Catalog {
    caches: Vec<Arc<ResourceCache>>,
    /// By plural, then by group and version: a look-up with borrowed parts of a request has no static key.
    served: HashMap<&'static str, Vec<Served>>,
    by_kind: HashMap<(&'static str, &'static str), Arc<ResourceCache>>,
}

impl Catalog {
    /// A catalog of these resources.
    pub fn new(strategies: Vec<Arc<dyn ErasedStrategy>>) -> Self {
        let caches: Vec<_> = strategies
            .into_iter()
            .map(|s| Arc::new(ResourceCache::new(s)))
            .collect();
        let (mut served, mut by_kind) = (HashMap::<_, Vec<Served>>::new(), HashMap::new());
        for cache in &caches {
            let info = cache.info();
            by_kind.insert((info.group, info.kind), cache.clone());
            let forms = served.entry(info.plural).or_default();
            forms.push(Served {
                cache: cache.clone(),
                alias: None,
            });
            forms.extend(info.aliases.iter().map(|alias| Served {
                cache: cache.clone(),
                alias: Some(alias),
            }));
        }
        Self {
            caches,
            served,
            by_kind,
        }
    }

    /// Every resource once.
    pub fn caches(&self) -> &[Arc<ResourceCache>] {
        &self.caches
    }

    /// Every resource in every form it is served in.
    pub fn served(&self) -> impl Iterator<Item = &Served> {
        self.served.values().flatten()
    }

    /// The resource of that name in that group version.
    pub fn find(&self, group: &str, version: &str, plural: &str) -> Option<&Served> {
        self.served
            .get(plural)?
            .iter()
            .find(|s| s.group() == group && s.version() == version)
    }

    /// The resource whose objects are `K`s in the store.
    pub fn of<K: Kind>(&self) -> Option<&Arc<ResourceCache>> {
        self.by_kind.get(&(K::GROUP, K::KIND))
    }
}
