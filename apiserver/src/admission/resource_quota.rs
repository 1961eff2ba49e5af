//! ResourceQuota: what a namespace may hold in sum is charged before anything is written.
//!
//! A quota's status is the account. It is changed by compare-and-swap in the store, so that two servers, or two requests
//! at the same moment, never spend the same rest; within one server requests of a namespace take turns, so that they do
//! not waste each other's attempts. The controller manager counts anew and gives back.

use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod, ResourceQuota as Quota, Service};
use k8s_openapi::api::resource::v1::ResourceClaim;
use keelson_api::names::GroupResource;
use keelson_api::object::Object;
use keelson_api::pods::Amounts;
use keelson_api::quantity::Amount;
use keelson_api::quota::{self, Counted};
use keelson_api::status::ApiResult;
use parking_lot::Mutex;

use super::refusal::forbidden;
use super::{Admission, Attributes, Operation};
use crate::authentication::User;
use crate::registry::info::ResourceInfo;

/// The plugin.
#[derive(Default)]
pub struct ResourceQuota {
    turns: Turns,
}

#[async_trait]
impl Admission for ResourceQuota {
    fn name(&self) -> &'static str {
        "ResourceQuota"
    }

    fn handles(&self, operation: Operation, info: &ResourceInfo, subresource: &str) -> bool {
        match operation {
            Operation::Create => info.namespaced() && subresource.is_empty(),
            Operation::Update => {
                let core = info.group.is_empty();
                (core
                    && matches!(info.plural, "services" | "persistentvolumeclaims")
                    && subresource.is_empty())
                    || (core && info.plural == "pods" && subresource == "resize")
            }
            Operation::Delete | Operation::Connect => false,
        }
    }

    async fn validate(&self, attributes: &Attributes<'_>) -> ApiResult<()> {
        let ctx = attributes.ctx;
        let resource = ctx.info.group_resource();
        if ctx.namespace.is_empty() || !quota::counts(&resource) {
            return Ok(());
        }
        let quotas = ctx.server.cached_list::<Quota>(ctx.namespace);
        if quotas.is_empty() {
            return Ok(());
        }
        let request = Request {
            object: counted(attributes.object.as_deref()),
            old: attributes.old.map(|old| counted(Some(old))),
            resource,
            now: ctx.now,
        };
        let mut concerned = Vec::new();
        for quota in quotas.iter().filter(|quota| request.concerns(quota)) {
            concerned.push(quota.name().to_owned());
        }
        if concerned.is_empty() {
            return Ok(());
        }
        // What takes room to be carried out gets it here: most requests do not come this far.
        Box::pin(self.charge(attributes, &request, concerned)).await
    }
}

impl ResourceQuota {
    /// Counts the request against each of these quotas, or against none.
    async fn charge(
        &self,
        attributes: &Attributes<'_>,
        request: &Request<'_>,
        concerned: Vec<String>,
    ) -> ApiResult<()> {
        let ctx = attributes.ctx;
        let refused = |why: String| forbidden(attributes, why);
        if ctx.dry_run {
            ctx.server.catch_up().await?;
            for quota in ctx.server.cached_list::<Quota>(ctx.namespace) {
                request.charge(&quota).map_err(refused)?;
            }
            return Ok(());
        }
        let turn = self.turns.of(ctx.namespace);
        let _turn = turn.lock().await;
        let mut charged: Vec<(String, Amounts)> = Vec::new();
        for name in concerned {
            let mut charge = None;
            let change = |quota: &mut Quota| {
                charge = request.charge(quota).map_err(refused)?;
                if let Some(charge) = &charge {
                    change_used(quota, |used| quota::add(used, charge));
                }
                Ok(())
            };
            let user = User::loopback();
            let key = (ctx.namespace, name.as_str(), "status");
            match ctx.server.update::<Quota>(&user, key, change).await {
                Ok(_) => charged.extend(charge.map(|charge| (name, charge))),
                // A quota that has gone limits nothing.
                Err(error) if error.is_not_found() => {}
                Err(error) => {
                    give_back(attributes, charged).await;
                    return Err(error);
                }
            }
        }
        Ok(())
    }
}

