//! `authorizer`: whether somebody may do something.
//!
//! Expressions are computed in one go, but who may do what is sometimes known only elsewhere. So a check that has no
//! answer yet leaves its question with the [`Asker`] and ends the computation with [`Failure::Open`]; whoever runs the
//! expression finds the answer and computes once more. A check is so dear that few fit into a budget.
//!
//! <https://kubernetes.io/docs/reference/using-api/cel/#kubernetes-authorizer-library>

use std::sync::Arc;

use keelson_api::validation;
use parking_lot::Mutex;

use super::super::eval::{Budget, Failure};
use super::super::value::Value;
use super::Outcome;

/// What a check costs.
pub const CHECK_COST: u64 = 350_000;

/// Who is asked about: the caller, or a service account by namespace and name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Who {
    /// Whoever made the request.
    #[default]
    Caller,
    /// A service account.
    Account(String, String),
}

/// What is asked about.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum What {
    /// Nothing in particular yet.
    #[default]
    Open,
    /// A path outside of the API.
    Path(String),
    /// Something of an API group.
    Group(String),
    /// A resource.
    Resource(Resource),
}

/// A resource that is asked about.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Resource {
    /// API group.
    pub group: String,
    /// Plural.
    pub resource: String,
    /// Empty for the resource itself.
    pub subresource: String,
    /// Empty for the cluster.
    pub namespace: String,
    /// Empty for all.
    pub name: String,
    /// Empty for all.
    pub label_selector: String,
    /// Empty for all.
    pub field_selector: String,
}

/// One question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// Whether this one
    pub who: Who,
    /// may do this
    pub verb: String,
    /// to that.
    pub what: What,
}

/// The answer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Decision {
    /// Whether it is allowed.
    pub allowed: bool,
    /// Why.
    pub reason: String,
}

/// Questions asked, and what is known about them.
#[derive(Debug, Default)]
pub struct Asker(Mutex<Asked>);

#[derive(Debug, Default)]
struct Asked {
    answered: Vec<(Question, Arc<Decision>)>,
    open: Option<Question>,
}

impl Asker {
    /// The question that ended the last computation.
    pub fn open(&self) -> Option<Question> {
        self.0.lock().open.take()
    }

    /// Answers it.
    pub fn answer(&self, question: Question, decision: Decision) {
        self.0.lock().answered.push((question, Arc::new(decision)));
    }

    fn ask<'v>(&self, question: Question) -> Outcome<'v> {
        let mut asked = self.0.lock();
        match asked.answered.iter().find(|(known, _)| *known == question) {
            Some((_, decision)) => Ok(Value::Decision(decision.clone())),
            None => {
                asked.open = Some(question);
                Err(Failure::Open)
            }
        }
    }
}

/// A question on its way: `authorizer`, a path, a group or a resource.
#[derive(Debug, Clone)]
pub struct Check {
    asker: Arc<Asker>,
    who: Who,
    what: What,
    /// What the request itself is about: `authorizer.requestResource`.
    request: Arc<Resource>,
}

impl Check {
    /// `authorizer` in a request about a resource.
    pub fn new(asker: Arc<Asker>, request: Resource) -> Self {
        Self {
            asker,
            who: Who::Caller,
            what: What::Open,
            request: Arc::new(request),
        }
    }

    /// The name of its type.
    pub fn type_name(&self) -> &'static str {
        match self.what {
            What::Open => AUTHORIZER,
            What::Path(_) => PATH_CHECK,
            What::Group(_) => GROUP_CHECK,
            What::Resource(_) => RESOURCE_CHECK,
        }
    }

    /// `authorizer.requestResource`
    pub fn request_resource(&self) -> Option<Self> {
        (self.what == What::Open && self.who == Who::Caller)
            .then(|| self.about(What::Resource(Resource::clone(&self.request))))
    }

    fn about(&self, what: What) -> Self {
        Self { what, ..self.clone() }
    }
}

/// Types of this library.
pub const AUTHORIZER: &str = "kubernetes.authorization.Authorizer";
/// See [`AUTHORIZER`].
pub const PATH_CHECK: &str = "kubernetes.authorization.PathCheck";
/// See [`AUTHORIZER`].
pub const GROUP_CHECK: &str = "kubernetes.authorization.GroupCheck";
/// See [`AUTHORIZER`].
pub const RESOURCE_CHECK: &str = "kubernetes.authorization.ResourceCheck";
/// See [`AUTHORIZER`].
pub const DECISION: &str = "kubernetes.authorization.Decision";

/// Methods of checks.
pub fn method<'v>(name: &str, own: &Check, args: &[Value<'v>], budget: &mut Budget) -> Option<Outcome<'v>> {
    let first = args.first()?.as_str()?;
    let what = match (&own.what, name, args) {
        (What::Open, "path", [_]) => match first.trim() {
            "" => return Some(Err(Failure::error("path must not be empty"))),
            _ => What::Path(first.to_owned()),
        },
        (What::Open, "group", [_]) => What::Group(first.to_owned()),
        (What::Open, "serviceAccount", [_, account]) => {
            return Some(service_account(own, first, account.as_str()?));
        }
        (What::Group(group), "resource", [_]) => match first.trim() {
            "" => return Some(Err(Failure::error("resource must not be empty"))),
            _ => What::Resource(Resource {
                group: group.clone(),
                resource: first.to_owned(),
                ..Resource::default()
            }),
        },
        (What::Path(_) | What::Resource(_), "check", [_]) => {
            let question = Question {
                who: own.who.clone(),
                verb: first.to_owned(),
                what: own.what.clone(),
            };
            return Some(budget.spend(CHECK_COST).and_then(|()| own.asker.ask(question)));
        }
        (What::Resource(resource), _, [_]) => {
            let mut resource = resource.clone();
            let part = match name {
                "subresource" => &mut resource.subresource,
                "namespace" => &mut resource.namespace,
                "name" => &mut resource.name,
                "labelSelector" => &mut resource.label_selector,
                "fieldSelector" => &mut resource.field_selector,
                _ => return None,
            };
            first.clone_into(part);
            What::Resource(resource)
        }
        _ => return None,
    };
    Some(Ok(Value::Check(Arc::new(own.about(what)))))
}

fn service_account<'v>(own: &Check, namespace: &str, name: &str) -> Outcome<'v> {
    if !validation::dns1123_subdomain(name).is_empty() {
        return Err(Failure::error("Invalid service account name"));
    }
    if !validation::dns1123_label(namespace).is_empty() {
        return Err(Failure::error("Invalid service account namespace"));
    }
    Ok(Value::Check(Arc::new(Check {
        who: Who::Account(namespace.to_owned(), name.to_owned()),
        ..own.clone()
    })))
}

/// Methods of decisions.
pub fn decision<'v>(name: &str, own: &Decision) -> Option<Outcome<'v>> {
    Some(Ok(match name {
        "allowed" => Value::Bool(own.allowed),
        "reason" => Value::text(own.reason.as_str()),
        // An authorizer that cannot decide has no opinion.
        "errored" => Value::Bool(false),
        "error" => Value::text(""),
        _ => return None,
    }))
}
