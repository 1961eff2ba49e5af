//! The pods of a daemon set.

use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, Pod};
use keelson_api::labels::CONTROLLER_REVISION_HASH;
use keelson_api::object::Object as _;
use keelson_api::owners::new_controller_ref;

use super::placement;
use crate::common::{pods, template};

const NAME_FIELD: &str = "metadata.name";
/// How often the template has changed, as the API counts it on the set.
const TEMPLATE_GENERATION: &str = "deprecated.daemonset.template.generation";
/// The same on pods: older than the hash of the revision, and still there for who selects by it.
const POD_TEMPLATE_GENERATION: &str = "pod-template-generation";

/// A pod for one node. The scheduler binds it: the pod says which node it must be.
#[must_use]
pub fn new(set: &DaemonSet, node: &str, hash: &str) -> Option<Pod> {
    let template = &set.spec.as_ref()?.template;
    let mut pod = template::pod_from(template, set.namespace(), new_controller_ref(set));
    let labels = pod.metadata.labels.get_or_insert_default();
    labels.insert(CONTROLLER_REVISION_HASH.into(), hash.to_owned());
    if let Some(generation) = set.annotations().get(TEMPLATE_GENERATION) {
        labels.insert(POD_TEMPLATE_GENERATION.into(), generation.clone());
    }
    let spec = pod.spec.get_or_insert_default();
    let term = NodeSelectorTerm {
        match_fields: Some(vec![NodeSelectorRequirement {
            key: NAME_FIELD.into(),
            operator: "In".into(),
            values: Some(vec![node.to_owned()]),
        }]),
        ..NodeSelectorTerm::default()
    };
    let affinity = spec
        .affinity
        .get_or_insert_default()
        .node_affinity
        .get_or_insert_default();
    affinity.required_during_scheduling_ignored_during_execution = Some(NodeSelector {
        node_selector_terms: vec![term],
    });
    let accepted = spec.tolerations.get_or_insert_default();
    for toleration in placement::tolerations(spec.host_network.unwrap_or_default()) {
        if !accepted.contains(&toleration) {
            accepted.push(toleration);
        }
    }
    Some(pod)
}

/// Whether the set's template had changed as often as by now when the pod was made.
#[must_use]
pub fn has_generation_of(pod: &Pod, set: &DaemonSet) -> bool {
    let generation = set.annotations().get(TEMPLATE_GENERATION);
    generation.is_some() && pod.labels().get(POD_TEMPLATE_GENERATION) == generation
}

/// The node a pod is on or meant for.
#[must_use]
pub fn node(pod: &Pod) -> Option<&str> {
    let bound = pods::node_name(pod);
    if !bound.is_empty() {
        return Some(bound);
    }
    let affinity = pod.spec.as_ref()?.affinity.as_ref()?.node_affinity.as_ref()?;
    let terms = &affinity
        .required_during_scheduling_ignored_during_execution
        .as_ref()?
        .node_selector_terms;
    let fields = terms.iter().flat_map(|term| term.match_fields.iter().flatten());
    let name = fields.into_iter().find(|field| field.key == NAME_FIELD)?;
    name.values.as_ref()?.first().map(String::as_str)
}
