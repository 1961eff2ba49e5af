//! What stands in a cluster's way.

use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use keelson_tests::cluster::binaries;
use keelson_tests::process::run;

use crate::{Said, keeladm, nothing_runs, said};

/// Programs of the system, and the Debian packages that are to be named for them.
const PROGRAMS: [(&str, &str); 4] = [
    ("containerd", "containerd"),
    ("ctr", "containerd"),
    ("runc", "runc"),
    ("nft", "nftables"),
];

/// A folder of the system that something is mounted over until this is dropped.
struct Hidden(PathBuf);

impl Hidden {
    /// A program that is not there.
    fn program(name: &str) -> Result<Self> {
        let found = run("sh", &["-c", &format!("command -v {name}")])?;
        let path = std::fs::canonicalize(found.trim())?;
        run("mount", &["--bind", "/dev/null", &path.display().to_string()])?;
        Ok(Self(path))
    }

    /// A folder that is empty.
    fn folder(path: &str) -> Result<Self> {
        run("mount", &["-t", "tmpfs", "none", path])?;
        Ok(Self(path.into()))
    }
}

impl Drop for Hidden {
    fn drop(&mut self) {
        if let Err(error) = run("umount", &[&self.0]) {
            eprintln!("{error:#}");
        }
    }
}

/// It failed with a word on each of these, and neither made nor started anything.
fn refused(said: &Said, dir: &Path, words: &[&str]) -> Result<()> {
    ensure!(said.code == Some(1), "exit code {:?}: {}", said.code, said.errors);
    for word in words {
        ensure!(said.errors.contains(word), "no {word:?} in: {}", said.errors);
    }
    ensure!(!dir.exists(), "{} was made", dir.display());
    nothing_runs()
}

pub fn a_missing_program_is_named() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let dir = folder.path().join("cluster");
    for (program, package) in PROGRAMS {
        let said = {
            let _hidden = Hidden::program(program)?;
            keeladm("up", &dir, &[])?
        };
        let wanted = format!("{program} is not installed (Debian package {package})");
        refused(&said, &dir, &["nothing was started", &wanted])?;
    }
    Ok(())
}

pub fn missing_network_plugins_are_named() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let dir = folder.path().join("cluster");
    let said = {
        let _hidden = Hidden::folder("/usr/lib/cni")?;
        keeladm("up", &dir, &[])?
    };
    refused(
        &said,
        &dir,
        &[
            "CNI plugins are not installed",
            "host-local",
            "Debian package containernetworking-plugins",
        ],
    )
}

pub fn missing_daemons_are_named() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let (dir, empty) = (folder.path().join("cluster"), folder.path().join("empty"));
    std::fs::create_dir(&empty)?;
    let said = keeladm("up", &dir, &["--bin-dir", &empty.display().to_string()])?;
    refused(
        &said,
        &dir,
        &[
            "kube-apiserver is not there",
            "kubelet is not there",
            "deploy/build",
        ],
    )
}

pub fn a_busy_port_is_named() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let dir = folder.path().join("cluster");
    let _busy = [
        TcpListener::bind("127.0.0.1:6443")?,
        TcpListener::bind("0.0.0.0:10250")?,
    ];
    let said = keeladm("up", &dir, &[])?;
    refused(
        &said,
        &dir,
        &[
            "port 6443, which kube-apiserver needs, is in use",
            "--secure-port",
            "port 10250, which kubelet needs, is in use",
            "--kubelet-port",
        ],
    )
}

pub fn an_address_of_another_machine_is_named() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let dir = folder.path().join("cluster");
    let mut command = Command::new(binaries()?.join("keeladm"));
    command.args(["up", "--node-ip", "192.0.2.1", "--dir"]).arg(&dir);
    refused(
        &said(command)?,
        &dir,
        &["192.0.2.1 is not an address of this machine"],
    )
}

pub fn root_is_asked_for() -> Result<()> {
    const NOBODY: u32 = 65534;
    let folder = tempfile::tempdir()?;
    std::fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o777))?;
    // The build's folder may be closed to others.
    let program = folder.path().join("keeladm");
    std::fs::copy(binaries()?.join("keeladm"), &program)?;
    let dir = folder.path().join("cluster");
    let mut command = Command::new(&program);
    command
        .args(["up", "--node-ip", keelson_tests::isolation::NODE_IP, "--dir"])
        .arg(&dir)
        .uid(NOBODY)
        .gid(NOBODY)
        .current_dir("/");
    refused(&said(command)?, &dir, &["needs root", "sudo"])
}

pub fn a_failure_half_way_stops_everything() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let (dir, images) = (folder.path().join("cluster"), folder.path().join("images"));
    std::fs::create_dir(&images)?;
    std::fs::write(images.join("broken.tar"), "no archive at all")?;
    let said = keeladm("up", &dir, &["--images", &images.display().to_string()])?;
    ensure!(
        said.code == Some(1),
        "{:?}: {}{}",
        said.code,
        said.output,
        said.errors
    );
    ensure!(
        said.output.contains("[FAILED] image import") && said.errors.contains("stopping what was started"),
        "{}{}",
        said.output,
        said.errors
    );
    nothing_runs()?;
    let down = keeladm("down", &dir, &[])?;
    ensure!(down.code == Some(0), "{}", down.errors);
    Ok(())
}

pub fn up_and_down_twice() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let dir = folder.path().join("cluster");
    let first = keeladm("up", &dir, &[])?;
    ensure!(first.code == Some(0), "{}{}", first.output, first.errors);
    let second = keeladm("up", &dir, &[])?;
    ensure!(
        second.code == Some(0) && second.output.contains("runs already"),
        "{}{}",
        second.output,
        second.errors
    );
    let status = keeladm("status", &dir, &[])?;
    let pids = |text: &str| -> Vec<String> {
        text.lines()
            .filter_map(|line| line.split_once("pid ").map(|(_, pid)| pid.to_owned()))
            .collect()
    };
    ensure!(status.code == Some(0), "{}", status.output);
    for pid in pids(&first.output) {
        ensure!(
            second.output.contains(&pid),
            "pid {pid} is gone: {}",
            second.output
        );
    }
    let down = keeladm("down", &dir, &[])?;
    ensure!(down.code == Some(0), "{}{}", down.output, down.errors);
    nothing_runs()?;
    ensure!(
        !dir.exists() || std::fs::read_dir(&dir)?.next().is_none(),
        "files are left in {}",
        dir.display()
    );
    let again = keeladm("down", &dir, &[])?;
    ensure!(
        again.code == Some(0) && again.output.contains("no cluster"),
        "{}{}",
        again.output,
        again.errors
    );
    let gone = keeladm("status", &dir, &[])?;
    ensure!(gone.code == Some(3), "{}", gone.output);
    std::fs::metadata(folder.path()).context("the folder around it")?;
    Ok(())
}
