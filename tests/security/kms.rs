//! Keys from a plugin: envelope encryption through a key management service of the test's own.

use std::path::Path;
use std::sync::{Arc, Mutex};

use anyhow::{Context, Result, ensure};
use keelson_proto::kms::key_management_service_server::{KeyManagementService, KeyManagementServiceServer};
use keelson_proto::kms::{
    DecryptRequest, DecryptResponse, EncryptRequest, EncryptResponse, StatusRequest, StatusResponse,
};
use tokio::net::UnixListener;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::{Request, Response, Status};

use keelson_tests::control_plane::ControlPlane;

/// What the plugin was asked, and the number of the key it encrypts with.
#[derive(Default)]
struct Seen {
    key: u8,
    encrypted: usize,
    decrypted: usize,
}

/// A plugin whose keys are numbers that bytes are mixed with.
#[derive(Clone, Default)]
struct Plugin(Arc<Mutex<Seen>>);

impl Plugin {
    fn with<T>(&self, read: impl FnOnce(&mut Seen) -> T) -> Result<T, Status> {
        self.0
            .lock()
            .map(|mut seen| read(&mut seen))
            .map_err(|_| Status::internal("poisoned"))
    }
}

#[tonic::async_trait]
impl KeyManagementService for Plugin {
    async fn status(&self, _: Request<StatusRequest>) -> Result<Response<StatusResponse>, Status> {
        Ok(Response::new(StatusResponse {
            version: "v2".into(),
            healthz: "ok".into(),
            key_id: self.with(|seen| seen.key.to_string())?,
        }))
    }

    async fn encrypt(&self, request: Request<EncryptRequest>) -> Result<Response<EncryptResponse>, Status> {
        let key = self.with(|seen| {
            seen.encrypted += 1;
            seen.key
        })?;
        let mixed: Vec<u8> = request
            .get_ref()
            .plaintext
            .iter()
            .map(|byte| byte ^ key)
            .collect();
        Ok(Response::new(EncryptResponse {
            ciphertext: mixed.into(),
            key_id: key.to_string(),
            annotations: [("version.example.com".to_owned(), "1".into())].into(),
        }))
    }

    async fn decrypt(&self, request: Request<DecryptRequest>) -> Result<Response<DecryptResponse>, Status> {
        self.with(|seen| seen.decrypted += 1)?;
        let request = request.into_inner();
        if !request.annotations.contains_key("version.example.com") {
            return Err(Status::invalid_argument("the annotation is missing"));
        }
        let key: u8 = request
            .key_id
            .parse()
            .map_err(|_| Status::not_found("no such key"))?;
        let plain: Vec<u8> = request.ciphertext.iter().map(|byte| byte ^ key).collect();
        Ok(Response::new(DecryptResponse {
            plaintext: plain.into(),
        }))
    }
}

fn serve(plugin: Plugin, socket: &Path) -> Result<tokio::runtime::Runtime> {
    let runtime = tokio::runtime::Runtime::new()?;
    let listener = runtime.block_on(async { UnixListener::bind(socket) })?;
    runtime.spawn(
        tonic::transport::Server::builder()
            .add_service(KeyManagementServiceServer::new(plugin))
            .serve_with_incoming(UnixListenerStream::new(listener)),
    );
    Ok(runtime)
}

const SECRETS: &str = "/api/v1/namespaces/default/secrets";
const PLAIN: &str = "a-secret-nobody-reads-61f0";

#[test]
fn a_plugin_s_keys_encrypt_and_rotate() -> Result<()> {
    let plugin = Plugin::default();
    plugin.with(|seen| seen.key = 7)?;
    let mut service = None;
    let mut plane = ControlPlane::up(|folder, _| {
        let socket = folder.join("kms.sock");
        service = Some(serve(plugin.clone(), &socket)?);
        let config = folder.join("encryption.yaml");
        let text = format!(
            "apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\nresources:\n\
             - resources: [secrets]\n  providers: [{{kms: {{apiVersion: v2, name: plugin, timeout: 3s, endpoint: 'unix://{}'}}}}]\n",
            socket.display()
        );
        std::fs::write(&config, text)?;
        Ok(vec![format!("--encryption-provider-config={}", config.display())])
    })?;
    for name in ["one", "two", "three"] {
        let body = format!(
            r#"{{"apiVersion":"v1","kind":"Secret","metadata":{{"name":"{name}"}},"data":{{"k":"{PLAIN}"}}}}"#
        )
        .replace(PLAIN, "YS1zZWNyZXQtbm9ib2R5LXJlYWRzLTYxZjA=");
        let made = plane.admin("POST", SECRETS, Some(&body))?;
        ensure!(made.code == 201, "{made:?}");
    }
    let stored = |plane: &ControlPlane| {
        let key = "/registry/secrets/default/one";
        plane.etcdctl(&["get", "--print-value-only", "--hex", key])
    };
    let first = stored(&plane)?;
    let prefix: String = b"k8s:enc:kms:v2:plugin:"
        .iter()
        .map(|byte| format!("\\x{byte:02x}"))
        .collect();
    ensure!(first.starts_with(&prefix), "{first}");
    ensure!(!plane.store_contains(b"YS1zZWNyZXQtbm9ib2R5")?);
    // One seed serves every value.
    ensure!(plugin.with(|seen| seen.encrypted)? == 1);

    // Another start reads what the former one wrote: the plugin unwraps its seed, once.
    let flags = vec![format!(
        "--encryption-provider-config={}",
        plane.path("encryption.yaml").display()
    )];
    plugin.with(|seen| seen.key = 9)?;
    plane.restart(flags)?;
    let listed = plane.admin("GET", SECRETS, None)?;
    ensure!(
        listed.code == 200 && listed.body.matches("YS1zZWNyZXQtbm9ib2R5").count() == 3,
        "{listed:?}"
    );
    ensure!(plugin.with(|seen| seen.decrypted)? == 1);
    // The plugin's key is another one now: a write that changes nothing moves the value to it.
    let read = plane.admin("GET", &format!("{SECRETS}/one"), None)?;
    let written = plane.admin("PUT", &format!("{SECRETS}/one"), Some(&read.body))?;
    ensure!(written.code == 200, "{written:?}");
    ensure!(stored(&plane)? != first);
    ensure!(plane.admin("GET", "/readyz/kms-providers", None)?.code == 200);

    // Without the plugin, the server says what is missing.
    service.take().context("a service")?.shutdown_background();
    std::fs::remove_file(plane.path("kms.sock"))?;
    keelson_tests::process::eventually("the plugin is missed", std::time::Duration::from_secs(20), || {
        let health = plane.admin("GET", "/readyz/kms-providers", None)?;
        ensure!(health.code == 500, "{health:?}");
        Ok(())
    })
}
