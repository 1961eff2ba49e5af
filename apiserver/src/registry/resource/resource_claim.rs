//! ResourceClaims: the wish for devices, what was allocated, and who uses it.

use jiff::Timestamp;
use k8s_openapi::api::resource::v1::{ResourceClaim, ResourceClaimStatus};
use keelson_api::field::Errors;
use serde_json::Value;

use super::claim;
use crate::registry::common::loc::Loc;
use crate::registry::common::{cells, rules};
use crate::registry::strategy::{Column, RequestContext, ResourceInfo, Strategy, SubresourceInfo};

/// Users a claim can have at the same time.
const RESERVED_MAX: usize = 256;
const DEVICES_MAX: usize = 32;

/// The kind's strategy.
pub struct ResourceClaimKind;

static INFO: ResourceInfo = ResourceInfo {
    group: "resource.k8s.io",
    kind: "ResourceClaim",
    plural: "resourceclaims",
    singular: "resourceclaim",
    storage_prefix: "resourceclaims",
    subresources: &[SubresourceInfo::status("resource.k8s.io", "v1", "ResourceClaim")],
    ..ResourceInfo::base()
};

impl Strategy for ResourceClaimKind {
    type Object = ResourceClaim;

    fn info(&self) -> &'static ResourceInfo {
        &INFO
    }

    fn default(&self, claim: &mut ResourceClaim) {
        claim::default(&mut claim.spec);
    }

    fn prepare_create(&self, _ctx: &RequestContext<'_>, claim: &mut ResourceClaim) {
        claim.status = Some(ResourceClaimStatus::default());
    }

    fn prepare_update(&self, _ctx: &RequestContext<'_>, new: &mut ResourceClaim, old: &ResourceClaim) {
        new.status.clone_from(&old.status);
    }

    fn prepare_subresource_update(
        &self,
        _ctx: &RequestContext<'_>,
        new: &mut ResourceClaim,
        old: &ResourceClaim,
    ) {
        new.spec.clone_from(&old.spec);
        new.metadata.labels.clone_from(&old.metadata.labels);
        new.metadata.annotations.clone_from(&old.metadata.annotations);
        new.metadata
            .owner_references
            .clone_from(&old.metadata.owner_references);
    }

    fn validate_create(&self, _ctx: &RequestContext<'_>, claim: &ResourceClaim) -> Errors {
        let mut errors = Errors::new();
        claim::validate(&mut errors, &Loc::new("spec"), &claim.spec);
        errors
    }

    fn validate_update(&self, _ctx: &RequestContext<'_>, new: &ResourceClaim, old: &ResourceClaim) -> Errors {
        let mut errors = Errors::new();
        rules::immutable(&mut errors, &Loc::new("spec"), &new.spec, &old.spec);
        errors
    }

    fn validate_subresource_update(
        &self,
        _ctx: &RequestContext<'_>,
        new: &ResourceClaim,
        old: &ResourceClaim,
    ) -> Errors {
        let none = ResourceClaimStatus::default();
        let deleted = new.metadata.deletion_timestamp.is_some();
        let (new, old) = (
            new.status.as_ref().unwrap_or(&none),
            old.status.as_ref().unwrap_or(&none),
        );
        validate_status(new, old, deleted)
    }

    fn columns(&self) -> &'static [Column] {
        const COLUMNS: &[Column] = &[
            Column::name(),
            Column::new("State", "How far the claim is: pending, allocated, reserved."),
            Column::new("Age", "Time since the object was created."),
        ];
        COLUMNS
    }

    fn cells(&self, claim: &ResourceClaim, now: Timestamp) -> Vec<Value> {
        vec![
            cells::name(&claim.metadata),
            state(claim).into(),
            cells::age(&claim.metadata, now),
        ]
    }
}

fn state(claim: &ResourceClaim) -> String {
    let status = claim.status.as_ref();
    let mut states = Vec::new();
    if claim.metadata.deletion_timestamp.is_some() {
        states.push("deleted");
    }
    if status.is_none_or(|s| s.allocation.is_none()) {
        if claim.metadata.deletion_timestamp.is_none() {
            states.push("pending");
        }
    } else {
        states.push("allocated");
        if status.is_some_and(|s| s.reserved_for.as_ref().is_some_and(|r| !r.is_empty())) {
            states.push("reserved");
        }
    }
    states.join(",")
}

fn validate_status(new: &ResourceClaimStatus, old: &ResourceClaimStatus, deleted: bool) -> Errors {
    let mut errors = Errors::new();
    let at = Loc::new("status");
    let at_reserved = at.child("reservedFor");
    let reserved = new.reserved_for.as_deref().unwrap_or(&[]);
    if reserved.len() > RESERVED_MAX {
        errors.push(at_reserved.too_many(reserved.len(), RESERVED_MAX));
    }
    for (i, user) in reserved.iter().enumerate() {
        let at = at_reserved.index(i);
        for (field, value) in [
            ("resource", &user.resource),
            ("name", &user.name),
            ("uid", &user.uid),
        ] {
            rules::not_empty(&mut errors, &at.child(field), Some(value));
        }
        if reserved[..i].iter().any(|other| other.uid == user.uid) {
            errors.push(at.child("uid").duplicate(user.uid.as_str()));
        }
    }
    if !reserved.is_empty() && new.allocation.is_none() {
        let detail = "may not be specified when `allocated` is not set";
        errors.push(at_reserved.forbidden(detail));
    }
    let before = old.reserved_for.as_deref().unwrap_or(&[]);
    if deleted && reserved.iter().any(|user| !before.contains(user)) {
        errors
            .push(at_reserved.forbidden("new reservations are not allowed when the claim is being deleted"));
    }
    let at_allocation = at.child("allocation");
    match (&new.allocation, &old.allocation) {
        (Some(now), Some(then)) if now != then => {
            errors.push(at_allocation.invalid(rules::shown(now), rules::IMMUTABLE));
        }
        (Some(allocation), _) => {
            let results = allocation.devices.iter().flat_map(|d| d.results.iter().flatten());
            let at_results = at_allocation.child("devices.results");
            let mut count = 0;
            for (i, result) in results.enumerate() {
                count += 1;
                let at = at_results.index(i);
                claim::driver(&mut errors, &at.child("driver"), &result.driver);
                rules::not_empty(&mut errors, &at.child("pool"), Some(&result.pool));
                rules::not_empty(&mut errors, &at.child("device"), Some(&result.device));
            }
            if count > DEVICES_MAX {
                errors.push(at_results.too_many(count, DEVICES_MAX));
            }
        }
        (None, _) => {}
    }
    errors
}
