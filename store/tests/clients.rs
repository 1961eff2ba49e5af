//! Clients of others with all their commands, against three members with TLS: Debian's etcdctl, Python's etcd3, which
//! is fetched with pip, and the `etcd-client` crate, in a crate of its own that needs `protoc` to be built. What cannot
//! be fetched, or built for want of `protoc`, is not tested: the test says so and ends.

mod common;

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use common::certificates::Certificates;

/// Three members with TLS on all their sides.
struct Group {
    certificates: Certificates,
    ports: Vec<u16>,
    children: Vec<Child>,
}

impl Group {
    fn start(folder: &Path) -> anyhow::Result<Self> {
        let certificates = Certificates(folder.to_owned());
        let authority = certificates.authority("ca")?;
        certificates.issue("server", &authority)?;
        certificates.issue("client", &authority)?;
        let names = ["m1", "m2", "m3"];
        let url = |port: u16| format!("https://127.0.0.1:{port}");
        let mut ports = Vec::new();
        let mut peers = Vec::new();
        for _ in names {
            ports.push(keelson_ports::free()?);
            peers.push(url(keelson_ports::free()?));
        }
        let initial = names
            .iter()
            .zip(&peers)
            .map(|(name, peer)| format!("{name}={peer}"));
        let initial = initial.collect::<Vec<_>>().join(",");
        let mut group = Self {
            certificates,
            ports,
            children: Vec::new(),
        };
        for (name, (port, peer)) in names.iter().zip(group.ports.iter().zip(&peers)) {
            let client = url(*port);
            let log = std::fs::File::create(folder.join(format!("{name}.log")))?;
            let child = Command::new(env!("CARGO_BIN_EXE_kube-store"))
                .arg(format!("--name={name}"))
                .arg(format!("--data-dir={}", folder.join(name).display()))
                .arg(format!("--listen-client-urls={client}"))
                .arg(format!("--advertise-client-urls={client}"))
                .arg(format!("--listen-peer-urls={peer}"))
                .arg(format!("--initial-advertise-peer-urls={peer}"))
                .arg(format!("--initial-cluster={initial}"))
                .args(group.certificates.member_flags())
                .stdout(Stdio::null())
                .stderr(log)
                .spawn()
                .context("starting kube-store")?;
            group.children.push(child);
        }
        let deadline = Instant::now() + Duration::from_secs(60);
        while let Err(error) = group.ctl(&["endpoint", "health"]) {
            if Instant::now() > deadline {
                bail!("the group is not ready: {error:#}");
            }
            std::thread::sleep(Duration::from_millis(200));
        }
        Ok(group)
    }

    fn command(&self, endpoints: &str, args: &[&str]) -> Command {
        let mut command = Command::new("etcdctl");
        command
            .env("ETCDCTL_API", "3")
            .arg(format!("--endpoints={endpoints}"))
            .arg(format!("--cacert={}", self.certificates.path("ca.crt")))
            .arg(format!("--cert={}", self.certificates.path("client.crt")))
            .arg(format!("--key={}", self.certificates.path("client.key")))
            .args(["--command-timeout=20s", "--dial-timeout=20s"])
            .args(args);
        command
    }

    fn endpoints(&self) -> Vec<String> {
        self.ports
            .iter()
            .map(|port| format!("https://127.0.0.1:{port}"))
            .collect()
    }

    fn at(&self, endpoints: &str, args: &[&str]) -> anyhow::Result<String> {
        let output = self
            .command(endpoints, args)
            .output()
            .context("starting etcdctl (Debian package etcd-client)")?;
        if !output.status.success() {
            bail!("etcdctl {args:?}: {}", String::from_utf8_lossy(&output.stderr));
        }
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }

    fn ctl(&self, args: &[&str]) -> anyhow::Result<String> {
        self.at(&self.endpoints().join(","), args)
    }

    fn refuses(&self, args: &[&str], with: &str) -> anyhow::Result<()> {
        self.refuses_at(&self.endpoints().join(","), args, with)
    }

    fn refuses_at(&self, endpoints: &str, args: &[&str], with: &str) -> anyhow::Result<()> {
        match self.at(endpoints, args) {
            Err(error) if format!("{error:#}").contains(with) => Ok(()),
            other => bail!("{args:?}: {other:?}"),
        }
    }

