//! What a validating policy says about one object.

use k8s_openapi::api::admissionregistration::v1::{
    ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding, Validation,
};

use super::policy::{self, Binding, BindingKind, Policy, PolicyKind};
use crate::admission::expressions::FailurePolicy;
use crate::admission::expressions::conditions::Verdict;
use crate::admission::expressions::run::{Expression, OUT_OF_BUDGET, PER_POLICY, Stop};
use crate::admission::expressions::surroundings::{Surroundings, Wanted};
use crate::cel::eval::Scope;
use crate::cel::value::Value;

/// Computed messages longer than this are not used.
const MESSAGE_MAX: usize = 5 << 10;

/// The rules of a policy, and what it notes in the audit log.
#[derive(Debug)]
pub struct Validations {
    rules: Vec<Rule>,
    notes: Vec<(String, Expression)>,
}

#[derive(Debug)]
struct Rule {
    holds: Expression,
    message: Option<String>,
    computed: Option<Expression>,
    reason: Option<String>,
}

impl Rule {
    fn read(validation: &Validation, surroundings: &Surroundings) -> Self {
        let text = |text: &Option<String>| text.clone().filter(|text| !text.trim().is_empty());
        let expression = |source: &str, surroundings: &Surroundings, wanted| {
            Expression::new(source, surroundings.compile(source, wanted))
        };
        let without = surroundings.clone().without_authorizer();
        Self {
            holds: expression(&validation.expression, surroundings, Wanted::Bool),
            message: text(&validation.message),
            computed: text(&validation.message_expression)
                .map(|source| expression(&source, &without, Wanted::Text)),
            reason: text(&validation.reason),
        }
    }
}

impl PolicyKind for ValidatingAdmissionPolicy {
    type Does = Validations;
    type Binding = ValidatingAdmissionPolicyBinding;

    fn read(&self) -> Option<Policy<Validations>> {
        let spec = self.spec.as_ref()?;
        policy::read(self, |surroundings| Validations {
            rules: spec
                .validations
                .iter()
                .flatten()
                .map(|validation| Rule::read(validation, surroundings))
                .collect(),
            notes: spec
                .audit_annotations
                .iter()
                .flatten()
                .map(|note| {
                    let program = surroundings.compile(&note.value_expression, Wanted::TextOrNull);
                    (note.key.clone(), Expression::new(&note.value_expression, program))
                })
                .collect(),
        })
    }
}

impl BindingKind for ValidatingAdmissionPolicyBinding {
    fn read(&self) -> Option<Binding> {
        let spec = &self.spec;
        Some(Binding::new(
            self.metadata.name.as_ref(),
            &spec.policy_name,
            spec.match_resources.as_ref(),
            spec.param_ref.as_ref(),
            &spec.validation_actions,
        ))
    }
}

/// What a policy came to.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// What is wrong.
    pub denials: Vec<Denial>,
    /// What is noted, by the policy's own keys.
    pub notes: Vec<(String, String)>,
    /// Notes that could not be computed, where that is as bad as a violation.
    pub broken_notes: Vec<String>,
}

/// A rule that does not hold, or could not be computed.
#[derive(Debug, PartialEq, Eq)]
pub struct Denial {
    /// Which of the policy's rules.
    pub rule: usize,
    /// In words.
    pub message: String,
    /// `Invalid`, `Forbidden`, ...; `Invalid` if nothing is said.
    pub reason: Option<String>,
}

/// Runs a policy.
pub fn run<'e>(policy: &'e Policy<Validations>, mut scope: Scope<'e, '_>) -> Result<Outcome, Stop> {
    let scope = &mut scope;
    let strict = policy.failure_policy == FailurePolicy::Fail;
    let failed = |message: String| Outcome {
        denials: strict
            .then_some(Denial::failure(0, message))
            .into_iter()
            .collect(),
        ..Outcome::default()
    };
    match policy.conditions.judge(scope, policy.failure_policy)? {
        Verdict::Met => {}
        Verdict::Unmet => return Ok(Outcome::default()),
        Verdict::Failed(why) => return Ok(failed(why)),
    }
    let mut left = PER_POLICY;
    let mut outcome = Outcome::default();
    for (index, rule) in policy.does.rules.iter().enumerate() {
        match rule.holds.run(scope, &mut left) {
            Ok(Ok(Value::Bool(true))) => {}
            Ok(Ok(_)) => outcome.denials.push(Denial {
                rule: index,
                message: message(rule, scope, &mut left)?,
                reason: rule.reason.clone(),
            }),
            Ok(Err(why)) if strict => outcome.denials.push(Denial::failure(index, why)),
            Ok(Err(_)) => {}
            Err(Stop::Budget) => return Ok(failed(OUT_OF_BUDGET.to_owned())),
            Err(Stop::Open) => return Err(Stop::Open),
        }
    }
    let mut left = PER_POLICY;
    for (key, expression) in &policy.does.notes {
        match expression.run(scope, &mut left) {
            Ok(Ok(Value::Null)) => {}
            Ok(Ok(value)) => match value.as_str().map(str::trim) {
                Some("") => {}
                Some(text) => outcome.notes.push((key.clone(), text.to_owned())),
                None => outcome.broken_notes.push(format!(
                    "valueExpression '{}' resulted in unsupported return type: {}. Return type must be either string or \
                     null.",
                    expression.source(),
                    value.type_name()
                )),
            },
            Ok(Err(why)) if strict => outcome.broken_notes.push(why),
            Ok(Err(_)) => {}
            Err(Stop::Budget) => return Ok(failed(OUT_OF_BUDGET.to_owned())),
            Err(Stop::Open) => return Err(Stop::Open),
        }
    }
    Ok(outcome)
}

impl Denial {
    fn failure(rule: usize, message: String) -> Self {
        Self {
            rule,
            message,
            reason: None,
        }
    }
}

/// What is said of a rule that does not hold: what it computes, what it says, or the rule itself.
fn message<'e>(rule: &'e Rule, scope: &mut Scope<'e, '_>, left: &mut u64) -> Result<String, Stop> {
    let computed = match &rule.computed {
        Some(expression) => match expression.run(scope, left) {
            Ok(Ok(value)) => value.as_str().map(|text| text.trim().to_owned()),
            Ok(Err(_)) | Err(Stop::Budget) => None,
            Err(Stop::Open) => return Err(Stop::Open),
        },
        None => None,
    };
    let usable = |text: &String| !text.is_empty() && text.len() <= MESSAGE_MAX && !text.contains('\n');
    Ok(computed
        .filter(usable)
        .or_else(|| rule.message.as_ref().map(|message| message.trim().to_owned()))
        .unwrap_or_else(|| format!("failed expression: {}", rule.holds.source())))
}

#[cfg(test)]
mod tests;
