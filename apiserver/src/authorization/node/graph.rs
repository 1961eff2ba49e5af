//! What belongs to which node: pods by where they are bound, and everything they use.

use std::collections::HashMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Container, EnvFromSource, EnvVar, PersistentVolume, Pod, PodSpec, Volume};
use keelson_api::pods;

/// A kind of thing pods use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Thing {
    /// A pod itself.
    Pod,
    /// A secret.
    Secret,
    /// A config map.
    ConfigMap,
    /// A claim for storage.
    Claim,
    /// A volume behind a claim.
    Volume,
    /// The account a pod acts as.
    Account,
    /// A claim for a device.
    ResourceClaim,
    /// A volume attached to the node.
    Attachment,
    /// Devices the node offers.
    Slice,
}

type Key = Arc<str>;

/// The things of one kind a node uses, and how many of its pods use each.
type Uses = HashMap<Key, u32>;

#[derive(Default)]
struct NodeThings {
    pods: u32,
    uses: HashMap<Thing, Uses>,
}

struct PodThings {
    node: Key,
    uses: Box<[(Thing, Key)]>,
}

struct VolumeThings {
    /// `namespace/name`.
    claim: Box<str>,
    secrets: Box<[Box<str>]>,
}

/// The relations.
#[derive(Default)]
pub struct Graph {
    nodes: HashMap<Key, NodeThings>,
    pods: HashMap<Box<str>, PodThings>,
    volumes: HashMap<Box<str>, VolumeThings>,
    /// Volumes by the secrets their drivers need.
    secret_volumes: HashMap<Box<str>, Vec<Box<str>>>,
    /// Nodes by the attachment's name.
    attachments: HashMap<Box<str>, Box<str>>,
    /// Nodes by the name of the slice of devices.
    slices: HashMap<Box<str>, Box<str>>,
}

impl Graph {
    /// Whether a thing belongs to a node. `key` is `namespace/name`, or the name of what lives in no namespace.
    pub fn related(&self, node: &str, thing: Thing, key: &str) -> bool {
        match thing {
            Thing::Attachment => self.attachments.get(key).is_some_and(|on| &**on == node),
            Thing::Slice => self.slices.get(key).is_some_and(|of| &**of == node),
            Thing::Pod => self.pods.get(key).is_some_and(|pod| &*pod.node == node),
            Thing::Volume => self
                .volumes
                .get(key)
                .is_some_and(|volume| self.uses(node, Thing::Claim, &volume.claim)),
            Thing::Secret => {
                self.uses(node, thing, key)
                    || self
                        .secret_volumes
                        .get(key)
                        .is_some_and(|volumes| volumes.iter().any(|v| self.related(node, Thing::Volume, v)))
            }
            _ => self.uses(node, thing, key),
        }
    }

    fn uses(&self, node: &str, thing: Thing, key: &str) -> bool {
        self.nodes
            .get(node)
            .and_then(|node| node.uses.get(&thing))
            .is_some_and(|uses| uses.contains_key(key))
    }

    /// A pod is there, or has changed.
    pub fn put_pod(&mut self, key: &str, pod: &Pod) {
        self.remove_pod(key);
        let Some(spec) = &pod.spec else { return };
        let Some(node) = spec.node_name.as_deref().filter(|node| !node.is_empty()) else {
            return;
        };
        let node: Key = match self.nodes.get_key_value(node) {
            Some((known, _)) => known.clone(),
            None => node.into(),
        };
        // A node makes mirror pods itself: they must not open anything to it.
        let mut uses = if pods::is_mirror(pod) {
            Vec::new()
        } else {
            used(pod, spec)
        };
        uses.sort_unstable_by(|a, b| (a.0 as u8, &a.1).cmp(&(b.0 as u8, &b.1)));
        uses.dedup();
        let things = self.nodes.entry(node.clone()).or_default();
        things.pods += 1;
        let uses = uses
            .into_iter()
            .map(|(thing, key)| {
                let known = things.uses.entry(thing).or_default();
                let key: Key = match known.get_key_value(key.as_str()) {
                    Some((known, _)) => known.clone(),
                    None => key.into(),
                };
                *known.entry(key.clone()).or_default() += 1;
                (thing, key)
            })
            .collect();
        self.pods.insert(key.into(), PodThings { node, uses });
    }

    /// A pod is gone.
    pub fn remove_pod(&mut self, key: &str) {
        let Some(pod) = self.pods.remove(key) else { return };
        let Some(things) = self.nodes.get_mut(&pod.node) else {
            return;
        };
        things.pods -= 1;
        for (thing, key) in &pod.uses {
            let Some(known) = things.uses.get_mut(thing) else {
                continue;
            };
            if let Some(count) = known.get_mut(key) {
                *count -= 1;
                if *count == 0 {
                    known.remove(key);
                }
            }
        }
        if things.pods == 0 {
            self.nodes.remove(&pod.node);
        }
    }

