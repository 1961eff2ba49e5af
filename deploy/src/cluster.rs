//! One cluster's parameters and where each of its files lives.

use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::units::DAEMONS;

/// The folder of the cluster that is not given another.
pub const DEFAULT_DIR: &str = "/var/lib/keelson";

/// One cluster on this machine.
#[derive(Debug, Clone)]
pub struct Cluster {
    /// Where its files are.
    pub paths: Paths,
    /// What was chosen for it.
    pub parameters: Parameters,
}

/// What can be chosen for a cluster; kept in `cluster.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Parameters {
    /// The cluster's name, as in its admin's kubeconfig.
    pub name: String,
    /// The node's name.
    pub node_name: String,
    /// The node's address.
    pub node_ip: IpAddr,
    /// Where the daemons' programs are.
    pub bin_dir: PathBuf,
    /// Where the static programs for container images are.
    pub image_bin_dir: PathBuf,
    /// Addresses of services.
    pub service_cidr: IpNet,
    /// Addresses of pods.
    pub cluster_cidr: IpNet,
    /// Ports of node port services, `FIRST-LAST`.
    pub service_node_port_range: String,
    /// Further names or addresses in the apiserver's certificate.
    pub extra_sans: Vec<String>,
    /// How long certificates are good for; they are renewed in the last third of it.
    #[serde(default = "usual_validity")]
    pub certificate_validity: Duration,
    /// Flags of daemons besides those that this program sets, or instead of them.
    #[serde(default)]
    pub extra_flags: Vec<ExtraFlag>,
    /// Log level of the daemons.
    pub log_level: String,
    /// Who listens where.
    pub ports: Ports,
}

/// One flag of one daemon: `DAEMON.FLAG=VALUE`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExtraFlag {
    /// Whose flag it is.
    pub daemon: String,
    /// The flag's name.
    pub name: String,
    /// What is given to it.
    pub value: String,
}

impl std::str::FromStr for ExtraFlag {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!(
                "want DAEMON.FLAG=VALUE, one of the daemons {}",
                DAEMONS.join(", ")
            )
        };
        let (flag, value) = text.split_once('=').ok_or_else(wrong)?;
        let (daemon, name) = flag.split_once('.').ok_or_else(wrong)?;
        if !DAEMONS.contains(&daemon) || name.is_empty() {
            return Err(wrong());
        }
        Ok(Self {
            daemon: daemon.into(),
            name: name.trim_start_matches('-').into(),
            value: value.into(),
        })
    }
}

/// A year, for clusters that were made before it could be chosen.
fn usual_validity() -> Duration {
    Duration::from_secs(365 * 24 * 3600)
}

/// Who listens where.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[allow(missing_docs)] // each field is the port that its name says
pub struct Ports {
    pub secure: u16,
    pub store_client: u16,
    pub store_peer: u16,
    pub store_metrics: u16,
    pub kubelet: u16,
    pub kubelet_health: u16,
    pub controller_manager: u16,
    pub scheduler: u16,
    pub proxy_health: u16,
    pub proxy_metrics: u16,
}

impl Ports {
    /// Each port, who listens on it, and the flag that moves it.
    #[must_use]
    pub fn all(&self) -> [(u16, &'static str, &'static str); 10] {
        [
            (self.store_client, "kube-store", "--store-client-port"),
            (self.store_peer, "kube-store", "--store-peer-port"),
            (self.store_metrics, "kube-store", "--store-metrics-port"),
            (self.secure, "kube-apiserver", "--secure-port"),
            (
                self.controller_manager,
                "kube-controller-manager",
                "--controller-manager-port",
            ),
            (self.scheduler, "kube-scheduler", "--scheduler-port"),
            (self.kubelet, "kubelet", "--kubelet-port"),
            (self.kubelet_health, "kubelet", "--kubelet-health-port"),
            (self.proxy_health, "kube-proxy", "--proxy-health-port"),
            (self.proxy_metrics, "kube-proxy", "--proxy-metrics-port"),
        ]
    }
}

/// Where a cluster's files are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Paths {
    /// What outlives a restart of the machine.
    pub dir: PathBuf,
    /// Sockets, process ids and mounts.
    pub run_dir: PathBuf,
}

impl Paths {
    /// The same folders, independent of the working directory.
    #[must_use]
    pub fn absolute(self) -> Self {
        let absolute = |path: PathBuf| std::path::absolute(&path).unwrap_or(path);
        Self {
            dir: absolute(self.dir),
            run_dir: absolute(self.run_dir),
        }
    }

    /// The parameters of the cluster that these folders belong to.
    #[must_use]
    pub fn parameters(&self) -> PathBuf {
        self.dir.join("cluster.json")
    }

    /// Certificates and keys.
    #[must_use]
    pub fn pki(&self, file: &str) -> PathBuf {
        self.dir.join("pki").join(file)
    }

    /// The kubeconfig of one identity.
    #[must_use]
    pub fn kubeconfig(&self, identity: &str) -> PathBuf {
        self.dir.join("kubeconfig").join(format!("{identity}.conf"))
    }

    /// Where the administrator's kubeconfig is found without knowing the folders' layout.
    #[must_use]
    pub fn admin_kubeconfig(&self) -> PathBuf {
        self.dir.join("admin.kubeconfig")
    }

    /// Configuration of one program.
    #[must_use]
    pub fn config(&self, file: &str) -> PathBuf {
        self.dir.join("config").join(file)
    }

    /// One program's log.
    #[must_use]
    pub fn log(&self, program: &str) -> PathBuf {
        self.dir.join("logs").join(format!("{program}.log"))
    }