    /// The same in a process that goes on until it is ended; returns what it has said within `time`.
    fn for_a_while(
        &self,
        args: &[&str],
        time: Duration,
        meanwhile: impl FnOnce() -> anyhow::Result<()>,
    ) -> anyhow::Result<String> {
        let mut child = self
            .command(&self.endpoints().join(","), args)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        std::thread::sleep(time / 2);
        let did = meanwhile();
        std::thread::sleep(time / 2);
        Command::new("kill")
            .args(["-INT", &child.id().to_string()])
            .status()?;
        // It may wait for something else than the signal.
        std::thread::sleep(Duration::from_millis(500));
        let _ = child.kill();
        let output = child.wait_with_output()?;
        did?;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        for child in &mut self.children {
            let _ = child.kill();
            let _ = child.wait();
        }
        if std::thread::panicking() {
            for name in ["m1", "m2", "m3"] {
                let log = std::fs::read_to_string(self.certificates.path(&format!("{name}.log")));
                eprintln!("log of {name}:\n{}", log.unwrap_or_default());
            }
        }
    }
}

#[test]
fn etcdctl_with_all_its_commands() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let group = Group::start(folder.path())?;
    let while_watching = Duration::from_secs(3);

    assert_eq!(group.ctl(&["put", "a", "1"])?, "OK");
    assert_eq!(group.ctl(&["put", "a", "2", "--prev-kv"])?, "OK\na\n1");
    for endpoint in group.endpoints() {
        assert_eq!(group.at(&endpoint, &["get", "a"])?, "a\n2");
        assert_eq!(group.at(&endpoint, &["get", "a", "--consistency=s"])?, "a\n2");
    }
    group.ctl(&["put", "b", "3"])?;
    assert_eq!(group.ctl(&["get", "", "--prefix", "--keys-only"])?, "a\n\nb");
    assert_eq!(
        group.ctl(&[
            "get",
            "a",
            "z",
            "--order=DESCEND",
            "--sort-by=KEY",
            "--print-value-only"
        ])?,
        "3\n2"
    );
    assert_eq!(group.ctl(&["del", "b", "--prev-kv"])?, "1\nb\n3");

    let seen = group.for_a_while(&["watch", "w", "--prefix", "--prev-kv"], while_watching, || {
        group.ctl(&["put", "w1", "x"])?;
        group.ctl(&["del", "w1"])?;
        Ok(())
    })?;
    assert_eq!(seen.trim(), "PUT\nw1\nx\nDELETE\nw1\nx\nw1", "{seen:?}");

    let granted = group.ctl(&["lease", "grant", "100"])?;
    let lease = granted.split_whitespace().nth(1).context("a lease number")?;
    group.ctl(&["put", "leased", "x", &format!("--lease={lease}")])?;
    for endpoint in group.endpoints() {
        // Who does not lead asks who does.
        assert!(
            group
                .at(&endpoint, &["lease", "keep-alive", "--once", lease])?
                .contains("keepalived")
        );
        assert!(
            group
                .at(&endpoint, &["lease", "timetolive", lease, "--keys"])?
                .contains("[leased]")
        );
    }
    assert!(group.ctl(&["lease", "list"])?.contains(lease));
    assert!(group.ctl(&["lease", "revoke", lease])?.contains("revoked"));
    assert_eq!(group.ctl(&["get", "leased"])?, "");

    assert!(group.ctl(&["lock", "name", "echo", "held"])?.contains("held"));
    let elected = group.for_a_while(&["elect", "office", "me"], while_watching, || Ok(()))?;
    assert!(elected.contains("me"), "{elected}");

    let status = group.ctl(&["endpoint", "status", "--cluster", "-w", "json"])?;
    let status: serde_json::Value = serde_json::from_str(&status)?;
    let status = status.as_array().context("a list")?;
    assert_eq!(status.len(), 3);
    assert!(group.ctl(&["endpoint", "health", "--cluster"]).is_ok());
    group.ctl(&["endpoint", "hashkv", "--cluster"])?;
    let member = |of: &serde_json::Value| of["Status"]["header"]["member_id"].as_u64();
    let leader = status[0]["Status"]["leader"].as_u64();
    let leads = status
        .iter()
        .find(|of| member(of) == leader)
        .context("a leader")?;
    let follows = status
        .iter()
        .find(|of| member(of) != leader)
        .context("a follower")?;
    let target = format!("{:x}", member(follows).context("a member")?);
    let at = leads["Endpoint"].as_str().context("an endpoint")?;
    assert!(group.at(at, &["move-leader", &target])?.contains("transferred"));

    let list = group.ctl(&["member", "list"])?;
    assert_eq!(list.matches("started").count(), 3, "{list}");
    let added = group.ctl(&[
        "member",
        "add",
        "m4",
        "--learner",
        "--peer-urls=https://127.0.0.1:1",
    ])?;
    let id = added.split_whitespace().nth(1).context("a member's number")?;
    // Whoever is asked, the leader says why not.
    for endpoint in group.endpoints() {
        group.refuses_at(&endpoint, &["member", "promote", id], "in sync with leader")?;
        group.refuses_at(&endpoint, &["member", "promote", "1"], "member not found")?;
    }
    group.ctl(&["member", "update", id, "--peer-urls=https://127.0.0.1:2"])?;
    assert!(group.ctl(&["member", "list"])?.contains("https://127.0.0.1:2"));
    group.ctl(&["member", "remove", id])?;
    group.refuses(&["member", "remove", id], "member not found")?;

    assert_eq!(group.ctl(&["alarm", "list"])?, "");
    group.ctl(&["alarm", "disarm"])?;
    let revision = status[0]["Status"]["header"]["revision"]
        .as_u64()
        .context("a revision")?;
    group.ctl(&["compaction", &revision.to_string(), "--physical"])?;
    group.refuses(&["get", "a", "--rev=2"], "required revision has been compacted")?;
    group.ctl(&["defrag", "--cluster"])?;

    let file = folder.path().join("saved.db").display().to_string();
    group.at(&group.endpoints()[0], &["snapshot", "save", &file])?;
    group.ctl(&["snapshot", "status", &file])?;
    group.refuses(&["user", "add", "root:x"], "certificate")?;
    group.refuses(&["role", "list"], "certificate")?;
    group.refuses(&["auth", "enable"], "certificate")?;
    Ok(())
}

