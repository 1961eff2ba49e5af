//! From the endpoints that should be there and the slices that are, to the slices to write.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Endpoints;
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use keelson_api::labels::{ENDPOINT_SLICE_MANAGED_BY, LAST_APPLIED, SERVICE_NAME};
use keelson_api::object::Object as _;
use keelson_api::owners::{is_controlled_by, new_controller_ref};

use crate::common::services::Family;
use crate::endpointslice::desired::{Ports, key_of, ports_from};
use crate::endpointslice::slices::Plan;

/// The value of the label `endpointslice.kubernetes.io/managed-by` on this controller's slices.
pub(super) const MANAGER: &str = "endpointslicemirroring-controller.k8s.io";
/// When the pods behind the addresses last changed: of the Endpoints object alone.
const LAST_CHANGE: &str = "endpoints.kubernetes.io/last-change-trigger-time";

/// Plans for one Endpoints object. `existing` are the mirror's slices for it, `capacity` is how many endpoints go into
/// one.
#[must_use]
pub(super) fn plan(
    owner: &Endpoints,
    wanted: BTreeMap<(Family, Ports), Vec<Endpoint>>,
    existing: &[Arc<EndpointSlice>],
    capacity: usize,
) -> Plan {
    let mut by_group: BTreeMap<(String, Ports), Vec<Arc<EndpointSlice>>> = BTreeMap::new();
    // The last of a group is taken first.
    for slice in existing.iter().rev() {
        let group = (slice.address_type.clone(), key_of(slice.ports.as_deref()));
        by_group.entry(group).or_default().push(slice.clone());
    }
    let mut plan = Plan::default();
    for ((family, ports), endpoints) in wanted {
        let mut slices = by_group
            .remove(&(family.name().to_owned(), ports.clone()))
            .unwrap_or_default();
        for endpoints in endpoints.chunks(capacity) {
            let old = slices.pop();
            let new = EndpointSlice {
                metadata: metadata(owner, old.as_deref()),
                address_type: family.name().into(),
                endpoints: Some(endpoints.to_vec()),
                ports: Some(ports_from(&ports)),
            };
            match old {
                None => plan.create.push(new),
                Some(old) if !same(owner, &old, &new) => plan.update.push(new),
                Some(_) => {}
            }
        }
        plan.delete.extend(slices);
    }
    plan.delete.extend(by_group.into_values().flatten());
    plan
}

fn same(owner: &Endpoints, old: &EndpointSlice, new: &EndpointSlice) -> bool {
    old.endpoints == new.endpoints
        && old.labels() == new.labels()
        && old.annotations() == new.annotations()
        && is_controlled_by(&old.metadata, owner.uid())
}

