//! Deletion: finalizers, and whether an object is on its way out.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

/// Held until all blocking dependents are gone: foreground deletion.
pub const FOREGROUND_FINALIZER: &str = "foregroundDeletion";
/// Held until the dependents have been released: orphaning deletion.
pub const ORPHAN_FINALIZER: &str = "orphan";
/// Held by a namespace (in its spec) until its contents are gone.
pub const NAMESPACE_FINALIZER: &str = "kubernetes";
/// Held by a Job's pods until the job has counted them.
pub const JOB_TRACKING_FINALIZER: &str = "batch.kubernetes.io/job-tracking";
/// Held by a volume claim while pods use it.
pub const PVC_PROTECTION_FINALIZER: &str = "kubernetes.io/pvc-protection";
/// Held by a volume while a claim is bound to it.
pub const PV_PROTECTION_FINALIZER: &str = "kubernetes.io/pv-protection";
/// Held by a service until its load balancer is gone.
pub const LOAD_BALANCER_FINALIZER: &str = "service.kubernetes.io/load-balancer-cleanup";

/// Whether the object is being deleted.
pub fn is_deleting(meta: &ObjectMeta) -> bool {
    meta.deletion_timestamp.is_some()
}

/// Whether the object holds a finalizer.
pub fn has_finalizer(meta: &ObjectMeta, name: &str) -> bool {
    meta.finalizers.iter().flatten().any(|one| one == name)
}

/// Adds a finalizer; says whether it was not there before.
pub fn add_finalizer(meta: &mut ObjectMeta, name: &str) -> bool {
    let new = !has_finalizer(meta, name);
    if new {
        meta.finalizers.get_or_insert_default().push(name.to_owned());
    }
    new
}

/// Removes a finalizer; says whether it was there.
pub fn remove_finalizer(meta: &mut ObjectMeta, name: &str) -> bool {
    let had = has_finalizer(meta, name);
    if had {
        let rest: Vec<String> = meta
            .finalizers
            .take()
            .into_iter()
            .flatten()
            .filter(|one| one != name)
            .collect();
        meta.finalizers = (!rest.is_empty()).then_some(rest);
    }
    had
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finalizers_come_and_go_once() {
        let mut meta = ObjectMeta::default();
        assert!(add_finalizer(&mut meta, "a/b") && !add_finalizer(&mut meta, "a/b"));
        assert!(remove_finalizer(&mut meta, "a/b") && !remove_finalizer(&mut meta, "a/b"));
        assert_eq!(meta.finalizers, None);
    }
}
