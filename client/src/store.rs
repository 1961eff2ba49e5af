//! What an informer knows: objects by key and by index.

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;
use std::sync::Arc;

use keelson_api::object::ObjectKey;
use parking_lot::RwLock;

/// A way to find objects other than by key: every object is filed under each of the values `keys` gives for it.
pub struct Indexer<K> {
    /// What [`Store::by_index`] is asked for.
    pub name: &'static str,
    /// The values an object is filed under.
    pub keys: fn(&K) -> Vec<String>,
}

impl<K> Clone for Indexer<K> {
    fn clone(&self) -> Self {
        Indexer {
            name: self.name,
            keys: self.keys,
        }
    }
}

/// The objects an informer has seen, as of its latest event. Reading takes a short shared lock and copies pointers.
pub struct Store<K> {
    inner: RwLock<Inner<K>>,
}

struct Inner<K> {
    /// Ordered, so that a namespace is a range.
    objects: BTreeMap<ObjectKey, Arc<K>>,
    indices: Vec<Index<K>>,
}

struct Index<K> {
    indexer: Indexer<K>,
    /// Objects by value and then by their address, which names one for as long as it is held here.
    filed: HashMap<String, HashMap<usize, Arc<K>>>,
}

impl<K> Index<K> {
    fn insert(&mut self, object: &Arc<K>) {
        for value in (self.indexer.keys)(object) {
            self.filed
                .entry(value)
                .or_default()
                .insert(Arc::as_ptr(object).addr(), object.clone());
        }
    }

    fn remove(&mut self, object: &Arc<K>) {
        for value in (self.indexer.keys)(object) {
            if let Some(bucket) = self.filed.get_mut(&value) {
                bucket.remove(&Arc::as_ptr(object).addr());
                if bucket.is_empty() {
                    self.filed.remove(&value);
                }
            }
        }
    }
}

impl<K> Store<K> {
    pub(crate) fn new(indexers: Vec<Indexer<K>>) -> Self {
        let indices = indexers
            .into_iter()
            .map(|indexer| Index {
                indexer,
                filed: HashMap::new(),
            })
            .collect();
        Store {
            inner: RwLock::new(Inner {
                objects: BTreeMap::new(),
                indices,
            }),
        }
    }

    /// The object of that key.
    pub fn get(&self, key: &ObjectKey) -> Option<Arc<K>> {
        self.inner.read().objects.get(key).cloned()
    }

    /// Every object, in key order.
    pub fn list(&self) -> Vec<Arc<K>> {
        self.inner.read().objects.values().cloned().collect()
    }

    /// The objects of one namespace, in the order of their names.
    pub fn namespace(&self, namespace: &str) -> Vec<Arc<K>> {
        let from = Bound::Included(ObjectKey::new(namespace, ""));
        let inner = self.inner.read();
        let range = inner.objects.range((from, Bound::Unbounded));
        range
            .take_while(|(key, _)| key.namespace == namespace)
            .map(|(_, object)| object.clone())
            .collect()
    }

    /// The objects filed under a value, in no particular order. An index that does not exist has none.
    pub fn by_index(&self, index: &str, value: &str) -> Vec<Arc<K>> {
        let inner = self.inner.read();
        let index = inner
            .indices
            .iter()
            .find(|candidate| candidate.indexer.name == index);
        debug_assert!(index.is_some(), "no such index");
        let bucket = index.and_then(|index| index.filed.get(value));
        bucket
            .map(|bucket| bucket.values().cloned().collect())
            .unwrap_or_default()
    }

    /// How many objects there are.
    pub fn len(&self) -> usize {
        self.inner.read().objects.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(crate) fn keys(&self) -> Vec<ObjectKey> {
        self.inner.read().objects.keys().cloned().collect()
    }

    /// Puts an object in place of the one with its key, which is returned.
    pub(crate) fn insert(&self, key: ObjectKey, object: Arc<K>) -> Option<Arc<K>> {
        let mut inner = self.inner.write();
        let inner = &mut *inner;
        let old = inner.objects.insert(key, object.clone());
        for index in &mut inner.indices {
            if let Some(old) = &old {
                index.remove(old);
            }
            index.insert(&object);
        }
        old
    }

    pub(crate) fn remove(&self, key: &ObjectKey) -> Option<Arc<K>> {
        let mut inner = self.inner.write();
        let old = inner.objects.remove(key)?;
        for index in &mut inner.indices {
            index.remove(&old);
        }
        Some(old)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn by_parity() -> Indexer<u32> {
        Indexer {
            name: "parity",
            keys: |n| vec![if n % 2 == 0 { "even".into() } else { "odd".into() }],
        }
    }

    #[test]
    fn objects_move_between_index_values() {
        let store = Store::new(vec![by_parity()]);
        store.insert(ObjectKey::new("a", "x"), Arc::new(1));
        store.insert(ObjectKey::new("a", "y"), Arc::new(3));
        store.insert(ObjectKey::new("b", "x"), Arc::new(5));
        assert_eq!(store.by_index("parity", "odd").len(), 3);

        let old = store.insert(ObjectKey::new("a", "x"), Arc::new(2));
        assert_eq!(old.as_deref(), Some(&1));
        assert_eq!(store.by_index("parity", "odd").len(), 2);
        assert_eq!(*store.by_index("parity", "even")[0], 2);

        store.remove(&ObjectKey::new("a", "x"));
        assert!(store.by_index("parity", "even").is_empty());
        assert_eq!(store.len(), 2);
    }

    #[test]
    fn a_namespace_is_exactly_its_objects() {
        let store = Store::new(Vec::new());
        for (namespace, name) in [("a", "x"), ("ab", "x"), ("b", "x"), ("a", "y")] {
            store.insert(
                ObjectKey::new(namespace, name),
                Arc::new(format!("{namespace}/{name}")),
            );
        }
        let names: Vec<_> = store.namespace("a").iter().map(|name| name.to_string()).collect();
        assert_eq!(names, ["a/x", "a/y"]);
        assert!(store.namespace("").is_empty());
    }
}
