//! A pod as scheduling sees it.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Pod, PodAffinityTerm, PodSpec, Toleration, TopologySpreadConstraint};
use k8s_openapi::apimachinery::pkg::apis::meta::v1 as meta;
use keelson_api::object::{Object, ObjectKey};
use keelson_api::owners;
use keelson_api::pods::{HostPort, host_ports};
use keelson_api::selector::{LabelSelector, Operator, Requirement};

use super::{NodeTerm, NonZero, RequiredNodes, Resources, WeightedTerm};

/// A pod's uid: names one pod for ever, where a name can be used again.
pub type PodId = Arc<str>;

/// What to do when a spread constraint cannot be kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhenUnsatisfiable {
    /// The pod waits.
    DoNotSchedule,
    /// The best node is taken anyway.
    ScheduleAnyway,
}

/// Which pods of a namespace a spread constraint counts.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Counted {
    /// Those with such labels.
    Labels(LabelSelector),
    /// Those of the controller with this uid.
    Siblings(String),
}

impl Counted {
    /// Whether the pod is one of them.
    pub fn matches(&self, pod: &PodInfo) -> bool {
        match self {
            Counted::Labels(selector) => selector.matches(pod.pod.labels()),
            Counted::Siblings(controller) => pod.controller() == Some(controller),
        }
    }
}

/// One topology spread constraint.
#[derive(Clone, Debug)]
pub struct SpreadConstraint {
    /// How much fuller one domain may be than the emptiest.
    pub max_skew: i64,
    /// The node label whose values are the domains.
    pub topology_key: String,
    /// Whether the constraint is a rule or a wish.
    pub when_unsatisfiable: WhenUnsatisfiable,
    /// Which pods of the namespace are counted.
    pub counted: Counted,
    /// With fewer domains than this, the emptiest counts as empty.
    pub min_domains: i64,
    /// Whether nodes the pod may not run on by affinity are left out.
    pub honor_affinity: bool,
    /// Whether nodes the pod may not run on by taints are left out.
    pub honor_taints: bool,
}

/// One term of pod affinity or anti-affinity.
#[derive(Clone, Debug)]
pub struct AffinityTerm {
    /// How much a preferred term is worth; a required one has 0.
    pub weight: i64,
    /// The node label that says what counts as together.
    pub topology_key: String,
    /// Which pods are meant.
    pub selector: LabelSelector,
    /// In these namespaces,
    pub namespaces: Vec<String>,
    /// and in those with such labels.
    pub namespace_selector: LabelSelector,
}

impl AffinityTerm {
    /// Whether the term means that pod. `namespace_labels` are those of the pod's namespace.
    pub fn matches(&self, pod: &PodInfo, namespace_labels: Option<&BTreeMap<String, String>>) -> bool {
        let in_namespace = self.namespaces.contains(&pod.key.namespace)
            || self.namespace_selector.is_everything()
            || namespace_labels.is_some_and(|labels| self.namespace_selector.matches(labels));
        in_namespace && self.selector.matches(pod.pod.labels())
    }
}

/// A pod's affinity and anti-affinity to other pods.
#[derive(Clone, Debug, Default)]
pub struct Affinity {
    /// Must run beside these.
    pub required: Vec<AffinityTerm>,
    /// Must not run beside these.
    pub required_anti: Vec<AffinityTerm>,
    /// Should run beside these.
    pub preferred: Vec<AffinityTerm>,
    /// Should not run beside these.
    pub preferred_anti: Vec<AffinityTerm>,
}

/// A pod, parsed once.
#[derive(Debug)]
pub struct PodInfo {
    /// The object.
    pub pod: Arc<Pod>,
    /// Its namespace and name.
    pub key: ObjectKey,
    /// Its uid.
    pub id: PodId,
    /// Higher goes first.
    pub priority: i32,
    /// What it asks for.
    pub requests: Resources,
    /// The same for comparing nodes.
    pub nonzero: NonZero,
    /// The node's ports it occupies.
    pub host_ports: Vec<HostPort>,
    /// Where it may run.
    pub required_nodes: RequiredNodes,
    /// Where it would rather run.
    pub preferred_nodes: Vec<WeightedTerm>,
    /// How it is spread.
    pub spread: Vec<SpreadConstraint>,
    /// Its relations to other pods; `None` if it has none.
    pub affinity: Option<Box<Affinity>>,
}

