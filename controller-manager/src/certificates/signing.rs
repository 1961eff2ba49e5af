//! Signs what has been approved, for the signers of Kubernetes itself.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::ByteString;
use k8s_openapi::api::certificates::v1::CertificateSigningRequest as Request;
use keelson_api::object::{Object as _, ObjectKey};
use keelson_client::{Event, Informer, ReconcileError, ResourceClient, WorkQueue, run_workers};

use super::recognize::Asked;
use super::sign::Authority;
use super::{APPROVED, DENIED, FAILED, add_condition, condition, issued};
use crate::common::answers::unless_gone;
use crate::context::Context;

/// Requests signed at the same time.
const WORKERS: usize = 5;

/// Runs the controller until shutdown, if there is an authority to sign with.
pub async fn run(context: Context) {
    let config = context.config();
    let (Some(certificate), Some(key)) = (
        &config.cluster_signing_cert_file,
        &config.cluster_signing_key_file,
    ) else {
        return;
    };
    let authority = match Authority::load(certificate, key) {
        Ok(authority) => authority,
        Err(error) => return tracing::error!(error = format!("{error:#}"), "no requests are signed"),
    };
    let controller = Arc::new(Controller {
        authority,
        longest: config.cluster_signing_duration,
        requests: context.certificate_signing_requests(),
        client: context.client().resource(),
    });
    let queue: WorkQueue<String> = WorkQueue::new("csrsigning");
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
    authority: Authority,
    longest: Duration,
    requests: Informer<Request>,
    client: ResourceClient<Request>,
}

impl Controller {
    async fn sync(&self, name: &str) -> Result<(), ReconcileError> {
        let Some(request) = self.requests.store().get(&ObjectKey::cluster(name)) else {
            return Ok(());
        };
        let has = |kind: &str| condition(&request, kind).is_some();
        if issued(&request) || !has(APPROVED) || has(DENIED) || has(FAILED) {
            return Ok(());
        }
        let Some(changed) = self.signed(&request) else {
            return Ok(());
        };
        unless_gone(self.client.update_status(&changed).await)?;
        Ok(())
    }

    /// The request with its certificate, or with the reason why it gets none; `None` when somebody else signs it.
    fn signed(&self, request: &Request) -> Option<Request> {
        let mut changed = request.clone();
        let failed = match Asked::read(&request.spec.request.0) {
            Err(problem) => Err(("SignerValidationFailure", problem)),
            Ok(asked) => match asked.fits_signer(&request.spec)? {
                Err(problem) => Err(("SignerValidationFailure", problem.to_owned())),
                Ok(()) => self
                    .authority
                    .sign(&asked, &request.spec, self.longest)
                    .map_err(|problem| ("SigningError", problem)),
            },
        };
        match failed {
            Ok(pem) => {
                let status = changed.status.get_or_insert_default();
                status.certificate = Some(ByteString(pem.into_bytes()));
                tracing::info!(
                    request = request.name(),
                    signer = request.spec.signer_name,
                    "signed"
                );
            }
            Err((reason, problem)) => {
                tracing::info!(request = request.name(), problem, "not signed");
                add_condition(&mut changed, FAILED, reason, problem);
            }
        }
        Some(changed)
    }
}
