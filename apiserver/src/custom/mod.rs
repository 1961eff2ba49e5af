//! Custom resources: what CustomResourceDefinitions make of the server while it runs.
//!
//! | module | what it does |
//! | --- | --- |
//! | [`definition`] | reads a stored definition |
//! | [`conversion`] | from one version to another by asking a webhook |
//! | [`names`] | the names the handlers know a resource by |
//! | [`strategy`] | one version of a resource behind the contract of the built-in kinds |
//! | [`schema`] | structural schemas: pruning, defaults, validation |
//! | [`scale`] | the `scale` subresource |
//! | [`controller`] | accepts names, establishes definitions, deletes the instances of those that go |
//! | [`openapi`] | the resources' part of the OpenAPI documents |
//!
//! The feed tells of every change to a definition, in the store's order, before any request can see it: whoever reads
//! that a definition is established finds its resource served.

pub mod controller;
pub mod conversion;
pub mod definition;
pub mod names;
pub mod openapi;
pub mod scale;
pub mod schema;
pub mod strategy;

use std::collections::HashMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use bytes::Bytes;
use parking_lot::Mutex;

use crate::registry::catalog::Served;
use crate::registry::info::group_version;
use crate::registry::strategy::ErasedStrategy;
use crate::storage::cache::ResourceCache;
use definition::Definition;
use names::Form;
use strategy::{CustomStrategy, Parts};

/// The custom resources there are. Cheap to clone.
#[derive(Clone, Default)]
pub struct CustomResources(Arc<Shared>);

#[derive(Default)]
struct Shared {
    table: ArcSwap<Table>,
    defined: Mutex<HashMap<String, Defined>>,
}

/// What is served, as one moment has it.
#[derive(Clone, Default)]
struct Table {
    /// Raised with every change.
    generation: u64,
    by_plural: imbl::HashMap<&'static str, Vec<Served>>,
}

/// A definition the server acts upon.
struct Defined {
    definition: Definition,
    storage: Served,
}

/// A definition ready to be served once its objects are loaded.
pub struct Prepared {
    name: String,
    definition: Definition,
    storage: Served,
    forms: Vec<Served>,
    /// Whether the objects have to be read again before they are served.
    pub load: bool,
    /// Whether objects come from one version to another as they did before. Where they do not, who watches begins anew.
    converted_alike: bool,
}

impl Prepared {
    /// Where its objects go.
    pub fn cache(&self) -> &Arc<ResourceCache> {
        &self.storage.cache
    }
}

/// What a change to a definition means to the feed.
pub enum Change {
    /// Nothing.
    None,
    /// The resource is served, or served differently.
    Serve(Box<Prepared>),
    /// The resource is no longer served; its objects lay there.
    Withdraw(&'static str),
}

impl CustomResources {
    /// The resource of that name in that group version.
    pub fn find(&self, group: &str, version: &str, plural: &str) -> Option<Served> {
        let table = self.0.table.load();
        let forms = table.by_plural.get(plural)?;
        forms
            .iter()
            .find(|s| s.group() == group && s.version() == version)
            .cloned()
    }

    /// Every version of a resource that is served.
    pub fn versions(&self, group: &str, plural: &str) -> Vec<Served> {
        let table = self.0.table.load();
        let forms = table.by_plural.get(plural).into_iter().flatten();
        forms.filter(|served| served.group() == group).cloned().collect()
    }

    /// The version of a kind.
    pub fn of_kind(&self, group: &str, version: &str, kind: &str) -> Option<Served> {
        let table = self.0.table.load();
        let mut forms = table.by_plural.values().flatten();
        forms
            .find(|s| s.group() == group && s.version() == version && s.info().kind == kind)
            .cloned()
    }

    /// Every resource in every version served.
    pub fn served(&self) -> Vec<Served> {
        self.0
            .table
            .load()
            .by_plural
            .values()
            .flatten()
            .cloned()
            .collect()
    }

    /// Changes whenever something is served differently.
    pub fn generation(&self) -> u64 {
        self.0.table.load().generation
    }

    /// The resource of a definition in the version it is stored in, whether it is served in that or not.
    pub fn of_definition(&self, name: &str) -> Option<Served> {
        self.0.defined.lock().get(name).map(|d| d.storage.clone())
    }

