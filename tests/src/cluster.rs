//! A one-machine cluster of the binaries beside the test program.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::isolation::NODE_IP;
use crate::process::succeed;

/// The image of the HTTP echo server.
pub const ECHO: &str = "keelson.local/echo:1";
/// The image with a shell and the usual tools.
pub const TOOLBOX: &str = "keelson.local/toolbox:1";

/// The directory of the workspace's built programs.
///
/// # Errors
/// When the test program is not where cargo puts it.
pub fn binaries() -> Result<PathBuf> {
    let program = std::env::current_exe()?;
    let profile = program.ancestors().nth(2).context("target/PROFILE/deps/TEST")?;
    Ok(profile.to_path_buf())
}

/// A running cluster; taken down when dropped.
pub struct Cluster {
    directory: tempfile::TempDir,
    keeladm: PathBuf,
}

impl Cluster {
    /// `keeladm up` in a directory of its own.
    ///
    /// # Errors
    /// With keeladm's words, when the cluster does not come up.
    pub fn up() -> Result<Self> {
        let binaries = binaries()?;
        let directory = tempfile::Builder::new().prefix("keelson-e2e-").tempdir()?;
        let cluster = Self {
            directory,
            keeladm: binaries.join("keeladm"),
        };
        let mut command = cluster.keeladm(&["up"]);
        command.arg("--node-ip").arg(NODE_IP);
        command
            .arg("--images")
            .arg(binaries.parent().unwrap_or(&binaries).join("images"));
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
