//! CertificateSigningRequests.

use jiff::Timestamp;
use k8s_openapi::api::certificates::v1::{CertificateSigningRequest, CertificateSigningRequestStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use keelson_api::field::Errors;
use serde_json::Value;

use super::validation::{self, May, conditions};
use super::{APPROVED, DENIED, FAILED, GROUP};
use crate::registry::common::cells;
use crate::registry::strategy::{
    Column, Fields, GET_PATCH_UPDATE, NameRule, OtherFields, RequestContext, ResourceInfo, Scope, Strategy,
    SubresourceForm, SubresourceInfo,
};

/// The kind's strategy.
pub struct CertificateSigningRequestKind;

type Request = CertificateSigningRequest;

const fn subresource(name: &'static str) -> SubresourceInfo {
    SubresourceInfo {
        name,
        kind: "CertificateSigningRequest",
        group: GROUP,
        version: "v1",
        verbs: GET_PATCH_UPDATE,
        form: SubresourceForm::Object,
    }
}

static INFO: ResourceInfo = ResourceInfo {
    group: GROUP,
    kind: "CertificateSigningRequest",
    plural: "certificatesigningrequests",
    singular: "certificatesigningrequest",
    short_names: &["csr"],
    scope: Scope::Cluster,
    storage_prefix: "certificatesigningrequests",
    name_rule: NameRule::PathSegment,
    selectable_fields: &["spec.signerName"],
    other_fields: OtherFields::NotSupported,
    subresources: &[subresource("approval"), subresource("status")],
    ..ResourceInfo::base()
};

impl Strategy for CertificateSigningRequestKind {
    type Object = Request;

    fn info(&self) -> &'static ResourceInfo {
        &INFO
    }

    /// Who asks is not for the asker to say.
    fn prepare_create(&self, ctx: &RequestContext<'_>, new: &mut Request) {
        let user = ctx.user.clone();
        new.spec.username = Some(user.name);
        new.spec.uid = Some(user.uid).filter(|uid| !uid.is_empty());
        new.spec.groups = Some(user.groups).filter(|groups| !groups.is_empty());
        new.spec.extra = Some(user.extra).filter(|extra| !extra.is_empty());
        new.status = Some(CertificateSigningRequestStatus::default());
    }

    fn prepare_update(&self, _ctx: &RequestContext<'_>, new: &mut Request, old: &Request) {
        new.spec.clone_from(&old.spec);
        new.status.clone_from(&old.status);
    }

    fn prepare_subresource_update(&self, ctx: &RequestContext<'_>, new: &mut Request, old: &Request) {
        new.spec.clone_from(&old.spec);
        let mut status = new.status.take().unwrap_or_default();
        if ctx.subresource == "approval" {
            // Whoever approves says nothing about the certificate.
            status.certificate = old.status.as_ref().and_then(|status| status.certificate.clone());
        } else {
            // Whoever signs does not approve: what was approved stays as it was. What is new or missing is refused by
            // validation.
            let approvals = status.conditions.iter_mut().flatten();
            for condition in approvals.filter(|one| matches!(one.type_.as_str(), APPROVED | DENIED)) {
                if let Some(known) = conditions(old)
                    .iter()
                    .find(|known| known.type_ == condition.type_)
                {
                    condition.clone_from(known);
                }
            }
        }
        for condition in status.conditions.iter_mut().flatten() {
            let now = Time(ctx.now);
            condition.last_update_time.get_or_insert_with(|| now.clone());
            if condition.last_transition_time.is_none() {
                let before = conditions(old)
                    .iter()
                    .find(|known| known.type_ == condition.type_ && known.status == condition.status);
                condition.last_transition_time = before
                    .and_then(|known| known.last_transition_time.clone())
                    .or(Some(now));
            }
        }
        new.status = Some(status);
    }

    fn validate_create(&self, _ctx: &RequestContext<'_>, new: &Request) -> Errors {
        validation::create(new)
    }

    fn validate_update(&self, _ctx: &RequestContext<'_>, new: &Request, old: &Request) -> Errors {
        validation::update(new, old, May::Nothing)
    }

    fn validate_subresource_update(&self, ctx: &RequestContext<'_>, new: &Request, old: &Request) -> Errors {
        let may = match ctx.subresource {
            "approval" => May::Approve,
            _ => May::Sign,
        };
        validation::update(new, old, may)
    }

    fn selectable_fields(&self, request: &Request) -> Fields {
        vec![("spec.signerName", request.spec.signer_name.clone())]
    }

    fn columns(&self) -> &'static [Column] {
        const COLUMNS: &[Column] = &[
            Column::name(),
            Column::new("Age", "Time since the object was created."),
            Column::new("SignerName", "Who is asked to sign."),
            Column::new("Requestor", "Who asks."),
            Column::new("RequestedDuration", "How long the certificate is to be valid."),
            Column::new("Condition", "What has become of the request."),
        ];
        COLUMNS
    }

    fn cells(&self, request: &Request, now: Timestamp) -> Vec<Value> {
        let spec = &request.spec;
        let duration = spec
            .expiration_seconds
            .map(|s| cells::human_duration(i64::from(s)));
        vec![
            cells::name(&request.metadata),
            cells::age(&request.metadata, now),
            cells::or_none(Some(&spec.signer_name)),
            spec.username.as_deref().unwrap_or_default().into(),
            cells::or_none(duration.as_deref()),
            state(request).into(),
        ]
    }
}

/// `Approved,Issued` and the like.
fn state(request: &Request) -> String {
    let has = |kind: &str| {
        conditions(request)
            .iter()
            .any(|condition| condition.type_ == kind)
    };
    let mut state = if has(DENIED) {
        DENIED
    } else if has(APPROVED) {
        APPROVED
    } else {
        "Pending"
    }
    .to_owned();
    if has(FAILED) {
        state.push_str(",Failed");
    }
    let certificate = request
        .status
        .as_ref()
        .and_then(|status| status.certificate.as_ref());
    if certificate.is_some_and(|bytes| !bytes.0.is_empty()) {
        state.push_str(",Issued");
    }
    state
}
