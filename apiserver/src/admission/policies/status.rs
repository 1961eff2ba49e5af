//! Writes into the status of validating policies what their type check has found.
//!
//! Every server does. They write the same and nothing twice: a policy whose generation has been seen is left alone.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::admissionregistration::v1::{TypeChecking, ValidatingAdmissionPolicy};
use keelson_api::object::Object as _;
use keelson_api::status::ApiResult;
use tokio_util::sync::CancellationToken;

use super::type_check;
use crate::authentication::User;
use crate::state::Server;
use crate::storage::changes::Changes;

/// How soon after something went wrong.
const TROUBLE: Duration = Duration::from_secs(2);
/// Everything is looked at this often, whatever happens.
const PERIOD: Duration = Duration::from_secs(300);

/// Looks after policies until `shutdown`.
pub async fn run(server: Arc<Server>, shutdown: CancellationToken) {
    shutdown.run_until_cancelled(follow(&server)).await;
}

async fn follow(server: &Arc<Server>) {
    let Some(mut changes) = Changes::of::<ValidatingAdmissionPolicy>(server).await else {
        return;
    };
    while changes.wait(look_at_all(server).await).await {}
}

/// Looks at every policy; how long the next look may wait.
async fn look_at_all(server: &Arc<Server>) -> Duration {
    let mut wait = PERIOD;
    for policy in server.cached_list::<ValidatingAdmissionPolicy>("") {
        match look_at(server, &policy).await {
            Ok(()) => {}
            // Somebody was faster, or the policy is gone: its event comes next.
            Err(error) if error.is_conflict() || error.is_not_found() => {}
            Err(error) => {
                tracing::warn!(policy = policy.name(), %error, "cannot write what a policy's type check found");
                wait = TROUBLE;
            }
        }
    }
    wait
}

async fn look_at(server: &Arc<Server>, policy: &ValidatingAdmissionPolicy) -> ApiResult<()> {
    let generation = policy.metadata.generation.unwrap_or_default();
    let seen = policy
        .status
        .as_ref()
        .and_then(|status| status.observed_generation);
    if seen.is_some_and(|seen| seen >= generation) {
        return Ok(());
    }
    let warnings = type_check::warnings(server, policy);
    let place = ("", policy.name(), "status");
    let user = User::loopback();
    let written = server.update::<ValidatingAdmissionPolicy>(&user, place, |policy| {
        // Another generation is looked at by itself.
        if policy.metadata.generation == Some(generation) {
            let status = policy.status.get_or_insert_default();
            status.observed_generation = Some(generation);
            status.type_checking = Some(TypeChecking {
                expression_warnings: (!warnings.is_empty()).then(|| warnings.clone()),
            });
        }
        Ok(())
    });
    written.await.map(drop)
}
