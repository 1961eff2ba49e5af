//! ServiceCIDRs: ranges that addresses of services come from.

use jiff::Timestamp;
use k8s_openapi::api::networking::v1::{ServiceCIDR, ServiceCIDRStatus};
use keelson_api::field::Errors;
use keelson_api::validation;
use serde_json::Value;

use crate::registry::common::loc::Loc;
use crate::registry::common::{cells, rules};
use crate::registry::strategy::{Column, RequestContext, ResourceInfo, Scope, Strategy, SubresourceInfo};

/// One for each family of addresses.
const CIDRS_MAX: usize = 2;

/// The kind's strategy.
pub struct ServiceCidrKind;

static INFO: ResourceInfo = ResourceInfo {
    group: "networking.k8s.io",
    kind: "ServiceCIDR",
    plural: "servicecidrs",
    singular: "servicecidr",
    scope: Scope::Cluster,
    storage_prefix: "servicecidrs",
    subresources: &[SubresourceInfo::status("networking.k8s.io", "v1", "ServiceCIDR")],
    ..ResourceInfo::base()
};

impl Strategy for ServiceCidrKind {
    type Object = ServiceCIDR;

    fn info(&self) -> &'static ResourceInfo {
        &INFO
    }

    fn prepare_create(&self, _ctx: &RequestContext<'_>, range: &mut ServiceCIDR) {
        range.status = Some(ServiceCIDRStatus::default());
    }

    fn prepare_update(&self, _ctx: &RequestContext<'_>, new: &mut ServiceCIDR, old: &ServiceCIDR) {
        new.status.clone_from(&old.status);
    }

    fn prepare_subresource_update(
        &self,
        _ctx: &RequestContext<'_>,
        new: &mut ServiceCIDR,
        old: &ServiceCIDR,
    ) {
        new.spec.clone_from(&old.spec);
    }

    fn validate_create(&self, _ctx: &RequestContext<'_>, range: &ServiceCIDR) -> Errors {
        validate(cidrs(range))
    }

    fn validate_update(&self, _ctx: &RequestContext<'_>, new: &ServiceCIDR, old: &ServiceCIDR) -> Errors {
        let at = Loc::new("spec.cidrs");
        let mut errors = Errors::new();
        let (new, old) = (cidrs(new), cidrs(old));
        match (new, old) {
            // A second family may be added later.
            ([first, _], [before]) => {
                if first != before {
                    errors.push(at.index(0).invalid(first.as_str(), rules::IMMUTABLE));
                }
                errors.extend(validate(new));
            }
            _ => rules::immutable(&mut errors, &at, &new, &old),
        }
        errors
    }

    fn columns(&self) -> &'static [Column] {
        const COLUMNS: &[Column] = &[
            Column::name(),
            Column::new("CIDRs", "The ranges, one a family."),
            Column::new("Age", "Time since the object was created."),
        ];
        COLUMNS
    }

    fn cells(&self, range: &ServiceCIDR, now: Timestamp) -> Vec<Value> {
        vec![
            cells::name(&range.metadata),
            cidrs(range).join(",").into(),
            cells::age(&range.metadata, now),
        ]
    }
}

fn cidrs(range: &ServiceCIDR) -> &[String] {
    range
        .spec
        .as_ref()
        .and_then(|spec| spec.cidrs.as_deref())
        .unwrap_or(&[])
}

fn validate(cidrs: &[String]) -> Errors {
    let mut errors = Errors::new();
    let at = Loc::new("spec.cidrs");
    if cidrs.is_empty() {
        return vec![at.required("at least one CIDR required")];
    }
    if cidrs.len() > CIDRS_MAX {
        errors.push(at.invalid(rules::shown(&cidrs), "may only hold up to 2 values"));
        return errors;
    }
    let mut families = Vec::new();
    for (i, text) in cidrs.iter().enumerate() {
        match validation::parse_cidr(text) {
            None => {
                let detail = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)";
                errors.push(at.index(i).invalid(text.as_str(), detail));
            }
            Some((ip, _)) => families.push(ip.is_ipv4()),
        }
    }
    if let [one, other] = families[..]
        && one == other
    {
        let detail =
            "may specify no more than one IP for each IP family, i.e 192.168.0.0/24 and 2001:db8::/96";
        errors.push(at.invalid(rules::shown(&cidrs), detail));
    }
    errors
}