/// Undoes what the first quotas were charged with because a later one refused.
async fn give_back(attributes: &Attributes<'_>, charged: Vec<(String, Amounts)>) {
    let ctx = attributes.ctx;
    for (name, charge) in charged {
        let change = |quota: &mut Quota| {
            change_used(quota, |used| {
                for (resource, amount) in &charge {
                    let left = used.entry(resource.clone()).or_default();
                    *left = (*left - *amount).max(Amount::ZERO);
                }
            });
            Ok(())
        };
        let key = (ctx.namespace, name.as_str(), "status");
        if let Err(error) = ctx.server.update::<Quota>(&User::loopback(), key, change).await {
            // The controller counts anew sooner or later.
            tracing::warn!(quota = %name, namespace = %ctx.namespace, %error, "cannot give back what was charged");
        }
    }
}

fn change_used(quota: &mut Quota, change: impl FnOnce(&mut Amounts)) {
    let status = quota.status.get_or_insert_default();
    let mut used = quota::amounts(status.used.as_ref());
    change(&mut used);
    status.used = Some(quota::quantities(&used));
}

fn counted(object: Option<&dyn Object>) -> Counted<'_> {
    let Some(object) = object else {
        return Counted::Other;
    };
    if let Some(pod) = object.downcast_ref::<Pod>() {
        Counted::Pod(pod)
    } else if let Some(service) = object.downcast_ref::<Service>() {
        Counted::Service(service)
    } else if let Some(claim) = object.downcast_ref::<PersistentVolumeClaim>() {
        Counted::Claim(claim)
    } else if let Some(claim) = object.downcast_ref::<ResourceClaim>() {
        Counted::DeviceClaim(claim)
    } else {
        Counted::Other
    }
}

/// What is about to be written.
struct Request<'a> {
    resource: GroupResource,
    object: Counted<'a>,
    /// What it replaces.
    old: Option<Counted<'a>>,
    now: Timestamp,
}

impl Request<'_> {
    /// Of the names the quota limits, those the object takes something of.
    fn limited<'q>(&self, quota: &'q Quota, object: Counted<'_>) -> Vec<&'q str> {
        let hard = quota.status.iter().flat_map(|s| s.hard.iter().flatten());
        if !quota::in_scope(quota, object) {
            return Vec::new();
        }
        quota::limited(&self.resource, object, hard.map(|(name, _)| name))
    }

    fn concerns(&self, quota: &Quota) -> bool {
        !self.limited(quota, self.object).is_empty()
    }

    /// What the quota is to be charged with, `None` for nothing; or why not.
    fn charge(&self, quota: &Quota) -> Result<Option<Amounts>, String> {
        let limited = self.limited(quota, self.object);
        if limited.is_empty() {
            return Ok(None);
        }
        let name = quota.name();
        if let Some(unsaid) = quota::unsaid(&limited, self.object) {
            return Err(format!("failed quota: {name}: must specify {unsaid}"));
        }
        let status = quota.status.as_ref();
        let hard = quota::amounts(status.and_then(|s| s.hard.as_ref()));
        let used = quota::amounts(status.and_then(|s| s.used.as_ref()));
        if limited.iter().any(|resource| !used.contains_key(*resource)) {
            let mut resources = limited;
            resources.sort_unstable();
            return Err(format!(
                "status unknown for quota: {name}, resources: {}",
                resources.join(",")
            ));
        }
        let mut charge = quota::usage(&self.resource, self.object, self.now);
        if let Some(old) = self.old.filter(|old| !self.limited(quota, *old).is_empty()) {
            charge = quota::increase(&charge, &quota::usage(&self.resource, old, self.now));
        }
        charge.retain(|resource, amount| !amount.is_zero() && hard.contains_key(resource));
        if charge.is_empty() {
            return Ok(None);
        }
        let of = |list: &Amounts, resource: &str| list.get(resource).copied().unwrap_or_default();
        let exceeded: Vec<&String> = charge
            .iter()
            .filter(|(resource, amount)| of(&used, resource) + **amount > of(&hard, resource))
            .map(|(resource, _)| resource)
            .collect();
        if exceeded.is_empty() {
            return Ok(Some(charge));
        }
        let shown = |list: &Amounts| {
            let parts = exceeded
                .iter()
                .map(|resource| format!("{resource}={}", of(list, resource)));
            parts.collect::<Vec<_>>().join(",")
        };
        Err(format!(
            "exceeded quota: {name}, requested: {}, used: {}, limited: {}",
            shown(&charge),
            shown(&used),
            shown(&hard)
        ))
    }
}

