//! Signs the config map `cluster-info` of `kube-public` with every bootstrap token that is for signing, so that a
//! machine that has one can tell that what it learned there is true.
//!
//! <https://kubernetes.io/docs/reference/access-authn-authz/bootstrap-tokens/#configmap-signing>

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as B64;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use keelson_api::object::{Object as _, ObjectKey};
use keelson_client::{Event, ResourceClient, WorkQueue, run_workers};
use ring::hmac;

use super::text;
use crate::context::Context;

/// Where the config map is.
pub const NAMESPACE: &str = "kube-public";
/// The config map.
pub const NAME: &str = "cluster-info";
/// What is signed, and what the signatures' keys begin with.
const KUBECONFIG: &str = "kubeconfig";
const SIGNATURE: &str = "jws-kubeconfig-";

/// Runs the controller until shutdown.
pub async fn run(context: Context) {
    let secrets = context.bootstrap_secrets();
    let maps = context.cluster_info();
    let client: ResourceClient<ConfigMap> = context.client().resource();
    // There is one thing to do; the key says nothing.
    let queue: WorkQueue<()> = WorkQueue::new("bootstrap_signer");
    let to = queue.clone();
    secrets.subscribe(move |_| to.add(()));
    let to = queue.clone();
    maps.subscribe(move |event| match event {
        Event::Added(_) | Event::Updated { .. } => to.add(()),
        Event::Deleted(_) => {}
    });
    secrets.synced().await;
    maps.synced().await;
    run_workers(queue, 1, context.shutdown().clone(), move |()| {
        let (secrets, maps, client) = (secrets.clone(), maps.clone(), client.clone());
        async move {
            let Some(map) = maps.store().get(&ObjectKey::new(NAMESPACE, NAME)) else {
                return Ok(());
            };
            let secrets = secrets.store().list();
            let signers = secrets
                .iter()
                .filter_map(|secret| signer(secret, Timestamp::now()));
            if let Some(signed) = signed(&map, signers) {
                client.update(&signed).await?;
                tracing::info!("the description of the cluster is signed");
            }
            Ok(())
        }
    })
    .await;
}

/// The public and the secret part of a token that signs.
fn signer(secret: &Secret, now: Timestamp) -> Option<(&str, &str)> {
    let (id, key) = (text(secret, "token-id"), text(secret, "token-secret"));
    let end = text(secret, "expiration");
    let over = !end.is_empty() && end.parse::<Timestamp>().map_or(true, |end| end <= now);
    let named = secret.name().strip_prefix("bootstrap-token-") == Some(id);
    let signs = text(secret, "usage-bootstrap-signing") == "true";
    (named && signs && !over && !key.is_empty()).then_some((id, key))
}

/// The config map with the signatures it should have; `None` when it has them.
fn signed<'t>(map: &ConfigMap, signers: impl Iterator<Item = (&'t str, &'t str)>) -> Option<ConfigMap> {
    let old = map.data.clone().unwrap_or_default();
    let kubeconfig = old.get(KUBECONFIG)?;
    let mut data: BTreeMap<String, String> = old
        .iter()
        .filter(|(key, _)| !key.starts_with(SIGNATURE))
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect();
    for (id, key) in signers {
        data.insert(format!("{SIGNATURE}{id}"), signature(kubeconfig, id, key));
    }
    (data != old).then(|| ConfigMap {
        data: Some(data),
        ..map.clone()
    })
}

/// A JSON Web Signature (RFC 7515) whose payload is left out: HMAC with SHA-256 and the token's secret part.
fn signature(payload: &str, id: &str, key: &str) -> String {
    // Keys in the order of Go's encoder, so that the same token gives the same text.
    let header = B64.encode(format!(r#"{{"alg":"HS256","kid":"{id}"}}"#));
    let message = format!("{header}.{}", B64.encode(payload));
    let key = hmac::Key::new(hmac::HMAC_SHA256, key.as_bytes());
    format!("{header}..{}", B64.encode(hmac::sign(&key, message.as_bytes())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn signatures_are_those_kubeadm_expects() {
        // Computed with another program from the same header, payload and key.
        assert_eq!(
            signature("Hello from the other side!", "joshua", "my voice is my passcode"),
            "eyJhbGciOiJIUzI1NiIsImtpZCI6Impvc2h1YSJ9..w1CuBeeRQ5ISgPcLQRlR-cYs6ShXUp1RzyAoS7qfn6A"
        );
    }

    #[test]
    fn tokens_that_are_gone_take_their_signatures_with_them() {
        let map: ConfigMap = serde_json::from_value(json!({
            "metadata": {"name": NAME}, "data": {KUBECONFIG: "x", "jws-kubeconfig-gone00": "y", "other": "z"},
        }))
        .expect("a config map");
        let new = signed(&map, [("abcdef", "0123456789abcdef")].into_iter()).expect("changed");
        let keys: Vec<&str> = new.data.iter().flatten().map(|(key, _)| key.as_str()).collect();
        assert_eq!(keys, ["jws-kubeconfig-abcdef", KUBECONFIG, "other"]);
        assert!(signed(&new, [("abcdef", "0123456789abcdef")].into_iter()).is_none());
    }
}
