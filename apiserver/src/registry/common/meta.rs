//! Steps that many kinds take with metadata.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

/// Generation of an object that is created.
pub fn first_generation(metadata: &mut ObjectMeta) {
    metadata.generation = Some(1);
}

/// Whether what the generation counts has changed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Spec {
    /// It is what it was.
    Same,
    /// It is different now.
    Changed,
}

impl Spec {
    /// Compares the parts that count.
    pub fn compare<T: PartialEq>(new: &T, old: &T) -> Self {
        if new == old { Self::Same } else { Self::Changed }
    }
}

/// Generation of an object that is updated: one more when the spec changed. A deletion that begins counts as a change
/// and is counted by the handler.
pub fn next_generation(new: &mut ObjectMeta, old: &ObjectMeta, spec: Spec) {
    let before = old.generation.unwrap_or(0);
    new.generation = match spec {
        Spec::Changed => Some(before + 1),
        Spec::Same => old.generation,
    };
}

/// For use inside of `impl Strategy`: the two preparations of an update that kinds with a spec, a status and a generation
/// share. The object itself keeps its status and counts the changes of its spec, its `status` keeps all but the status.
macro_rules! spec_and_status {
    () => {
        fn prepare_update(
            &self,
            _ctx: &$crate::registry::strategy::RequestContext<'_>,
            new: &mut Self::Object,
            old: &Self::Object,
        ) {
            use $crate::registry::common::meta::{Spec, next_generation};
            new.status.clone_from(&old.status);
            let spec = Spec::compare(&new.spec, &old.spec);
            next_generation(&mut new.metadata, &old.metadata, spec);
        }

        fn prepare_subresource_update(
            &self,
            _ctx: &$crate::registry::strategy::RequestContext<'_>,
            new: &mut Self::Object,
            old: &Self::Object,
        ) {
            new.spec.clone_from(&old.spec);
            new.metadata.generation = old.metadata.generation;
        }
    };
}
pub(crate) use spec_and_status;
