//! Looks after APIServices: asks their servers what they serve, and says whether they can be reached.
//!
//! Every server does, and carries requests only where it has found somebody itself; they write the same condition.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::join_all;
use http::HeaderMap;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::kube_aggregator::pkg::apis::apiregistration::v1::{APIService, APIServiceCondition};
use keelson_api::object::Object as _;
use keelson_api::status::ApiResult;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::Remotes;
use super::proxy::introduce;
use super::published;
use super::remote::{Known, Remote};
use crate::authentication::{MASTERS, User};
use crate::connect::Lookup as _;
use crate::state::Server;
use crate::storage::changes::Changes;

/// How soon services and endpoints are looked at again.
const SOON: Duration = Duration::from_secs(1);
/// How often a server that answers is asked again.
const PERIOD: Duration = Duration::from_secs(30);
/// The same while nothing is registered.
const IDLE: Duration = Duration::from_secs(60);
const AVAILABLE: &str = "Available";

/// Looks after APIServices until `shutdown`.
pub async fn run(server: Arc<Server>, shutdown: CancellationToken) {
    shutdown.run_until_cancelled(follow(&server)).await;
}

async fn follow(server: &Arc<Server>) {
    let Some(mut changes) = Changes::of::<APIService>(server).await else {
        return;
    };
    let mut known = HashMap::new();
    while changes.wait(look_at_all(server, &mut known).await).await {}
}

/// What was found when a server was last asked.
struct Asked {
    remote: Arc<Remote>,
    at: Instant,
    verdict: Verdict,
    known: Known,
}

/// What an `Available` condition says.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Verdict {
    status: &'static str,
    reason: &'static str,
    message: String,
}

impl Verdict {
    fn no(reason: &'static str, message: String) -> Self {
        Self {
            status: "False",
            reason,
            message,
        }
    }

    fn passed() -> Self {
        Self {
            status: "True",
            reason: "Passed",
            message: "all checks passed".to_owned(),
        }
    }

    fn good(&self) -> bool {
        self.status == "True"
    }
}

async fn look_at_all(server: &Arc<Server>, known: &mut HashMap<String, Asked>) -> Duration {
    let services = server.cached_list::<APIService>("");
    let ours: Vec<(Arc<APIService>, Remote)> = services
        .into_iter()
        .filter_map(|service| {
            let remote = Remote::of(&service, &server.aggregator)?;
            Some((service, remote))
        })
        .collect();
    if ours.is_empty() {
        if !known.is_empty() {
            known.clear();
            server.aggregator.publish(Remotes::new());
        }
        return IDLE;
    }
    let looks = ours.iter().map(|(_, remote)| {
        let before = known
            .get(&remote.name)
            .filter(|asked| asked.remote.spec == remote.spec);
        look_at(server, remote, before)
    });
    let looked = join_all(looks).await;
    let mut now = HashMap::new();
    let mut changed = known.len() != ours.len();
    for ((service, _), (asked, fresh)) in ours.iter().zip(looked) {
        changed |= fresh;
        if let Err(error) = write(server, service, &asked.verdict).await {
            tracing::warn!(service = service.name(), %error, "cannot say whether an APIService is available");
        }
        now.insert(service.name().to_owned(), asked);
    }
    *known = now;
    if changed {
        let remotes = known
            .values()
            .map(|asked| {
                let remote = asked.remote.clone();
                ((remote.group().to_owned(), remote.version().to_owned()), remote)
            })
            .collect();
        server.aggregator.publish(remotes);
    }
    SOON
}

/// What is to be said of a group version, and whether that is news.
async fn look_at(server: &Arc<Server>, remote: &Remote, before: Option<&Asked>) -> (Asked, bool) {
    let verdict = match reachable(server, remote).await {
        Err(verdict) => Err(verdict),
        Ok(()) => match before {
            // A server that answered a while ago answers still.
            Some(asked) if asked.verdict.good() && asked.at.elapsed() < PERIOD => {
                let same = Asked {
                    remote: asked.remote.clone(),
                    at: asked.at,
                    verdict: asked.verdict.clone(),
                    known: asked.known.clone(),
                };
                return (same, false);
            }
            _ => discovered(server, remote).await,
        },
    };
    let (verdict, known) = match verdict {
        Ok(known) => (Verdict::passed(), known),
        // What it served before it went is still told, as what it was.
        Err(verdict) => (
            verdict,
            before.map(|asked| asked.known.clone()).unwrap_or_default(),
        ),
    };
    let news = before.is_none_or(|asked| {
        asked.verdict.good() != verdict.good()
            || asked.known.resources != known.resources
            || asked.known.openapi_v2 != known.openapi_v2
            || asked.known.openapi_v3 != known.openapi_v3
    });
    let remote = match before.filter(|_| !news) {
        Some(asked) => asked.remote.clone(),
        None => Arc::new(remote.like(verdict.good(), known.clone())),
    };
    let asked = Asked {
        remote,
        at: Instant::now(),
        verdict,
        known,
    };
    (asked, news)
}

