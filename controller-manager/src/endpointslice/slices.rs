//! The slices that one controller manages: which there are, who changes them, and writing them.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::discovery::v1::EndpointSlice;
use keelson_api::labels::{ENDPOINT_SLICE_MANAGED_BY, SERVICE_NAME};
use keelson_api::object::{Object as _, ObjectKey};
use keelson_api::status::ApiError;
use keelson_client::{Event, Informer, ReconcileError, ResourceClient, WorkQueue, Write};

use super::written::Written;
use crate::common::answers::{namespace_is_terminating, only};
use crate::context::{BY_SERVICE, Context};

/// Should the event that shows a write get lost, this is how long it is waited for before looking again.
const CACHE_GRACE: Duration = Duration::from_secs(5);

/// Slices to write.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    /// New ones.
    pub(crate) create: Vec<EndpointSlice>,
    /// Changed ones.
    pub(crate) update: Vec<EndpointSlice>,
    /// Ones that go.
    pub(crate) delete: Vec<Arc<EndpointSlice>>,
}

/// All slices with one value of the label `endpointslice.kubernetes.io/managed-by`.
pub(crate) struct Slices {
    informer: Informer<EndpointSlice>,
    client: ResourceClient<EndpointSlice>,
    manager: &'static str,
    written: Written,
}

impl Slices {
    pub(crate) fn new(context: &Context, manager: &'static str) -> Arc<Self> {
        Arc::new(Self {
            informer: context.endpoint_slices(),
            client: context.client().resource(),
            manager,
            written: Written::default(),
        })
    }

    /// Queues the service of a slice that is not as this controller wrote it.
    pub(crate) fn subscribe(self: &Arc<Self>, queue: WorkQueue<ObjectKey>) {
        let this = self.clone();
        self.informer.subscribe(move |event| {
            let slice = event.object();
            if let Some(service) = this.service_of(slice)
                && this
                    .written
                    .is_unexpected(&service, slice, matches!(event, Event::Deleted(_)))
            {
                queue.add(service);
            }
        });
    }

    pub(crate) async fn synced(&self) {
        self.informer.synced().await;
    }

    /// The service has gone: what was written for it does not matter any more.
    pub(crate) fn forget(&self, service: &ObjectKey) {
        self.written.forget(service);
    }

    /// The slices of a service that are to stay so far, by name.
    ///
    /// # Errors
    /// When the cache does not show what was last written: planning has to wait.
    pub(crate) fn of(&self, service: &ObjectKey) -> Result<Vec<Arc<EndpointSlice>>, ReconcileError> {
        let mut slices = self.informer.store().by_index(BY_SERVICE, &service.to_string());
        slices.retain(|slice| self.manages(slice));
        if self.written.is_ahead_of(service, &slices) {
            return Err(ReconcileError::RequeueAfter(CACHE_GRACE));
        }
        slices.retain(|slice| slice.metadata.deletion_timestamp.is_none());
        slices.sort_by(|a, b| a.name().cmp(b.name()));
        Ok(slices)
    }

    /// Writes what is planned for a service. `complain` is told of refusals that somebody should know of.
    ///
    /// # Errors
    /// The first refusal that another try may mend.
    pub(crate) async fn carry_out(
        &self,
        service: &ObjectKey,
        plan: Plan,
        complain: impl Fn(&ApiError),
    ) -> Result<(), ReconcileError> {
        let mut writes: Vec<Write<EndpointSlice>> = Vec::new();
        writes.extend(plan.create.into_iter().map(Write::Create));
        writes.extend(plan.update.into_iter().map(Write::Update));
        let kept = writes.len();
        writes.extend(plan.delete.iter().map(|slice| Write::Delete {
            key: slice.key(),
            options: only(slice.uid()),
        }));
        if writes.is_empty() {
            return Ok(());
        }
        let mut failure = None;
        for (index, result) in self.client.batch(writes).await?.into_iter().enumerate() {
            match result {
                Ok(written) if index < kept => self.written.wrote(service, &written["metadata"]),
                Ok(_) => self.written.deleted(service, &plan.delete[index - kept]),
                Err(error) if namespace_is_terminating(&error) || error.is_not_found() => {}
                Err(error) => {
                    if !error.is_conflict() {
                        complain(&error);
                    }
                    failure.get_or_insert(error);
                }
            }
        }
        failure.map_or(Ok(()), |error| Err(error.into()))
    }

    fn manages(&self, slice: &EndpointSlice) -> bool {
        slice.labels().get(ENDPOINT_SLICE_MANAGED_BY).map(String::as_str) == Some(self.manager)
    }

    /// The service that one of these slices belongs to.
    fn service_of(&self, slice: &EndpointSlice) -> Option<ObjectKey> {
        let name = slice.labels().get(SERVICE_NAME)?;
        self.manages(slice)
            .then(|| ObjectKey::new(slice.namespace(), name.as_str()))
    }
}
