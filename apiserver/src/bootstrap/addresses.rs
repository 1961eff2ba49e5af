//! The addresses of services as objects: each service has those it says it has, and no other address is kept for one.
//!
//! Creating and deleting services keeps the two together. What is left is what people change by hand, and what a server
//! leaves behind that ends in the middle of a request.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::networking::v1::IPAddress;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{DeleteOptions, Preconditions};
use keelson_api::object::Object;
use keelson_api::status::ApiResult;
use tokio_util::sync::CancellationToken;

use crate::authentication::User;
use crate::registry::allocators::records::{address, service_of};
use crate::registry::core::service::allocation::addresses;
use crate::state::Server;
use crate::storage::changes::Changes;

/// Changes that come together are looked at once: a look reads every service.
const GATHER: Duration = Duration::from_secs(10);
/// Everything is looked at again this often.
const PERIOD: Duration = Duration::from_secs(180);
/// An address is taken before its service is written: one without a service is left alone for so long.
const GRACE: Duration = Duration::from_secs(60);

/// Looks after the addresses until `shutdown`.
pub async fn run(server: Arc<Server>, shutdown: CancellationToken) {
    shutdown.run_until_cancelled(follow(&server)).await;
}

async fn follow(server: &Arc<Server>) {
    let Some(mut changes) = Changes::of::<IPAddress>(server).await else {
        return;
    };
    let mut pause = GATHER;
    while changes.wait(pause).await {
        tokio::time::sleep(GATHER).await;
        pause = match repair(server).await {
            Ok(pause) => pause,
            Err(error) => {
                tracing::warn!(%error, "the addresses of services are not as they should be yet");
                GATHER
            }
        };
    }
}

/// Puts right what is not; how long the next look may wait.
async fn repair(server: &Arc<Server>) -> ApiResult<Duration> {
    // Addresses first: a service written in between has one that is not among them, and is not missed for it.
    let known = server.fresh_list::<IPAddress>("").await?;
    let services = server.fresh_list::<Service>("").await?;
    let plan = plan(&known, &services, Timestamp::now());
    for (text, uid) in plan.left_over {
        tracing::info!(address = text, "an address no service has is given back");
        let options = DeleteOptions {
            preconditions: Some(Preconditions {
                uid: Some(uid),
                resource_version: None,
            }),
            ..DeleteOptions::default()
        };
        match server
            .delete::<IPAddress>(&User::loopback(), "", &text, options)
            .await
        {
            Err(error) if !error.is_not_found() && !error.is_conflict() => return Err(error),
            _ => {}
        }
    }
    for (text, namespace, service) in plan.missing {
        // Another server may have been faster, or whoever creates the service.
        let created = server.create(&address(&text, &namespace, &service)).await;
        match created {
            Ok(_) => tracing::warn!(
                namespace,
                service,
                address = text,
                "the address of a service was not there"
            ),
            Err(error) if error.is_already_exists() => {}
            Err(error) => return Err(error),
        }
    }
    Ok(if plan.wait { GRACE } else { PERIOD })
}

/// What has to be done.
#[derive(Debug, Default, PartialEq, Eq)]
struct Plan {
    /// Addresses to be created, with namespace and name of their service.
    missing: Vec<(String, String, String)>,
    /// Addresses to be deleted, with their uids.
    left_over: Vec<(String, String)>,
    /// Whether there is an address that may have to be deleted later.
    wait: bool,
}

fn plan(known: &[IPAddress], services: &[Service], now: Timestamp) -> Plan {
    let mut plan = Plan::default();
    let mut owners: HashMap<String, (&str, &str)> = HashMap::new();
    for service in services {
        for text in addresses(service) {
            owners.insert(text, (service.namespace(), service.name()));
        }
    }
    for address in known {
        // Whoever has an address that is a service's too keeps it, as the service keeps it.
        let owner = owners.remove(address.name());
        let Some(whose) = service_of(address) else {
            continue;
        };
        if owner.is_some_and(|(namespace, name)| whose == format!("{namespace}/{name}")) {
            continue;
        }
        let created = address.metadata.creation_timestamp.as_ref().map(|at| at.0);
        let old = created.is_none_or(|at| now.duration_since(at).unsigned_abs() > GRACE);
        if owner.is_some() || old {
            plan.left_over
                .push((address.name().to_owned(), address.uid().to_owned()));
        } else {
            plan.wait = true;
        }
        if let Some((namespace, name)) = owner {
            plan.missing
                .push((address.name().to_owned(), namespace.to_owned(), name.to_owned()));
        }
    }
    let unknown = owners
        .into_iter()
        .map(|(text, (namespace, name))| (text, namespace.to_owned(), name.to_owned()));
    plan.missing.extend(unknown);
    plan
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
    use serde_json::json;

    fn service(name: &str, ip: &str) -> Service {
        serde_json::from_value(json!({"metadata": {"name": name, "namespace": "n"},
            "spec": {"type": "ClusterIP", "clusterIP": ip, "clusterIPs": [ip]}}))
        .expect("a service")
    }

    fn taken(ip: &str, name: &str, at: i64) -> IPAddress {
        let mut address = address(ip, "n", name);
        address.metadata.uid = Some("u".into());
        address.metadata.creation_timestamp = Some(Time(Timestamp::from_second(at).expect("a time")));
        address
    }

    #[test]
    fn services_and_addresses_are_brought_together() {
        let now = Timestamp::from_second(1000).expect("a time");
        let services = [
            service("kept", "10.0.0.1"),
            service("bare", "10.0.0.2"),
            service("none", "None"),
        ];
        let mut foreign = taken("10.0.0.9", "gone", 0);
        foreign.metadata.labels = None;
        let known = [
            taken("10.0.0.1", "kept", 0),
            taken("10.0.0.3", "gone", 0),
            taken("10.0.0.4", "coming", 990),
            foreign,
        ];
        let plan = plan(&known, &services, now);
        assert_eq!(plan.missing, [("10.0.0.2".into(), "n".into(), "bare".into())]);
        assert_eq!(plan.left_over, [("10.0.0.3".into(), "u".into())]);
        assert!(plan.wait);
    }

    #[test]
    fn a_wrong_owner_is_corrected() {
        let now = Timestamp::from_second(1000).expect("a time");
        let plan = plan(
            &[taken("10.0.0.1", "other", 999)],
            &[service("mine", "10.0.0.1")],
            now,
        );
        assert_eq!(plan.left_over, [("10.0.0.1".into(), "u".into())]);
        assert_eq!(plan.missing, [("10.0.0.1".into(), "n".into(), "mine".into())]);
    }
}
