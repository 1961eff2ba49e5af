//! Objects that describe the server itself: its priority levels and flow schemas, its group versions, its range of
//! service addresses.

use std::sync::Arc;

use futures::future::try_join_all;
use k8s_openapi::api::flowcontrol::v1::{FlowSchema, PriorityLevelConfiguration};
use k8s_openapi::api::networking::v1::{ServiceCIDR, ServiceCIDRSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use k8s_openapi::kube_aggregator::pkg::apis::apiregistration::v1::APIService;
use keelson_api::object::Kind;
use keelson_api::status::ApiResult;
use keelson_api::{conditions, time};

use super::{cluster_meta, created};
use crate::authentication::User;
use crate::registry::apiregistration::api_service;
use crate::registry::flowcontrol::bootstrap;
use crate::state::Server;

/// The range the server was started with.
const SERVICE_CIDR: &str = "kubernetes";
/// The condition of ranges that addresses may be taken from.
const READY: &str = "Ready";

/// Creates what is missing.
pub(super) async fn ensure(server: &Arc<Server>) -> ApiResult<()> {
    missing::<PriorityLevelConfiguration>(server, bootstrap::priority_levels()).await?;
    missing::<FlowSchema>(server, bootstrap::flow_schemas()).await?;
    missing::<APIService>(server, api_services(server)).await?;
    missing::<ServiceCIDR>(server, vec![service_cidr(server)]).await?;
    ready(server).await
}

/// The range the server was started with is ready from the first service on, whether or not controllers run.
async fn ready(server: &Arc<Server>) -> ApiResult<()> {
    let is_judged = |range: &ServiceCIDR| {
        let conditions = range
            .status
            .as_ref()
            .and_then(|status| status.conditions.as_ref());
        conditions::find(conditions, READY).is_some()
    };
    let found = server.cached::<ServiceCIDR>("", SERVICE_CIDR);
    if found.is_none_or(|range| is_judged(&range) || range.metadata.deletion_timestamp.is_some()) {
        return Ok(());
    }
    let change = |range: &mut ServiceCIDR| {
        let condition = Condition {
            last_transition_time: time::now(),
            message: "Kubernetes default Service CIDR is ready".to_owned(),
            observed_generation: None,
            reason: String::new(),
            status: conditions::TRUE.to_owned(),
            type_: READY.to_owned(),
        };
        conditions::set(&mut range.status.get_or_insert_default().conditions, condition);
        Ok(())
    };
    server
        .update(&User::loopback(), ("", SERVICE_CIDR, "status"), change)
        .await
        .map(drop)
}

async fn missing<K: Kind>(server: &Arc<Server>, wanted: Vec<K>) -> ApiResult<()> {
    let missing = wanted
        .into_iter()
        .filter(|object| !server.exists::<K>("", object.metadata().name.as_deref().unwrap_or_default()));
    let creations = missing.map(|object| async move { created(server.create(&object).await) });
    try_join_all(creations).await.map(drop)
}

/// One for each group version that discovery tells of.
fn api_services(server: &Server) -> Vec<APIService> {
    let mut versions: Vec<_> = server
        .catalog
        .served()
        .filter(|served| served.alias.is_none_or(|alias| alias.discoverable))
        .map(|served| (served.group(), served.version()))
        .collect();
    versions.sort_unstable();
    versions.dedup();
    versions
        .into_iter()
        .map(|(group, version)| api_service::local(group, version))
        .collect()
}

fn service_cidr(server: &Server) -> ServiceCIDR {
    ServiceCIDR {
        metadata: cluster_meta(SERVICE_CIDR),
        spec: Some(ServiceCIDRSpec {
            cidrs: Some(vec![server.config.service_cluster_ip_range.to_string()]),
        }),
        status: None,
    }
}
