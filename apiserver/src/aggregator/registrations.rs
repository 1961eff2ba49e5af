//! Registers the group versions of custom resources: an APIService for each, as long as a definition makes this server serve
//! it.
//!
//! Every server does; they write the same.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::try_join_all;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::DeleteOptions;
use k8s_openapi::kube_aggregator::pkg::apis::apiregistration::v1::APIService;
use keelson_api::object::Object as _;
use keelson_api::status::ApiResult;
use tokio_util::sync::CancellationToken;

use crate::authentication::User;
use crate::bootstrap::created;
use crate::registry::apiregistration::api_service;
use crate::state::Server;
use crate::storage::changes::Changes;

/// How soon it is tried again after something went wrong.
const TROUBLE: Duration = Duration::from_secs(2);
/// Everything is looked at this often, whatever happens: somebody may have deleted a registration.
const PERIOD: Duration = Duration::from_secs(60);

type GroupVersions = BTreeSet<(&'static str, &'static str)>;

/// Registers what is served, until `shutdown`.
pub async fn run(server: Arc<Server>, shutdown: CancellationToken) {
    shutdown.run_until_cancelled(follow(&server)).await;
}

async fn follow(server: &Arc<Server>) {
    let Some(mut changes) = Changes::of::<CustomResourceDefinition>(server).await else {
        return;
    };
    let (mut registered, mut settled) = (None, Instant::now());
    loop {
        let mut pause = PERIOD;
        // Most changes of definitions leave what is served as it is.
        let generation = server.catalog.custom().generation();
        if registered != Some(generation) || settled.elapsed() >= PERIOD {
            match settle(server).await {
                Ok(()) => (registered, settled) = (Some(generation), Instant::now()),
                Err(error) => {
                    tracing::warn!(%error, "cannot register the group versions of custom resources");
                    (registered, pause) = (None, TROUBLE);
                }
            }
        }
        if !changes.wait(pause).await {
            return;
        }
    }
}

fn served(server: &Server) -> GroupVersions {
    let all = server.catalog.custom().served();
    all.iter()
        .map(|served| (served.group(), served.version()))
        .collect()
}

async fn settle(server: &Arc<Server>) -> ApiResult<()> {
    // In this order: whatever another server has registered by now, its definition has been seen by then.
    let services = server.cached_list::<APIService>("");
    let wanted = served(server);
    let user = User::loopback();
    let gone = services
        .iter()
        .filter(|service| api_service::is_custom(service) && !is_wanted(service, &wanted));
    for service in gone {
        match server
            .delete::<APIService>(&user, "", service.name(), DeleteOptions::default())
            .await
        {
            Err(error) if !error.is_not_found() => return Err(error),
            _ => tracing::info!(name = service.name(), "a group version is no longer served"),
        }
    }
    let missing = wanted
        .iter()
        .filter(|(group, version)| !server.exists::<APIService>("", &api_service::name(group, version)))
        .map(|(group, version)| async { created(server.create(&api_service::custom(group, version)).await) });
    try_join_all(missing).await.map(drop)
}

fn is_wanted(service: &APIService, wanted: &GroupVersions) -> bool {
    let Some(spec) = &service.spec else { return false };
    let part = |text: &Option<String>| text.clone().unwrap_or_default();
    let (group, version) = (part(&spec.group), part(&spec.version));
    wanted.contains(&(group.as_str(), version.as_str()))
}
