//! Who may ask, and what for.

use std::sync::Arc;

use http::{Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use keelson_daemon::tls::Peer;
use serde_json::json;

use super::reply::{Body, full, json, text};
use super::{Server, logs, stats, streaming};
use crate::objects::PodExt;

/// Members may do everything.
const MASTERS: &str = "system:masters";
/// The apiserver, when it talks to kubelets.
const APISERVER: &str = "kube-apiserver-kubelet-client";

/// Query parameters, in order.
pub(super) struct Query(Vec<(String, String)>);

impl Query {
    pub(super) fn of(text: &str) -> Self {
        let pairs = text.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decode(key), decode(value))
        });
        Self(pairs.collect())
    }

    /// The first value of a parameter.
    pub(super) fn get(&self, key: &str) -> Option<&str> {
        self.0
            .iter()
            .find(|(name, _)| name == key)
            .map(|(_, value)| value.as_str())
    }

    /// All values of a parameter.
    pub(super) fn all(&self, key: &str) -> Vec<String> {
        self.0
            .iter()
            .filter(|(name, _)| name == key)
            .map(|(_, value)| value.clone())
            .collect()
    }

    /// Is a parameter on, under any of its names?
    pub(super) fn is_on(&self, keys: &[&str]) -> bool {
        keys.iter()
            .any(|key| matches!(self.get(key), Some("1" | "true" | "t" | "T" | "TRUE" | "True")))
    }
}

fn decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let hex = |range: std::ops::Range<usize>| {
            bytes
                .get(range)
                .filter(|pair| pair.iter().all(u8::is_ascii_hexdigit))
                .and_then(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok())
        };
        match bytes[at] {
            b'+' => out.push(b' '),
            b'%' => {
                if let Some(byte) = hex(at + 1..at + 3) {
                    out.push(byte);
                    at += 2;
                } else {
                    out.push(b'%');
                }
            }
            byte => out.push(byte),
        }
        at += 1;
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// Lets through only the apiserver and members of `system:masters`.
fn refuse(peer: &Peer, method: &Method, path: &str) -> Option<Response<Body>> {
    let identity = match peer {
        Peer::Certificate(identity) => identity,
        Peer::Anonymous | Peer::Untrusted(_) => return Some(text(StatusCode::UNAUTHORIZED, "Unauthorized")),
    };
    let masters = identity.organizations.iter().any(|group| group == MASTERS);
    if masters || identity.common_name == APISERVER {
        return None;
    }
    let verb = if *method == Method::GET { "get" } else { "create" };
    let message = format!(
        "Forbidden (user={}, verb={verb}, resource=nodes, subresource(s)=[proxy]): {path}",
        identity.common_name
    );
    Some(text(StatusCode::FORBIDDEN, message))
}

/// Answers a request.
pub(super) async fn answer(server: Arc<Server>, peer: &Peer, request: Request<Incoming>) -> Response<Body> {
    let path = request.uri().path().to_owned();
    if let Some(refusal) = refuse(peer, request.method(), &path) {
        return refusal;
    }
    let query = Query::of(request.uri().query().unwrap_or_default());
    let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
    let get = *request.method() == Method::GET;
    match parts.as_slice() {
        ["containerLogs", namespace, pod, container] if get => {
            logs::answer(&server, namespace, pod, container, &query).await
        }
        ["exec", namespace, pod, container] => {
            streaming::exec(&server, (namespace, pod, None), container, &query, request).await
        }
        ["exec", namespace, pod, uid, container] => {
            streaming::exec(&server, (namespace, pod, Some(uid)), container, &query, request).await
        }
        ["attach", namespace, pod, container] => {
            streaming::attach(&server, (namespace, pod, None), container, &query, request).await
        }
        ["attach", namespace, pod, uid, container] => {
            streaming::attach(&server, (namespace, pod, Some(uid)), container, &query, request).await
        }
        ["portForward", namespace, pod] => {
            streaming::port_forward(&server, (namespace, pod, None), &query, request).await
        }
        ["portForward", namespace, pod, uid] => {
            streaming::port_forward(&server, (namespace, pod, Some(uid)), &query, request).await
        }
        ["run", namespace, pod, container] if *request.method() == Method::POST => {
            streaming::run(&server, namespace, pod, container, &query).await
        }
        ["pods"] if get => json(&pod_list(server.manager.pods())),
        ["runningpods"] if get => {
            let running = |pod: &k8s_openapi::api::core::v1::Pod| {
                server
                    .manager
                    .find(pod.namespace(), pod.name(), Some(pod.uid()))
                    .is_some_and(|mailbox| mailbox.seen().running().next().is_some())
            };
            json(&pod_list(
                server.manager.pods().into_iter().filter(running).collect(),
            ))
        }
        ["stats", "summary"] | ["stats"] if get => json(&stats::summary(&server).await),
        ["metrics", "resource"] if get => stats::resource_metrics(&server).await,
        ["metrics", "cadvisor"] if get => stats::container_metrics(&server).await,
        ["healthz" | "livez" | "readyz" | "metrics"] if get => server.health.answer(&path).map(|body| {
            use http_body_util::BodyExt;
            body.map_err(|never| match never {}).boxed()
        }),
        ["healthz", _] if get => {
            let mut ok = Response::new(full("ok"));
            *ok.status_mut() = StatusCode::OK;
            ok
        }
        _ => text(StatusCode::NOT_FOUND, "404 page not found"),
    }
}

fn pod_list(pods: Vec<k8s_openapi::api::core::v1::Pod>) -> serde_json::Value {
    json!({"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": pods})
}

/// A pod as requests name it: namespace, name, and the UID if it matters.
pub(super) type Named<'a> = (&'a str, &'a str, Option<&'a str>);

#[cfg(test)]
mod tests {
    use super::*;
    use keelson_daemon::tls::CertificateIdentity;

    #[test]
    fn parameters() {
        let query = Query::of("command=sh&command=-c&command=a%20b+c%2B&tty=1&input=true");
        assert_eq!(query.all("command"), ["sh", "-c", "a b c+"]);
        assert!(query.is_on(&["tty"]) && query.is_on(&["stdin", "input"]) && !query.is_on(&["output"]));
    }

    #[test]
    fn only_the_apiserver_and_masters() {
        let who = |name: &str, groups: &[&str]| {
            let identity = CertificateIdentity {
                common_name: name.into(),
                organizations: groups.iter().map(|group| (*group).into()).collect(),
                credential_id: String::new(),
                not_after: i64::MAX,
            };
            refuse(&Peer::Certificate(identity), &Method::GET, "/pods")
                .map(|refusal| refusal.status().as_u16())
        };
        assert_eq!(who("admin", &["system:masters"]), None);
        assert_eq!(who(APISERVER, &["kubeadm:cluster-admins"]), None);
        assert_eq!(who("system:node:a", &["system:nodes"]), Some(403));
        let nobody =
            refuse(&Peer::Anonymous, &Method::GET, "/healthz").map(|refusal| refusal.status().as_u16());
        assert_eq!(nobody, Some(401));
    }
}
