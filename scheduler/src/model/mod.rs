//! Pods and nodes as scheduling sees them: parsed once, counted in integers.

mod node;
mod pod;
mod resources;
mod terms;

pub use node::{ImageState, NodeInfo};
pub use pod::{Affinity, AffinityTerm, Counted, PodId, PodInfo, SpreadConstraint, WhenUnsatisfiable};
pub use resources::{NonZero, Resources};
pub use terms::{NodeTerm, RequiredNodes, WeightedTerm};
