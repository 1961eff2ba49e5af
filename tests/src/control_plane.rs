//! A store and an apiserver on free ports of the loopback address, with certificates of their own.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::authority::Authority;
use crate::daemons::{Daemon, store_flags};
use crate::process::{eventually, output, succeed, text};

/// How long a daemon may take to come up on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// A store and an apiserver.
pub struct ControlPlane {
    directory: tempfile::TempDir,
    /// The authority of clients and of the server.
    pub authority: Authority,
    store_port: u16,
    /// Where the apiserver listens.
    pub port: u16,
    store: Daemon,
    apiserver: Option<Daemon>,
    flags: Vec<String>,
}

/// What a request came to.
#[derive(Debug)]
pub struct Answer {
    /// HTTP status.
    pub code: u16,
    /// Headers, as they came.
    pub headers: String,
    /// The body.
    pub body: String,
}

impl ControlPlane {
    /// Both daemons, the apiserver with these flags beside the necessary ones. `prepare` writes the files the flags
    /// name and returns the flags.
    ///
    /// # Errors
    /// When a file cannot be written or a daemon does not become ready.
    pub fn up(prepare: impl FnOnce(&Path, &Authority) -> Result<Vec<String>>) -> Result<Self> {
        let directory = tempfile::Builder::new().prefix("keelson-security-").tempdir()?;
        let authority = Authority::new(directory.path(), "ca")?;
        authority.issue("server", &[])?;
        authority.issue("admin", &["system:masters"])?;
        let flags = prepare(directory.path(), &authority)?;
        let (store_port, port) = (keelson_ports::free()?, keelson_ports::free()?);
        let (data, log) = (directory.path().join("store"), directory.path().join("store.log"));
        let store = Daemon::start("kube-store", &store_flags(&data, store_port)?, &log)?;
        let mut this = Self {
            directory,
            authority,
            store_port,
            port,
            store,
            apiserver: None,
            flags,
        };
        this.start_apiserver()?;
        Ok(this)
    }

    /// The store.
    #[must_use]
    pub const fn store(&self) -> &Daemon {
        &self.store
    }

    /// The apiserver.
    ///
    /// # Errors
    /// When its last start failed.
    pub fn apiserver(&self) -> Result<&Daemon> {
        self.apiserver.as_ref().context("no apiserver")
    }

    /// A kubeconfig for a client certificate that was issued under this name.
    #[must_use]
    pub fn kubeconfig(&self, name: &str) -> String {
        let file = |name: &str| self.path(name).display().to_string();
        json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "c",
            "clusters": [{"name": "c", "cluster": {
                "server": format!("https://127.0.0.1:{}", self.port), "certificate-authority": file("ca.crt")}}],
            "users": [{"name": "u", "user": {
                "client-certificate": file(&format!("{name}.crt")), "client-key": file(&format!("{name}.key"))}}],
            "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        })
        .to_string()
    }

