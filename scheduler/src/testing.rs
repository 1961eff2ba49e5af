//! Pods and nodes for tests.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{
    Affinity, Container, ContainerImage, ContainerPort, Node, NodeAffinity, NodeSelector,
    NodeSelectorRequirement, NodeSelectorTerm, NodeSpec, NodeStatus, Pod, PodAffinity, PodAffinityTerm,
    PodAntiAffinity, PodSchedulingGate, PodSpec, PreferredSchedulingTerm, ResourceRequirements, Taint,
    Toleration, TopologySpreadConstraint, WeightedPodAffinityTerm,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta, OwnerReference};

use crate::engine::Cache;
use crate::framework::{Cycle, CycleState};
use crate::model::{NodeInfo, PodInfo};

/// Makes a pod in namespace `default` whose uid is its name.
pub struct PodBuilder(Pod);

pub fn pod(name: &str) -> PodBuilder {
    PodBuilder(Pod {
        metadata: ObjectMeta {
            name: Some(name.into()),
            namespace: Some("default".into()),
            uid: Some(name.into()),
            ..Default::default()
        },
        spec: Some(PodSpec {
            containers: vec![Container {
                name: "c".into(),
                image: Some("image:1".into()),
                ..Default::default()
            }],
            ..Default::default()
        }),
        ..Default::default()
    })
}

fn app(label: &str) -> Option<LabelSelector> {
    Some(LabelSelector {
        match_labels: Some([("app".to_owned(), label.to_owned())].into()),
        match_expressions: None,
    })
}

impl PodBuilder {
    fn spec(&mut self) -> &mut PodSpec {
        self.0.spec.get_or_insert_default()
    }

    fn affinity(&mut self) -> &mut Affinity {
        self.spec().affinity.get_or_insert_default()
    }

    pub fn build(self) -> Pod {
        self.0
    }

    pub fn info(self) -> Arc<PodInfo> {
        Arc::new(PodInfo::new(Arc::new(self.0)))
    }

    pub fn priority(mut self, priority: i32) -> Self {
        self.spec().priority = Some(priority);
        self
    }

    pub fn app(mut self, label: &str) -> Self {
        self.0.metadata.labels = Some([("app".to_owned(), label.to_owned())].into());
        self
    }

    /// Makes it one of a replica set's pods.
    pub fn of(mut self, replica_set: &str) -> Self {
        let owner = OwnerReference {
            api_version: "apps/v1".into(),
            kind: "ReplicaSet".into(),
            name: replica_set.into(),
            uid: replica_set.into(),
            controller: Some(true),
            block_owner_deletion: Some(true),
        };
        self.0.metadata.owner_references = Some(vec![owner]);
        self
    }

    pub fn on(mut self, node: &str) -> Self {
        self.spec().node_name = Some(node.into());
        self
    }

    pub fn request(mut self, resource: &str, amount: &str) -> Self {
        let resources: &mut ResourceRequirements =
            self.spec().containers[0].resources.get_or_insert_default();
        resources
            .requests
            .get_or_insert_default()
            .insert(resource.into(), Quantity(amount.into()));
        self
    }

    pub fn host_port(mut self, port: i32) -> Self {
        let ports = self.spec().containers[0].ports.get_or_insert_default();
        ports.push(ContainerPort {
            container_port: port,
            host_port: Some(port),
            ..Default::default()
        });
        self
    }

    pub fn select(mut self, key: &str, value: &str) -> Self {
        self.spec()
            .node_selector
            .get_or_insert_default()
            .insert(key.into(), value.into());
        self
    }

    pub fn require_node(mut self, key: &str, operator: &str, values: &[&str]) -> Self {
        let term = node_term(key, operator, values);
        let affinity: &mut NodeAffinity = self.affinity().node_affinity.get_or_insert_default();
        let required: &mut NodeSelector = affinity
            .required_during_scheduling_ignored_during_execution
            .get_or_insert_default();
        required.node_selector_terms.push(term);
        self
    }

    pub fn require_name(mut self, name: &str) -> Self {
        let mut term = node_term("metadata.name", "In", &[name]);
        term.match_fields = term.match_expressions.take();
        let affinity = self.affinity().node_affinity.get_or_insert_default();
        let required = affinity
            .required_during_scheduling_ignored_during_execution
            .get_or_insert_default();
        required.node_selector_terms.push(term);
        self
    }

    pub fn prefer_node(mut self, weight: i32, key: &str, value: &str) -> Self {
        let preference = node_term(key, "In", &[value]);
        let affinity = self.affinity().node_affinity.get_or_insert_default();
        let preferred = affinity
            .preferred_during_scheduling_ignored_during_execution
            .get_or_insert_default();
        preferred.push(PreferredSchedulingTerm { preference, weight });
        self
    }

    pub fn toleration(mut self, key: &str) -> Self {
        let toleration = Toleration {
            key: Some(key.into()),
            operator: Some("Exists".into()),
            ..Default::default()
        };
        self.spec().tolerations.get_or_insert_default().push(toleration);
        self
    }