    /// Forgets every pod.
    pub fn clear_pods(&mut self) {
        self.pods.clear();
        self.nodes.clear();
    }

    /// A volume is there, or has changed.
    pub fn put_volume(&mut self, name: &str, volume: &PersistentVolume) {
        self.remove_volume(name);
        let Some(spec) = &volume.spec else { return };
        let Some(claim) = &spec.claim_ref else { return };
        let namespace = claim.namespace.as_deref().unwrap_or_default();
        let claim = format!("{namespace}/{}", claim.name.as_deref().unwrap_or_default());
        let mut secrets: Vec<Box<str>> = Vec::new();
        if let Some(csi) = &spec.csi {
            // What the driver's controller needs is not the node's business.
            let references = [
                &csi.node_expand_secret_ref,
                &csi.node_publish_secret_ref,
                &csi.node_stage_secret_ref,
            ];
            for reference in references.into_iter().flatten() {
                let namespace = reference.namespace.as_deref().unwrap_or_default();
                let name = reference.name.as_deref().unwrap_or_default();
                secrets.push(format!("{namespace}/{name}").into());
            }
        }
        for secret in &secrets {
            self.secret_volumes
                .entry(secret.clone())
                .or_default()
                .push(name.into());
        }
        let things = VolumeThings {
            claim: claim.into(),
            secrets: secrets.into(),
        };
        self.volumes.insert(name.into(), things);
    }

    /// A volume is gone.
    pub fn remove_volume(&mut self, name: &str) {
        let Some(volume) = self.volumes.remove(name) else {
            return;
        };
        for secret in &volume.secrets {
            if let Some(volumes) = self.secret_volumes.get_mut(secret) {
                volumes.retain(|known| &**known != name);
                if volumes.is_empty() {
                    self.secret_volumes.remove(secret);
                }
            }
        }
    }

    /// Forgets every volume.
    pub fn clear_volumes(&mut self) {
        self.volumes.clear();
        self.secret_volumes.clear();
    }

    /// An attachment to a node is there.
    pub fn put_attachment(&mut self, name: &str, node: &str) {
        self.attachments.insert(name.into(), node.into());
    }

    /// An attachment is gone.
    pub fn remove_attachment(&mut self, name: &str) {
        self.attachments.remove(name);
    }

    /// Forgets every attachment.
    pub fn clear_attachments(&mut self) {
        self.attachments.clear();
    }

    /// A slice of devices is there. Those that are not of one node belong to none.
    pub fn put_slice(&mut self, name: &str, node: Option<&str>) {
        match node {
            Some(node) => self.slices.insert(name.into(), node.into()),
            None => self.slices.remove(name),
        };
    }

    /// A slice of devices is gone.
    pub fn remove_slice(&mut self, name: &str) {
        self.slices.remove(name);
    }

    /// Forgets every slice of devices.
    pub fn clear_slices(&mut self) {
        self.slices.clear();
    }
}

/// Everything a pod's kubelet reads on its behalf.
pub fn used(pod: &Pod, spec: &PodSpec) -> Vec<(Thing, String)> {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let mut uses = Vec::new();
    let mut add = |thing: Thing, name: Option<&str>| {
        if let Some(name) = name.filter(|name| !name.is_empty()) {
            uses.push((thing, format!("{namespace}/{name}")));
        }
    };
    add(Thing::Account, spec.service_account_name.as_deref());
    for secret in spec.image_pull_secrets.iter().flatten() {
        add(Thing::Secret, Some(&secret.name));
    }
    let containers = spec.init_containers.iter().flatten().chain(&spec.containers);
    for container in containers {
        let Container { env, env_from, .. } = container;
        environment(env.as_deref(), env_from.as_deref(), &mut add);
    }
    for container in spec.ephemeral_containers.iter().flatten() {
        environment(container.env.as_deref(), container.env_from.as_deref(), &mut add);
    }
    let pod_name = pod.metadata.name.as_deref().unwrap_or_default();
    for volume in spec.volumes.iter().flatten() {
        of_volume(pod_name, volume, &mut add);
    }
    for claim in spec.resource_claims.iter().flatten() {
        add(Thing::ResourceClaim, claim.resource_claim_name.as_deref());
    }
    let statuses = pod
        .status
        .iter()
        .flat_map(|s| s.resource_claim_statuses.iter().flatten());
    for status in statuses {
        add(Thing::ResourceClaim, status.resource_claim_name.as_deref());
    }
    uses
}