/// Whether the service is there, listens on the port, and somebody is behind it.
async fn reachable(server: &Arc<Server>, remote: &Remote) -> Result<(), Verdict> {
    let (namespace, name, port) = remote.service();
    let Some(service) = server.cached::<Service>(namespace, name) else {
        return Err(Verdict::no(
            "ServiceNotFound",
            format!("service/{name} in {namespace:?} is not present"),
        ));
    };
    let spec = service.spec.as_ref();
    // Of other types it shows when the server is asked.
    if spec.and_then(|spec| spec.type_.as_deref()) != Some("ClusterIP") {
        return Ok(());
    }
    let ports = spec.and_then(|spec| spec.ports.as_deref()).unwrap_or_default();
    let Some(found) = ports.iter().find(|candidate| candidate.port == port) else {
        return Err(Verdict::no(
            "ServicePortError",
            format!("service/{name} in {namespace:?} is not listening on port {port}"),
        ));
    };
    let slices = match server.endpoint_slices(namespace, name).await {
        Ok(slices) => slices,
        Err(error) => {
            return Err(Verdict {
                status: "Unknown",
                reason: "EndpointsAccessError",
                message: format!("service/{name} in {namespace:?} cannot be checked due to: {error}"),
            });
        }
    };
    if slices.is_empty() {
        return Err(Verdict::no(
            "EndpointsNotFound",
            format!("cannot find endpointslices for service/{name} in {namespace:?}"),
        ));
    }
    let port_name = found.name.as_deref().unwrap_or_default();
    if !slices.iter().any(|slice| somebody(slice, port_name)) {
        return Err(Verdict::no(
            "MissingEndpoints",
            format!(
                "endpoints for service/{name} in {namespace:?} have no addresses with port name {port_name:?}"
            ),
        ));
    }
    Ok(())
}

/// Whether a ready endpoint of the slice has the port.
fn somebody(slice: &EndpointSlice, port_name: &str) -> bool {
    let mut ports = slice.ports.iter().flatten();
    let mut endpoints = slice.endpoints.iter().flatten();
    ports.any(|port| port.name.as_deref().unwrap_or_default() == port_name)
        && endpoints.any(|endpoint| {
            let ready = endpoint
                .conditions
                .as_ref()
                .and_then(|conditions| conditions.ready);
            ready.unwrap_or(true)
        })
}

/// What the server says it serves.
async fn discovered(server: &Arc<Server>, remote: &Remote) -> Result<Known, Verdict> {
    let path = format!("/apis/{}/{}", remote.group(), remote.version());
    let url = format!("https://{}{path}", shown(server, remote));
    let failed = |why: String| {
        Verdict::no(
            "FailedDiscoveryCheck",
            format!("failing or missing response from {url}: {why}"),
        )
    };
    let (code, body) = remote.ask(server, &path, as_aggregator()).await.map_err(failed)?;
    if !code.is_success() {
        return Err(failed(format!("bad status from {url}: {}", code.as_u16())));
    }
    let list: Value = serde_json::from_slice(&body).unwrap_or_default();
    let (group, version) = (remote.group(), remote.version());
    let document = |path: &'static str| async move {
        let (code, body) = remote.ask(server, path, as_aggregator()).await.ok()?;
        code.is_success().then_some(())?;
        serde_json::from_slice::<Value>(&body).ok()
    };
    let v3 = document("/openapi/v3").await;
    let pointer = format!("/paths/apis~1{}~1{version}/serverRelativeURL", group);
    let openapi_v3 = v3
        .as_ref()
        .and_then(|index| index.pointer(&pointer))
        .and_then(Value::as_str)
        .map(str::to_owned);
    let v2 = document("/openapi/v2").await;
    Ok(Known {
        resources: list["resources"].as_array().cloned(),
        openapi_v2: v2.map(|v2| Arc::new(published::part_of_v2(&v2, &path))),
        openapi_v3,
    })
}

/// Where conditions say a server is: at its service's address, or at what the service names.
fn shown(server: &Arc<Server>, remote: &Remote) -> String {
    let (namespace, name, port) = remote.service();
    let service = server.cached::<Service>(namespace, name);
    let spec = service
        .and_then(|service| service.spec.clone())
        .unwrap_or_default();
    let host = match spec.type_.as_deref() {
        Some("ExternalName") => spec.external_name,
        _ => spec.cluster_ip.filter(|address| address != "None"),
    };
    match host {
        Some(address) if address.contains(':') => format!("[{address}]:{port}"),
        Some(host) => format!("{host}:{port}"),
        None => format!("{name}.{namespace}.svc:{port}"),
    }
}

/// The name this server asks in for itself.
fn as_aggregator() -> HeaderMap {
    let mut headers = HeaderMap::new();
    let user = User::named("system:kube-aggregator", [MASTERS.to_owned()]);
    introduce(&mut headers, &user);
    headers
}

/// Writes the condition where it says something else.
async fn write(server: &Arc<Server>, service: &APIService, verdict: &Verdict) -> ApiResult<()> {
    let says = |service: &APIService| {
        let conditions = service.status.iter().flat_map(|s| s.conditions.iter().flatten());
        conditions.into_iter().any(|condition| {
            condition.type_ == AVAILABLE
                && condition.status == verdict.status
                && condition.reason.as_deref() == Some(verdict.reason)
                && condition.message.as_deref() == Some(&verdict.message)
        })
    };
    if says(service) {
        return Ok(());
    }
    let change = |fresh: &mut APIService| {
        let conditions = fresh
            .status
            .get_or_insert_default()
            .conditions
            .get_or_insert_default();
        let before = conditions.iter().find(|condition| condition.type_ == AVAILABLE);
        let since = before
            .filter(|condition| condition.status == verdict.status)
            .and_then(|condition| condition.last_transition_time.clone());
        let condition = APIServiceCondition {
            type_: AVAILABLE.to_owned(),
            status: verdict.status.to_owned(),
            last_transition_time: since.or_else(|| Some(keelson_api::time::now())),
            reason: Some(verdict.reason.to_owned()),
            message: Some(verdict.message.clone()),
        };
        conditions.retain(|condition| condition.type_ != AVAILABLE);
        conditions.push(condition);
        Ok(())
    };
    let written = server
        .update::<APIService>(&User::loopback(), ("", service.name(), "status"), change)
        .await;
    match written {
        Err(error) if !error.is_not_found() && !error.is_conflict() => Err(error),
        _ => Ok(()),
    }
}
