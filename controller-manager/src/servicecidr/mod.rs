//! Ranges of service addresses: ready while they may be used, and kept while addresses are taken from them.
//!
//! A finalizer holds a range that is being deleted until its last address is gone or another range has them too
//! (KEP-1880).

mod held;

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::networking::v1::{IPAddress, ServiceCIDR};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use keelson_api::conditions;
use keelson_api::deletion::{has_finalizer, is_deleting};
use keelson_api::object::{Object as _, ObjectKey};
use keelson_api::time;
use keelson_client::{Event, Informer, Patch, ReconcileError, ResourceClient, WorkQueue, run_workers};
use serde_json::json;

use crate::common::answers::unless_gone;
use crate::common::patches;
use crate::context::Context;

/// Holds ranges that addresses are taken from.
const FINALIZER: &str = "networking.k8s.io/service-cidr-finalizer";
/// The condition of ranges that addresses may be taken from.
const READY: &str = "Ready";
/// Every apiserver has seen within this time that a range is being deleted, and takes no more addresses from it.
const SEEN: Duration = Duration::from_secs(10);

/// Runs the controller until shutdown.
pub async fn run(context: Context) {
    let queue: WorkQueue<ObjectKey> = WorkQueue::new("service_cidr");
    let controller = Arc::new(Controller {
        ranges: context.service_cidrs(),
        addresses: context.ip_addresses(),
        client: context.client().resource(),
    });
    controller.ranges.synced().await;
    controller.addresses.synced().await;
    let (to, all) = (queue.clone(), controller.ranges.clone());
    controller.ranges.subscribe(move |event| {
        // Another range may now have, or no longer have, the same addresses.
        if !matches!(event, Event::Updated { .. }) {
            all.store().list().iter().for_each(|range| to.add(range.key()));
        }
        if let Event::Added(range) | Event::Updated { new: range, .. } = event {
            to.add(range.key());
        }
    });
    let (to, all) = (queue.clone(), controller.ranges.clone());
    controller.addresses.subscribe(move |event| {
        if let Event::Deleted(_) = event {
            let going = all
                .store()
                .list()
                .into_iter()
                .filter(|range| is_deleting(&range.metadata));
            going.for_each(|range| to.add(range.key()));
        }
    });
    run_workers(queue, 1, context.shutdown().clone(), move |key| {
        let controller = controller.clone();
        async move { controller.sync(&key).await }
    })
    .await;
}

struct Controller {
    ranges: Informer<ServiceCIDR>,
    addresses: Informer<IPAddress>,
    client: ResourceClient<ServiceCIDR>,
}

impl Controller {
    async fn sync(&self, key: &ObjectKey) -> Result<(), ReconcileError> {
        let Some(range) = self.ranges.store().get(key) else {
            return Ok(());
        };
        if let Some(deleted) = &range.metadata.deletion_timestamp {
            if !has_finalizer(&range.metadata, FINALIZER) {
                return Ok(());
            }
            if held::is_needed(
                &range,
                &self.ranges.store().list(),
                &self.addresses.store().list(),
            ) {
                let message = "There are still IPAddresses referencing the ServiceCIDR, please remove them or create a \
                               new ServiceCIDR";
                return self
                    .condition(&range, conditions::FALSE, "Terminating", message)
                    .await;
            }
            let seen = time::after(deleted.0, SEEN);
            if seen > time::now().0 {
                return Err(ReconcileError::RequeueAfter(time::until(seen)));
            }
            return self.finalizers(&range, false).await;
        }
        if !has_finalizer(&range.metadata, FINALIZER) {
            return self.finalizers(&range, true).await;
        }
        self.condition(&range, conditions::TRUE, "", "Kubernetes Service CIDR is ready")
            .await
    }

    async fn finalizers(&self, range: &ServiceCIDR, wanted: bool) -> Result<(), ReconcileError> {
        let mut finalizers = range.metadata.finalizers.clone().unwrap_or_default();
        if wanted {
            finalizers.push(FINALIZER.to_owned());
        } else {
            finalizers.retain(|name| name != FINALIZER);
        }
        // The version keeps somebody else's finalizer from being lost.
        let patch = json!({"metadata": {
            "finalizers": patches::list(&finalizers),
            "resourceVersion": range.resource_version(),
            "uid": range.uid(),
        }});
        unless_gone(self.client.patch(&range.key(), Patch::Merge(patch)).await)?;
        Ok(())
    }

    async fn condition(
        &self,
        range: &ServiceCIDR,
        status: &str,
        reason: &str,
        message: &str,
    ) -> Result<(), ReconcileError> {
        let before = range
            .status
            .as_ref()
            .and_then(|status| status.conditions.as_ref());
        if conditions::find(before, READY).is_some_and(|before| before.status == status) {
            return Ok(());
        }
        let mut changed = range.clone();
        let condition = Condition {
            last_transition_time: time::now(),
            message: message.to_owned(),
            observed_generation: None,
            reason: reason.to_owned(),
            status: status.to_owned(),
            type_: READY.to_owned(),
        };
        conditions::set(&mut changed.status.get_or_insert_default().conditions, condition);
        unless_gone(self.client.update_status(&changed).await)?;
        Ok(())
    }
}
