//! Counting what a namespace holds.

use std::collections::HashMap;

use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod, ResourceQuota, Service};
use k8s_openapi::api::resource::v1::ResourceClaim;
use keelson_api::names::{GroupResource, Gvr};
use keelson_api::object::Kind;
use keelson_api::pods::Amounts;
use keelson_api::quantity::Amount;
use keelson_api::quota::{self, Counted};
use keelson_api::status::ApiError;
use keelson_client::{Client, ListParams};
use parking_lot::Mutex;

/// Objects asked for at a time.
const PAGE: i64 = 500;

/// Counts by asking the apiserver: informers keep too little of objects, or too much.
pub(super) struct Counter {
    client: Client,
    served: Mutex<HashMap<GroupResource, Gvr>>,
}

impl Counter {
    pub(super) fn new(client: Client) -> Self {
        Self {
            client,
            served: Mutex::default(),
        }
    }

    /// The version a resource is served in, `None` if it is not served.
    pub(super) async fn served(&self, resource: &GroupResource) -> Result<Option<Gvr>, ApiError> {
        if let Some(gvr) = self.served.lock().get(resource) {
            return Ok(Some(gvr.clone()));
        }
        let found = self
            .client
            .discover()
            .await?
            .resources
            .into_iter()
            .find(|served| {
                served.namespaced && served.group == *resource.group && served.plural == *resource.resource
            });
        let Some(found) = found else { return Ok(None) };
        let gvr = Gvr::new(found.group, found.version, found.plural);
        self.served.lock().insert(resource.clone(), gvr.clone());
        Ok(Some(gvr))
    }

    /// What the quota's namespace uses of the resources named.
    pub(super) async fn used(&self, quota: &ResourceQuota, names: &[String]) -> Result<Amounts, ApiError> {
        let mut used: Amounts = names.iter().map(|name| (name.clone(), Amount::ZERO)).collect();
        self.add::<Pod>(&mut used, quota, names, |one| Counted::Pod(one))
            .await?;
        self.add::<Service>(&mut used, quota, names, |one| Counted::Service(one))
            .await?;
        self.add::<PersistentVolumeClaim>(&mut used, quota, names, |one| Counted::Claim(one))
            .await?;
        self.add::<ResourceClaim>(&mut used, quota, names, |one| Counted::DeviceClaim(one))
            .await?;
        for name in names {
            let Some(resource) = quota::counted_resource(name) else {
                continue;
            };
            let measured = [
                Pod::group_resource(),
                Service::group_resource(),
                PersistentVolumeClaim::group_resource(),
                ResourceClaim::group_resource(),
            ];
            if measured.contains(&resource) || !quota::in_scope(quota, Counted::Other) {
                continue;
            }
            let count = self.count(&resource, quota).await?;
            used.insert(name.clone(), Amount::from_units(count));
        }
        Ok(used)
    }

    /// Adds what objects of a kind take, if the quota limits any of it.
    async fn add<K: Kind + Default>(
        &self,
        used: &mut Amounts,
        quota: &ResourceQuota,
        names: &[String],
        as_counted: for<'o> fn(&'o K) -> Counted<'o>,
    ) -> Result<(), ApiError> {
        let resource = K::group_resource();
        let nothing = K::default();
        if quota::limited(&resource, as_counted(&nothing), names.iter()).is_empty() {
            return Ok(());
        }
        let namespace = quota.metadata.namespace.as_deref().unwrap_or_default();
        let mut params = ListParams {
            limit: PAGE,
            ..ListParams::default()
        };
        let now = keelson_api::time::now().0;
        loop {
            let page = self.client.resource::<K>().list(namespace, &params).await?;
            for object in &page.items {
                let object = as_counted(object);
                if quota::in_scope(quota, object) {
                    for (name, amount) in quota::usage(&resource, object, now) {
                        if let Some(sum) = used.get_mut(&name) {
                            *sum += amount;
                        }
                    }
                }
            }
            if page.continue_token.is_empty() {
                return Ok(());
            }
            params.continue_token = page.continue_token;
        }
    }

    async fn count(&self, resource: &GroupResource, quota: &ResourceQuota) -> Result<i64, ApiError> {
        let Some(gvr) = self.served(resource).await? else {
            return Ok(0);
        };
        let namespace = quota.metadata.namespace.as_deref().unwrap_or_default();
        let collection = self.client.dynamic(&gvr);
        let mut params = ListParams {
            limit: PAGE,
            ..ListParams::default()
        };
        let mut count = 0;
        loop {
            let page = collection.list(namespace, &params).await?;
            count += i64::try_from(page.items.len()).unwrap_or(i64::MAX);
            if page.continue_token.is_empty() {
                return Ok(count);
            }
            params.continue_token = page.continue_token;
        }
    }
}
