//! Pods that become the job's, and pods it lets go.
//!
//! A pod of a job carries the finalizer that keeps it until it has been counted; whoever is let go loses it, for
//! nobody will count it.

use std::sync::Arc;

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use keelson_api::deletion::{JOB_TRACKING_FINALIZER, has_finalizer};
use keelson_api::object::{Object as _, ObjectKey};
use keelson_api::owners::{controller_ref, new_controller_ref, refers_to};
use keelson_api::selector::LabelSelector;
use keelson_client::{Patch, ReconcileError};
use serde_json::Value;

use super::Controller;
use crate::common::answers::unless_gone;
use crate::common::owners::{self, Claim};
use crate::common::{patches, pods};
use crate::context::{BY_CONTROLLER, ORPHANS};

/// The job that controls a pod.
pub(super) fn owner_key(pod: &Pod) -> Option<ObjectKey> {
    let owner = controller_ref(&pod.metadata).filter(|owner| refers_to(owner, "batch", "Job"))?;
    Some(ObjectKey::new(pod.namespace(), owner.name.as_str()))
}

fn selector(job: &Job) -> Option<LabelSelector> {
    let selector = job.spec.as_ref()?.selector.as_ref()?;
    LabelSelector::from_meta(Some(selector)).ok()
}

impl Controller {
    /// Has the jobs look that might adopt a pod nobody controls.
    pub(super) fn enqueue_adopters(&self, pod: &Pod) {
        if controller_ref(&pod.metadata).is_some() || pod.metadata.deletion_timestamp.is_some() {
            return;
        }
        for job in self.jobs.store().namespace(pod.namespace()) {
            if selector(&job).is_some_and(|selector| selector.matches(pod.labels())) {
                self.queue.add(job.key());
            }
        }
    }

    /// The job's pods, after adopting fitting ones that nobody controls and releasing others.
    pub(super) async fn claim(&self, job: &Job) -> Result<Vec<Arc<Pod>>, ReconcileError> {
        let store = self.pods.store();
        let mut own = store.by_index(BY_CONTROLLER, job.uid());
        let Some(selector) = selector(job) else {
            return Ok(own);
        };
        let claim = |pod: &Pod| owners::claim(&job.metadata, &pod.metadata, selector.matches(pod.labels()));
        let released: Vec<Arc<Pod>> = own.extract_if(.., |pod| claim(pod) == Claim::Release).collect();
        for pod in released {
            self.patch(&pod, release(&pod, job)).await?;
        }
        let mut orphans = store.by_index(ORPHANS, job.namespace());
        orphans.retain(|pod| pods::is_active(pod) && claim(pod) == Claim::Adopt);
        if orphans.is_empty() {
            return Ok(own);
        }
        // Nothing may be adopted in the name of a job that is gone, whatever the cache says.
        let fresh = self.client.get(job.namespace(), job.name()).await?;
        if fresh.uid() != job.uid() || fresh.metadata.deletion_timestamp.is_some() {
            return Err(ReconcileError::other(format!(
                "Job {} has been deleted",
                job.key()
            )));
        }
        for pod in orphans {
            own.extend(self.patch(&pod, adoption(&pod, job)).await?.map(Arc::new));
        }
        Ok(own)
    }

    async fn patch(&self, pod: &Pod, patch: Value) -> Result<Option<Pod>, ReconcileError> {
        let patched = self.control.client().patch(&pod.key(), Patch::Merge(patch)).await;
        Ok(unless_gone(patched)?)
    }
}

fn adoption(pod: &Pod, job: &Job) -> Value {
    let mut patch = owners::adoption(&pod.metadata, new_controller_ref(job));
    if !has_finalizer(&pod.metadata, JOB_TRACKING_FINALIZER) {
        let mut finalizers = pod.metadata.finalizers.clone().unwrap_or_default();
        finalizers.push(JOB_TRACKING_FINALIZER.to_owned());
        patch["metadata"]["finalizers"] = patches::list(&finalizers);
    }
    patch
}

fn release(pod: &Pod, job: &Job) -> Value {
    let mut patch = owners::release(&pod.metadata, &[job.uid()]);
    let mut finalizers = pod.metadata.finalizers.clone().unwrap_or_default();
    finalizers.retain(|finalizer| finalizer != JOB_TRACKING_FINALIZER);
    patch["metadata"]["finalizers"] = patches::list(&finalizers);
    patch
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
    use serde_json::json;

    #[test]
    fn who_is_let_go_is_counted_by_nobody() {
        let job = Job {
            metadata: ObjectMeta {
                name: Some("sums".into()),
                uid: Some("j".into()),
                ..ObjectMeta::default()
            },
            ..Job::default()
        };
        let mut pod = Pod::default();
        pod.metadata.uid = Some("p".into());
        pod.metadata.finalizers = Some(vec!["example.com/stay".into()]);
        let adopted = adoption(&pod, &job);
        assert_eq!(adopted["metadata"]["ownerReferences"][0]["uid"], "j");
        assert_eq!(
            adopted["metadata"]["finalizers"],
            json!(["example.com/stay", JOB_TRACKING_FINALIZER])
        );
        pod.metadata.owner_references = Some(vec![new_controller_ref(&job)]);
        pod.metadata.finalizers = Some(vec![JOB_TRACKING_FINALIZER.into()]);
        assert_eq!(
            release(&pod, &job)["metadata"],
            json!({"uid": "p", "resourceVersion": null, "ownerReferences": null, "finalizers": null})
        );
    }
}
