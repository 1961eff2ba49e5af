//! What was written and is not in the cache yet.
//!
//! Slices have names made by the server: planning again on a cache that does not show the last writes would create
//! them a second time.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use k8s_openapi::api::discovery::v1::EndpointSlice;
use keelson_api::object::{Object as _, ObjectKey};
use parking_lot::Mutex;
use serde_json::Value;

/// After this long the cache is believed: somebody else has changed what was written.
const EXPIRES_AFTER: Duration = Duration::from_secs(30);

/// The last writes, by service and by the slice's name.
#[derive(Debug, Default)]
pub(crate) struct Written {
    services: Mutex<HashMap<ObjectKey, HashMap<String, Write>>>,
}

#[derive(Debug)]
struct Write {
    effect: Effect,
    at: Instant,
}

#[derive(Debug)]
enum Effect {
    /// The slice is at least at this version.
    Is(u64),
    /// The slice with this uid is gone.
    Gone(String),
}

impl Written {
    pub(crate) fn wrote(&self, service: &ObjectKey, metadata: &Value) {
        let text = |field: &str| metadata[field].as_str().unwrap_or_default();
        let effect = Effect::Is(text("resourceVersion").parse().unwrap_or_default());
        self.insert(service, text("name"), effect);
    }

    pub(crate) fn deleted(&self, service: &ObjectKey, slice: &EndpointSlice) {
        self.insert(service, slice.name(), Effect::Gone(slice.uid().to_owned()));
    }

    fn insert(&self, service: &ObjectKey, name: &str, effect: Effect) {
        let mut services = self.services.lock();
        let write = Write {
            effect,
            at: Instant::now(),
        };
        services
            .entry(service.clone())
            .or_default()
            .insert(name.to_owned(), write);
    }

    /// Whether the cache does not show every write yet.
    pub(crate) fn is_ahead_of(&self, service: &ObjectKey, cached: &[Arc<EndpointSlice>]) -> bool {
        let mut services = self.services.lock();
        let Some(writes) = services.get_mut(service) else {
            return false;
        };
        writes.retain(|name, write| {
            let cached = cached.iter().find(|slice| slice.name() == name);
            let shown = match (&write.effect, cached) {
                (Effect::Is(wanted), Some(slice)) => version(slice) >= *wanted,
                (Effect::Is(_), None) => false,
                (Effect::Gone(uid), cached) => cached.is_none_or(|slice| slice.uid() != uid),
            };
            !shown && write.at.elapsed() < EXPIRES_AFTER
        });
        let ahead = !writes.is_empty();
        if !ahead {
            services.remove(service);
        }
        ahead
    }

    /// Whether an event is not merely the echo of the only write waited for: somebody has to look.
    pub(crate) fn is_unexpected(&self, service: &ObjectKey, slice: &EndpointSlice, gone: bool) -> bool {
        let mut services = self.services.lock();
        let Some(writes) = services.get_mut(service) else {
            return true;
        };
        let echo = match writes.get(slice.name()).map(|write| &write.effect) {
            Some(Effect::Is(wanted)) => !gone && version(slice) == *wanted,
            Some(Effect::Gone(uid)) => gone && slice.uid() == uid,
            None => false,
        };
        if echo {
            writes.remove(slice.name());
            if writes.is_empty() {
                services.remove(service);
                // Syncs that came meanwhile were put off until now.
                return true;
            }
        }
        !echo
    }

    pub(crate) fn forget(&self, service: &ObjectKey) {
        self.services.lock().remove(service);
    }
}

fn version(slice: &EndpointSlice) -> u64 {
    slice.resource_version().parse().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
    use serde_json::json;

    fn slice(name: &str, version: &str) -> Arc<EndpointSlice> {
        Arc::new(EndpointSlice {
            metadata: ObjectMeta {
                name: Some(name.into()),
                resource_version: Some(version.into()),
                uid: Some("u".into()),
                ..ObjectMeta::default()
            },
            ..EndpointSlice::default()
        })
    }

    #[test]
    fn waits_for_the_cache() {
        let written = Written::default();
        let key = ObjectKey::new("n", "s");
        assert!(!written.is_ahead_of(&key, &[]));
        written.wrote(&key, &json!({"name": "a", "resourceVersion": "7"}));
        assert!(written.is_ahead_of(&key, &[]));
        assert!(written.is_ahead_of(&key, &[slice("a", "6")]));
        assert!(!written.is_ahead_of(&key, &[slice("a", "8")]));
        written.deleted(&key, &slice("a", "8"));
        assert!(written.is_ahead_of(&key, &[slice("a", "8")]));
        assert!(!written.is_ahead_of(&key, &[]));
    }
}