/// One lock a namespace, for as long as somebody holds it or waits for it.
#[derive(Default)]
struct Turns {
    locks: Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>,
}

/// Locks nobody uses are dropped when there are more than this many.
const LOCKS_KEPT: usize = 64;

impl Turns {
    fn of(&self, namespace: &str) -> Arc<tokio::sync::Mutex<()>> {
        let mut locks = self.locks.lock();
        if locks.len() > LOCKS_KEPT {
            locks.retain(|_, lock| Arc::strong_count(lock) > 1);
        }
        locks.entry(namespace.to_owned()).or_default().clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn read<T: serde::de::DeserializeOwned>(value: Value) -> T {
        serde_json::from_value(value).expect("an object")
    }

    fn quota(status: Value) -> Quota {
        read(json!({"metadata": {"name": "q"}, "status": status}))
    }

    fn charge(quota: &Quota, pod: &Pod) -> Result<Value, String> {
        let request = Request {
            resource: GroupResource::core("pods"),
            object: Counted::Pod(pod),
            old: None,
            now: Timestamp::UNIX_EPOCH,
        };
        let charge = request.charge(quota)?;
        Ok(charge.map_or(Value::Null, |charge| json!(quota::quantities(&charge))))
    }

    #[test]
    fn quotas_are_charged_and_refuse_in_upstreams_words() {
        let pod: Pod = read(json!({"spec": {"containers": [
            {"name": "a", "resources": {"requests": {"cpu": "500m", "memory": "1Gi"}}}]}}));
        let room = quota(json!({"hard": {"cpu": "1", "pods": "2"}, "used": {"cpu": "500m", "pods": "1"}}));
        assert_eq!(charge(&room, &pod), Ok(json!({"cpu": "500m", "pods": "1"})));
        let full = quota(json!({"hard": {"cpu": "1", "memory": "2Gi", "pods": "9"},
                                "used": {"cpu": "900m", "memory": "1536Mi", "pods": "1"}}));
        assert_eq!(
            charge(&full, &pod),
            Err(
                "exceeded quota: q, requested: cpu=500m,memory=1Gi, used: cpu=900m,memory=1536Mi, limited: cpu=1,memory=2Gi"
                    .to_owned()
            )
        );
        let silent: Pod = read(json!({"spec": {"containers": [{"name": "a"}]}}));
        assert_eq!(
            charge(&room, &silent),
            Err("failed quota: q: must specify cpu for: a".to_owned())
        );
        let unknown = quota(json!({"hard": {"pods": "2"}}));
        assert_eq!(
            charge(&unknown, &pod),
            Err("status unknown for quota: q, resources: pods".to_owned())
        );
        let other = quota(json!({"hard": {"services": "2"}, "used": {"services": "2"}}));
        assert_eq!(charge(&other, &pod), Ok(Value::Null));
    }

    #[test]
    fn a_change_is_charged_with_the_difference() {
        let service =
            |kind: &str| -> Service { read(json!({"spec": {"type": kind, "ports": [{"port": 80}]}})) };
        let (new, old) = (service("NodePort"), service("ClusterIP"));
        let request = |new, old| Request {
            resource: GroupResource::core("services"),
            object: Counted::Service(new),
            old: Some(Counted::Service(old)),
            now: Timestamp::UNIX_EPOCH,
        };
        let full = quota(json!({"hard": {"services": "1", "services.nodeports": "0"},
                                "used": {"services": "1", "services.nodeports": "0"}}));
        assert_eq!(
            request(&new, &old).charge(&full).expect_err("a port too many"),
            "exceeded quota: q, requested: services.nodeports=1, used: services.nodeports=0, limited: services.nodeports=0"
        );
        assert_eq!(request(&old, &new).charge(&full).expect("less than before"), None);
    }
}
