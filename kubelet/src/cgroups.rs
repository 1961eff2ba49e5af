//! Pods' cgroups: one per pod below one per QoS class, in cgroup v1 and v2.
//!
//! ```text
//! kubepods                      all pods
//! kubepods/pod<uid>             a guaranteed pod
//! kubepods/burstable/pod<uid>
//! kubepods/besteffort/pod<uid>
//! ```

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::Pod;

use crate::containers::resources;
use crate::objects::PodExt;
use crate::pods::qos::{self, QosClass};

const MOUNT: &str = "/sys/fs/cgroup";
/// Controllers that limit pods, in v1 one hierarchy each.
const CONTROLLERS: [&str; 3] = ["cpu", "memory", "pids"];

/// Which of the kernel's two interfaces is in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// A hierarchy for each controller.
    V1,
    /// One hierarchy.
    V2,
}

/// The node's cgroups.
#[derive(Debug, Clone)]
pub struct Cgroups {
    version: Version,
    mount: PathBuf,
    root: String,
    enabled: bool,
}

impl Cgroups {
    /// Finds out which version the node has. Without `enabled`, no cgroups are made.
    pub fn detect(root: &str, enabled: bool) -> Self {
        let mount = PathBuf::from(MOUNT);
        let version = if mount.join("cgroup.controllers").exists() {
            Version::V2
        } else {
            Version::V1
        };
        Self {
            version,
            mount,
            root: root.trim_end_matches('/').to_owned(),
            enabled,
        }
    }

    /// Which version the node has.
    pub fn version(&self) -> Version {
        self.version
    }

    /// A pod's cgroup, as runtimes name it. Empty if pods have none.
    pub fn of_pod(&self, pod: &Pod) -> String {
        if !self.enabled {
            return String::new();
        }
        match qos::class(pod) {
            QosClass::Guaranteed => format!("{}/kubepods/pod{}", self.root, pod.uid()),
            QosClass::Burstable => format!("{}/kubepods/burstable/pod{}", self.root, pod.uid()),
            QosClass::BestEffort => format!("{}/kubepods/besteffort/pod{}", self.root, pod.uid()),
        }
    }

    /// Makes the cgroups of all pods and of the classes.
    ///
    /// # Errors
    /// Those of the kernel.
    pub fn prepare(&self, allocatable_cpu_millis: i64, allocatable_memory: i64) -> io::Result<()> {
        if !self.enabled {
            return Ok(());
        }
        let all = format!("{}/kubepods", self.root);
        self.make(&all)?;
        self.set_cpu(&all, resources::cpu_shares(allocatable_cpu_millis), 0)?;
        self.set_memory(&all, allocatable_memory)?;
        for class in ["burstable", "besteffort"] {
            let path = format!("{all}/{class}");
            self.make(&path)?;
            self.set_cpu(&path, resources::cpu_shares(0), 0)?;
        }
        Ok(())
    }

    /// Makes a pod's cgroup with the pod's limits.
    ///
    /// # Errors
    /// Those of the kernel.
    pub fn create(&self, pod: &Pod) -> io::Result<()> {
        if !self.enabled {
            return Ok(());
        }
        let path = self.of_pod(pod);
        self.make(&path)?;
        let wanted = resources::of_pod(pod);
        self.set_cpu(&path, wanted.cpu_shares, wanted.cpu_quota)?;
        if wanted.memory_limit_in_bytes > 0 {
            self.set_memory(&path, wanted.memory_limit_in_bytes)?;
        }
        Ok(())
    }

    /// Gives the burstable pods their share: what they ask for together.
    ///
    /// # Errors
    /// Those of the kernel.
    pub fn share_out(&self, pods: &[std::sync::Arc<Pod>]) -> io::Result<()> {
        if !self.enabled {
            return Ok(());
        }
        let burstable: i64 = pods
            .iter()
            .filter(|pod| qos::class(pod) == QosClass::Burstable)
            .map(|pod| qos::pod_request(pod, "cpu"))
            .sum();
        self.set_cpu(
            &format!("{}/kubepods/burstable", self.root),
            resources::cpu_shares(burstable),
            0,
        )
    }

