//! What all parts of one kubelet share.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use keelson_proto::cri;
use parking_lot::RwLock;

use crate::api::Api;
use crate::cgroups::Cgroups;
use crate::config::Config;
use crate::containers::dns::ClusterDns;
use crate::containers::downward::Facts;
use crate::containers::resources::Limits;
use crate::containers::sandbox::{self, SandboxInputs};
use crate::cri::Runtime;
use crate::events::Events;
use crate::images::Images;
use crate::node::facts::{self, FsUsage};
use crate::objects::PodExt;
use crate::paths::Paths;
use crate::pods::static_pods::is_static;
use crate::pods::status_writer::StatusWriter;
use crate::volumes::Volumes;

/// The container runtime's name where it has not said it yet.
const DEFAULT_RUNTIME: &str = "containerd";

/// What all parts share.
pub struct Context {
    /// The flags.
    pub config: Config,
    /// The node's name.
    pub node_name: String,
    /// The node's addresses, the primary one first.
    pub host_ips: Vec<String>,
    /// The container runtime.
    pub runtime: Arc<dyn Runtime>,
    /// Its name, once it has said it.
    pub runtime_name: OnceLock<String>,
    /// The apiserver.
    pub api: Arc<Api>,
    /// Events.
    pub events: Events,
    /// Images.
    pub images: Images,
    /// Volumes.
    pub volumes: Volumes,
    /// Cgroups.
    pub cgroups: Cgroups,
    /// Folders.
    pub paths: Paths,
    /// The cluster's DNS.
    pub cluster: ClusterDns,
    /// What this node can do.
    pub limits: Limits,
    /// What pods may use of the node.
    pub allocatable: BTreeMap<String, Quantity>,
    /// Pods' statuses on their way to the apiserver.
    pub statuses: StatusWriter,
    /// The node as the apiserver has it.
    pub node: RwLock<Option<Arc<Node>>>,
    /// Where the runtime keeps images.
    pub image_root: OnceLock<PathBuf>,
    /// What stands for static pods in the apiserver, by their UID.
    pub mirrors: RwLock<HashMap<String, Arc<Pod>>>,
}

impl Context {
    /// The runtime's name, as it stands before container ids.
    pub fn runtime_name(&self) -> &str {
        self.runtime_name.get().map_or(DEFAULT_RUNTIME, String::as_str)
    }

    /// The pod as the apiserver has it: a static pod's mirror, if it has one yet, and any other pod itself.
    pub fn in_api(&self, pod: &Arc<Pod>) -> Option<Arc<Pod>> {
        if is_static(pod) {
            self.mirrors.read().get(pod.uid()).cloned()
        } else {
            Some(pod.clone())
        }
    }

    /// The file system of images: the runtime's, once it has said where that is.
    pub fn image_disk(&self) -> FsUsage {
        facts::file_system(self.image_root.get().unwrap_or(&self.config.root_dir))
    }

    /// What a pod may know of itself.
    pub fn facts(&self, pod_ips: Vec<String>) -> Facts {
        Facts {
            pod_ips,
            host_ips: self.host_ips.clone(),
            node_name: self.node_name.clone(),
            allocatable: self.allocatable.clone(),
        }
    }

    /// The description of a pod's sandbox.
    pub fn sandbox_config(&self, pod: &Pod, attempt: u32) -> cri::PodSandboxConfig {
        sandbox::config(&SandboxInputs {
            pod,
            attempt,
            paths: &self.paths,
            cluster: &self.cluster,
            resolv_conf: &read_or_empty(&self.config.resolv_conf),
            cgroup_parent: self.cgroups.of_pod(pod),
        })
    }
}

/// A file of the node that may be missing.
pub fn read_or_empty(path: &PathBuf) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}