    /// The OCI archive of one of our own images.
    #[must_use]
    pub fn image(&self, name: &str) -> PathBuf {
        self.dir.join("images").join(format!("{name}.tar"))
    }

    /// Where CNI configuration is written by kube-proxy and read by containerd.
    #[must_use]
    pub fn cni_config(&self) -> PathBuf {
        self.dir.join("cni/net.d")
    }

    /// Where CNI plugins remember which addresses they gave out.
    #[must_use]
    pub fn cni_data(&self) -> PathBuf {
        self.dir.join("cni/networks")
    }

    /// containerd's gRPC socket.
    #[must_use]
    pub fn runtime_socket(&self) -> PathBuf {
        self.run_dir.join("containerd/containerd.sock")
    }

    /// The supervisor's socket.
    #[must_use]
    pub fn control_socket(&self) -> PathBuf {
        self.run_dir.join("keeladm.sock")
    }

    /// The processes to be supervised.
    #[must_use]
    pub fn processes(&self) -> PathBuf {
        self.config("processes.json")
    }

    /// The supervised processes and their ids.
    #[must_use]
    pub fn state(&self) -> PathBuf {
        self.run_dir.join("processes.json")
    }

    /// See [`Cluster::cgroup_root`].
    #[must_use]
    pub fn cgroup_root(&self) -> String {
        if self.dir == Path::new(DEFAULT_DIR) {
            return "/".into();
        }
        // A name from the folder, which is the cluster's only certain identity.
        let name: String = self
            .dir
            .to_string_lossy()
            .chars()
            .map(|c| if c.is_ascii_alphanumeric() { c } else { '-' })
            .collect();
        format!("/keelson{name}")
    }

    /// Reads the parameters of an existing cluster; none where there is no cluster.
    ///
    /// # Errors
    /// When the file is there but cannot be read.
    pub fn load(&self) -> anyhow::Result<Option<Cluster>> {
        let path = self.parameters();
        let text = match std::fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).with_context(|| format!("reading {}", path.display())),
        };
        let parameters =
            serde_json::from_slice(&text).with_context(|| format!("reading {}", path.display()))?;
        Ok(Some(Cluster {
            paths: self.clone(),
            parameters,
        }))
    }
}

impl Cluster {
    /// The first address of the service range, which is the `kubernetes` service's.
    ///
    /// # Errors
    /// When the range has no room for it.
    pub fn kubernetes_service_ip(&self) -> anyhow::Result<IpAddr> {
        self.parameters
            .service_cidr
            .hosts()
            .next()
            .with_context(|| format!("--service-cidr {} has no addresses", self.parameters.service_cidr))
    }

    /// The tenth address of the service range, by custom the cluster DNS's.
    ///
    /// # Errors
    /// When the range has no room for it.
    pub fn dns_service_ip(&self) -> anyhow::Result<IpAddr> {
        self.parameters
            .service_cidr
            .hosts()
            .nth(9)
            .with_context(|| format!("--service-cidr {} is too small", self.parameters.service_cidr))
    }

    /// Below which control group the pods' groups are made. The usual place for the usual cluster; another one
    /// beside it must not take its groups for its own.
    #[must_use]
    pub fn cgroup_root(&self) -> String {
        self.paths.cgroup_root()
    }

    /// Where the apiserver is reached by everything on this machine.
    #[must_use]
    pub fn server(&self) -> String {
        let host = match self.parameters.node_ip {
            IpAddr::V4(address) => address.to_string(),
            IpAddr::V6(address) => format!("[{address}]"),
        };
        format!("https://{host}:{}", self.parameters.ports.secure)
    }

    /// Where the store is reached by the apiserver.
    #[must_use]
    pub fn store_endpoint(&self) -> String {
        format!(
            "https://{}:{}",
            Ipv4Addr::LOCALHOST,
            self.parameters.ports.store_client
        )
    }

    /// Keeps the parameters for the next command.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn save(&self) -> anyhow::Result<()> {
        let text = serde_json::to_vec_pretty(&self.parameters)?;
        write_file(&self.paths.parameters(), &text, 0o644)
    }
}

/// Writes a file whole or not at all, and its folder if needed; leaves a file alone that says the same already.
///
/// # Errors
/// When the file cannot be written.
pub fn write_file(path: &Path, contents: &[u8], mode: u32) -> anyhow::Result<()> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;

    if std::fs::read(path).is_ok_and(|existing| existing == contents) {
        return Ok(());
    }
    let writing = || format!("writing {}", path.display());
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent).with_context(writing)?;
    }
    let temporary = path.with_extension("tmp");
    // A leftover from an interrupted run may carry another mode.
    let _ = std::fs::remove_file(&temporary);
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(&temporary)
        .with_context(writing)?;
    file.write_all(contents).with_context(writing)?;
    file.sync_all().with_context(writing)?;
    std::fs::rename(&temporary, path).with_context(writing)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extra_flags_name_a_daemon() {
        let flag: ExtraFlag = "kubelet.eviction-hard=memory.available<5%,nodefs.available<1Gi"
            .parse()
            .expect("a flag");
        assert_eq!(
            (flag.daemon.as_str(), flag.name.as_str()),
            ("kubelet", "eviction-hard")
        );
        assert_eq!(flag.value, "memory.available<5%,nodefs.available<1Gi");
        for wrong in ["kubelet", "kubelet=1", "kubelt.v=1", "kubelet.=1"] {
            assert!(wrong.parse::<ExtraFlag>().is_err(), "{wrong}");
        }
    }
}
