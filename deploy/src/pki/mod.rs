//! Authorities, certificates and keys of a cluster, as files.
//!
//! Three authorities: `ca` for everything that talks to or serves the Kubernetes API, `store-ca` for the store, so
//! that an API identity opens nothing at the store, and `front-proxy-ca` for the one certificate with which the apiserver
//! tells extension API servers for whom it asks.

mod authority;
mod certificate;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;

use anyhow::Context;
use rcgen::KeyPair;

use crate::cluster::{Cluster, write_file};
pub use authority::Authority;
pub use certificate::{Purpose, Request};

/// Files only their owner reads.
pub(crate) const SECRET: u32 = 0o600;
/// Files everybody may read.
pub(crate) const PUBLIC: u32 = 0o644;

/// Whom extension API servers believe when it speaks for others.
pub(crate) const FRONT_PROXY: &str = "front-proxy-client";

/// Client identities: the kubeconfig's name, the X.509 common name, the organization.
#[must_use]
pub fn identities(node_name: &str) -> Vec<(&'static str, String, Option<&'static str>)> {
    vec![
        ("admin", "kubernetes-admin".into(), Some("system:masters")),
        (
            "kube-controller-manager",
            "system:kube-controller-manager".into(),
            None,
        ),
        ("kube-scheduler", "system:kube-scheduler".into(), None),
        ("kube-proxy", "system:kube-proxy".into(), None),
        (
            "kubelet",
            format!("system:node:{node_name}"),
            Some("system:nodes"),
        ),
    ]
}

/// What [`ensure`] did.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Certificates that were made or renewed.
    pub issued: usize,
    /// Certificates that were good already.
    pub kept: usize,
}

/// Makes what is missing, renews what expires soon or names something else than wanted.
///
/// # Errors
/// When a file cannot be read or written, or a key cannot be made.
pub fn ensure(cluster: &Cluster) -> anyhow::Result<Outcome> {
    let paths = &cluster.paths;
    let ca = Authority::ensure(&paths.pki("ca.crt"), &paths.pki("ca.key"), "keelson-ca")?;
    let store_ca = Authority::ensure(
        &paths.pki("store-ca.crt"),
        &paths.pki("store-ca.key"),
        "keelson-store-ca",
    )?;

    let front_proxy_ca = Authority::ensure(
        &paths.pki("front-proxy-ca.crt"),
        &paths.pki("front-proxy-ca.key"),
        "keelson-front-proxy-ca",
    )?;

    let validity = cluster.parameters.certificate_validity;
    let mut outcome = Outcome::default();
    for request in api_certificates(cluster)? {
        outcome.count(ca.ensure_certificate(paths, &request, validity)?);
    }
    for request in store_certificates(cluster) {
        outcome.count(store_ca.ensure_certificate(paths, &request, validity)?);
    }
    let front_proxy = Request::client("front-proxy-client", FRONT_PROXY);
    outcome.count(front_proxy_ca.ensure_certificate(paths, &front_proxy, validity)?);
    ensure_signing_key(&paths.pki("sa.key"), &paths.pki("sa.pub"))?;
    Ok(outcome)
}

impl Outcome {
    fn count(&mut self, issued: bool) {
        if issued {
            self.issued += 1;
        } else {
            self.kept += 1;
        }
    }
}

fn api_certificates(cluster: &Cluster) -> anyhow::Result<Vec<Request>> {
    let parameters = &cluster.parameters;
    let node = [parameters.node_name.clone(), parameters.node_ip.to_string()];
    let mut apiserver: Vec<String> = [
        "kubernetes",
        "kubernetes.default",
        "kubernetes.default.svc",
        "kubernetes.default.svc.cluster.local",
    ]
    .map(String::from)
    .to_vec();
    apiserver.push(cluster.kubernetes_service_ip()?.to_string());
    apiserver.extend(local_names());
    apiserver.extend(node.clone());
    apiserver.extend(parameters.extra_sans.iter().cloned());

    let mut requests = vec![
        Request::server("apiserver", "kube-apiserver", apiserver),
        Request::server(
            "kubelet",
            &format!("system:node:{}", parameters.node_name),
            node.to_vec(),
        )
        .organization("system:nodes"),
        Request::client("apiserver-kubelet-client", "kube-apiserver-kubelet-client")
            .organization("system:masters"),
    ];
    for daemon in ["kube-scheduler", "kube-controller-manager"] {
        let names = local_names().into_iter().chain(node.clone()).collect();
        requests.push(Request::server(&format!("{daemon}-server"), daemon, names));
    }
    for (name, common_name, organization) in identities(&parameters.node_name) {
        let request = Request::client(&format!("{name}-client"), &common_name);
        requests.push(match organization {
            Some(organization) => request.organization(organization),
            None => request,
        });
    }
    Ok(requests)
}

fn store_certificates(cluster: &Cluster) -> Vec<Request> {
    let parameters = &cluster.parameters;
    let names: Vec<String> = local_names()
        .into_iter()
        .chain([parameters.node_name.clone(), parameters.node_ip.to_string()])
        .collect();
    vec![
        Request::server("store-server", &parameters.node_name, names.clone()).purpose(Purpose::Both),
        Request::server("store-peer", &parameters.node_name, names).purpose(Purpose::Both),
        Request::client("apiserver-store-client", "kube-apiserver-store-client"),
    ]
}

fn local_names() -> Vec<String> {
    vec![
        "localhost".into(),
        IpAddr::V4(Ipv4Addr::LOCALHOST).to_string(),
        IpAddr::V6(Ipv6Addr::LOCALHOST).to_string(),
    ]
}

/// The pair with which service account tokens are signed and checked (ES256). It is never replaced: tokens in use
/// would turn invalid.
fn ensure_signing_key(key_path: &Path, public_path: &Path) -> anyhow::Result<()> {
    let key = match std::fs::read_to_string(key_path) {
        Ok(text) => KeyPair::from_pem(&text).with_context(|| format!("reading {}", key_path.display()))?,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let key = KeyPair::generate().context("making the service account signing key")?;
            write_file(key_path, key.serialize_pem().as_bytes(), SECRET)?;
            key
        }
        Err(error) => return Err(error).with_context(|| format!("reading {}", key_path.display())),
    };
    write_file(public_path, key.public_key_pem().as_bytes(), PUBLIC)
}
