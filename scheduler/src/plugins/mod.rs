//! The plugins, one in each file, and the profile made of them.

mod default_preemption;
pub mod image_locality;
pub mod inter_pod_affinity;
pub mod node_affinity;
pub mod node_name;
pub mod node_ports;
pub mod node_resources_balanced;
pub mod node_resources_fit;
pub mod node_unschedulable;
pub mod pod_topology_spread;
pub mod priority_sort;
pub mod scheduling_gates;
pub mod taint_toleration;
mod taints;

use std::sync::Arc;

use crate::framework::{Bind, Points, Profile};

/// Upstream's default plugins with upstream's weights, as far as they exist here; `bind` is what binds.
pub fn default_profile(name: &str, bind: Vec<Arc<dyn Bind>>) -> Profile {
    let fit = Arc::new(node_resources_fit::NodeResourcesFit);
    let balanced = Arc::new(node_resources_balanced::NodeResourcesBalancedAllocation);
    let affinity = Arc::new(node_affinity::NodeAffinity);
    let taints = Arc::new(taint_toleration::TaintToleration);
    let ports = Arc::new(node_ports::NodePorts);
    let spread = Arc::new(pod_topology_spread::PodTopologySpread::default());
    let inter_pod = Arc::new(inter_pod_affinity::InterPodAffinity);

    let points = Points {
        pre_enqueue: vec![Arc::new(scheduling_gates::SchedulingGates)],
        pre_filter: vec![affinity.clone(), ports.clone(), spread.clone(), inter_pod.clone()],
        // What is cheap and refuses for good comes first.
        filter: vec![
            Arc::new(node_unschedulable::NodeUnschedulable),
            Arc::new(node_name::NodeName),
            taints.clone(),
            affinity.clone(),
            ports,
            fit.clone(),
            spread.clone(),
            inter_pod.clone(),
        ],
        post_filter: vec![Arc::new(default_preemption::DefaultPreemption)],
        pre_score: vec![
            taints.clone(),
            affinity.clone(),
            balanced.clone(),
            spread.clone(),
            inter_pod.clone(),
        ],
        score: vec![
            (taints, 3),
            (affinity, 2),
            (fit, 1),
            (spread, 2),
            (inter_pod, 2),
            (balanced, 1),
            (Arc::new(image_locality::ImageLocality), 1),
        ],
        bind,
        ..Points::default()
    };
    Profile {
        name: name.to_owned(),
        queue_sort: Arc::new(priority_sort::PrioritySort),
        points,
    }
}