fn metadata(owner: &Endpoints, old: Option<&EndpointSlice>) -> ObjectMeta {
    let mut metadata = old.map_or_else(
        || ObjectMeta {
            generate_name: Some(format!("{}-", owner.name())),
            namespace: owner.metadata.namespace.clone(),
            ..ObjectMeta::default()
        },
        |old| old.metadata.clone(),
    );
    let mut labels = owner.labels().clone();
    labels.insert(SERVICE_NAME.into(), owner.name().into());
    labels.insert(ENDPOINT_SLICE_MANAGED_BY.into(), MANAGER.into());
    let mut annotations = owner.annotations().clone();
    annotations.retain(|name, _| ![LAST_APPLIED, LAST_CHANGE].contains(&name.as_str()));
    metadata.labels = Some(labels);
    metadata.annotations = Some(annotations).filter(|annotations| !annotations.is_empty());
    metadata.owner_references = Some(vec![new_controller_ref(owner)]);
    metadata
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::endpointslicemirroring::wanted::wanted;
    use serde_json::{Value, json};

    fn endpoints(subsets: &Value) -> Endpoints {
        serde_json::from_value(json!({
            "metadata": {"name": "web", "namespace": "n", "uid": "u", "labels": {"a": "b"},
                "annotations": {LAST_APPLIED: "{}", "c": "d"}},
            "subsets": subsets,
        }))
        .expect("Endpoints")
    }

    fn run(owner: &Endpoints, existing: &[Arc<EndpointSlice>], capacity: usize) -> Plan {
        plan(owner, wanted(owner, capacity).groups, existing, capacity)
    }

    #[test]
    fn every_family_and_set_of_ports_has_a_slice() {
        let owner = endpoints(&json!([
            {"addresses": [{"ip": "10.0.0.2"}, {"ip": "10.0.0.1", "hostname": "h"}, {"ip": "fd00::1"}],
             "notReadyAddresses": [{"ip": "10.0.0.3"}], "ports": [{"name": "http", "port": 80}]},
            {"addresses": [{"ip": "10.0.0.1"}, {"ip": "nonsense"}], "ports": [{"name": "more", "port": 81}]},
        ]));
        let wanted = wanted(&owner, 1000);
        let complaints = wanted.complaints(1000);
        assert_eq!(complaints.len(), 1);
        assert_eq!(complaints[0].0, "InvalidIPAddress");
        let plan = plan(&owner, wanted.groups, &[], 1000);
        let seen: Vec<_> = plan
            .create
            .iter()
            .map(|slice| {
                let endpoints = slice.endpoints.as_deref().unwrap_or_default();
                let ready = |one: &Endpoint| one.conditions.as_ref().and_then(|conditions| conditions.ready);
                let endpoints: Vec<_> = endpoints
                    .iter()
                    .map(|one| (one.addresses[0].as_str(), ready(one)))
                    .collect();
                (slice.address_type.as_str(), endpoints)
            })
            .collect();
        let three = vec![
            ("10.0.0.1", Some(true)),
            ("10.0.0.2", Some(true)),
            ("10.0.0.3", Some(false)),
        ];
        assert_eq!(
            seen,
            [
                ("IPv4", three),
                ("IPv4", vec![("10.0.0.1", Some(true))]),
                ("IPv6", vec![("fd00::1", Some(true))]),
            ]
        );
        let metadata = &plan.create[0].metadata;
        assert_eq!(metadata.generate_name.as_deref(), Some("web-"));
        assert_eq!(
            serde_json::to_value(&metadata.annotations).ok(),
            Some(json!({"c": "d"}))
        );
        assert_eq!(
            serde_json::to_value(&metadata.labels).ok(),
            Some(json!({"a": "b", SERVICE_NAME: "web", ENDPOINT_SLICE_MANAGED_BY: MANAGER}))
        );
        assert!(is_controlled_by(metadata, "u"));
    }

    #[test]
    fn what_is_right_is_left_alone() {
        let two = json!([{"addresses": [{"ip": "10.0.0.1"}, {"ip": "10.0.0.2"}], "ports": [{"port": 80}]}]);
        let owner = endpoints(&two);
        let mut slice = run(&owner, &[], 1000).create.remove(0);
        slice.metadata.name = Some("web-1".into());
        let slices = [Arc::new(slice)];
        let plan = run(&owner, &slices, 1000);
        assert!(plan.create.is_empty() && plan.update.is_empty() && plan.delete.is_empty());

        let one = json!([{"addresses": [{"ip": "10.0.0.1"}], "ports": [{"port": 80}]}]);
        let plan = run(&endpoints(&one), &slices, 1000);
        assert!(plan.create.is_empty() && plan.delete.is_empty());
        assert_eq!(plan.update[0].metadata.name.as_deref(), Some("web-1"));

        let other = json!([{"addresses": [{"ip": "10.0.0.1"}], "ports": [{"port": 81}]}]);
        let plan = run(&endpoints(&other), &slices, 1000);
        assert_eq!(
            (plan.create.len(), plan.update.len(), plan.delete.len()),
            (1, 0, 1)
        );
    }

    #[test]
    fn a_subset_is_mirrored_as_far_as_it_goes() {
        let three = json!([{"addresses": [{"ip": "10.0.0.1"}, {"ip": "10.0.0.2"}, {"ip": "10.0.0.3"}]}]);
        let owner = endpoints(&three);
        let wanted = wanted(&owner, 2);
        let complaints = wanted.complaints(2);
        assert_eq!(
            complaints,
            [(
                "TooManyAddressesToMirror",
                "A max of 2 addresses can be mirrored to EndpointSlices per Endpoints subset. 1 addresses \
                 were skipped"
                    .to_owned()
            )]
        );
        assert_eq!(
            run(&owner, &[], 2).create[0].endpoints.as_ref().map(Vec::len),
            Some(2)
        );
    }
}
