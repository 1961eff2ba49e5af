//! Reaching a node's kubelet: its address, and who we are there.

use std::path::Path;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Node;
use keelson_api::status::{ApiError, ApiResult};
use keelson_daemon::tls::{PemSource, TlsError, client_config};

use super::forward::{Backend, Transport};

/// Where kubelets listen unless their node says otherwise.
const DEFAULT_PORT: u16 = 10250;

/// How the apiserver talks to kubelets: `--kubelet-client-certificate` and its siblings.
#[derive(Clone)]
pub struct KubeletAccess {
    tls: Arc<rustls::ClientConfig>,
    /// `InternalIP`, `Hostname`, ..., best first.
    address_types: Vec<String>,
}

impl KubeletAccess {
    /// Reads the client identity and the authority for kubelets' serving certificates; without an authority
    /// kubelets are not verified, as upstream without `--kubelet-certificate-authority`.
    ///
    /// # Errors
    /// When a file cannot be read or holds nothing usable.
    pub fn new(
        identity: Option<(&Path, &Path)>,
        authority: Option<&Path>,
        address_types: Vec<String>,
    ) -> Result<Self, TlsError> {
        let file = |path: &Path| PemSource::File(path.into());
        let identity = identity.map(|(certificate, key)| (file(certificate), file(key)));
        let tls = Arc::new(client_config(authority.map(file), identity)?);
        Ok(Self { tls, address_types })
    }

    /// The kubelet of a node.
    ///
    /// # Errors
    /// A 503 when the node has published no address of a preferred type.
    pub fn backend(&self, node: &Node) -> ApiResult<Backend> {
        let status = node.status.as_ref();
        let addresses = status
            .and_then(|status| status.addresses.as_deref())
            .unwrap_or_default();
        let host = self
            .address_types
            .iter()
            .find_map(|wanted| addresses.iter().find(|address| address.type_ == *wanted))
            .map(|address| address.address.clone())
            .ok_or_else(|| {
                let name = node.metadata.name.as_deref().unwrap_or_default();
                let message =
                    format!("no preferred addresses found for node {name:?}; known addresses: {addresses:?}");
                ApiError::service_unavailable(message)
            })?;
        let published = status
            .and_then(|status| status.daemon_endpoints.as_ref()?.kubelet_endpoint.as_ref())
            .and_then(|endpoint| u16::try_from(endpoint.port).ok())
            .filter(|port| *port != 0);
        Ok(Backend {
            host,
            port: published.unwrap_or(DEFAULT_PORT),
            name: None,
            transport: Transport::Tls(self.tls.clone()),
        })
    }
}
