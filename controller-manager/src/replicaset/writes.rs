//! Creating and deleting pods, in batches.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use keelson_api::object::Object as _;
use keelson_api::owners::new_controller_ref;
use keelson_api::status::ApiError;
use keelson_client::{EventKind, Write};

use super::Controller;
use super::replicated::Replicated;
use crate::common::answers::{namespace_is_terminating, only};
use crate::common::{reasons, template};

/// Pods in the first batch of creations. Each further batch is twice as big, so that what fails for one
/// (a quota, an admission plugin) does not fail five hundred times.
const FIRST_BATCH: usize = 1;

/// Why not every pod was written.
pub(super) struct Failure {
    /// The reason for the condition.
    pub(super) reason: &'static str,
    /// The first refusal.
    pub(super) error: ApiError,
}

impl<K: Replicated> Controller<K> {
    pub(super) async fn create(&self, owner: &K, count: usize) -> Result<(), Failure> {
        let failed = |error| Failure {
            reason: reasons::FAILED_CREATE,
            error,
        };
        let Some(template) = owner.template() else {
            return Ok(());
        };
        let pod = template::pod_from(template, owner.namespace(), new_controller_ref(owner));
        let key = owner.key();
        self.expectations.expect_creations(&key, count);
        let mut left = count;
        let mut batch = FIRST_BATCH;
        while left > 0 {
            let size = batch.min(left);
            let first_failure = self.create_batch(owner, &pod, size).await;
            left -= size;
            if let Some(error) = first_failure {
                self.expectations.created(&key, left);
                return if namespace_is_terminating(&error) {
                    Ok(())
                } else {
                    Err(failed(error))
                };
            }
            batch *= 2;
        }
        Ok(())
    }

    /// Returns the first refusal.
    async fn create_batch(&self, owner: &K, pod: &Pod, size: usize) -> Option<ApiError> {
        let key = owner.key();
        let writes = std::iter::repeat_n(Write::Create(pod.clone()), size).collect();
        let results = match self.pod_client.batch(writes).await {
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
                    let name = pod["metadata"]["name"].as_str().unwrap_or_default();
                    let message = format!("Created pod: {name}");
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

    fn report_failed_create(&self, owner: &K, error: &ApiError) {
        if !namespace_is_terminating(error) {
            let message = format!("Error creating: {error}");
            self.events
                .event(owner, EventKind::Warning, reasons::FAILED_CREATE, message);
        }
    }

    pub(super) async fn delete(&self, owner: &K, victims: Vec<Arc<Pod>>) -> Result<(), Failure> {
        let failed = |error| Failure {
            reason: reasons::FAILED_DELETE,
            error,
        };
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
        let results = match self.pod_client.batch_discard(writes).await {
            Ok(results) => results,
            Err(error) => {
                for pod in &victims {
                    self.expectations.deleted(&key, pod.uid());
                }
                return Err(failed(error));
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
        first_failure.map_or(Ok(()), |error| Err(failed(error)))
    }
}