    pub fn gate(mut self, name: &str) -> Self {
        self.spec()
            .scheduling_gates
            .get_or_insert_default()
            .push(PodSchedulingGate { name: name.into() });
        self
    }

    /// Spreads pods of an app.
    pub fn spread(mut self, key: &str, max_skew: i32, when: &str, label: &str) -> Self {
        let constraint = TopologySpreadConstraint {
            max_skew,
            topology_key: key.into(),
            when_unsatisfiable: when.into(),
            label_selector: app(label),
            ..Default::default()
        };
        self.spec()
            .topology_spread_constraints
            .get_or_insert_default()
            .push(constraint);
        self
    }

    /// Must run beside pods of an app.
    pub fn beside(mut self, label: &str, key: &str) -> Self {
        let with: &mut PodAffinity = self.affinity().pod_affinity.get_or_insert_default();
        with.required_during_scheduling_ignored_during_execution
            .get_or_insert_default()
            .push(pod_term(label, key));
        self
    }

    /// Must not run beside pods of an app.
    pub fn apart_from(mut self, label: &str, key: &str) -> Self {
        let against: &mut PodAntiAffinity = self.affinity().pod_anti_affinity.get_or_insert_default();
        let required = against
            .required_during_scheduling_ignored_during_execution
            .get_or_insert_default();
        required.push(pod_term(label, key));
        self
    }

    /// Should run beside pods of an app.
    pub fn prefer_beside(mut self, weight: i32, label: &str, key: &str) -> Self {
        let with = self.affinity().pod_affinity.get_or_insert_default();
        let preferred = with
            .preferred_during_scheduling_ignored_during_execution
            .get_or_insert_default();
        preferred.push(WeightedPodAffinityTerm {
            weight,
            pod_affinity_term: pod_term(label, key),
        });
        self
    }
}

fn pod_term(label: &str, key: &str) -> PodAffinityTerm {
    PodAffinityTerm {
        label_selector: app(label),
        topology_key: key.into(),
        ..Default::default()
    }
}

fn node_term(key: &str, operator: &str, values: &[&str]) -> NodeSelectorTerm {
    let requirement = NodeSelectorRequirement {
        key: key.into(),
        operator: operator.into(),
        values: Some(values.iter().map(|value| (*value).to_owned()).collect()),
    };
    NodeSelectorTerm {
        match_expressions: Some(vec![requirement]),
        match_fields: None,
    }
}

/// Makes a node with 4 CPUs, 8 GiB and room for 110 pods.
pub struct NodeBuilder(Node);

pub fn node(name: &str) -> NodeBuilder {
    let node = Node {
        metadata: ObjectMeta {
            name: Some(name.into()),
            ..Default::default()
        },
        spec: Some(NodeSpec::default()),
        status: Some(NodeStatus::default()),
    };
    NodeBuilder(node)
        .offer("cpu", "4")
        .offer("memory", "8Gi")
        .offer("pods", "110")
        .label("kubernetes.io/hostname", name)
}

impl NodeBuilder {
    pub fn build(self) -> Node {
        self.0
    }

    pub fn info(self) -> NodeInfo {
        NodeInfo::new(Arc::new(self.0))
    }

    pub fn offer(mut self, resource: &str, amount: &str) -> Self {
        let allocatable = self
            .0
            .status
            .get_or_insert_default()
            .allocatable
            .get_or_insert_default();
        allocatable.insert(resource.into(), Quantity(amount.into()));
        self
    }

    pub fn label(mut self, key: &str, value: &str) -> Self {
        self.0
            .metadata
            .labels
            .get_or_insert_default()
            .insert(key.into(), value.into());
        self
    }

    pub fn taint(mut self, key: &str, value: &str, effect: &str) -> Self {
        let taint = Taint {
            key: key.into(),
            value: Some(value.into()),
            effect: effect.into(),
            ..Default::default()
        };
        self.0
            .spec
            .get_or_insert_default()
            .taints
            .get_or_insert_default()
            .push(taint);
        self
    }

    pub fn cordoned(mut self) -> Self {
        self.0.spec.get_or_insert_default().unschedulable = Some(true);
        self
    }

    pub fn image(mut self, name: &str, size: i64) -> Self {
        let image = ContainerImage {
            names: Some(vec![name.into()]),
            size_bytes: Some(size),
        };
        self.0
            .status
            .get_or_insert_default()
            .images
            .get_or_insert_default()
            .push(image);
        self
    }
}

/// A cache with these nodes and bound pods.
pub fn cluster(nodes: Vec<NodeBuilder>, pods: Vec<PodBuilder>) -> Cache {
    let mut cache = Cache::default();
    for node in nodes {
        cache.set_node(Arc::new(node.build()));
    }
    for pod in pods {
        cache.set_pod(pod.info());
    }
    cache
}

/// A cycle for a pod in a cluster.
pub fn cycle<'a>(pod: &'a PodInfo, cache: &'a Cache) -> Cycle<'a> {
    Cycle {
        pod,
        snapshot: cache.snapshot(),
        state: CycleState::default(),
    }
}
