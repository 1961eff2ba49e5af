//! Finds the resource a request means.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use keelson_api::object::Kind;
use keelson_api::schema::Definition;
use serde_json::Value;

use super::info::{Alias, ResourceInfo, group_version};
use super::strategy::ErasedStrategy;
use crate::custom::CustomResources;
use crate::custom::conversion::Converter;
use crate::custom::strategy::CustomStrategy;
use crate::storage::cache::ResourceCache;

/// A resource as one group version serves it.
#[derive(Clone)]
pub struct Served {
    /// The resource's objects.
    pub cache: Arc<ResourceCache>,
    /// Set when the form served is not the stored one.
    pub alias: Option<&'static Alias>,
    /// Set for custom resources: each version has its own schema, columns and subresources.
    custom: Option<Arc<CustomStrategy>>,
}

impl Served {
    /// A built-in resource as it is stored.
    pub fn stored(cache: Arc<ResourceCache>) -> Self {
        Self {
            cache,
            alias: None,
            custom: None,
        }
    }

    /// One version of a custom resource.
    pub fn custom(cache: Arc<ResourceCache>, version: Arc<CustomStrategy>) -> Self {
        Self {
            cache,
            alias: None,
            custom: Some(version),
        }
    }

    /// What the table of types says of the resource as it is stored: of built-in ones only.
    pub fn definition(&self) -> Option<&'static Definition> {
        match self.custom {
            Some(_) => None,
            None => self.cache.definition(),
        }
    }

    /// The resource.
    pub fn info(&self) -> &'static ResourceInfo {
        self.strategy().info()
    }

    /// What is known about its kind.
    pub fn strategy(&self) -> &dyn ErasedStrategy {
        match &self.custom {
            Some(version) => version.as_ref(),
            None => self.cache.strategy().as_ref(),
        }
    }

    /// The version of a custom resource.
    pub fn custom_version(&self) -> Option<&Arc<CustomStrategy>> {
        self.custom.as_ref()
    }

    /// Whether what is served are the bytes the handlers have.
    pub fn as_stored(&self) -> bool {
        self.alias.is_none()
            && self.custom.as_ref().is_none_or(|version| {
                version.converter().is_some() || version.info().version == self.cache.info().version
            })
    }

    /// Whether these bytes can be shown as they are. A definition may change the version it stores while somebody watches.
    pub fn shows(&self, object: &[u8]) -> bool {
        self.as_stored()
            && self
                .custom
                .as_ref()
                .is_none_or(|version| object.starts_with(version.form().opening.as_bytes()))
    }

    /// Whoever brings objects from the version they are stored in into this one. The handlers have such objects in the
    /// version asked for, and bring them back when they are written.
    pub fn converter(&self) -> Option<&Arc<Converter>> {
        self.custom.as_ref()?.converter()
    }

    /// Sent as a warning with every answer.
    pub fn deprecation(&self) -> Option<&'static str> {
        match self.alias {
            Some(alias) => alias.deprecation,
            None => self.strategy().deprecation(),
        }
    }

    /// The kind of lists.
    pub fn list_kind(&self) -> Cow<'static, str> {
        match self.strategy().list_kind() {
            Some(kind) => kind.into(),
            None => format!("{}List", self.info().kind).into(),
        }
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
        if self.custom.is_some() && self.converter().is_none() {
            object["apiVersion"] = self.cache.info().api_version().into();
        }
        Ok(())
    }

    /// From the stored form to the served one.
    pub fn from_storage(&self, object: &mut Value) {
        if let Some(alias) = self.alias {
            (alias.from_storage)(object);
        }
        if self.alias.is_some() || self.custom.is_some() {
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
    custom: CustomResources,
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
            forms.push(Served::stored(cache.clone()));
            forms.extend(info.aliases.iter().map(|alias| Served {
                alias: Some(alias),
                ..Served::stored(cache.clone())
            }));
        }
        Self {
            caches,
            served,
            by_kind,
            custom: CustomResources::default(),
        }
    }

    /// Resources that definitions add while the server runs.
    pub fn custom(&self) -> &CustomResources {
        &self.custom
    }

    /// Every built-in resource once.
    pub fn caches(&self) -> &[Arc<ResourceCache>] {
        &self.caches
    }

    /// Every built-in resource in every form it is served in.
    pub fn served(&self) -> impl Iterator<Item = &Served> {
        self.served.values().flatten()
    }

    /// Every resource, custom ones too, in every form it is served in.
    pub fn everything(&self) -> Vec<Served> {
        let mut all: Vec<Served> = self.served().cloned().collect();
        all.extend(self.custom.served());
        all
    }

    /// The resource of that name in that group version.
    pub fn find(&self, group: &str, version: &str, plural: &str) -> Option<Cow<'_, Served>> {
        let built_in = self.served.get(plural).and_then(|forms| {
            forms
                .iter()
                .find(|s| s.group() == group && s.version() == version)
        });
        match built_in {
            Some(served) => Some(Cow::Borrowed(served)),
            None => self.custom.find(group, version, plural).map(Cow::Owned),
        }
    }

    /// The resource whose objects are `K`s in the store.
    pub fn of<K: Kind>(&self) -> Option<&Arc<ResourceCache>> {
        self.by_kind.get(&(K::GROUP, K::KIND))
    }
}
