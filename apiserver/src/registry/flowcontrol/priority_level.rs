//! PriorityLevelConfigurations: how many requests of a level run at a time, and what becomes of the others.

use jiff::Timestamp;
use k8s_openapi::api::flowcontrol::v1::{
    ExemptPriorityLevelConfiguration, LimitedPriorityLevelConfiguration, PriorityLevelConfiguration,
    PriorityLevelConfigurationStatus, QueuingConfiguration,
};
use keelson_api::field::Errors;
use keelson_api::object::Object;
use serde_json::Value;

use super::{CATCH_ALL, EXEMPT, bootstrap};
use crate::registry::common::defaults::fill_text;
use crate::registry::common::loc::Loc;
use crate::registry::common::meta::{self, spec_and_status};
use crate::registry::common::{cells, rules};
use crate::registry::strategy::{Column, RequestContext, ResourceInfo, Scope, Strategy, SubresourceInfo};

const SHARES_DEFAULT: i32 = 30;
/// Queues, length of each, and how many of them a flow is dealt.
const QUEUING_DEFAULT: (i32, i32, i32) = (64, 50, 8);
const QUEUES_MAX: i32 = 10 * 1000 * 1000;
/// Shuffle sharding picks a hand out of one 64-bit number: more bits than these it has not.
const ENTROPY_BITS_MAX: f64 = 60.0;

/// The kind's strategy.
pub struct PriorityLevelConfigurationKind;

static INFO: ResourceInfo = ResourceInfo {
    group: "flowcontrol.apiserver.k8s.io",
    kind: "PriorityLevelConfiguration",
    plural: "prioritylevelconfigurations",
    singular: "prioritylevelconfiguration",
    scope: Scope::Cluster,
    storage_prefix: "prioritylevelconfigurations",
    subresources: &[SubresourceInfo::status(
        "flowcontrol.apiserver.k8s.io",
        "v1",
        "PriorityLevelConfiguration",
    )],
    ..ResourceInfo::base()
};

impl Strategy for PriorityLevelConfigurationKind {
    type Object = PriorityLevelConfiguration;

    fn info(&self) -> &'static ResourceInfo {
        &INFO
    }

    fn default(&self, level: &mut PriorityLevelConfiguration) {
        let Some(spec) = &mut level.spec else { return };
        if spec.type_ == "Exempt" {
            let exempt = spec.exempt.get_or_insert_default();
            exempt.nominal_concurrency_shares.get_or_insert(0);
            exempt.lendable_percent.get_or_insert(0);
        }
        if let Some(limited) = &mut spec.limited {
            limited.nominal_concurrency_shares.get_or_insert(SHARES_DEFAULT);
            limited.lendable_percent.get_or_insert(0);
            let response = limited.limit_response.get_or_insert_default();
            fill_text(&mut response.type_, "Queue");
            if let Some(queuing) = &mut response.queuing {
                let (queues, length, hand) = QUEUING_DEFAULT;
                for (field, value) in [
                    (&mut queuing.queues, queues),
                    (&mut queuing.queue_length_limit, length),
                    (&mut queuing.hand_size, hand),
                ] {
                    *field = field.filter(|n| *n != 0).or(Some(value));
                }
            }
        }
    }

    fn prepare_create(&self, _ctx: &RequestContext<'_>, level: &mut PriorityLevelConfiguration) {
        meta::first_generation(&mut level.metadata);
        level.status = Some(PriorityLevelConfigurationStatus::default());
    }

    spec_and_status!();

    fn validate_create(&self, _ctx: &RequestContext<'_>, level: &PriorityLevelConfiguration) -> Errors {
        validate(level)
    }

    fn validate_update(
        &self,
        _ctx: &RequestContext<'_>,
        new: &PriorityLevelConfiguration,
        _old: &PriorityLevelConfiguration,
    ) -> Errors {
        validate(new)
    }

    fn columns(&self) -> &'static [Column] {
        const COLUMNS: &[Column] = &[
            Column::name(),
            Column::new("Type", "Whether requests of the level are limited at all."),
            Column::new("NominalConcurrencyShares", "The level's share of the seats.").of("string"),
            Column::new("Queues", "Queues the waiting requests are dealt to."),
            Column::new("HandSize", "Queues one flow may use."),
            Column::new("QueueLengthLimit", "Requests that may wait in one queue."),
            Column::new("Age", "Time since the object was created."),
        ];
        COLUMNS
    }

    fn cells(&self, level: &PriorityLevelConfiguration, now: Timestamp) -> Vec<Value> {
        let spec = level.spec.as_ref();
        let limited = spec.and_then(|s| s.limited.as_ref());
        let queuing = limited
            .and_then(|l| l.limit_response.as_ref())
            .and_then(|r| r.queuing.as_ref());
        let shares = limited.and_then(|l| l.nominal_concurrency_shares);
        let number = |n: Option<i32>| n.map_or_else(|| Value::from(cells::NONE), Value::from);
        vec![
            cells::name(&level.metadata),
            spec.map_or("", |s| s.type_.as_str()).into(),
            number(shares),
            number(queuing.and_then(|q| q.queues)),
            number(queuing.and_then(|q| q.hand_size)),
            number(queuing.and_then(|q| q.queue_length_limit)),
            cells::age(&level.metadata, now),
        ]
    }
}

