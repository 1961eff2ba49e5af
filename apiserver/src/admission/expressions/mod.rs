//! Expressions in CEL about requests: the match conditions of webhooks, and everything admission policies say.
//!
//! | module | what lives there |
//! | --- | --- |
//! | [`surroundings`] | the names expressions know and their types: mistakes are found before anything runs |
//! | [`input`] | what the names stand for in a request |
//! | [`run`] | computing within upstream's budgets, and asking who may do what |
//! | [`conditions`] | `matchConditions` |
//!
//! <https://kubernetes.io/docs/reference/access-authn-authz/validating-admission-policy/#validation-expression>

pub mod conditions;
pub mod input;
pub mod run;
pub mod surroundings;

/// What becomes of a request when a webhook or policy cannot say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailurePolicy {
    /// It is refused.
    Fail,
    /// It goes on.
    Ignore,
}

impl FailurePolicy {
    /// From the API's word; refused unless told otherwise.
    pub fn parse(word: Option<&str>) -> Self {
        match word {
            Some("Ignore") => Self::Ignore,
            _ => Self::Fail,
        }
    }
}

#[cfg(test)]
mod tests;
