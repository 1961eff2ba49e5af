//! What a cluster has from its first moment on: the system namespaces and priority classes, the objects that describe
//! the server itself, and the `kubernetes` service.
//!
//! All are looked after for as long as the server runs: what is removed or changed comes back.

pub mod addresses;
mod authenticating;
mod endpoints;
mod presence;
mod standing;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Namespace, Service, ServicePort, ServiceSpec};
use k8s_openapi::api::scheduling::v1::PriorityClass;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use keelson_api::status::ApiResult;
use tokio_util::sync::CancellationToken;

use crate::authentication::User;
use crate::authorization::{AuthorizationMode, rbac};
use crate::config::Config;
use crate::registry::scheduling::priority_class::SYSTEM_CLASSES;
use crate::state::Server;

use self::presence::Presence;

/// Namespaces that are always there.
const NAMESPACES: &[&str] = &["default", "kube-system", "kube-public", "kube-node-lease"];
/// How often everything is looked at again.
const PERIOD: Duration = Duration::from_secs(10);
/// The same while something is missing.
const HURRY: Duration = Duration::from_millis(200);
/// What a server that stops may take to say so.
const FAREWELL: Duration = Duration::from_secs(2);
/// The service the API answers at inside of the cluster, and the namespace it lives in.
const SERVICE: &str = "kubernetes";
const NAMESPACE: &str = "default";
/// The port of the service.
const SERVICE_PORT: i32 = 443;

/// Looks after the system's objects until `shutdown`.
pub async fn run(server: Arc<Server>, shutdown: CancellationToken) {
    let presence = Presence::of(&server.config);
    let look_after = async {
        while server.authorizer.runs(AuthorizationMode::Rbac) && !server.authorizer.ready() {
            match roles(&server).await {
                Ok(()) => server.authorizer.set_ready(),
                Err(error) => {
                    tracing::warn!(%error, "roles are not as they should be yet");
                    tokio::time::sleep(HURRY).await;
                }
            }
        }
        loop {
            let wait = match reconcile(&server, &presence).await {
                Ok(()) => PERIOD,
                Err(error) => {
                    tracing::warn!(%error, "system objects are not as they should be yet");
                    HURRY
                }
            };
            tokio::time::sleep(wait).await;
        }
    };
    shutdown.run_until_cancelled(look_after).await;
    match tokio::time::timeout(FAREWELL, leave(&server, &presence)).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => {
            tracing::warn!(%error, "the other servers will notice by themselves that this one has gone")
        }
        Err(_) => tracing::warn!("no time to tell the other servers that this one goes"),
    }
}

/// Sends nobody here any more, if there is another server to go to.
async fn leave(server: &Arc<Server>, presence: &Presence) -> ApiResult<()> {
    presence.end(&server.store).await?;
    let others = presence.living(&server.store).await?;
    if others.is_empty() {
        return Ok(());
    }
    endpoints::write(server, &others).await
}

/// Roles and bindings, and the namespaces some of them live in; known to the authorizer before anybody is refused.
async fn roles(server: &Arc<Server>) -> ApiResult<()> {
    server.catch_up().await?;
    namespaces(server).await?;
    rbac::bootstrap::reconcile(server).await?;
    rbac::follow::catch_up(server).await
}

async fn namespaces(server: &Arc<Server>) -> ApiResult<()> {
    for name in NAMESPACES {
        if !server.exists::<Namespace>("", name) {
            let namespace = Namespace {
                metadata: cluster_meta(name),
                ..Namespace::default()
            };
            created(server.create(&namespace).await)?;
        }
    }
    server.catch_up().await.map(drop)
}

async fn reconcile(server: &Arc<Server>, presence: &Presence) -> ApiResult<()> {
    server.catch_up().await?;
    namespaces(server).await?;
    for (name, value, description) in SYSTEM_CLASSES {
        if !server.exists::<PriorityClass>("", name) {
            let class = PriorityClass {
                metadata: cluster_meta(name),
                value: Some(*value),
                description: Some((*description).to_owned()),
                ..PriorityClass::default()
            };
            created(server.create(&class).await)?;
        }
    }
    standing::ensure(server).await?;
    server.catch_up().await?;
    authenticating::ensure(server).await?;
    Wanted::new(&server.config).service(server).await?;
    let living = presence.renew(&server.store).await?;
    endpoints::write(server, &living).await
}

/// Somebody else creating it is as good.
pub(crate) fn created<T>(result: ApiResult<T>) -> ApiResult<()> {
    match result {
        Err(error) if !error.is_already_exists() => Err(error),
        _ => Ok(()),
    }
}

fn cluster_meta(name: &str) -> ObjectMeta {
    ObjectMeta {
        name: Some(name.to_owned()),
        ..ObjectMeta::default()
    }
}

fn meta(labels: &[(&str, &str)]) -> ObjectMeta {
    ObjectMeta {
        name: Some(SERVICE.to_owned()),
        namespace: Some(NAMESPACE.to_owned()),
        labels: Some(
            labels
                .iter()
                .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
                .collect(),
        ),
        ..ObjectMeta::default()
    }
}

/// What the service should say.
struct Wanted {
    cluster_ip: IpAddr,
    port: i32,
}

impl Wanted {
    fn new(config: &Config) -> Self {
        Self {
            cluster_ip: config.kubernetes_service_address(),
            port: i32::from(config.secure_port),
        }
    }

    async fn service(&self, server: &Arc<Server>) -> ApiResult<()> {
        let ports = vec![ServicePort {
            name: Some("https".into()),
            port: SERVICE_PORT,
            protocol: Some("TCP".into()),
            target_port: Some(IntOrString::Int(self.port)),
            ..ServicePort::default()
        }];
        let same = |found: &Service| {
            let found = found.spec.as_ref().and_then(|spec| spec.ports.as_ref());
            found.is_some_and(|found| {
                found.len() == 1
                    && found[0].port == SERVICE_PORT
                    && found[0].name.as_deref() == Some("https")
                    && found[0].target_port == Some(IntOrString::Int(self.port))
            })
        };
        match server.cached::<Service>(NAMESPACE, SERVICE) {
            Some(found) if same(&found) => Ok(()),
            Some(_) => {
                let change = |service: &mut Service| {
                    service.spec.get_or_insert_default().ports = Some(ports.clone());
                    Ok(())
                };
                server
                    .update(&User::loopback(), (NAMESPACE, SERVICE, ""), change)
                    .await
                    .map(drop)
            }
            None => {
                let spec = ServiceSpec {
                    cluster_ip: Some(self.cluster_ip.to_string()),
                    cluster_ips: Some(vec![self.cluster_ip.to_string()]),
                    ports: Some(ports),
                    session_affinity: Some("None".into()),
                    type_: Some("ClusterIP".into()),
                    ..ServiceSpec::default()
                };
                let metadata = meta(&[("component", "apiserver"), ("provider", "kubernetes")]);
                created(
                    server
                        .create(&Service {
                            metadata,
                            spec: Some(spec),
                            status: None,
                        })
                        .await,
                )
            }
        }
    }
}
