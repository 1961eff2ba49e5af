//! Steps that many kinds take with metadata.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

/// Takes out what is there but empty: upstream's encoding leaves empty lists and maps of metadata out.
pub fn omit_empty(metadata: &mut ObjectMeta) {
    metadata.labels.take_if(|labels| labels.is_empty());
    metadata.annotations.take_if(|annotations| annotations.is_empty());
    metadata.finalizers.take_if(|finalizers| finalizers.is_empty());
    metadata.owner_references.take_if(|owners| owners.is_empty());
}

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_empty_is_left_out() {
        let mut metadata = ObjectMeta {
            labels: Some([("a".to_owned(), String::new())].into()),
            annotations: Some([].into()),
            finalizers: Some(Vec::new()),
            owner_references: Some(Vec::new()),
            ..ObjectMeta::default()
        };
        omit_empty(&mut metadata);
        let kept = ObjectMeta {
            labels: metadata.labels.clone(),
            ..ObjectMeta::default()
        };
        assert!(metadata.labels.is_some());
        assert_eq!(metadata, kept);
    }
}
