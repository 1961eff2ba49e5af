//! A store and an apiserver on free ports, with certificates of their own.

use std::collections::BTreeSet;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use keelson_tests::cluster::binaries;
use keelson_tests::process::{eventually, output, succeed, text};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};

/// How long a daemon may take to come up on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// An authority and where its files are.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    directory: PathBuf,
    /// Its certificate, PEM.
    pub certificate: PathBuf,
}

impl Authority {
    /// A new authority whose files lie in `directory`.
    pub fn new(directory: &Path, name: &str) -> Result<Self> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let certificate = directory.join(format!("{name}.crt"));
        std::fs::write(&certificate, params.self_signed(&key)?.pem())?;
        std::fs::write(directory.join(format!("{name}.key")), key.serialize_pem())?;
        Ok(Self {
            issuer: Issuer::new(params, key),
            directory: directory.to_path_buf(),
            certificate,
        })
    }

    /// A certificate and its key, for a server on the loopback address and for a client of this name and groups.
    pub fn issue(&self, name: &str, groups: &[&str]) -> Result<(PathBuf, PathBuf)> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new(vec!["localhost".into(), "127.0.0.1".into()])?;
        params.distinguished_name.push(DnType::CommonName, name);
        for group in groups {
            params.distinguished_name.push(DnType::OrganizationName, *group);
        }
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        let file = name.replace([':', '/'], "-");
        let (cert_file, key_file) = (
            self.directory.join(format!("{file}.crt")),
            self.directory.join(format!("{file}.key")),
        );
        std::fs::write(&cert_file, params.signed_by(&key, &self.issuer)?.pem())?;
        std::fs::write(&key_file, key.serialize_pem())?;
        Ok((cert_file, key_file))
    }
}

/// A process that ends with its owner.
pub struct Daemon(Child);

impl Drop for Daemon {
    fn drop(&mut self) {
        let _gone = self.0.kill();
        let _status = self.0.wait();
    }
}

/// Starts a program of the workspace, its output in a file.
pub fn start(name: &str, args: &[String], log: &Path) -> Result<Daemon> {
    let file = std::fs::OpenOptions::new().create(true).append(true).open(log)?;
    let child = Command::new(binaries()?.join(name))
        .args(args)
        .stdin(Stdio::null())
        .stdout(file.try_clone()?)
        .stderr(file)
        .spawn()
        .with_context(|| format!("starting {name}"))?;
    Ok(Daemon(child))
}

/// A port nobody listens on. No two callers of one test program get the same.
pub fn free_port() -> Result<u16> {
    static GIVEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());
    for _ in 0..100 {
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        if GIVEN.lock().is_ok_and(|mut given| given.insert(port)) {
            return Ok(port);
        }
    }
    bail!("no free port")
}

/// A store and an apiserver.
pub struct ControlPlane {
    directory: tempfile::TempDir,
    /// The authority of clients and of the server.
    pub authority: Authority,
    store_port: u16,
    /// Where the apiserver listens.
    pub port: u16,
    _store: Daemon,
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
    pub fn up(prepare: impl FnOnce(&Path, &Authority) -> Result<Vec<String>>) -> Result<Self> {
        let directory = tempfile::Builder::new().prefix("keelson-security-").tempdir()?;
        let authority = Authority::new(directory.path(), "ca")?;
        authority.issue("server", &[])?;
        authority.issue("admin", &["system:masters"])?;
        let flags = prepare(directory.path(), &authority)?;
        let (store_port, port) = (free_port()?, free_port()?);
        let (data, log) = (directory.path().join("store"), directory.path().join("store.log"));
        let store = start("kube-store", &store_flags(&data, store_port)?, &log)?;
        let mut this = Self {
            directory,
            authority,
            store_port,
            port,
            _store: store,
            apiserver: None,
            flags,
        };
        this.start_apiserver()?;
        Ok(this)
    }

    /// Where the control plane's files are.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Ends the apiserver and starts it again with other flags.
    pub fn restart(&mut self, flags: Vec<String>) -> Result<()> {
        self.apiserver = None;
        self.flags = flags;
        self.start_apiserver()
    }

    fn start_apiserver(&mut self) -> Result<()> {
        let file = |name: &str| self.path(name).display().to_string();
        let mut args = vec![
            "--bind-address=127.0.0.1".to_owned(),
            format!("--secure-port={}", self.port),
            format!("--tls-cert-file={}", file("server.crt")),
            format!("--tls-private-key-file={}", file("server.key")),
            format!("--client-ca-file={}", file("ca.crt")),
            format!("--service-account-key-file={}", file("ca.key")),
            format!("--service-account-signing-key-file={}", file("ca.key")),
            format!("--etcd-servers=http://127.0.0.1:{}", self.store_port),
        ];
        args.extend(self.flags.iter().cloned());
        let log = self.path("apiserver.log");
        self.apiserver = Some(start("kube-apiserver", &args, &log)?);
        let ready = eventually("the apiserver is ready", PATIENCE, || {
            let answer = self.admin("GET", "/readyz", None)?;
            ensure!(answer.code == 200, "{answer:?}");
            Ok(())
        });
        ready.with_context(|| std::fs::read_to_string(&log).unwrap_or_default())
    }

    /// A request with these arguments of curl.
    pub fn curl(&self, method: &str, path: &str, body: Option<&str>, args: &[String]) -> Result<Answer> {
        let mut command = Command::new("curl");
        command
            .args(["-sS", "-i", "--http1.1", "--max-time", "20", "-X", method])
            .arg("--cacert")
            .arg(&self.authority.certificate)
            .args(args);
        if let Some(body) = body {
            command.args(["-H", "Content-Type: application/json", "--data-binary", body]);
        }
        command.arg(format!("https://127.0.0.1:{}{path}", self.port));
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
    pub fn admin(&self, method: &str, path: &str, body: Option<&str>) -> Result<Answer> {
        self.curl(method, path, body, &self.certificate("admin"))
    }

    /// A request with a bearer token.
    pub fn bearer(&self, token: &str, method: &str, path: &str, body: Option<&str>) -> Result<Answer> {
        let header = vec!["-H".to_owned(), format!("Authorization: Bearer {token}")];
        self.curl(method, path, body, &header)
    }

    /// Arguments of curl for a client certificate that was issued under this name.
    pub fn certificate(&self, name: &str) -> Vec<String> {
        let file = |end: &str| self.path(&format!("{name}.{end}")).display().to_string();
        vec!["--cert".into(), file("crt"), "--key".into(), file("key")]
    }

    /// Runs etcdctl on the store.
    pub fn etcdctl(&self, args: &[&str]) -> Result<String> {
        let mut command = Command::new("etcdctl");
        command
            .env("ETCDCTL_API", "3")
            .arg(format!("--endpoints=http://127.0.0.1:{}", self.store_port))
            .args(args);
        succeed(command, None)
    }

    /// Whether the store's files contain these bytes anywhere.
    pub fn store_contains(&self, needle: &[u8]) -> Result<bool> {
        contains(&self.path("store"), needle)
    }
}

fn store_flags(data: &Path, port: u16) -> Result<Vec<String>> {
    let peer = free_port()?;
    Ok(vec![
        "--name=one".to_owned(),
        format!("--data-dir={}", data.display()),
        format!("--listen-client-urls=http://127.0.0.1:{port}"),
        format!("--advertise-client-urls=http://127.0.0.1:{port}"),
        format!("--listen-peer-urls=http://127.0.0.1:{peer}"),
        format!("--initial-advertise-peer-urls=http://127.0.0.1:{peer}"),
        format!("--initial-cluster=one=http://127.0.0.1:{peer}"),
    ])
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
