//! Creating and deleting the pods of a controller, in batches, with events and expectations.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use keelson_api::object::{Kind, Object as _, ObjectKey};
use keelson_api::status::ApiError;
use keelson_client::{Client, EventKind, EventRecorder, ResourceClient, Write};

use super::answers::{namespace_is_terminating, only};
use super::expectations::Expectations;
use super::reasons;

/// Pods in the first batch of creations. Each further batch is twice as big, so that what fails for one
/// (a quota, an admission plugin) does not fail five hundred times.
const FIRST_BATCH: usize = 1;

/// What is read of a created pod: its name. Decoding the rest of three thousand would be for nothing.
#[derive(serde::Deserialize)]
struct Created {
    metadata: CreatedMetadata,
}

#[derive(serde::Deserialize)]
struct CreatedMetadata {
    name: String,
}

/// Writes pods in the name of controllers of one kind.
pub struct PodControl {
    client: ResourceClient<Pod>,
    events: EventRecorder,
    expectations: Expectations<ObjectKey>,
}

impl PodControl {
    /// Writes through `client` and reports to `events`.
    #[must_use]
    pub fn new(client: &Client, events: EventRecorder) -> Self {
        Self {
            client: client.resource(),
            events,
            expectations: Expectations::default(),
        }
    }

    /// Pods, to write otherwise.
    #[must_use]
    pub fn client(&self) -> &ResourceClient<Pod> {
        &self.client
    }

    /// Events about the controllers.
    #[must_use]
    pub fn events(&self) -> &EventRecorder {
        &self.events
    }

    /// What was written and has not been seen.
    #[must_use]
    pub fn expectations(&self) -> &Expectations<ObjectKey> {
        &self.expectations
    }

    /// Creates pods.
    ///
    /// # Errors
    /// The first refusal; what would have followed was not tried. That the namespace is going away is no error.
    pub async fn create<K: Kind>(&self, owner: &K, pods: Vec<Pod>) -> Result<(), ApiError> {
        let key = owner.key();
        self.expectations.expect_creations(&key, pods.len());
        let mut left = pods.into_iter();
        let mut batch = FIRST_BATCH;
        while left.len() > 0 {
            let writes: Vec<Write<Pod>> = left.by_ref().take(batch).map(Write::Create).collect();
            if let Some(error) = self.create_batch(owner, writes).await {
                self.expectations.created(&key, left.len());
                return if namespace_is_terminating(&error) {
                    Ok(())
                } else {
                    Err(error)
                };
            }
            batch *= 2;
        }
        Ok(())
    }

    /// Returns the first refusal.
    async fn create_batch<K: Kind>(&self, owner: &K, writes: Vec<Write<Pod>>) -> Option<ApiError> {
        let key = owner.key();
        let size = writes.len();
        let results = match self.client.batch_as::<Created>(writes).await {
            Ok(results) => results,
            Err(error) => {
                self.expectations.created(&key, size);
                self.report_failed_create(owner, &error);
                return Some(error);
            }
        };
        // A result that is missing is a pod that was not created.
        self.expectations
            .created(&key, size.saturating_sub(results.len()));
        let mut first_failure = None;
        for result in results {
            match result {
                Ok(pod) => {
                    let message = format!("Created pod: {}", pod.metadata.name);
                    self.events
                        .event(owner, EventKind::Normal, reasons::SUCCESSFUL_CREATE, message);
                }
                Err(error) => {
                    self.expectations.created(&key, 1);
                    self.report_failed_create(owner, &error);
                    first_failure.get_or_insert(error);
                }
            }
        }
        first_failure
    }

    fn report_failed_create<K: Kind>(&self, owner: &K, error: &ApiError) {
        if !namespace_is_terminating(error) {
            let message = format!("Error creating: {error}");
            self.events
                .event(owner, EventKind::Warning, reasons::FAILED_CREATE, message);
        }
    }

    /// Deletes pods.
    ///
    /// # Errors
    /// The first refusal. That a pod is gone already is no error.
    pub async fn delete<K: Kind>(&self, owner: &K, victims: &[Arc<Pod>]) -> Result<(), ApiError> {
        if victims.is_empty() {
            return Ok(());
        }
        let key = owner.key();
        self.expectations
            .expect_deletions(&key, victims.iter().map(|pod| pod.uid().to_owned()));
        let writes = victims
            .iter()
            .map(|pod| Write::Delete {
                key: pod.key(),
                options: only(pod.uid()),
            })
            .collect();
        let results = match self.client.batch_discard(writes).await {
            Ok(results) => results,
            Err(error) => {
                for pod in victims {
                    self.expectations.deleted(&key, pod.uid());
                }
                return Err(error);
            }
        };
        let mut first_failure = None;
        for (pod, result) in victims.iter().zip(results) {
            match result {
                Ok(()) => {
                    let message = format!("Deleted pod: {}", pod.name());
                    self.events
                        .event(owner, EventKind::Normal, reasons::SUCCESSFUL_DELETE, message);
                }
                Err(error) => {
                    self.expectations.deleted(&key, pod.uid());
                    // Gone already, or replaced by another of the same name: as good as deleted.
                    if !error.is_not_found() && !error.is_conflict() {
                        let message = format!("Error deleting: {error}");
                        self.events
                            .event(owner, EventKind::Warning, reasons::FAILED_DELETE, message);
                        first_failure.get_or_insert(error);
                    }
                }
            }
        }
        first_failure.map_or(Ok(()), Err)
    }
}
