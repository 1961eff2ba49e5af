//! Namespaces around a test program: what it starts, mounts and configures is gone when it ends.

use std::os::unix::process::CommandExt;
use std::process::Command;

use anyhow::{Context, Result, anyhow, ensure};
use nix::sched::{CloneFlags, unshare};

use crate::process::run;

/// Set in the environment of a program that is already isolated.
const MARK: &str = "KEELSON_ISOLATED";

/// Address of the one node inside the namespace, on a bridge that leads nowhere.
pub const NODE_IP: &str = "172.30.0.1";

/// Runs this same program again as a child of an init process in fresh network, mount and process
/// namespaces, and does not return; inside of them, sets up the network and shared memory of its own and returns.
///
/// # Errors
/// When the namespaces cannot be made: not root, or `unshare` is missing.
pub fn isolate() -> Result<()> {
    if std::env::var_os(MARK).is_some() {
        // Names there may contain process numbers, and those repeat in every namespace of processes.
        run("mount", &["-t", "tmpfs", "tmpfs", "/dev/shm"])?;
        return set_up_network();
    }
    ensure!(
        nix::unistd::geteuid().is_root(),
        "end-to-end tests need root, for namespaces and containers"
    );
    let program = std::env::current_exe().context("finding this program")?;
    // The shell is the namespace's init: it reaps what loses its parent.
    let error = Command::new("unshare")
        .args([
            "--net",
            "--mount",
            "--pid",
            "--fork",
            "--kill-child",
            "--propagation=private",
            "--mount-proc",
        ])
        .args(["bash", "-c", "\"$@\"; exit $?", "init"])
        .arg(program)
        .args(std::env::args_os().skip(1))
        .env(MARK, "1")
        .exec();
    Err(error).context("starting unshare (Debian package util-linux)")
}

/// Does something in a network of its own that has loopback addresses and this one besides. The daemons and threads
/// that are started meanwhile are there, too.
///
/// # Errors
/// When there is no such network: not root; and with what the work ends with.
pub fn in_own_network<T: Send>(address: &str, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    let inside = || {
        unshare(CloneFlags::CLONE_NEWNET).context("a network of its own needs root")?;
        run("ip", &["link", "set", "lo", "up"])?;
        run("ip", &["address", "add", address, "dev", "lo"])?;
        work()
    };
    // Of the whole process, one thread alone changes its network.
    let worked = std::thread::scope(|scope| scope.spawn(inside).join());
    worked.map_err(|_| anyhow!("the work in its own network panicked"))?
}

fn set_up_network() -> Result<()> {
    run("ip", &["link", "set", "lo", "up"])?;
    run("ip", &["link", "add", "lan0", "type", "bridge"])?;
    run("ip", &["address", "add", &format!("{NODE_IP}/24"), "dev", "lan0"])?;
    run("ip", &["link", "set", "lan0", "up"])?;
    Ok(())
}
