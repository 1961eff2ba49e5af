//! Images from a registry that asks who is there: Debian's docker-registry on the loopback address.

use std::process::{Child, Command, Stdio};

use base64::Engine as _;
use serde_json::{Value, json};

use crate::support::{ECHO, Node, ctr};
use crate::{shell, state};

const USER: &str = "keelson";
const PASSWORD: &str = "secret";
/// The user and the password as `htpasswd -B` writes them.
const PASSWORDS: &str = "keelson:$2y$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a\n";

/// A registry of its own, with one image in it.
struct Registry {
    process: Child,
    folder: tempfile::TempDir,
    port: u16,
}

impl Registry {
    async fn start(image: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let port = keelson_ports::free().expect("a port");
        let passwords = folder.path().join("passwords");
        std::fs::write(&passwords, PASSWORDS).expect("written");
        let config = folder.path().join("config.yaml");
        let text = format!(
            "version: 0.1\nstorage: {{filesystem: {{rootdirectory: {0}/data}}}}\nhttp: {{addr: 127.0.0.1:{port}}}\n\
             auth: {{htpasswd: {{realm: test, path: {1}}}}}\nlog: {{level: error}}\n",
            folder.path().display(),
            passwords.display()
        );
        std::fs::write(&config, text).expect("written");
        let process = Self::process(&config);
        let registry = Self {
            process,
            folder,
            port,
        };
        registry.answers().await;
        let name = registry.image();
        let credentials = format!("{USER}:{PASSWORD}");
        ctr(&["images", "tag", "--force", image, &name]);
        ctr(&["images", "push", "--plain-http", "--user", &credentials, &name]);
        ctr(&["images", "remove", "--sync", &name]);
        registry
    }

    fn process(config: &std::path::Path) -> Child {
        Command::new("docker-registry")
            .args(["serve"])
            .arg(config)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("docker-registry (Debian package docker-registry)")
    }

    async fn answers(&self) {
        for _ in 0..100 {
            if tokio::net::TcpStream::connect(("127.0.0.1", self.port))
                .await
                .is_ok()
            {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
        panic!("the registry does not answer");
    }

    fn place(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    fn image(&self) -> String {
        format!("{}/private/toolbox:1", self.place())
    }

    fn stop(&mut self) {
        self.process.kill().expect("stopped");
        self.process.wait().expect("ended");
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = std::fs::remove_dir_all(self.folder.path());
    }
}

fn secret(name: &str, place: &str, password: &str) -> Value {
    let base64 = |text: &str| base64::engine::general_purpose::STANDARD.encode(text);
    let config = json!({"auths": {place: {"auth": base64(&format!("{USER}:{password}"))}}}).to_string();
    json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, "namespace": "default"},
        "type": "kubernetes.io/dockerconfigjson", "data": {".dockerconfigjson": base64(&config)}})
}

#[tokio::test(flavor = "multi_thread")]
async fn secrets_open_a_registry() {
    let Some(node) = Node::start().await else { return };
    let mut registry = Registry::start(&node.image).await;
    let image = registry.image();
    node.api
        .create("secrets", secret("right", &registry.place(), PASSWORD));
    node.api
        .create("secrets", secret("wrong", &registry.place(), "guessed"));
    let pod = |secrets: &[&str], policy: &str| {
        let secrets: Vec<Value> = secrets.iter().map(|name| json!({"name": name})).collect();
        json!({"imagePullSecrets": secrets,
            "containers": [{"name": "c", "image": image, "imagePullPolicy": policy, "command": shell("sleep 1000")}]})
    };
    node.run_pod("stranger", pod(&[], "IfNotPresent"));
    node.run_pod("liar", pod(&["wrong"], "IfNotPresent"));
    node.run_pod("forgetful", pod(&["absent"], "IfNotPresent"));
    for name in ["stranger", "liar", "forgetful"] {
        let refused = node
            .wait_for_pod(name, "to be refused", |status| {
                state(status, 0, "waiting")["reason"] == "ErrImagePull"
                    || state(status, 0, "waiting")["reason"] == "ImagePullBackOff"
            })
            .await;
        assert_eq!(refused["status"]["phase"], "Pending");
        node.wait_for_event(&format!("{name} Failed Failed to pull image \"{image}\""))
            .await;
        node.delete_pod(name).await;
    }
    // Several secrets are tried one after the other.
    node.run_pod("friend", pod(&["wrong", "right"], "IfNotPresent"));
    let friend = node.wait_ready("friend").await;
    let id = friend["status"]["containerStatuses"][0]["imageID"]
        .as_str()
        .unwrap_or_default();
    assert!(id.contains("sha256:"), "{id}");
    node.wait_for_event(&format!("friend Pulling Pulling image \"{image}\""))
        .await;
    node.wait_for_event(&format!("friend Pulled Successfully pulled image \"{image}\""))
        .await;

    // What is there is used without the registry, unless it is to be asked each time.
    registry.stop();
    node.run_pod("content", pod(&[], "IfNotPresent"));
    node.run_pod("strict", pod(&["right"], "Always"));
    node.run_pod("frugal", pod(&[], "Never"));
    node.wait_ready("content").await;
    node.wait_ready("frugal").await;
    node.wait_for_event("content Pulled Container image").await;
    node.wait_for_pod("strict", "to miss the registry", |status| {
        state(status, 0, "waiting")["reason"] == "ImagePullBackOff"
    })
    .await;
    let config = registry.folder.path().join("config.yaml");
    registry.process = Registry::process(&config);
    registry.answers().await;
    node.wait_ready("strict").await;
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn unused_images_are_removed() {
    let Some(mut node) = Node::start().await else {
        return;
    };
    let copy = node.dir.path().join("echo.tar").display().to_string();
    ctr(&["images", "export", &copy, ECHO]);
    let there = || {
        ctr(&["images", "list", "--quiet"])
            .lines()
            .any(|name| name == ECHO)
    };
    // Any disk is too full for this kubelet.
    let flags = [
        "--image-gc-high-threshold=0",
        "--image-gc-low-threshold=0",
        "--minimum-image-ttl-duration=0s",
        "--image-gc-exempt=keelson.local/toolbox,keelson.local/pause",
        "--eviction-hard=memory.available<1Mi",
    ];
    node.run_pod("user", json!({"containers": [{"name": "c", "image": ECHO}]}));
    node.wait_ready("user").await;
    node.restart_with(&flags).await;
    node.run_pod(
        "other",
        json!({"containers": [{"name": "c", "command": shell("sleep 1000")}]}),
    );
    node.wait_ready("other").await;
    assert!(there(), "it is in use");
    node.delete_pod("user").await;
    node.restart_with(&flags).await;
    node.wait_for("the unused image to go", |_| (!there()).then_some(()))
        .await;
    ctr(&["images", "import", &copy]);
    node.finish().await;
}
