//! Daemons started one by one, without `keeladm`.

use std::fs::OpenOptions;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, Result};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, SysconfVar, sysconf};

use crate::cluster::binaries;

/// A process that ends with its owner.
#[derive(Debug)]
pub struct Daemon(Child);

impl Daemon {
    /// Starts a program of the workspace; what it prints goes to the end of the file `log`.
    ///
    /// # Errors
    /// When the program or the file is not there.
    pub fn start(name: &str, args: &[String], log: &Path) -> Result<Self> {
        Self::foreign(&binaries()?.join(name), args, log)
    }

    /// The same of any program, looked for as a shell does.
    ///
    /// # Errors
    /// When the program or the file is not there.
    pub fn foreign(program: &Path, args: &[String], log: &Path) -> Result<Self> {
        let file = OpenOptions::new().create(true).append(true).open(log)?;
        let child = Command::new(program)
            .args(args)
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .spawn()
            .with_context(|| format!("starting {}", program.display()))?;
        Ok(Self(child))
    }

    /// Sends it a signal that ends it and waits until it has.
    ///
    /// # Errors
    /// When it is gone already.
    pub fn end(mut self, signal: Signal) -> Result<()> {
        kill(Pid::from_raw(i32::try_from(self.0.id())?), signal)?;
        self.0.wait()?;
        Ok(())
    }

    /// Its resident memory in KiB: now, and the most there was since it started or since [`Daemon::forget_peak`].
    ///
    /// # Errors
    /// When it is gone.
    pub fn memory(&self) -> Result<(u64, u64)> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.0.id()))?;
        let field = |name: &str| -> Result<u64> {
            let line = status.lines().find(|line| line.starts_with(name));
            let number = line.and_then(|line| line.split_whitespace().nth(1));
            Ok(number.context("a figure")?.parse()?)
        };
        Ok((field("VmRSS:")?, field("VmHWM:")?))
    }

    /// Counts the most memory from now on.
    ///
    /// # Errors
    /// When it is gone.
    pub fn forget_peak(&self) -> Result<()> {
        Ok(std::fs::write(format!("/proc/{}/clear_refs", self.0.id()), "5")?)
    }

    /// The CPU it has used since it started, in its own code and in the kernel, in seconds.
    ///
    /// # Errors
    /// When it is gone.
    pub fn cpu(&self) -> Result<f64> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.0.id()))?;
        // The name, which may contain anything, ends at the last parenthesis; the times are the 14th and 15th field.
        let (_, fields) = stat.rsplit_once(')').context("a process without a name")?;
        let ticks: Vec<u32> = fields
            .split_whitespace()
            .skip(11)
            .take(2)
            .map(str::parse)
            .collect::<Result<_, _>>()?;
        let second = sysconf(SysconfVar::CLK_TCK)?.context("clock ticks")?;
        Ok(f64::from(ticks.iter().sum::<u32>()) / f64::from(u32::try_from(second)?))
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _gone = self.0.kill();
        let _status = self.0.wait();
    }
}

/// The flags of a kube-store by itself, whose clients come to this port of the loopback address.
///
/// # Errors
/// When there is no free port for its peers.
pub fn store_flags(data: &Path, port: u16) -> Result<Vec<String>> {
    let peer = keelson_ports::free()?;
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
