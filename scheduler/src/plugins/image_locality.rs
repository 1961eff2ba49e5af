//! ImageLocality: a node that has the pod's images starts it sooner.

use crate::framework::{Cycle, MAX_SCORE, Plugin, Scope, Score};
use crate::model::NodeInfo;

/// Images smaller than this in sum are pulled soon enough. (Upstream's figure, as is the next.)
const MIN: i64 = 23 << 20;
/// Per container: more than this is not better.
const MAX_PER_CONTAINER: i64 = 1000 << 20;

/// The plugin.
pub struct ImageLocality;

impl Plugin for ImageLocality {
    fn name(&self) -> &'static str {
        "ImageLocality"
    }
}

/// The name under which nodes report an image: with the tag `latest` if it has neither tag nor digest.
fn normalized(image: &str) -> String {
    let last = image.rsplit('/').next().unwrap_or(image);
    if last.contains(':') || last.contains('@') {
        image.to_owned()
    } else {
        format!("{image}:latest")
    }
}

impl Score for ImageLocality {
    /// Images on other nodes count too, but when they change every verdict is made anew.
    fn scope(&self) -> Scope {
        Scope::Node
    }

    fn score(&self, cycle: &Cycle<'_>, node: &NodeInfo) -> i64 {
        if node.images.is_empty() {
            return 0;
        }
        let nodes = cycle.snapshot.nodes().len().max(1) as f64;
        let (mut sum, mut containers) = (0_i64, 0_i64);
        for image in cycle.pod.images() {
            containers += 1;
            let name = normalized(image);
            if let Some(state) = node.images.get(&name) {
                // An image that only one node has must not draw every pod to that node.
                let spread = cycle.snapshot.nodes_with_image(&name) as f64 / nodes;
                sum += (state.size as f64 * spread) as i64;
            }
        }
        let max = MAX_PER_CONTAINER * containers.max(1);
        MAX_SCORE * (sum.clamp(MIN, max) - MIN) / (max - MIN)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{cluster, cycle, node, pod};

    #[test]
    fn images_draw_in_proportion_to_size_and_spread() {
        let big = 500 << 20;
        let everywhere = cluster(
            vec![node("a").image("image:1", big), node("b").image("image:1", big)],
            vec![],
        );
        let on_one = cluster(vec![node("a").image("image:1", big), node("b")], vec![]);
        let info = pod("p").info();
        let score = |cache: &crate::engine::Cache, name| {
            ImageLocality.score(&cycle(&info, cache), cache.node(name).unwrap())
        };
        assert_eq!(score(&everywhere, "a"), 48);
        assert_eq!(score(&on_one, "a"), 23);
        assert_eq!(score(&on_one, "b"), 0);
    }

    #[test]
    fn an_image_without_a_tag_is_the_latest() {
        assert_eq!(normalized("registry:5000/app"), "registry:5000/app:latest");
        assert_eq!(normalized("app@sha256:00"), "app@sha256:00");
    }
}