    /// Starts a daemon that works with the apiserver, under the client certificate that was issued under this name, on a
    /// free port and with these flags.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn daemon(&self, program: &str, name: &str, flags: &[String]) -> Result<Daemon> {
        let kubeconfig = self.path(&format!("{program}.kubeconfig"));
        std::fs::write(&kubeconfig, self.kubeconfig(name))?;
        let mut args = vec![
            format!("--kubeconfig={}", kubeconfig.display()),
            format!("--secure-port={}", keelson_ports::free()?),
        ];
        args.extend_from_slice(flags);
        Daemon::start(program, &args, &self.path(&format!("{program}.log")))
    }

    /// What the administrator finds at a path.
    ///
    /// # Errors
    /// When it is not there.
    pub fn read(&self, path: &str) -> Result<Value> {
        let answer = self.admin("GET", path, None)?;
        ensure!(answer.code == 200, "{answer:?}");
        serde_json::from_str(&answer.body).context(answer.body)
    }

    /// Creates an object as the administrator.
    ///
    /// # Errors
    /// When it is refused.
    pub fn create(&self, path: &str, object: &Value) -> Result<Value> {
        let answer = self.admin("POST", path, Some(&object.to_string()))?;
        ensure!(answer.code == 201, "{answer:?}");
        serde_json::from_str(&answer.body).context(answer.body)
    }

    /// Where the control plane's files are.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Ends the apiserver and starts it again with other flags.
    ///
    /// # Errors
    /// When it does not become ready.
    pub fn restart(&mut self, flags: Vec<String>) -> Result<()> {
        self.apiserver = None;
        self.flags = flags;
        self.start_apiserver()
    }

    /// Ends both daemons as an operator would, so that they do what they have to do at the end.
    ///
    /// # Errors
    /// When one of them is gone already.
    pub fn end(mut self) -> Result<()> {
        if let Some(apiserver) = self.apiserver.take() {
            apiserver.end(Signal::SIGTERM)?;
        }
        self.store.end(Signal::SIGTERM)
    }

    fn start_apiserver(&mut self) -> Result<()> {
        let log = self.path("apiserver.log");
        self.apiserver = Some(self.spawn(self.port, &log)?);
        self.wait(self.port, &log)
    }

    /// One more apiserver on the same store with the same flags, and its port. It ends when it is dropped.
    ///
    /// # Errors
    /// When it does not become ready.
    pub fn second_apiserver(&self) -> Result<(Daemon, u16)> {
        let (port, log) = (keelson_ports::free()?, self.path("second.log"));
        let second = self.spawn(port, &log)?;
        self.wait(port, &log)?;
        Ok((second, port))
    }

    fn spawn(&self, port: u16, log: &Path) -> Result<Daemon> {
        let file = |name: &str| self.path(name).display().to_string();
        let mut args = vec![
            "--bind-address=127.0.0.1".to_owned(),
            format!("--secure-port={port}"),
            format!("--tls-cert-file={}", file("server.crt")),
            format!("--tls-private-key-file={}", file("server.key")),
            format!("--client-ca-file={}", file("ca.crt")),
            format!("--service-account-key-file={}", file("ca.key")),
            format!("--service-account-signing-key-file={}", file("ca.key")),
            format!("--etcd-servers=http://127.0.0.1:{}", self.store_port),
        ];
        args.extend(self.flags.iter().cloned());
        Daemon::start("kube-apiserver", &args, log)
    }

    fn wait(&self, port: u16, log: &Path) -> Result<()> {
        let ready = eventually("the apiserver is ready", PATIENCE, || {
            let answer = self.curl_at(port, "GET", "/readyz", None, &self.certificate("admin"))?;
            ensure!(answer.code == 200, "{answer:?}");
            Ok(())
        });
        ready.with_context(|| std::fs::read_to_string(log).unwrap_or_default())
    }

    /// A request with these arguments of curl.
    ///
    /// # Errors
    /// When there is no answer.
    pub fn curl(&self, method: &str, path: &str, body: Option<&str>, args: &[String]) -> Result<Answer> {
        self.curl_at(self.port, method, path, body, args)
    }

    /// The same, of the apiserver on this port.
    ///
    /// # Errors
    /// When there is no answer.
    pub fn curl_at(
        &self,
        port: u16,
        method: &str,
        path: &str,
        body: Option<&str>,
        args: &[String],
    ) -> Result<Answer> {
        let mut command = Command::new("curl");
        command
            .args(["-sS", "-i", "--http1.1", "--max-time", "20", "-X", method])
            .arg("--cacert")
            .arg(&self.authority.certificate)
            .args(args);
        if let Some(body) = body {
            command.args(["-H", "Content-Type: application/json", "--data-binary", body]);
        }
        command.arg(format!("https://127.0.0.1:{port}{path}"));
        let output = output(command, None)?;
        ensure!(output.status.success(), "{}", text(&output.stderr));
        let text = text(&output.stdout);
        let (headers, body) = text.split_once("\r\n\r\n").context("an answer without headers")?;
        let code = headers
            .split_whitespace()
            .nth(1)
            .context("an answer without a status")?;
        Ok(Answer {
            code: code.parse()?,
            headers: headers.to_owned(),
            body: body.to_owned(),
        })
    }

    /// A request of the administrator.
    ///
    /// # Errors
    /// When there is no answer.
    pub fn admin(&self, method: &str, path: &str, body: Option<&str>) -> Result<Answer> {
        self.curl(method, path, body, &self.certificate("admin"))
    }

    /// A request with a bearer token.
    ///
    /// # Errors
    /// When there is no answer.
    pub fn bearer(&self, token: &str, method: &str, path: &str, body: Option<&str>) -> Result<Answer> {
        let header = vec!["-H".to_owned(), format!("Authorization: Bearer {token}")];
        self.curl(method, path, body, &header)
    }

    /// Arguments of curl for a client certificate that was issued under this name.
    #[must_use]
    pub fn certificate(&self, name: &str) -> Vec<String> {
        let file = |end: &str| self.path(&format!("{name}.{end}")).display().to_string();
        vec!["--cert".into(), file("crt"), "--key".into(), file("key")]
    }

    /// Runs etcdctl on the store.
    ///
    /// # Errors
    /// With what etcdctl says, when it fails.
    pub fn etcdctl(&self, args: &[&str]) -> Result<String> {
        let mut command = Command::new("etcdctl");
        command
            .env("ETCDCTL_API", "3")
            .arg(format!("--endpoints=http://127.0.0.1:{}", self.store_port))
            .args(args);
        succeed(command, None)
    }

    /// Whether the store's files contain these bytes anywhere.
    ///
    /// # Errors
    /// When the files cannot be read.
    pub fn store_contains(&self, needle: &[u8]) -> Result<bool> {
        contains(&self.path("store"), needle)
    }
}

fn contains(directory: &Path, needle: &[u8]) -> Result<bool> {
    for entry in std::fs::read_dir(directory)? {
        let path = entry?.path();
        if path.is_dir() {
            if contains(&path, needle)? {
                return Ok(true);
            }
        } else if std::fs::read(&path)?
            .windows(needle.len())
            .any(|part| part == needle)
        {
            return Ok(true);
        }
    }
    Ok(false)
}
