//! Whether this machine can run a cluster. Nothing is started before all of it is known to be there.

use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};

use anyhow::bail;

use crate::cluster::Cluster;
use crate::system;
use crate::teardown::processes;
use crate::units::DAEMONS;

/// What the runtime calls for every pod.
const CNI_PLUGINS: [&str; 4] = ["loopback", "ptp", "host-local", "portmap"];

/// Programs, and the Debian packages that bring them.
const PROGRAMS: [(&str, &str); 5] = [
    ("containerd", "containerd"),
    ("containerd-shim-runc-v2", "containerd"),
    ("ctr", "containerd"),
    ("runc", "runc"),
    ("nft", "nftables"),
];

/// A Unix socket's path has at most 107 bytes (unix(7)), and containerd appends `.ttrpc` to its own.
const SOCKET_PATH_MAX: usize = 100;

/// What preflight found out.
#[derive(Debug)]
pub(crate) struct Machine {
    pub(crate) containerd: PathBuf,
    pub(crate) cni_bin_dir: PathBuf,
}

pub(crate) async fn run(cluster: &Cluster) -> anyhow::Result<(Machine, String)> {
    if !nix::unistd::geteuid().is_root() {
        bail!(
            "a cluster needs root for containers and network rules: run this as root, for instance with sudo"
        );
    }
    let mut problems = Vec::new();
    for (program, package) in PROGRAMS {
        if system::program(program).is_none() {
            problems.push(format!("{program} is not installed (Debian package {package})"));
        }
    }
    let cni_bin_dir = match system::cni_bin_dir(&CNI_PLUGINS) {
        Ok(folder) => folder,
        Err(missing) => {
            problems.push(format!(
                "CNI plugins are not installed: {} (Debian package containernetworking-plugins)",
                missing.join(", ")
            ));
            PathBuf::new()
        }
    };
    for daemon in DAEMONS {
        let program = cluster.parameters.bin_dir.join(daemon);
        if !program.is_file() {
            problems.push(format!(
                "{} is not there; build it with deploy/build",
                program.display()
            ));
        }
    }
    let socket = cluster.paths.runtime_socket();
    if socket.as_os_str().len() > SOCKET_PATH_MAX {
        problems.push(format!(
            "{} is too long for a socket; choose a shorter --run-dir",
            socket.display()
        ));
    }
    // Daemons whose supervisor was killed hold their ports; the next supervisor takes them over.
    let surviving = processes::leftovers(&cluster.paths).len();
    for (port, daemon, flag) in cluster.parameters.ports.all() {
        if surviving > 0 {
            break;
        }
        if let Err(error) = TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)) {
            let reason = match error.kind() {
                std::io::ErrorKind::AddrInUse => "is in use".to_owned(),
                _ => format!("cannot be used: {error}"),
            };
            problems.push(format!(
                "port {port}, which {daemon} needs, {reason}; stop what uses it (ss -ltnp 'sport = :{port}') or choose another with {flag}"
            ));
        }
    }
    if let Err(error) = TcpListener::bind((cluster.parameters.node_ip, 0)) {
        problems.push(format!(
            "{} is not an address of this machine: {error}",
            cluster.parameters.node_ip
        ));
    }
    if !problems.is_empty() {
        bail!(
            "this machine is not ready for a cluster; nothing was started:\n  - {}",
            problems.join("\n  - ")
        );
    }
    let machine = Machine {
        containerd: system::program("containerd").unwrap_or_else(|| Path::new("containerd").into()),
        cni_bin_dir,
    };
    let mut said = format!(
        "node {} at {}",
        cluster.parameters.node_name, cluster.parameters.node_ip
    );
    if surviving > 0 {
        said.push_str(&format!(", {surviving} processes run already"));
    }
    Ok((machine, said))
}
