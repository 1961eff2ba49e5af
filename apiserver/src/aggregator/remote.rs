//! One group version that another server serves.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, HeaderValue};
use http::{HeaderMap, Request, StatusCode};
use k8s_openapi::kube_aggregator::pkg::apis::apiregistration::v1::{APIService, APIServiceSpec};
use keelson_api::status::ApiResult;
use keelson_daemon::tls::{PemSource, client_config};
use serde_json::Value;

use super::Aggregator;
use crate::connect::endpoints::extension_endpoint;
use crate::connect::forward::{Backend, Transport, fetch};
use crate::state::Server;
use crate::webhook;

/// How long a question about what it serves may take.
const PATIENCE: Duration = Duration::from_secs(5);
const HTTPS: i32 = 443;

/// A group version, and what its server said when it was last asked.
pub struct Remote {
    /// Name of the APIService.
    pub name: String,
    /// Its spec.
    pub spec: APIServiceSpec,
    /// Whether requests are carried there.
    pub available: bool,
    /// The resources it serves, of an APIResourceList; `None` while it could not be asked.
    pub resources: Option<Vec<Value>>,
    /// Its part of the OpenAPI v2 document, where it has one.
    pub openapi_v2: Option<Arc<Value>>,
    /// Where its OpenAPI v3 document is, where it has one: with a hash of its own.
    pub openapi_v3: Option<String>,
    tls: Result<Arc<rustls::ClientConfig>, String>,
}

impl Remote {
    /// A group version nobody has asked anything yet; `None` for one that this server serves itself.
    pub fn of(service: &APIService, aggregator: &Aggregator) -> Option<Self> {
        let spec = service.spec.clone()?;
        spec.service.as_ref()?;
        Some(Self {
            name: service.metadata.name.clone().unwrap_or_default(),
            available: false,
            resources: None,
            openapi_v2: None,
            openapi_v3: None,
            tls: tls(&spec, aggregator).map(Arc::new),
            spec,
        })
    }

    /// The same with what is known of another moment, if it is about the same spec.
    pub fn like(&self, available: bool, known: Known) -> Self {
        Self {
            name: self.name.clone(),
            spec: self.spec.clone(),
            available,
            resources: known.resources,
            openapi_v2: known.openapi_v2,
            openapi_v3: known.openapi_v3,
            tls: self.tls.clone(),
        }
    }

    /// API group.
    pub fn group(&self) -> &str {
        self.spec.group.as_deref().unwrap_or_default()
    }

    /// Version.
    pub fn version(&self) -> &str {
        self.spec.version.as_deref().unwrap_or_default()
    }

    /// Namespace, name and port of the service.
    pub fn service(&self) -> (&str, &str, i32) {
        let service = self.spec.service.as_ref();
        (
            service.and_then(|s| s.namespace.as_deref()).unwrap_or_default(),
            service.and_then(|s| s.name.as_deref()).unwrap_or_default(),
            service.and_then(|s| s.port).unwrap_or(HTTPS),
        )
    }

    /// A ready endpoint of the service, or the host outside of the cluster that it names.
    ///
    /// # Errors
    /// When there is none, or the authority it is to be known by cannot be read.
    pub async fn backend(&self, server: &Server) -> ApiResult<Backend> {
        let (namespace, name, port) = self.service();
        let tls = self.tls.clone().map_err(keelson_api::ApiError::internal)?;
        let (host, port) = extension_endpoint(server, namespace, name, port).await?;
        Ok(Backend {
            host,
            port,
            name: Some(format!("{name}.{namespace}.svc")),
            transport: Transport::Tls(tls),
        })
    }

    /// Asks the server something on behalf of this one. The error says what came instead of an answer.
    pub async fn ask(
        &self,
        server: &Server,
        path: &str,
        as_whom: HeaderMap,
    ) -> Result<(StatusCode, Bytes), String> {
        let asking = async {
            let backend = self
                .backend(server)
                .await
                .map_err(|error| error.message().to_owned())?;
            let mut request = Request::get(path)
                .body(Bytes::new())
                .map_err(|error| error.to_string())?;
            *request.headers_mut() = as_whom;
            request
                .headers_mut()
                .insert(ACCEPT, HeaderValue::from_static("application/json"));
            fetch(&backend, request).await
        };
        tokio::time::timeout(PATIENCE, asking)
            .await
            .unwrap_or_else(|_| Err("context deadline exceeded".to_owned()))
    }
}

/// What a server said about itself.
#[derive(Clone, Default)]
pub struct Known {
    /// See [`Remote::resources`].
    pub resources: Option<Vec<Value>>,
    /// See [`Remote::openapi_v2`].
    pub openapi_v2: Option<Arc<Value>>,
    /// See [`Remote::openapi_v3`].
    pub openapi_v3: Option<String>,
}

fn tls(spec: &APIServiceSpec, aggregator: &Aggregator) -> Result<rustls::ClientConfig, String> {
    let identity = aggregator
        .identity
        .as_ref()
        .map(|(certificate, key)| (PemSource::File(certificate.clone()), PemSource::File(key.clone())));
    if spec.insecure_skip_tls_verify == Some(true) {
        return client_config(None, identity).map_err(|error| error.to_string());
    }
    let own = spec.ca_bundle.as_ref().map(|bundle| bundle.0.as_slice());
    webhook::trusting(&webhook::authorities(own)?, identity)
}
