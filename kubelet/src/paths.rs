//! Where the kubelet keeps its files, laid out as upstream's.

use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::Pod;

use crate::objects::PodExt;

/// The roots of the kubelet's files.
#[derive(Debug, Clone)]
pub struct Paths {
    root: PathBuf,
    logs: PathBuf,
}

impl Paths {
    /// Files under `root`, logs under `logs`.
    pub fn new(root: &Path, logs: &Path) -> Self {
        Self {
            root: root.into(),
            logs: logs.into(),
        }
    }

    /// All pods' folders.
    pub fn pods(&self) -> PathBuf {
        self.root.join("pods")
    }

    /// All pods' logs.
    pub fn logs(&self) -> &Path {
        &self.logs
    }

    /// One pod's folder.
    pub fn pod(&self, uid: &str) -> PathBuf {
        self.pods().join(uid)
    }

    /// A pod's volumes.
    pub fn volumes(&self, uid: &str) -> PathBuf {
        self.pod(uid).join("volumes")
    }

    /// A pod's volume.
    pub fn volume(&self, uid: &str, plugin: &str, name: &str) -> PathBuf {
        self.volumes(uid)
            .join(format!("kubernetes.io~{plugin}"))
            .join(name)
    }

    /// A container's files.
    pub fn container(&self, uid: &str, name: &str) -> PathBuf {
        self.pod(uid).join("containers").join(name)
    }

    /// A pod's `/etc/hosts`.
    pub fn etc_hosts(&self, uid: &str) -> PathBuf {
        self.pod(uid).join("etc-hosts")
    }

    /// Seccomp profiles that pods name.
    pub fn seccomp(&self) -> PathBuf {
        self.root.join("seccomp")
    }

    /// A pod's logs.
    pub fn pod_logs(&self, pod: &Pod) -> PathBuf {
        self.logs
            .join(format!("{}_{}_{}", pod.namespace(), pod.name(), pod.uid()))
    }
}

/// A container's log, relative to its pod's.
pub fn container_log(name: &str, attempt: u32) -> String {
    format!("{name}/{attempt}.log")
}