impl PodInfo {
    /// Parses a pod.
    pub fn new(pod: Arc<Pod>) -> Self {
        let empty = PodSpec::default();
        let spec = pod.spec.as_ref().unwrap_or(&empty);
        let requests = Resources::requested(&pod);
        let preferred = spec
            .affinity
            .as_ref()
            .and_then(|affinity| affinity.node_affinity.as_ref());
        let preferred =
            preferred.and_then(|a| a.preferred_during_scheduling_ignored_during_execution.as_ref());
        let preferred_nodes = preferred
            .into_iter()
            .flatten()
            .map(|term| WeightedTerm {
                weight: term.weight.into(),
                term: NodeTerm::parse(&term.preference),
            })
            .collect();
        PodInfo {
            key: pod.key(),
            id: pod.uid().into(),
            priority: spec.priority.unwrap_or_default(),
            nonzero: NonZero::of(&pod, &requests),
            requests,
            host_ports: host_ports(spec),
            required_nodes: RequiredNodes::of(&pod),
            preferred_nodes,
            spread: spec
                .topology_spread_constraints
                .iter()
                .flatten()
                .map(|c| spread(c, &pod))
                .collect(),
            affinity: affinity(spec, &pod),
            pod,
        }
    }

    /// The node the pod is bound to.
    pub fn node_name(&self) -> Option<&str> {
        keelson_api::pods::node_name(&self.pod)
    }

    /// The taints the pod puts up with.
    pub fn tolerations(&self) -> &[Toleration] {
        self.pod
            .spec
            .as_ref()
            .and_then(|spec| spec.tolerations.as_deref())
            .unwrap_or_default()
    }

    /// The images of its containers.
    pub fn images(&self) -> impl Iterator<Item = &str> {
        let spec = self.pod.spec.iter();
        spec.flat_map(|spec| spec.init_containers.iter().flatten().chain(&spec.containers))
            .filter_map(|container| container.image.as_deref())
    }

    /// Which scheduler is asked to place it.
    pub fn scheduler_name(&self) -> &str {
        let named = self
            .pod
            .spec
            .as_ref()
            .and_then(|spec| spec.scheduler_name.as_deref());
        named
            .filter(|name| !name.is_empty())
            .unwrap_or("default-scheduler")
    }

    /// The uid of the controller that keeps it and others like it running.
    pub fn controller(&self) -> Option<&str> {
        owners::controller_ref(&self.pod.metadata).map(|owner| owner.uid.as_str())
    }

    /// The uid of its controller, if that is one of those whose pods stand in for each other.
    pub fn replicated_by(&self) -> Option<&str> {
        let controller = owners::controller_ref(&self.pod.metadata)?;
        let replicates = matches!(
            controller.kind.as_str(),
            "ReplicaSet" | "ReplicationController" | "StatefulSet"
        );
        replicates.then_some(controller.uid.as_str())
    }

    /// Whether somebody has deleted it.
    pub fn is_terminating(&self) -> bool {
        self.pod.metadata.deletion_timestamp.is_some()
    }

    /// Whether it has rules against pods beside it.
    pub fn has_required_anti_affinity(&self) -> bool {
        self.affinity
            .as_ref()
            .is_some_and(|affinity| !affinity.required_anti.is_empty())
    }

    /// Everything that decides how a single node judges the pod, as bytes: pods with equal requirements share verdicts.
    /// What depends on several nodes together (spread, affinity to pods) is not in it, and is judged for each pod.
    pub fn requirements(&self) -> Vec<u8> {
        let empty = PodSpec::default();
        let spec = self.pod.spec.as_ref().unwrap_or(&empty);
        let node_affinity = spec
            .affinity
            .as_ref()
            .and_then(|affinity| affinity.node_affinity.as_ref());
        let requests = (
            self.requests.milli_cpu,
            self.requests.memory,
            self.requests.ephemeral_storage,
            &self.requests.scalar,
            self.nonzero.milli_cpu,
            self.nonzero.memory,
        );
        let ports: Vec<_> = self
            .host_ports
            .iter()
            .map(|p| (p.port, &p.protocol, &p.address))
            .collect();
        let images: Vec<_> = self.images().collect();
        let all = (
            (
                self.scheduler_name(),
                &spec.node_name,
                &spec.node_selector,
                node_affinity,
            ),
            (&spec.tolerations, requests, ports, images),
        );
        // Plain data with string keys: its encoding cannot fail.
        serde_json::to_vec(&all).unwrap_or_default()
    }
}

