//! A kubelet in this process, on a real container runtime, with an apiserver that keeps its objects in memory.
//!
//! The tests that use it run where `KEELSON_TEST_CRI` names a runtime's socket (containerd with a network for pods)
//! and `KEELSON_TEST_IMAGE` an image on it with a shell; elsewhere they have nothing to run on and say so.

pub mod apiserver;
pub mod pki;

use std::time::{Duration, Instant};

use clap::Parser;
use keelson_kubelet::Config;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use apiserver::FakeApi;
use pki::Pki;

/// One node and its apiserver.
pub struct Node {
    pub api: FakeApi,
    pub image: String,
    pub port: u16,
    pub pki: Pki,
    pub dir: tempfile::TempDir,
    endpoint: String,
    flags: Vec<String>,
    shutdown: CancellationToken,
    task: Option<tokio::task::JoinHandle<anyhow::Result<()>>>,
}

/// The echo server's image, which `tests/with-runtime` imports.
pub const ECHO: &str = "keelson.local/echo:1";

/// Runs containerd's client and returns what it printed.
pub fn ctr(args: &[&str]) -> String {
    let socket = std::env::var("KEELSON_TEST_CRI").expect("a runtime");
    let output = std::process::Command::new("ctr")
        .args([
            "--address",
            socket.trim_start_matches("unix://"),
            "--namespace",
            "k8s.io",
        ])
        .args(args)
        .output()
        .expect("ctr");
    assert!(
        output.status.success(),
        "ctr {args:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

impl Node {
    /// Starts one, if there is a runtime to start it on.
    pub async fn start() -> Option<Node> {
        let (Ok(endpoint), Ok(image)) = (
            std::env::var("KEELSON_TEST_CRI"),
            std::env::var("KEELSON_TEST_IMAGE"),
        ) else {
            eprintln!("KEELSON_TEST_CRI and KEELSON_TEST_IMAGE are not set: nothing to run on");
            return None;
        };
        let _ = tracing_subscriber::fmt()
            .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
            .try_init();
        let dir = tempfile::tempdir().expect("a folder");
        let pki = Pki::make(dir.path());
        let api = FakeApi::serve(&pki).await;
        pki.write_kubeconfig(&api.url());
        let mut node = Node {
            api,
            image,
            port: keelson_ports::free().expect("a port"),
            pki,
            dir,
            endpoint,
            flags: vec!["--eviction-hard=memory.available<1Mi".into()],
            shutdown: CancellationToken::new(),
            task: None,
        };
        node.start_kubelet();
        node.wait_for("the node to be ready", |api| {
            let node = api.get("nodes", "", "test-node")?;
            let conditions = node["status"]["conditions"].as_array()?.clone();
            conditions
                .iter()
                .find(|c| c["type"] == "Ready" && c["status"] == "True")
                .cloned()
        })
        .await;
        Some(node)
    }

    /// Starts the kubelet, again after [`Node::stop_kubelet`].
    pub fn start_kubelet(&mut self) {
        let path = |name: &str| self.dir.path().join(name).display().to_string();
        let common = [
            "kubelet".to_owned(),
            format!("--kubeconfig={}", path("kubeconfig")),
            "--hostname-override=test-node".into(),
            "--node-ip=127.0.0.1".into(),
            format!("--container-runtime-endpoint={}", self.endpoint),
            format!("--root-dir={}", path("kubelet")),
            format!("--pod-logs-dir={}", path("logs")),
            format!("--cgroup-root=/keelson-test-{}", std::process::id()),
            "--address=127.0.0.1".into(),
            format!("--port={}", self.port),
            format!("--tls-cert-file={}", path("server.crt")),
            format!("--tls-private-key-file={}", path("server.key")),
            format!("--client-ca-file={}", path("ca.crt")),
            format!("--pod-manifest-path={}", path("manifests")),
            "--cluster-dns=10.96.0.10".into(),
            "--cluster-domain=cluster.local".into(),
        ];
        let config = Config::parse_from(common.into_iter().chain(self.flags.iter().cloned()));
        self.shutdown = CancellationToken::new();
        self.task = Some(tokio::spawn(keelson_kubelet::run(config, self.shutdown.clone())));
    }

    /// Starts the kubelet anew with other flags than the usual ones.
    pub async fn restart_with(&mut self, flags: &[&str]) {
        self.stop_kubelet().await;
        self.flags = flags.iter().map(|flag| (*flag).to_owned()).collect();
        self.start_kubelet();
    }

    /// Stops the kubelet; pods go on.
    pub async fn stop_kubelet(&mut self) {
        self.shutdown.cancel();
        if let Some(task) = self.task.take() {
            task.await.expect("no panic").expect("a clean end");
        }
    }

    /// Binds a pod to the node.
    pub fn run_pod(&self, name: &str, mut spec: Value) -> String {
        spec["nodeName"] = json!("test-node");
        for list in ["containers", "initContainers"] {
            for container in spec[list].as_array_mut().into_iter().flatten() {
                if container["image"].is_null() {
                    container["image"] = json!(self.image);
                }
            }
        }
        if spec["terminationGracePeriodSeconds"].is_null() {
            spec["terminationGracePeriodSeconds"] = json!(1);
        }
        let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "default", "generation": 1,
            "labels": {"app": name}}, "spec": spec});
        let made = self.api.create("pods", pod);
        made["metadata"]["uid"].as_str().expect("a uid").to_owned()
    }

    /// Waits until something is so.
    pub async fn wait_for<T>(&self, what: &str, look: impl Fn(&FakeApi) -> Option<T>) -> T {
        let begun = Instant::now();
        loop {
            if let Some(found) = look(&self.api) {
                return found;
            }
            if begun.elapsed() > Duration::from_secs(60) {
                for pod in self.api.list("pods") {
                    eprintln!(
                        "{}",
                        serde_json::to_string_pretty(&pod["status"]).unwrap_or_default()
                    );
                }
                for event in self.api.events() {
                    eprintln!("event: {event}");
                }
                panic!("waited in vain for {what}");
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Waits until a pod's status is so.
    pub async fn wait_for_pod(&self, name: &str, what: &str, holds: impl Fn(&Value) -> bool) -> Value {
        self.wait_for(&format!("pod {name} {what}"), |api| {
            api.get("pods", "default", name)
                .filter(|pod| holds(&pod["status"]))
        })
        .await
    }

    /// Waits until there is an event that begins so: with the pod's name, the reason and the message.
    pub async fn wait_for_event(&self, beginning: &str) {
        self.wait_for(&format!("the event {beginning:?}"), |api| {
            api.events()
                .iter()
                .any(|event| event.starts_with(beginning))
                .then_some(())
        })
        .await;
    }

    /// Waits until a container has said something.
    pub async fn wait_for_log(&self, pod: &str, container: &str, wanted: &str) {
        let begun = Instant::now();
        loop {
            let (_, log) = self
                .get(&format!("/containerLogs/default/{pod}/{container}"))
                .await;
            if log.contains(wanted) {
                return;
            }
            assert!(
                begun.elapsed() < Duration::from_secs(30),
                "{wanted:?} is not in {log:?}"
            );
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// A folder of the host for pods to write into.
    pub fn shared_folder(&self) -> std::path::PathBuf {
        let folder = self.dir.path().join("shared");
        std::fs::create_dir_all(&folder).expect("a folder");
        folder
    }

    /// Waits until a pod is ready.
    pub async fn wait_ready(&self, name: &str) -> Value {
        self.wait_for_pod(name, "to be ready", |status| {
            status["conditions"]
                .as_array()
                .is_some_and(|all| all.iter().any(|c| c["type"] == "Ready" && c["status"] == "True"))
        })
        .await
    }

    /// Deletes a pod as the apiserver does, and waits until it is gone.
    pub async fn delete_pod(&self, name: &str) {
        let grace = self
            .api
            .get("pods", "default", name)
            .and_then(|pod| pod["spec"]["terminationGracePeriodSeconds"].as_i64());
        self.api.mark_deleted("default", name, grace.unwrap_or(30));
        self.wait_for(&format!("pod {name} to go"), |api| {
            api.get("pods", "default", name).is_none().then_some(())
        })
        .await;
    }

    /// Asks the kubelet.
    pub async fn get(&self, path: &str) -> (u16, String) {
        self.pki.get(self.port, path, true).await
    }

    /// Ends everything.
    pub async fn finish(mut self) {
        for pod in self.api.list("pods") {
            if let Some(name) = pod["metadata"]["name"].as_str() {
                self.delete_pod(name).await;
            }
        }
        self.stop_kubelet().await;
    }
}
