//! Approves kubelets' requests for their client certificates, where whoever asks may have one.

use std::sync::Arc;

use k8s_openapi::api::authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec};
use k8s_openapi::api::certificates::v1::CertificateSigningRequest as Request;
use keelson_api::object::{Object as _, ObjectKey};
use keelson_client::{Event, Informer, ReconcileError, ResourceClient, WorkQueue, run_workers};

use super::recognize::Asked;
use super::{APPROVED, DENIED, KUBELET_CLIENT, add_condition, condition, issued};
use crate::common::answers::unless_gone;
use crate::context::Context;

/// Requests looked at at the same time.
const WORKERS: usize = 5;

/// Runs the controller until shutdown.
pub async fn run(context: Context) {
    let controller = Arc::new(Controller {
        requests: context.certificate_signing_requests(),
        client: context.client().resource(),
        reviews: context.client().resource(),
    });
    let queue: WorkQueue<String> = WorkQueue::new("csrapproving");
    let to = queue.clone();
    controller.requests.subscribe(move |event| match event {
        Event::Added(request) | Event::Updated { new: request, .. } => to.add(request.name().to_owned()),
        Event::Deleted(_) => {}
    });
    controller.requests.synced().await;
    run_workers(queue, WORKERS, context.shutdown().clone(), move |name| {
        let controller = controller.clone();
        async move { controller.sync(&name).await }
    })
    .await;
}

struct Controller {
    requests: Informer<Request>,
    client: ResourceClient<Request>,
    reviews: ResourceClient<SubjectAccessReview>,
}

impl Controller {
    async fn sync(&self, name: &str) -> Result<(), ReconcileError> {
        let Some(request) = self.requests.store().get(&ObjectKey::cluster(name)) else {
            return Ok(());
        };
        if issued(&request)
            || condition(&request, APPROVED).is_some()
            || condition(&request, DENIED).is_some()
            || request.spec.signer_name != KUBELET_CLIENT
        {
            return Ok(());
        }
        let usages = request.spec.usages.as_deref().unwrap_or(&[]);
        let Ok(asked) = Asked::read(&request.spec.request.0) else {
            return Ok(());
        };
        if asked.is_kubelet_client(usages).is_err() {
            return Ok(());
        }
        let own = asked.subject().0 == request.spec.username.as_deref().unwrap_or_default();
        let kinds = [
            (
                own,
                "selfnodeclient",
                "Auto approving self kubelet client certificate after SubjectAccessReview.",
            ),
            (
                true,
                "nodeclient",
                "Auto approving kubelet client certificate after SubjectAccessReview.",
            ),
        ];
        for (fits, subresource, message) in kinds {
            if fits && self.may(&request, subresource).await? {
                let mut approved = (*request).clone();
                add_condition(&mut approved, APPROVED, "AutoApproved", message.to_owned());
                tracing::info!(request = name, subresource, "approved");
                let key = ObjectKey::cluster(name);
                let written: Result<Request, _> =
                    self.client.update_subresource(&key, "approval", &approved).await;
                unless_gone(written)?;
                return Ok(());
            }
        }
        Ok(())
    }

    async fn may(&self, request: &Request, subresource: &str) -> Result<bool, ReconcileError> {
        let spec = &request.spec;
        let review = SubjectAccessReview {
            spec: SubjectAccessReviewSpec {
                user: spec.username.clone(),
                uid: spec.uid.clone(),
                groups: spec.groups.clone(),
                extra: spec.extra.clone(),
                resource_attributes: Some(ResourceAttributes {
                    group: Some("certificates.k8s.io".into()),
                    version: Some("*".into()),
                    resource: Some("certificatesigningrequests".into()),
                    subresource: Some(subresource.into()),
                    verb: Some("create".into()),
                    ..ResourceAttributes::default()
                }),
                non_resource_attributes: None,
            },
            ..SubjectAccessReview::default()
        };
        let answered = self.reviews.create(&review).await?;
        Ok(answered.status.is_some_and(|status| status.allowed))
    }
}
