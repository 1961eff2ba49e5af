//! What claims of volumes and of devices take.

use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use k8s_openapi::api::resource::v1::ResourceClaim;

use crate::pods::Amounts;
use crate::quantity::Amount;

const CLAIMS: &str = "persistentvolumeclaims";
const STORAGE: &str = "requests.storage";
/// Names of one class: `gold.storageclass.storage.k8s.io/requests.storage`.
const OF_CLASS: &str = ".storageclass.storage.k8s.io/";
/// Names of one class of devices: `gpu.deviceclass.resource.k8s.io/devices`.
const DEVICES: &str = ".deviceclass.resource.k8s.io/devices";
/// The older way to name a class.
const CLASS_ANNOTATION: &str = "volume.beta.kubernetes.io/storage-class";
/// A request for all devices may get this many at most.
const ALLOCATION_MAX: i64 = 32;

pub(super) fn measures(name: &str) -> bool {
    let of_class = |what: &str| {
        name.strip_suffix(what)
            .is_some_and(|rest| rest.ends_with(OF_CLASS))
    };
    name == CLAIMS || name == STORAGE || of_class(CLAIMS) || of_class(STORAGE)
}

pub(super) fn measures_devices(name: &str) -> bool {
    name.ends_with(DEVICES)
}

pub(super) fn add_usage(usage: &mut Amounts, claim: &PersistentVolumeClaim) {
    let spec = claim.spec.as_ref();
    let annotated = claim
        .metadata
        .annotations
        .as_ref()
        .and_then(|a| a.get(CLASS_ANNOTATION));
    let class = annotated
        .or_else(|| spec?.storage_class_name.as_ref())
        .filter(|class| !class.is_empty());
    usage.insert(CLAIMS.into(), Amount::from_units(1));
    if let Some(class) = class {
        usage.insert(format!("{class}{OF_CLASS}{CLAIMS}"), Amount::from_units(1));
    }
    let requested = spec
        .and_then(|s| s.resources.as_ref())
        .and_then(|r| r.requests.as_ref())
        .and_then(|r| r.get("storage"))
        .map(Amount::of);
    let Some(mut storage) = requested else { return };
    // While a volume grows, what has been allocated for it counts.
    let allocated = claim.status.as_ref().and_then(|s| s.allocated_resources.as_ref());
    if let Some(allocated) = allocated.and_then(|a| a.get("storage")) {
        storage = storage.max(Amount::of(allocated));
    }
    usage.insert(STORAGE.into(), storage);
    if let Some(class) = class {
        usage.insert(format!("{class}{OF_CLASS}{STORAGE}"), storage);
    }
}

pub(super) fn add_devices(usage: &mut Amounts, claim: &ResourceClaim) {
    let requests = claim
        .spec
        .devices
        .iter()
        .flat_map(|d| d.requests.iter().flatten());
    let number = |mode: Option<&str>, count: Option<i64>| match mode {
        Some("All") => ALLOCATION_MAX,
        _ => count.unwrap_or(1),
    };
    for request in requests {
        let mut wanted = Amounts::new();
        if let Some(exact) = &request.exactly {
            let count = number(exact.allocation_mode.as_deref(), exact.count);
            wanted.insert(exact.device_class_name.clone(), Amount::from_units(count));
        }
        // Of alternatives of one class the largest counts.
        for alternative in request.first_available.iter().flatten() {
            let count = Amount::from_units(number(alternative.allocation_mode.as_deref(), alternative.count));
            let most = wanted.entry(alternative.device_class_name.clone()).or_default();
            *most = (*most).max(count);
        }
        for (class, count) in wanted {
            *usage.entry(format!("{class}{DEVICES}")).or_default() += count;
        }
    }
}
