//! Leases.

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use keelson_api::field::Errors;
use serde_json::Value;

use crate::registry::common::loc::Loc;
use crate::registry::common::{cells, rules};
use crate::registry::strategy::{Column, RequestContext, ResourceInfo, Strategy};

/// The kind's strategy.
pub struct LeaseKind;

static INFO: ResourceInfo = ResourceInfo {
    group: "coordination.k8s.io",
    kind: "Lease",
    plural: "leases",
    singular: "lease",
    storage_prefix: "leases",
    ..ResourceInfo::base()
};

impl Strategy for LeaseKind {
    type Object = Lease;

    fn info(&self) -> &'static ResourceInfo {
        &INFO
    }

    fn validate_create(&self, _ctx: &RequestContext<'_>, lease: &Lease) -> Errors {
        validate(lease)
    }

    fn validate_update(&self, _ctx: &RequestContext<'_>, new: &Lease, _old: &Lease) -> Errors {
        validate(new)
    }

    fn allow_create_on_update(&self) -> bool {
        true
    }

    fn allow_unconditional_update(&self) -> bool {
        false
    }

    fn columns(&self) -> &'static [Column] {
        const COLUMNS: &[Column] = &[
            Column::name(),
            Column::new("Holder", "Who holds the lease."),
            Column::new("Age", "Time since the object was created."),
        ];
        COLUMNS
    }

    fn cells(&self, lease: &Lease, now: Timestamp) -> Vec<Value> {
        let holder = lease
            .spec
            .as_ref()
            .and_then(|s| s.holder_identity.as_deref())
            .unwrap_or("");
        vec![
            cells::name(&lease.metadata),
            holder.into(),
            cells::age(&lease.metadata, now),
        ]
    }
}

fn validate(lease: &Lease) -> Errors {
    let mut errors = Errors::new();
    let Some(spec) = &lease.spec else { return errors };
    let at = Loc::new("spec");
    if let Some(seconds) = spec.lease_duration_seconds
        && seconds <= 0
    {
        errors.push(
            at.child("leaseDurationSeconds")
                .invalid(seconds, "must be greater than 0"),
        );
    }
    rules::not_negative(&mut errors, &at.child("leaseTransitions"), spec.lease_transitions);
    if spec.holder_identity.as_deref() == Some("") {
        errors.push(at.child("holderIdentity").invalid("", "must not be empty"));
    }
    if let Some(strategy) = spec.strategy.as_deref() {
        let known = ["OldestEmulationVersion"];
        if !known.contains(&strategy) && !strategy.contains('/') {
            errors.push(
                at.child("strategy")
                    .invalid(strategy, "must be a fully qualified name"),
            );
        }
    }
    if spec.preferred_holder.as_deref().is_some_and(|p| !p.is_empty())
        && spec.strategy.as_deref().unwrap_or("").is_empty()
    {
        let detail = "may only be specified when `strategy` is defined";
        errors.push(at.child("preferredHolder").forbidden(detail));
    }
    errors
}
