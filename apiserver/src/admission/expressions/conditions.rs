//! `matchConditions`: a webhook or policy has nothing to do with requests for which one of them does not hold.

use k8s_openapi::api::admissionregistration::v1::MatchCondition;
use keelson_api::field;

use super::FailurePolicy;
use super::run::{Expression, OUT_OF_BUDGET, PER_CONDITIONS, Stop};
use super::surroundings::{Surroundings, Wanted};
use crate::cel::eval::Scope;
use crate::cel::value::Value;

/// Conditions, read.
#[derive(Debug, Clone, Default)]
pub struct Conditions(Vec<Expression>);

/// What conditions say about a request.
#[derive(Debug, PartialEq, Eq)]
pub enum Verdict {
    /// All hold.
    Met,
    /// One does not.
    Unmet,
    /// None is known not to hold, but not all could be computed.
    Failed(String),
}

impl Conditions {
    /// Reads conditions.
    pub fn read(conditions: &[MatchCondition], surroundings: &Surroundings) -> Self {
        let read = |condition: &MatchCondition| {
            let program = surroundings.compile(&condition.expression, Wanted::Bool);
            Expression::new(&condition.expression, program)
        };
        Self(conditions.iter().map(read).collect())
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Computes them. One that does not hold decides, whatever went wrong with others.
    pub fn judge<'e>(&'e self, scope: &mut Scope<'e, '_>, policy: FailurePolicy) -> Result<Verdict, Stop> {
        let (mut left, mut errors) = (PER_CONDITIONS, Vec::new());
        let mut unmet = false;
        for condition in &self.0 {
            match condition.run(scope, &mut left) {
                Ok(Ok(Value::Bool(holds))) => unmet |= !holds,
                // The type is checked when the condition is read.
                Ok(Ok(_)) => {}
                Ok(Err(why)) => errors.push(why),
                Err(Stop::Open) => return Err(Stop::Open),
                Err(Stop::Budget) => {
                    unmet = false;
                    errors = vec![OUT_OF_BUDGET.to_owned()];
                    break;
                }
            }
        }
        Ok(match (unmet, errors.is_empty(), policy) {
            (true, ..) | (false, false, FailurePolicy::Ignore) => Verdict::Unmet,
            (false, true, _) => Verdict::Met,
            (false, false, FailurePolicy::Fail) => Verdict::Failed(field::aggregate(&errors)),
        })
    }
}
