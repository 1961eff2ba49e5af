//! Rules for the conditions that many kinds have (`meta/v1`), where a kind holds to them.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use keelson_api::field::Errors;
use keelson_api::{time, validation};

use super::loc::Loc;
use super::rules;

/// In the order in which refusals list them.
const STATUSES: &[&str] = &["False", "True", "Unknown"];
const REASON_MAX: usize = 1024;
const MESSAGE_MAX: usize = 32_768;

/// Records what is wrong with conditions.
pub fn validate(errors: &mut Errors, at: &Loc<'_>, conditions: Option<&[Condition]>) {
    let conditions = conditions.unwrap_or_default();
    for (i, condition) in conditions.iter().enumerate() {
        let at = at.index(i);
        let at_type = at.child("type");
        if conditions[..i].iter().any(|other| other.type_ == condition.type_) {
            errors.push(at_type.duplicate(condition.type_.as_str()));
        }
        rules::qualified_name(errors, &at_type, &condition.type_);
        rules::optional_one_of(errors, &at.child("status"), Some(&condition.status), STATUSES);
        if let Some(generation) = condition.observed_generation.filter(|generation| *generation < 0) {
            let detail = "must be greater than or equal to zero";
            errors.push(at.child("observedGeneration").invalid(generation, detail));
        }
        if time::is_zero(&condition.last_transition_time) {
            errors.push(at.child("lastTransitionTime").required("must be set"));
        }
        let at_reason = at.child("reason");
        if condition.reason.is_empty() {
            errors.push(at_reason.required("must be set"));
        } else {
            let complaints = validation::condition_reason(&condition.reason);
            rules::complain(errors, &at_reason, &condition.reason, complaints);
            if condition.reason.len() > REASON_MAX {
                errors.push(at_reason.too_long(REASON_MAX));
            }
        }
        if condition.message.len() > MESSAGE_MAX {
            errors.push(at.child("message").too_long(MESSAGE_MAX));
        }
    }
}
