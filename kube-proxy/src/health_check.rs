//! Health checks for load balancers: a service with `externalTrafficPolicy: Local` has a port on every node that says
//! whether the node has endpoints of it, so that a balancer sends traffic only where it is answered.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Service;
use keelson_api::object::Object;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::rules::ServicePort;

/// A question is a line and a few headers.
const HEAD_LIMIT: usize = 8 << 10;
/// Who has not asked by then does not want to.
const PATIENCE: Duration = Duration::from_secs(5);

/// What one port has to say.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Check {
    namespace: String,
    name: String,
    /// Endpoints on this node that take connections.
    local: usize,
}

/// What each port has to say.
fn wanted(services: &[Arc<Service>], ports: &[ServicePort]) -> BTreeMap<u16, Check> {
    let asked = services.iter().filter_map(|service| {
        let spec = service.spec.as_ref()?;
        let local = spec.type_.as_deref() == Some("LoadBalancer")
            && spec.external_traffic_policy.as_deref() == Some("Local");
        let port = spec.health_check_node_port.filter(|port| local && *port != 0)?;
        let key = service.key();
        let addresses: BTreeSet<_> = ports
            .iter()
            .filter(|port| port.namespace == key.namespace && port.name == key.name)
            .flat_map(|port| &port.endpoints)
            .filter(|endpoint| endpoint.local && endpoint.ready)
            .map(|endpoint| endpoint.address.ip())
            .collect();
        let check = Check {
            namespace: key.namespace.clone(),
            name: key.name.clone(),
            local: addresses.len(),
        };
        Some((u16::try_from(port).ok()?, check))
    });
    asked.collect()
}

/// The ports that are served.
#[derive(Default)]
pub(crate) struct HealthChecks {
    served: BTreeMap<u16, Served>,
}

struct Served {
    check: watch::Sender<Check>,
    stop: CancellationToken,
}

impl Drop for Served {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl HealthChecks {
    /// Brings the ports up to date. One that cannot be served is tried again at the next change.
    pub(crate) async fn update(
        &mut self,
        services: &[Arc<Service>],
        ports: &[ServicePort],
        shutdown: &CancellationToken,
    ) {
        let wanted = wanted(services, ports);
        self.served.retain(|port, _| wanted.contains_key(port));
        for (port, check) in wanted {
            if let Some(served) = self.served.get(&port) {
                served.check.send_if_modified(|known| {
                    let differs = *known != check;
                    *known = check;
                    differs
                });
                continue;
            }
            let service = format!("{}/{}", check.namespace, check.name);
            match listen(port).await {
                Ok(listener) => {
                    let (sender, receiver) = watch::channel(check);
                    let stop = shutdown.child_token();
                    tokio::spawn(serve(listener, receiver, stop.clone()));
                    self.served.insert(port, Served { check: sender, stop });
                    tracing::info!(port, service, "serving a health check");
                }
                Err(error) => tracing::error!(port, service, %error, "serving a health check"),
            }
        }
    }
}

/// On all addresses of both families, or of IPv4 alone where the kernel has no IPv6.
async fn listen(port: u16) -> std::io::Result<TcpListener> {
    match TcpListener::bind(SocketAddr::from((Ipv6Addr::UNSPECIFIED, port))).await {
        Ok(listener) => Ok(listener),
        Err(_) => TcpListener::bind(SocketAddr::from((Ipv4Addr::UNSPECIFIED, port))).await,
    }
}

async fn serve(listener: TcpListener, check: watch::Receiver<Check>, stop: CancellationToken) {
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    let answer = answer(&check.borrow());
                    tokio::spawn(tokio::time::timeout(PATIENCE, converse(stream, answer)));
                }
                Err(error) => {
                    tracing::warn!(%error, "accepting a health check");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }
}

