//! Debian's etcdctl against a real store.

mod common;

use std::io::Write;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use anyhow::{Context, bail};
use common::Member;

struct Ctl(String);

impl Ctl {
    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new("etcdctl");
        command
            .env("ETCDCTL_API", "3")
            .arg(format!("--endpoints={}", self.0))
            .args(["--command-timeout=20s", "--dial-timeout=20s"])
            .args(args);
        command
    }

    fn output(&self, args: &[&str], input: &str) -> anyhow::Result<Output> {
        let mut child = self
            .command(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("starting etcdctl (Debian package etcd-client)")?;
        if let Some(mut stdin) = child.stdin.take() {
            stdin.write_all(input.as_bytes())?;
        }
        Ok(child.wait_with_output()?)
    }

    fn run(&self, args: &[&str]) -> anyhow::Result<String> {
        let output = self.output(args, "")?;
        if !output.status.success() {
            bail!("etcdctl {args:?}: {}", String::from_utf8_lossy(&output.stderr));
        }
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }

    fn fails(&self, args: &[&str], with: &str) -> anyhow::Result<()> {
        let output = self.output(args, "")?;
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(
            !output.status.success() && text.contains(with),
            "{args:?}: {text}"
        );
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn etcdctl_finds_an_etcd() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let member = Member::new("ctl", folder.path())?.started().await?;
    let ctl = Ctl(member.endpoint());

    assert_eq!(ctl.run(&["put", "a", "1"])?, "OK");
    assert_eq!(ctl.run(&["get", "a"])?, "a\n1");
    assert_eq!(ctl.run(&["put", "a", "2", "--prev-kv"])?, "OK\na\n1");
    assert_eq!(ctl.run(&["get", "a", "--rev=2", "--print-value-only"])?, "1");
    ctl.run(&["put", "b", "3"])?;
    assert_eq!(ctl.run(&["get", "", "--prefix", "--keys-only"])?, "a\n\nb");
    assert_eq!(ctl.run(&["del", "b"])?, "1");

    let txn = "value(\"a\") = \"2\"\n\nput c 1\nget a\n\nput d 1\n\n";
    let output = ctl.output(&["txn"], txn)?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(text.contains("SUCCESS") && text.contains("a\n2"), "{text}");
    assert_eq!(ctl.run(&["get", "d"])?, "");

    // The changes so far, and one more while it is watched.
    let watch = ctl
        .command(&["watch", "", "--prefix", "--rev=2"])
        .stdout(Stdio::piped())
        .spawn()?;
    tokio::time::sleep(Duration::from_millis(700)).await;
    ctl.run(&["put", "e", "live"])?;
    tokio::time::sleep(Duration::from_millis(500)).await;
    let id = watch.id().to_string();
    Command::new("kill").arg(&id).status()?;
    let seen = String::from_utf8_lossy(&watch.wait_with_output()?.stdout).into_owned();
    assert_eq!(
        seen.trim(),
        "PUT\na\n1\nPUT\na\n2\nPUT\nb\n3\nDELETE\nb\n\nPUT\nc\n1\nPUT\ne\nlive"
    );

    let granted = ctl.run(&["lease", "grant", "2"])?;
    let lease = granted.split_whitespace().nth(1).context("a lease number")?;
    ctl.run(&["put", "leased", "x", &format!("--lease={lease}")])?;
    assert!(ctl.run(&["lease", "list"])?.contains(lease));
    assert!(
        ctl.run(&["lease", "timetolive", lease, "--keys"])?
            .contains("[leased]")
    );
    assert!(
        ctl.run(&["lease", "keep-alive", "--once", lease])?
            .contains("keepalived")
    );
    tokio::time::sleep(Duration::from_millis(4000)).await;
    assert_eq!(ctl.run(&["get", "leased"])?, "");
    assert!(
        ctl.run(&["lease", "timetolive", lease])?
            .contains("already expired")
    );
    ctl.fails(&["put", "x", "y", "--lease=1234"], "requested lease not found")?;

    assert_eq!(
        ctl.run(&["compaction", "4", "--physical"])?,
        "compacted revision 4"
    );
    ctl.fails(&["get", "a", "--rev=2"], "required revision has been compacted")?;
    ctl.fails(
        &["get", "a", "--rev=999"],
        "required revision is a future revision",
    )?;
    ctl.fails(&["compaction", "4"], "required revision has been compacted")?;

    let status = ctl.run(&["endpoint", "status", "-w", "fields"])?;
    assert!(status.contains("\"Version\" : \"3.6.0\""), "{status}");
    assert!(ctl.run(&["member", "list"])?.contains("started, ctl"));
    assert_eq!(ctl.run(&["alarm", "list"])?, "");
    ctl.run(&["endpoint", "hashkv"])?;
    ctl.run(&["defrag"])?;
    ctl.fails(&["auth", "enable"], "certificate")?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_saved_snapshot_becomes_a_new_store() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let member = Member::new("old", folder.path())?.started().await?;
    let ctl = Ctl(member.endpoint());
    for number in 0..300 {
        let mut kv = member.kv().await?;
        kv.put(common::put(&format!("k{number:03}"), vec![0_u8; number % 40]))
            .await?;
        if number == 0 {
            ctl.run(&["lease", "grant", "5000"])?;
        }
    }
    let file = folder.path().join("backup");
    let file_text = file.display().to_string();
    ctl.run(&["snapshot", "save", &file_text])?;

    let fresh = Member::new("new", folder.path())?;
    let restore = |file: &str| {
        Command::new(env!("CARGO_BIN_EXE_kube-store"))
            .args(["restore", file, "--name=new"])
            .arg(format!("--data-dir={}", fresh.data.display()))
            .arg(format!("--initial-advertise-peer-urls={}", fresh.peer_url()))
            .output()
    };
    // A damaged file is refused before anything is made of it.
    let mut damaged = std::fs::read(&file)?;
    damaged[100] ^= 1;
    let damaged_file = folder.path().join("damaged");
    std::fs::write(&damaged_file, damaged)?;
    let refused = restore(&damaged_file.display().to_string())?;
    assert!(!refused.status.success());
    let restored = restore(&file_text)?;
    assert!(
        restored.status.success(),
        "{}",
        String::from_utf8_lossy(&restored.stderr)
    );

    let fresh = fresh.started().await?;
    let old = member
        .kv()
        .await?
        .range(common::range("k", "l"))
        .await?
        .into_inner();
    let new = fresh
        .kv()
        .await?
        .range(common::range("k", "l"))
        .await?
        .into_inner();
    assert_eq!(new.kvs.len(), 300);
    assert_eq!(new.kvs, old.kvs);
    assert!(
        Ctl(fresh.endpoint())
            .run(&["lease", "list"])?
            .contains("found 1 leases")
    );
    Ok(())
}
