//! A one-machine cluster of the binaries beside the test program.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::process::{run, succeed};

/// The image of the HTTP echo server.
pub const ECHO: &str = "keelson.local/echo:1";
/// The same image by another name, as a release that follows.
pub const ECHO_AGAIN: &str = "keelson.local/echo:2";
/// The image with a shell and the usual tools.
pub const TOOLBOX: &str = "keelson.local/toolbox:1";

/// How the clusters of tests come up: on a machine that is nearly full as well, which is no concern of theirs.
pub const UP: [&str; 4] = [
    "--node-ip",
    crate::isolation::NODE_IP,
    "--extra-flag",
    "kubelet.eviction-hard=memory.available<50Mi,nodefs.available<500Mi,imagefs.available<500Mi",
];

/// The directory of the workspace's built programs.
///
/// # Errors
/// When the test program is not where cargo puts it.
pub fn binaries() -> Result<PathBuf> {
    let program = std::env::current_exe()?;
    let profile = program.ancestors().nth(2).context("target/PROFILE/deps/TEST")?;
    Ok(profile.to_path_buf())
}

/// What is special about a cluster.
#[derive(Debug, Default)]
pub struct Setting {
    /// More in the daemons' environment.
    pub environment: Vec<(&'static str, OsString)>,
    /// More flags of daemons, as `DAEMON.FLAG=VALUE`.
    pub flags: Vec<String>,
    /// A disk of its own of this many mebibytes, for everything the cluster keeps.
    pub disk: Option<u64>,
}

/// A disk in memory, as small as wanted, until it is dropped.
struct Disk(PathBuf);

impl Disk {
    fn mount(path: &Path, mebibytes: u64) -> Result<Self> {
        let size = format!("size={mebibytes}m,mode=700");
        let path = path.to_path_buf();
        run(
            "mount",
            &["-t", "tmpfs", "-o", &size, "tmpfs", &path.display().to_string()],
        )?;
        Ok(Self(path))
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        if let Err(error) = run("umount", &[&self.0]) {
            eprintln!("{error:#}");
        }
    }
}

/// A running cluster; taken down when dropped.
pub struct Cluster {
    keeladm: PathBuf,
    // Unmounted before its place is removed.
    _disk: Option<Disk>,
    directory: tempfile::TempDir,
}

impl Cluster {
    /// `keeladm up` in a directory of its own.
    ///
    /// # Errors
    /// With keeladm's words, when the cluster does not come up.
    pub fn up() -> Result<Self> {
        Self::up_with(Setting::default())
    }

    /// The same with something special about it.
    ///
    /// # Errors
    /// With keeladm's words, when the cluster does not come up.
    pub fn up_with(setting: Setting) -> Result<Self> {
        let binaries = binaries()?;
        let directory = tempfile::Builder::new().prefix("keelson-e2e-").tempdir()?;
        let disk = setting.disk.map(|size| Disk::mount(directory.path(), size));
        let cluster = Self {
            keeladm: binaries.join("keeladm"),
            _disk: disk.transpose()?,
            directory,
        };
        let mut command = cluster.keeladm(&["up"]);
        command.args(UP);
        for flag in &setting.flags {
            command.args(["--extra-flag", flag]);
        }
        command
            .arg("--images")
            .arg(binaries.parent().unwrap_or(&binaries).join("images"))
            .envs(setting.environment);
        eprint!("{}", succeed(command, None)?);
        Ok(cluster)
    }

    /// A keeladm command for this cluster.
    #[must_use]
    pub fn keeladm(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.keeladm);
        command.args(args).arg("--dir").arg(self.directory.path());
        command
    }

    /// The cluster's state directory.
    #[must_use]
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// The last warnings and errors in each daemon's log, for a look after something failed.
    #[must_use]
    pub fn complaints(&self) -> String {
        const LINES: usize = 15;
        let mut all = String::new();
        let entries = std::fs::read_dir(self.directory.path().join("logs"));
        for entry in entries.into_iter().flatten().flatten() {
            let log = String::from_utf8_lossy(&std::fs::read(entry.path()).unwrap_or_default()).into_owned();
            let lines: Vec<&str> = log
                .lines()
                .filter(|line| {
                    ["WARN", "ERROR", "panick", "level=error"]
                        .iter()
                        .any(|word| line.contains(word))
                })
                .collect();
            if !lines.is_empty() {
                all.push_str(&format!("--- {}\n", entry.file_name().to_string_lossy()));
                for line in &lines[lines.len().saturating_sub(LINES)..] {
                    all.push_str(line);
                    all.push('\n');
                }
            }
        }
        all
    }

    /// Does something to the node's images, in ctr's words.
    ///
    /// # Errors
    /// With what ctr has against it.
    pub fn images(&self, words: &[&str]) -> Result<String> {
        let mut command = Command::new("ctr");
        command
            .arg("--address")
            .arg(self.directory.path().join("run/containerd/containerd.sock"))
            .args(["--namespace", "k8s.io", "images"])
            .args(words);
        succeed(command, None)
    }

    /// The administrator's kubeconfig.
    #[must_use]
    pub fn kubeconfig(&self) -> PathBuf {
        self.directory.path().join("admin.kubeconfig")
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        match succeed(self.keeladm(&["down"]), None) {
            Ok(said) => eprint!("{said}"),
            Err(error) => eprintln!("keeladm down: {error:#}"),
        }
    }
}