/// Any question gets the same answer, and the connection is closed.
async fn converse(mut stream: TcpStream, answer: String) {
    let mut head = Vec::new();
    let mut buffer = [0; 1024];
    while !head.ends_with(b"\r\n\r\n") && head.len() < HEAD_LIMIT {
        match stream.read(&mut buffer).await {
            Ok(read @ 1..) => head.extend_from_slice(&buffer[..read]),
            _ => return,
        }
    }
    // Whoever does not wait for the answer does not need it.
    let _ = stream.write_all(answer.as_bytes()).await;
    let _ = stream.shutdown().await;
}

/// Upstream's answer, to the header.
fn answer(check: &Check) -> String {
    let status = if check.local > 0 {
        "200 OK"
    } else {
        "503 Service Unavailable"
    };
    let body = json!({
        "service": {"namespace": check.namespace, "name": check.name},
        "localEndpoints": check.local,
        "serviceProxyHealthy": true,
    })
    .to_string();
    format!(
        "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nX-Content-Type-Options: nosniff\r\n\
         X-Load-Balancing-Endpoint-Weight: {}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        check.local,
        body.len()
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::discovery::v1::EndpointSlice;

    fn service(port: u16, policy: &str) -> Arc<Service> {
        let service = json!({"metadata": {"name": "s", "namespace": "n"}, "spec": {"type": "LoadBalancer",
            "externalTrafficPolicy": policy, "healthCheckNodePort": port, "clusterIP": "10.96.0.9",
            "ports": [{"name": "a", "port": 80}, {"name": "b", "port": 81}]}});
        Arc::new(serde_json::from_value(service).expect("a service"))
    }

    fn slice(nodes: &[&str]) -> Arc<EndpointSlice> {
        let endpoints: Vec<_> = nodes
            .iter()
            .enumerate()
            .map(|(number, node)| json!({"addresses": [format!("10.244.0.{number}")], "nodeName": node}))
            .collect();
        let slice = json!({"metadata": {"name": "s-1", "namespace": "n", "labels": {"kubernetes.io/service-name": "s"}},
            "addressType": "IPv4", "endpoints": endpoints, "ports": [{"name": "a", "port": 8080}, {"name": "b", "port": 8081}]});
        Arc::new(serde_json::from_value(slice).expect("a slice"))
    }

    fn checks(service: Arc<Service>, nodes: &[&str]) -> BTreeMap<u16, Check> {
        let services = [service];
        let ports = crate::rules::service_ports(&services, &[slice(nodes)], "here");
        wanted(&services, &ports)
    }

    #[test]
    fn pods_of_this_node_count_once() {
        let found = checks(service(31_000, "Local"), &["here", "there", "here"]);
        assert_eq!(found.get(&31_000).map(|check| check.local), Some(2));
        assert!(checks(service(31_000, "Cluster"), &["here"]).is_empty());
        assert!(checks(service(0, "Local"), &["here"]).is_empty());
    }

    async fn ask(port: u16) -> String {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))
            .await
            .expect("a connection");
        stream
            .write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
            .await
            .expect("asked");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("an answer");
        answer
    }

    #[tokio::test]
    async fn the_port_says_what_changes_and_goes_with_its_service() {
        let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
        let port = free.local_addr().expect("an address").port();
        drop(free);
        let (mut serving, shutdown) = (HealthChecks::default(), CancellationToken::new());
        let services = [service(port, "Local")];
        for (nodes, status, count) in [(&["here"][..], "200 OK", 1), (&["there"], "503 Service", 0)] {
            let ports = crate::rules::service_ports(&services, &[slice(nodes)], "here");
            serving.update(&services, &ports, &shutdown).await;
            let answer = ask(port).await;
            assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{answer}");
            assert!(
                answer.contains(&format!("\"localEndpoints\":{count}")),
                "{answer}"
            );
        }
        serving.update(&[], &[], &shutdown).await;
        for _ in 0..100 {
            if TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.is_err() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("the port is still served");
    }
}
