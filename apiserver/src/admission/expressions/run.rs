//! Computing expressions within upstream's budgets.

use std::sync::Arc;

use crate::authentication::User;
use crate::authorization::attributes::{Attributes, Resource};
use crate::authorization::{Selectors, Target};
use crate::cel::Program;
use crate::cel::eval::{Budget, Failure, Scope};
use crate::cel::library::authz::{Asker, Decision, Question, What, Who};
use crate::cel::value::Value;
use crate::registry::strategy::RequestContext;
use crate::state::Server;

/// What one expression may cost.
const PER_CALL: u64 = 1_000_000;
/// What all expressions of a policy may cost for one object.
pub const PER_POLICY: u64 = 10_000_000;
/// What all conditions of a webhook or policy may cost.
pub const PER_CONDITIONS: u64 = PER_POLICY / 4;
/// More questions than this are not asked for one request: a budget pays for fewer.
const QUESTIONS_MAX: usize = 64;
/// Upstream's words for a budget that is used up.
pub const OUT_OF_BUDGET: &str =
    "validation failed due to running out of cost budget, no further validation rules will be run";

/// An expression, read; or what is wrong with it.
#[derive(Debug, Clone)]
pub struct Expression {
    source: Box<str>,
    program: Result<Program, String>,
}

/// Why no more expressions are computed.
#[derive(Debug, PartialEq, Eq)]
pub enum Stop {
    /// The budget is used up.
    Budget,
    /// Somebody has to be asked first.
    Open,
}

impl Expression {
    /// What has become of a source.
    pub fn new(source: &str, program: Result<Program, String>) -> Self {
        Self {
            source: source.into(),
            program,
        }
    }

    /// As it was written.
    pub fn source(&self) -> &str {
        self.source.trim()
    }

    /// What it comes to, or what went wrong, in upstream's words; at the expense of `left`.
    pub fn run<'e, 'v>(
        &'e self,
        scope: &mut Scope<'e, 'v>,
        left: &mut u64,
    ) -> Result<Result<Value<'v>, String>, Stop> {
        let program = match &self.program {
            Ok(program) => program,
            Err(why) => return Ok(Err(format!("compilation error: {why}"))),
        };
        let granted = PER_CALL.min(*left);
        let mut budget = Budget::new(granted);
        let outcome = program.run_in(scope, &mut budget);
        *left -= granted - budget.left();
        let wrong = |why: &str| format!("expression '{}' resulted in error: {why}", self.source);
        match outcome {
            Ok(value) => Ok(Ok(value)),
            Err(Failure::Error(why)) => Ok(Err(wrong(&why))),
            Err(Failure::Cost) if granted < PER_CALL => Err(Stop::Budget),
            Err(Failure::Cost) => Ok(Err(wrong("operation cancelled: actual cost limit exceeded"))),
            Err(Failure::Open) => Err(Stop::Open),
        }
    }
}

/// Computes again and again until no question is open. `run` is given nothing and keeps nothing: what it comes to
/// follows from the answers.
pub async fn settle<T>(
    ctx: &RequestContext<'_>,
    asker: &Asker,
    run: impl Fn() -> Result<T, Stop> + Send,
) -> Result<T, Stop> {
    for _ in 0..QUESTIONS_MAX {
        match run() {
            Err(Stop::Open) => {}
            outcome => return outcome,
        }
        let Some(question) = asker.open() else { break };
        let decision = answer(ctx.server, ctx.user, &question).await;
        asker.answer(question, decision);
    }
    Err(Stop::Budget)
}

async fn answer(server: &Arc<Server>, caller: &User, question: &Question) -> Decision {
    let account;
    let who = match &question.who {
        Who::Caller => caller,
        Who::Account(namespace, name) => {
            let groups = [
                "system:serviceaccounts".to_owned(),
                format!("system:serviceaccounts:{namespace}"),
            ];
            account = User::named(format!("system:serviceaccount:{namespace}:{name}"), groups);
            &account
        }
    };
    let attributes = match &question.what {
        What::Path(path) => Attributes {
            verb: &question.verb,
            target: Target::Path(path),
            selectors: Selectors::default(),
        },
        What::Resource(resource) => Attributes::resource(
            &question.verb,
            Resource {
                group: &resource.group,
                version: "*",
                resource: &resource.resource,
                subresource: &resource.subresource,
                namespace: &resource.namespace,
                name: &resource.name,
            },
        )
        .selecting(Selectors {
            label: &resource.label_selector,
            field: &resource.field_selector,
        }),
        // Only paths and resources can be checked.
        What::Open | What::Group(_) => return Decision::default(),
    };
    let verdict = server.authorizer.authorize(who, &attributes).await;
    Decision {
        allowed: verdict.allowed(),
        reason: verdict.reason.to_string(),
    }
}