    /// A definition was written.
    pub fn written(&self, name: &str, object: &Bytes) -> Change {
        let definition = match Definition::read(object) {
            Ok(definition) => definition,
            Err(error) => {
                tracing::error!(name, %error, "a stored CustomResourceDefinition cannot be read");
                return Change::None;
            }
        };
        let defined = self.0.defined.lock();
        let known = defined.get(name);
        if known.is_some_and(|known| known.definition.serves_like(&definition)) {
            return Change::None;
        }
        let known_cache = known
            .filter(|known| known.definition.uid == definition.uid)
            .map(|known| {
                let before = &known.definition;
                let converted_alike = before.conversion == definition.conversion;
                (known.storage.cache.clone(), before.spec.clone(), converted_alike)
            });
        drop(defined);
        let Some(storage_version) = definition.storage_version().filter(|_| definition.established) else {
            return self.removed(name);
        };
        let forms: Vec<Arc<CustomStrategy>> = self.forms(&definition, storage_version);
        let storage: Arc<dyn ErasedStrategy> = forms[storage_version].clone();
        let (cache, load, converted_alike) = match known_cache {
            Some((cache, spec, converted_alike)) => (
                Arc::new(cache.with_strategy(storage)),
                spec != definition.spec && cache.sizes().0 > 0,
                converted_alike,
            ),
            None => (Arc::new(ResourceCache::new(storage)), true, true),
        };
        let served = |form: &Arc<CustomStrategy>| Served::custom(cache.clone(), form.clone());
        let storage = served(&forms[storage_version]);
        let forms = definition
            .versions
            .iter()
            .zip(&forms)
            .filter(|(version, _)| version.served)
            .map(|(_, form)| served(form))
            .collect();
        Change::Serve(Box::new(Prepared {
            name: name.to_owned(),
            definition,
            storage,
            forms,
            load,
            converted_alike,
        }))
    }

    fn forms(&self, definition: &Definition, storage_version: usize) -> Vec<Arc<CustomStrategy>> {
        let stored_as = names::keep(&group_version(
            &definition.group,
            &definition.versions[storage_version].name,
        ));
        let forms: Vec<&'static Form> = definition
            .versions
            .iter()
            .map(|version| names::form(&definition.group, &definition.names, definition.scope, version))
            .collect();
        let converter = definition.conversion.webhook().cloned().map(Arc::new);
        forms
            .iter()
            .enumerate()
            .map(|(index, form)| {
                Arc::new(CustomStrategy::new(Parts {
                    form,
                    forms: forms.clone(),
                    stored_as,
                    spec: definition.spec.clone(),
                    version: index,
                    terminating: definition.terminating,
                    converter: converter.clone(),
                }))
            })
            .collect()
    }

    /// Serves what was prepared. Its objects are in the cache.
    pub fn publish(&self, prepared: Prepared) {
        let Prepared {
            name,
            definition,
            storage,
            forms,
            converted_alike,
            ..
        } = prepared;
        let cache = storage.cache.clone();
        let info = storage.info();
        let (group, plural) = (info.group, info.plural);
        self.0
            .defined
            .lock()
            .insert(name, Defined { definition, storage });
        self.change(group, plural, forms);
        if !converted_alike {
            cache.start_over();
        }
    }

    /// A definition is gone, or no longer established.
    pub fn removed(&self, name: &str) -> Change {
        let Some(defined) = self.0.defined.lock().remove(name) else {
            return Change::None;
        };
        let info = defined.storage.info();
        self.change(info.group, info.plural, Vec::new());
        defined.storage.cache.close();
        Change::Withdraw(info.storage_prefix)
    }

    /// Forgets definitions that are not among these; where their objects lay.
    pub fn keep_only(&self, names: &[&str]) -> Vec<&'static str> {
        let gone: Vec<String> = self
            .0
            .defined
            .lock()
            .keys()
            .filter(|name| !names.contains(&name.as_str()))
            .cloned()
            .collect();
        gone.iter()
            .filter_map(|name| match self.removed(name) {
                Change::Withdraw(prefix) => Some(prefix),
                _ => None,
            })
            .collect()
    }

    fn change(&self, group: &'static str, plural: &'static str, forms: Vec<Served>) {
        let mut table = Table::clone(&self.0.table.load());
        table.generation += 1;
        let mut all = table.by_plural.remove(plural).unwrap_or_default();
        all.retain(|served| served.group() != group);
        all.extend(forms);
        if !all.is_empty() {
            table.by_plural.insert(plural, all);
        }
        self.0.table.store(Arc::new(table));
    }
}