fn validate(level: &PriorityLevelConfiguration) -> Errors {
    let mut errors = Errors::new();
    let at = Loc::new("spec");
    let Some(spec) = &level.spec else {
        return vec![at.required("")];
    };
    let name = level.name();
    let fixed = || {
        bootstrap::priority_levels()
            .into_iter()
            .find(|l| l.name() == name)
    };
    if name == CATCH_ALL && fixed().is_some_and(|fixed| fixed.spec.as_ref() != Some(spec)) {
        let detail = format!("spec of '{name}' must equal the fixed value");
        errors.push(at.invalid(rules::shown(spec), detail));
    }
    if (name == EXEMPT) != (spec.type_ == "Exempt") {
        errors.push(at.child("type").invalid(
            spec.type_.as_str(),
            "must be 'Exempt' if and only if name is 'exempt'",
        ));
    }
    match spec.type_.as_str() {
        "Exempt" => {
            if spec.limited.is_some() {
                let detail = "must be nil if the type is not Limited";
                errors.push(at.child("limited").forbidden(detail));
            }
            if let Some(exempt) = &spec.exempt {
                validate_exempt(&mut errors, &at.child("exempt"), exempt);
            }
        }
        "Limited" => {
            if spec.exempt.is_some() {
                errors.push(at.child("exempt").forbidden("must be nil if the type is Limited"));
            }
            match &spec.limited {
                Some(limited) => validate_limited(&mut errors, &at.child("limited"), limited),
                None => errors.push(
                    at.child("limited")
                        .required("must not be empty when type is Limited"),
                ),
            }
        }
        other => errors.push(at.child("type").not_supported(other, &["Exempt", "Limited"])),
    }
    errors
}

fn percent(errors: &mut Errors, at: &Loc<'_>, value: Option<i32>) {
    if let Some(value) = value
        && !(0..=100).contains(&value)
    {
        errors.push(at.invalid(value, "must be between 0 and 100, inclusive"));
    }
}

fn validate_exempt(errors: &mut Errors, at: &Loc<'_>, exempt: &ExemptPriorityLevelConfiguration) {
    rules::not_negative(
        errors,
        &at.child("nominalConcurrencyShares"),
        exempt.nominal_concurrency_shares,
    );
    percent(errors, &at.child("lendablePercent"), exempt.lendable_percent);
}

fn validate_limited(errors: &mut Errors, at: &Loc<'_>, limited: &LimitedPriorityLevelConfiguration) {
    if let Some(shares) = limited.nominal_concurrency_shares
        && shares < 0
    {
        let detail = "must be a non-negative integer";
        errors.push(at.child("nominalConcurrencyShares").invalid(shares, detail));
    }
    percent(errors, &at.child("lendablePercent"), limited.lendable_percent);
    if let Some(limit) = limited.borrowing_limit_percent
        && limit < 0
    {
        let detail = "if specified, must be a non-negative integer";
        errors.push(at.child("borrowingLimitPercent").invalid(limit, detail));
    }
    let at = at.child("limitResponse");
    let Some(response) = &limited.limit_response else {
        return;
    };
    match (response.type_.as_str(), &response.queuing) {
        ("Reject", Some(_)) => {
            errors.push(
                at.child("queuing")
                    .forbidden("must be nil if limited.limitResponse.type is not Limited"),
            );
        }
        ("Queue", None) => {
            errors.push(
                at.child("queuing")
                    .required("must not be empty if limited.limitResponse.type is Limited"),
            );
        }
        ("Queue", Some(queuing)) => validate_queuing(errors, &at.child("queuing"), queuing),
        ("Reject", None) => {}
        (other, _) => errors.push(at.child("type").not_supported(other, &["Queue", "Reject"])),
    }
}

fn validate_queuing(errors: &mut Errors, at: &Loc<'_>, queuing: &QueuingConfiguration) {
    let (queues, hand) = (queuing.queues.unwrap_or(0), queuing.hand_size.unwrap_or(0));
    let length = queuing.queue_length_limit.unwrap_or(0);
    if length <= 0 {
        errors.push(at.child("queueLengthLimit").invalid(length, "must be positive"));
    }
    let at_queues = at.child("queues");
    if queues <= 0 {
        errors.push(at_queues.invalid(queues, "must be positive"));
    } else if queues > QUEUES_MAX {
        errors.push(at_queues.invalid(queues, format!("must not be greater than {QUEUES_MAX}")));
    }
    let at_hand = at.child("handSize");
    if hand <= 0 {
        errors.push(at_hand.invalid(hand, "must be positive"));
    } else if hand > queues {
        let detail = format!("should not be greater than queues ({queues})");
        errors.push(at_hand.invalid(hand, detail));
    } else {
        let bits: f64 = (0..hand).map(|dealt| f64::from(queues - dealt).log2()).sum();
        if bits > ENTROPY_BITS_MAX {
            let detail = format!(
                "required entropy bits of deckSize {queues} and handSize {hand} should not be greater than {ENTROPY_BITS_MAX}"
            );
            errors.push(at_hand.invalid(hand, detail));
        }
    }
}