/// The selector, narrowed to pods that agree (or differ) with this one in the given labels. A selector that does not
/// parse selects nothing.
fn selector(
    selector: Option<&meta::LabelSelector>,
    same: &Option<Vec<String>>,
    different: &Option<Vec<String>>,
    pod: &Pod,
) -> LabelSelector {
    let parsed = LabelSelector::from_meta(selector).unwrap_or(LabelSelector::nothing());
    if same.as_ref().is_none_or(Vec::is_empty) && different.as_ref().is_none_or(Vec::is_empty) {
        return parsed;
    }
    let mut requirements = parsed.requirements().to_vec();
    for (keys, operator) in [(same, Operator::In), (different, Operator::NotIn)] {
        for key in keys.iter().flatten() {
            let Some(value) = pod.labels().get(key) else {
                continue;
            };
            requirements.extend(Requirement::new(key.as_str(), operator, vec![value.clone()]));
        }
    }
    if parsed.is_nothing() {
        parsed
    } else {
        LabelSelector::of(requirements)
    }
}

fn spread(constraint: &TopologySpreadConstraint, pod: &Pod) -> SpreadConstraint {
    let honor = |policy: &Option<String>, default: bool| policy.as_ref().map_or(default, |p| p == "Honor");
    SpreadConstraint {
        max_skew: constraint.max_skew.into(),
        topology_key: constraint.topology_key.clone(),
        when_unsatisfiable: match constraint.when_unsatisfiable.as_str() {
            "ScheduleAnyway" => WhenUnsatisfiable::ScheduleAnyway,
            _ => WhenUnsatisfiable::DoNotSchedule,
        },
        counted: Counted::Labels(selector(
            constraint.label_selector.as_ref(),
            &constraint.match_label_keys,
            &None,
            pod,
        )),
        min_domains: constraint.min_domains.unwrap_or(1).into(),
        honor_affinity: honor(&constraint.node_affinity_policy, true),
        honor_taints: honor(&constraint.node_taints_policy, false),
    }
}

fn term(term: &PodAffinityTerm, weight: i32, pod: &Pod) -> AffinityTerm {
    let named = term.namespaces.clone().unwrap_or_default();
    // Neither names nor a selector: the pod's own namespace.
    let own = named.is_empty() && term.namespace_selector.is_none();
    AffinityTerm {
        weight: weight.into(),
        topology_key: term.topology_key.clone(),
        selector: selector(
            term.label_selector.as_ref(),
            &term.match_label_keys,
            &term.mismatch_label_keys,
            pod,
        ),
        namespaces: if own {
            vec![pod.namespace().to_owned()]
        } else {
            named
        },
        namespace_selector: match &term.namespace_selector {
            None => LabelSelector::nothing(),
            some => LabelSelector::from_meta(some.as_ref()).unwrap_or(LabelSelector::nothing()),
        },
    }
}

fn affinity(spec: &PodSpec, pod: &Pod) -> Option<Box<Affinity>> {
    let both = spec.affinity.as_ref()?;
    let mut all = Affinity::default();
    if let Some(with) = &both.pod_affinity {
        let required = with
            .required_during_scheduling_ignored_during_execution
            .iter()
            .flatten();
        all.required = required.map(|t| term(t, 0, pod)).collect();
        let preferred = with
            .preferred_during_scheduling_ignored_during_execution
            .iter()
            .flatten();
        all.preferred = preferred
            .map(|t| term(&t.pod_affinity_term, t.weight, pod))
            .collect();
    }
    if let Some(against) = &both.pod_anti_affinity {
        let required = against
            .required_during_scheduling_ignored_during_execution
            .iter()
            .flatten();
        all.required_anti = required.map(|t| term(t, 0, pod)).collect();
        let preferred = against
            .preferred_during_scheduling_ignored_during_execution
            .iter()
            .flatten();
        all.preferred_anti = preferred
            .map(|t| term(&t.pod_affinity_term, t.weight, pod))
            .collect();
    }
    let empty = all.required.is_empty()
        && all.required_anti.is_empty()
        && all.preferred.is_empty()
        && all.preferred_anti.is_empty();
    (!empty).then(|| Box::new(all))
}
