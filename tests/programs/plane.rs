//! A store, an apiserver and controllers, without a node.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use keelson_tests::control_plane::ControlPlane;
use keelson_tests::daemons::Daemon;
use serde_json::Value;

/// How long anything may take on a machine that has much to do.
pub const SOON: Duration = Duration::from_secs(60);

/// Ends when it is dropped.
pub struct Plane {
    _controllers: Daemon,
    servers: ControlPlane,
}

impl Plane {
    /// A store, an apiserver and these controllers.
    pub fn start(controllers: &str) -> Result<Self> {
        Self::start_with(controllers, Vec::new())
    }

    /// The same, the apiserver with these flags.
    pub fn start_with(controllers: &str, mut flags: Vec<String>) -> Result<Self> {
        flags.push("--advertise-address=192.0.2.1".to_owned());
        let servers = ControlPlane::up(|_, authority| {
            authority.issue("system:kube-controller-manager", &[])?;
            Ok(flags)
        })?;
        let controllers = servers.daemon(
            "kube-controller-manager",
            "system-kube-controller-manager",
            &[
                "--leader-elect=false".to_owned(),
                "--use-service-account-credentials".to_owned(),
                format!("--controllers={controllers}"),
            ],
        )?;
        Ok(Self {
            _controllers: controllers,
            servers,
        })
    }

    /// The store and the apiserver.
    pub const fn servers(&self) -> &ControlPlane {
        &self.servers
    }

    /// What a request gives; the code has to be this one. A change is a merge patch.
    pub fn call(&self, method: &str, path: &str, body: &Value, code: u16) -> Result<Value> {
        self.call_with(&[], method, path, body, code)
    }

    /// The same with headers.
    pub fn call_with(
        &self,
        headers: &[&str],
        method: &str,
        path: &str,
        body: &Value,
        code: u16,
    ) -> Result<Value> {
        let mut args = self.servers.certificate("admin");
        for header in headers {
            args.extend(["-H".to_owned(), (*header).to_owned()]);
        }
        let media = match method {
            "PATCH" => "application/merge-patch+json",
            _ => "application/json",
        };
        let text = body.to_string();
        if !body.is_null() {
            let header = format!("Content-Type: {media}");
            args.extend(["-H".to_owned(), header, "--data-binary".to_owned(), text]);
        }
        let answer = self.servers.curl(method, path, None, &args)?;
        ensure!(answer.code == code, "{method} {path}: {answer:?}");
        serde_json::from_str(&answer.body).context(answer.body)
    }

    /// What is there.
    pub fn get(&self, path: &str) -> Result<Value> {
        self.servers.read(path)
    }
}
