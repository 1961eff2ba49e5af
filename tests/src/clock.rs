//! A wall clock that can be set while a cluster runs, by preloading libfaketime into its daemons.
//!
//! Only the daemons' wall clock moves. Their monotonic clock, the files' times and the container runtime (Go asks
//! the kernel itself) keep the real time, as does the test. The runtime is started without the library altogether: in
//! its shims, which come and go by the dozen, the library's set-up of shared memory fails now and then.

use std::ffi::OsString;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};

/// How long a daemon may take to notice that the clock was set: libfaketime reads its file once a second.
pub const NOTICED: Duration = Duration::from_secs(2);

/// Which way a clock is off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Offset {
    /// It shows the time.
    None,
    /// It is ahead.
    Ahead(Duration),
    /// It is behind.
    Behind(Duration),
}

/// The wall clock of a cluster's daemons.
#[derive(Debug)]
pub struct WallClock {
    library: PathBuf,
    folder: tempfile::TempDir,
}

impl WallClock {
    /// A clock that shows the time.
    ///
    /// # Errors
    /// When libfaketime is not installed.
    pub fn new() -> Result<Self> {
        let clock = Self {
            library: library().context("libfaketime is not installed (Debian package faketime)")?,
            folder: tempfile::Builder::new().prefix("keelson-clock-").tempdir()?,
        };
        clock.set(Offset::None)?;
        clock.spare("containerd")?;
        Ok(clock)
    }

    /// Puts a program in front of the one of this name that starts it without the library.
    fn spare(&self, program: &str) -> Result<()> {
        let folders = std::env::var_os("PATH").unwrap_or_default();
        let real = std::env::split_paths(&folders)
            .map(|folder| folder.join(program))
            .find(|path| path.is_file())
            .with_context(|| format!("{program} is not installed"))?;
        std::fs::create_dir_all(self.programs())?;
        let wrapper = self.programs().join(program);
        let script = format!(
            "#!/bin/sh\nunset LD_PRELOAD FAKETIME_SHARED\nexec {} \"$@\"\n",
            real.display()
        );
        std::fs::write(&wrapper, script)?;
        std::fs::set_permissions(&wrapper, std::fs::Permissions::from_mode(0o755))?;
        Ok(())
    }

    /// Sets the clock, for all daemons within [`NOTICED`].
    ///
    /// # Errors
    /// When the file that says so cannot be written.
    pub fn set(&self, offset: Offset) -> Result<()> {
        let text = match offset {
            Offset::None => "+0".to_owned(),
            Offset::Ahead(by) => format!("+{}", by.as_secs()),
            Offset::Behind(by) => format!("-{}", by.as_secs()),
        };
        // Never half a file: it is read at any moment.
        let new = self.folder.path().join("new");
        std::fs::write(&new, text)?;
        std::fs::rename(new, self.file())?;
        Ok(())
    }

    /// What has to be in a daemon's environment.
    #[must_use]
    pub fn environment(&self) -> Vec<(&'static str, OsString)> {
        let yes = || OsString::from("1");
        let mut programs = self.programs().into_os_string();
        programs.push(":");
        programs.push(std::env::var_os("PATH").unwrap_or_default());
        vec![
            ("PATH", programs),
            ("LD_PRELOAD", self.library.clone().into()),
            ("FAKETIME_TIMESTAMP_FILE", self.file().into()),
            ("FAKETIME_CACHE_DURATION", yes()),
            ("FAKETIME_DONT_FAKE_MONOTONIC", yes()),
            ("NO_FAKE_STAT", yes()),
        ]
    }

    fn programs(&self) -> PathBuf {
        self.folder.path().join("bin")
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("offset")
    }
}

/// Debian keeps it in a folder of the machine's architecture.
fn library() -> Option<PathBuf> {
    let folders = std::fs::read_dir("/usr/lib").ok()?;
    folders
        .filter_map(|entry| Some(entry.ok()?.path().join(Path::new("faketime/libfaketimeMT.so.1"))))
        .find(|path| path.exists())
}