#[test]
fn pythons_etcd3_with_all_its_commands() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let packages = folder.path().join("packages");
    let fetched = Command::new("python3")
        .args(["-m", "pip", "install", "--quiet", "--target"])
        .arg(&packages)
        // Its locks use tenacity as it was then.
        .args(["etcd3==0.12.0", "tenacity<7"])
        .output();
    if !fetched.is_ok_and(|output| output.status.success()) {
        println!("etcd3 cannot be fetched with pip: nothing was tested");
        return Ok(());
    }
    let group = Group::start(folder.path())?;
    // Its generated code is older than the compiled protobuf.
    let output = Command::new("python3")
        .env("PYTHONPATH", &packages)
        .env("PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION", "python")
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients/etcd3_commands.py"))
        .arg(group.ports[0].to_string())
        .args(["ca.crt", "client.crt", "client.key"].map(|name| group.certificates.path(name)))
        .output()?;
    let said = String::from_utf8_lossy(&output.stdout);
    let complained = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("every command was answered"), "{said}{complained}");
    Ok(())
}

#[test]
fn the_etcd_client_crate_with_all_its_commands() -> anyhow::Result<()> {
    if Command::new("protoc").arg("--version").output().is_err() {
        println!(
            "protoc (Debian packages protobuf-compiler and libprotobuf-dev) is missing: nothing was tested"
        );
        return Ok(());
    }
    let cargo = |verb: &str| {
        let mut command = Command::new(env!("CARGO"));
        command
            .args([verb, "--quiet", "--locked", "--manifest-path"])
            .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients/etcd_client/Cargo.toml"));
        command
    };
    if !cargo("fetch").status()?.success() {
        println!("the crate cannot be fetched: nothing was tested");
        return Ok(());
    }
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join("etcd-client");
    let built = cargo("build").arg("--target-dir").arg(&target).output()?;
    assert!(
        built.status.success(),
        "{}",
        String::from_utf8_lossy(&built.stderr)
    );

    let folder = tempfile::tempdir()?;
    let group = Group::start(folder.path())?;
    let output = Command::new(target.join("debug/etcd-client-commands"))
        .args(["ca.crt", "client.crt", "client.key"].map(|name| group.certificates.path(name)))
        .args(group.endpoints())
        .output()?;
    let said = String::from_utf8_lossy(&output.stdout);
    let complained = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("every command was answered"), "{said}{complained}");
    Ok(())
}