    /// Removes a pod's cgroup, whatever class it was in.
    pub fn remove(&self, uid: &str) {
        if !self.enabled {
            return;
        }
        for class in ["", "/burstable", "/besteffort"] {
            let path = format!("{}/kubepods{class}/pod{uid}", self.root);
            for folder in self.all_folders(&path) {
                remove_tree(&folder);
            }
        }
    }

    fn folder(&self, controller: &str, path: &str) -> PathBuf {
        let path = path.trim_start_matches('/');
        match self.version {
            Version::V1 => self.mount.join(controller).join(path),
            Version::V2 => self.mount.join(path),
        }
    }

    /// Every hierarchy has folders of a pod: runtimes use more controllers than we do.
    fn all_folders(&self, path: &str) -> Vec<PathBuf> {
        match self.version {
            Version::V2 => vec![self.folder("", path)],
            Version::V1 => {
                let hierarchies = fs::read_dir(&self.mount).into_iter().flatten().flatten();
                hierarchies
                    .map(|entry| entry.path().join(path.trim_start_matches('/')))
                    .collect()
            }
        }
    }

    fn make(&self, path: &str) -> io::Result<()> {
        match self.version {
            Version::V1 => {
                for controller in CONTROLLERS {
                    fs::create_dir_all(self.folder(controller, path))?;
                }
            }
            Version::V2 => {
                let mut folder = self.mount.clone();
                for part in Path::new(path.trim_start_matches('/')).components() {
                    // A controller must be handed down before a child has its files.
                    enable_controllers(&folder)?;
                    folder.push(part);
                    if !folder.exists() {
                        fs::create_dir(&folder)?;
                    }
                }
                enable_controllers(&folder)?;
            }
        }
        Ok(())
    }

    fn set_cpu(&self, path: &str, shares: i64, quota: i64) -> io::Result<()> {
        let folder = self.folder("cpu", path);
        match self.version {
            Version::V1 => {
                set(&folder, "cpu.shares", &shares.to_string())?;
                set(
                    &folder,
                    "cpu.cfs_quota_us",
                    &if quota > 0 { quota } else { -1 }.to_string(),
                )
            }
            Version::V2 => {
                set(&folder, "cpu.weight", &weight(shares).to_string())?;
                let max = if quota > 0 {
                    format!("{quota} 100000")
                } else {
                    "max 100000".into()
                };
                set(&folder, "cpu.max", &max)
            }
        }
    }

    fn set_memory(&self, path: &str, limit: i64) -> io::Result<()> {
        let folder = self.folder("memory", path);
        match self.version {
            Version::V1 => set(&folder, "memory.limit_in_bytes", &limit.to_string()),
            Version::V2 => set(&folder, "memory.max", &limit.to_string()),
        }
    }
}

/// cgroup v2's weight (1 to 10000) for v1's shares (2 to 262144), as runtimes convert it.
fn weight(shares: i64) -> i64 {
    1 + ((shares.clamp(2, 262_144) - 2) * 9999) / 262_142
}

fn enable_controllers(folder: &Path) -> io::Result<()> {
    let available = fs::read_to_string(folder.join("cgroup.controllers")).unwrap_or_default();
    for controller in available.split_whitespace().filter(|controller| {
        matches!(
            *controller,
            "cpu" | "cpuset" | "memory" | "pids" | "io" | "hugetlb"
        )
    }) {
        // One that cannot be handed down is one that nobody below can use: no reason to stop.
        let _ = fs::write(folder.join("cgroup.subtree_control"), format!("+{controller}"));
    }
    Ok(())
}

fn set(folder: &Path, file: &str, value: &str) -> io::Result<()> {
    let path = folder.join(file);
    match fs::write(&path, value) {
        // A kernel without this controller has no such file.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(io::Error::new(
            error.kind(),
            format!("writing {value} to {}: {error}", path.display()),
        )),
        Ok(()) => Ok(()),
    }
}

fn remove_tree(folder: &Path) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.path().is_dir() {
            remove_tree(&entry.path());
        }
    }
    let _ = fs::remove_dir(folder);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_become_weights() {
        assert_eq!([2, 1024, 262_144].map(weight), [1, 39, 10_000]);
    }
}
