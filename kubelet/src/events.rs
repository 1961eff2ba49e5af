//! Events, as the kubelet records them.

use k8s_openapi::api::core::v1::{Node, ObjectReference, Pod};
use keelson_client::events::reference;
use keelson_client::{EventKind, EventRecorder};

use crate::objects::PodExt;

/// Is it as it should be?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// Yes.
    Normal,
    /// Somebody may want to look.
    Warning,
}

impl From<Level> for EventKind {
    fn from(level: Level) -> Self {
        match level {
            Level::Normal => Self::Normal,
            Level::Warning => Self::Warning,
        }
    }
}

/// Records events about pods, their containers, and the node.
#[derive(Clone)]
pub struct Events {
    recorder: EventRecorder,
}

impl Events {
    /// Events through a recorder.
    pub fn new(recorder: EventRecorder) -> Self {
        Self { recorder }
    }

    /// About a pod.
    pub fn pod(&self, pod: &Pod, level: Level, reason: &str, message: &str) {
        self.recorder
            .event_ref(reference(pod), level.into(), reason, message);
    }

    /// About a container of a pod.
    pub fn container(&self, pod: &Pod, container: &str, level: Level, reason: &str, message: &str) {
        let list = if pod.init_containers().iter().any(|init| init.name == container) {
            "initContainers"
        } else if pod.containers().iter().any(|regular| regular.name == container) {
            "containers"
        } else {
            "ephemeralContainers"
        };
        let about = ObjectReference {
            field_path: Some(format!("spec.{list}{{{container}}}")),
            ..reference(pod)
        };
        self.recorder.event_ref(about, level.into(), reason, message);
    }

    /// About the node.
    pub fn node(&self, name: &str, level: Level, reason: &str, message: &str) {
        // A node's events name its UID by its name, so that those before its registration count as its own.
        let about = ObjectReference {
            uid: Some(name.into()),
            name: Some(name.into()),
            ..reference(&Node::default())
        };
        self.recorder.event_ref(about, level.into(), reason, message);
    }
}