fn environment(
    variables: Option<&[EnvVar]>,
    sources: Option<&[EnvFromSource]>,
    add: &mut impl FnMut(Thing, Option<&str>),
) {
    for variable in variables.unwrap_or_default() {
        let Some(source) = &variable.value_from else {
            continue;
        };
        add(
            Thing::Secret,
            source.secret_key_ref.as_ref().map(|r| r.name.as_str()),
        );
        add(
            Thing::ConfigMap,
            source.config_map_key_ref.as_ref().map(|r| r.name.as_str()),
        );
    }
    for source in sources.unwrap_or_default() {
        add(Thing::Secret, source.secret_ref.as_ref().map(|r| r.name.as_str()));
        add(
            Thing::ConfigMap,
            source.config_map_ref.as_ref().map(|r| r.name.as_str()),
        );
    }
}

fn of_volume(pod_name: &str, volume: &Volume, add: &mut impl FnMut(Thing, Option<&str>)) {
    add(
        Thing::Secret,
        volume.secret.as_ref().and_then(|s| s.secret_name.as_deref()),
    );
    add(
        Thing::ConfigMap,
        volume.config_map.as_ref().map(|c| c.name.as_str()),
    );
    add(
        Thing::Claim,
        volume
            .persistent_volume_claim
            .as_ref()
            .map(|claim| claim.claim_name.as_str()),
    );
    if volume.ephemeral.is_some() {
        add(Thing::Claim, Some(&format!("{pod_name}-{}", volume.name)));
    }
    let secret_of_driver = volume
        .csi
        .as_ref()
        .and_then(|csi| csi.node_publish_secret_ref.as_ref())
        .map(|r| r.name.as_str());
    add(Thing::Secret, secret_of_driver);
    for source in volume.projected.iter().flat_map(|p| p.sources.iter().flatten()) {
        add(Thing::Secret, source.secret.as_ref().map(|s| s.name.as_str()));
        add(
            Thing::ConfigMap,
            source.config_map.as_ref().map(|c| c.name.as_str()),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(node: &str, secret: &str) -> Pod {
        serde_json::from_value(json!({
            "metadata": {"name": "p", "namespace": "a"},
            "spec": {
                "nodeName": node, "serviceAccountName": "s",
                "containers": [{"name": "c", "env": [{"name": "E", "valueFrom": {"configMapKeyRef": {"name": "m", "key": "k"}}}]}],
                "volumes": [
                    {"name": "v", "secret": {"secretName": secret}},
                    {"name": "d", "persistentVolumeClaim": {"claimName": "data"}},
                ],
            },
        }))
        .expect("a pod")
    }

    #[test]
    fn things_belong_to_the_node_of_the_pods_that_use_them() {
        let mut graph = Graph::default();
        graph.put_pod("a/p", &pod("n1", "x"));
        graph.put_pod("a/q", &pod("n1", "x"));
        assert!(graph.related("n1", Thing::Secret, "a/x") && !graph.related("n2", Thing::Secret, "a/x"));
        assert!(graph.related("n1", Thing::ConfigMap, "a/m") && !graph.related("n1", Thing::Secret, "b/x"));
        assert!(graph.related("n1", Thing::Account, "a/s") && graph.related("n1", Thing::Pod, "a/p"));
        graph.remove_pod("a/p");
        assert!(graph.related("n1", Thing::Secret, "a/x"));
        graph.put_pod("a/q", &pod("n1", "y"));
        assert!(!graph.related("n1", Thing::Secret, "a/x") && graph.related("n1", Thing::Secret, "a/y"));
        graph.remove_pod("a/q");
        assert!(graph.nodes.is_empty());
    }

    #[test]
    fn volumes_lead_to_the_secrets_of_their_drivers() {
        let mut graph = Graph::default();
        graph.put_pod("a/p", &pod("n1", "x"));
        let volume: PersistentVolume = serde_json::from_value(json!({
            "spec": {
                "claimRef": {"namespace": "a", "name": "data"},
                "csi": {
                    "driver": "d", "volumeHandle": "h",
                    "nodeStageSecretRef": {"namespace": "sys", "name": "stage"},
                    "controllerPublishSecretRef": {"namespace": "sys", "name": "publish"},
                },
            },
        }))
        .expect("a volume");
        graph.put_volume("pv", &volume);
        assert!(graph.related("n1", Thing::Volume, "pv") && !graph.related("n2", Thing::Volume, "pv"));
        assert!(graph.related("n1", Thing::Secret, "sys/stage"));
        assert!(!graph.related("n1", Thing::Secret, "sys/publish"));
        graph.remove_volume("pv");
        assert!(!graph.related("n1", Thing::Secret, "sys/stage"));
    }

    #[test]
    fn mirror_pods_open_nothing() {
        let mut mirror = pod("n1", "x");
        mirror.metadata.annotations =
            Some([("kubernetes.io/config.mirror".to_owned(), "h".to_owned())].into());
        let mut graph = Graph::default();
        graph.put_pod("a/p", &mirror);
        assert!(!graph.related("n1", Thing::Secret, "a/x") && graph.related("n1", Thing::Pod, "a/p"));
    }
}
