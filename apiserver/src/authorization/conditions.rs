//! Conditions in CEL that say whether a webhook is asked about a request at all.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value as Json;

use crate::cel::Program;
use crate::cel::check::Names;
use crate::cel::eval::{Budget, Failure};
use crate::cel::types::{Decl, Fields, REQUEST, Type};
use crate::cel::value::Value;

/// What all conditions together may cost.
const COST: u64 = 10_000_000;

/// Conditions all of which have to hold.
#[derive(Debug, Default)]
pub struct Conditions(Vec<Program>);

impl Conditions {
    /// Reads and checks them.
    ///
    /// # Errors
    /// What is wrong with the first that cannot be used.
    pub fn new<'e>(expressions: impl IntoIterator<Item = &'e str>) -> Result<Self, String> {
        let mut programs = Vec::new();
        for text in expressions {
            let program = Program::parse(text)?;
            let fits = {
                let checked = program.check(Names::new(vec![("request", request())]))?;
                matches!(&checked.decl.ty, Type::Bool | Type::Dyn)
            };
            if !fits {
                return Err("must evaluate to bool".into());
            }
            programs.push(program);
        }
        Ok(Self(programs))
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether all hold for the spec of a SubjectAccessReview. One that does not decides, even where another fails.
    ///
    /// # Errors
    /// When some fail and all others hold.
    pub fn hold(&self, spec: &Json) -> Result<bool, String> {
        let mut budget = Budget::new(COST);
        let mut failed = None;
        for program in &self.0 {
            match program.run(vec![("request", Value::json(spec, None))], &mut budget) {
                Ok(Value::Bool(true)) => {}
                Ok(Value::Bool(false)) => return Ok(false),
                Ok(_) => failed = Some("the expression did not return a bool".to_owned()),
                Err(Failure::Cost) => failed = Some("the cost limit is exceeded".to_owned()),
                Err(Failure::Error(error)) => failed = Some(error),
                // These expressions know of nobody who could be asked.
                Err(Failure::Open) => failed = Some("nobody can be asked".to_owned()),
            }
        }
        failed.map_or(Ok(true), Err)
    }
}

/// The type of a SubjectAccessReviewSpec.
fn request() -> Arc<Decl> {
    let text = || Arc::new(Decl::sized(Type::String, REQUEST));
    let any = || Arc::new(Decl::sized(Type::Dyn, REQUEST));
    let texts = || Arc::new(Decl::sized(Type::List(text()), REQUEST));
    let object = |name: &str, fields: Vec<(&str, Arc<Decl>)>| {
        let fields: BTreeMap<String, Arc<Decl>> = fields
            .into_iter()
            .map(|(name, decl)| (name.to_owned(), decl))
            .collect();
        let name = name.to_owned();
        Arc::new(Decl::sized(
            Type::Object(Arc::new(Fields { name, fields })),
            REQUEST,
        ))
    };
    let named = |names: &[&'static str]| names.iter().map(|name| (*name, text())).collect::<Vec<_>>();
    let mut resource = named(&[
        "namespace",
        "verb",
        "group",
        "version",
        "resource",
        "subresource",
        "name",
    ]);
    resource.extend([("fieldSelector", any()), ("labelSelector", any())]);
    object(
        "kubernetes.SubjectAccessReviewSpec",
        vec![
            (
                "resourceAttributes",
                object("kubernetes.ResourceAttributes", resource),
            ),
            (
                "nonResourceAttributes",
                object("kubernetes.NonResourceAttributes", named(&["path", "verb"])),
            ),
            ("user", text()),
            ("groups", texts()),
            (
                "extra",
                Arc::new(Decl::sized(Type::Map(text(), texts()), REQUEST)),
            ),
            ("uid", text()),
        ],
    )
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn one_that_does_not_hold_decides() {
        let spec = json!({"user": "jane", "groups": ["dev"], "resourceAttributes": {"resource": "pods", "namespace": "a"}});
        let hold = |texts: &[&str]| Conditions::new(texts.iter().copied()).and_then(|c| c.hold(&spec));
        assert_eq!(hold(&[]), Ok(true));
        assert_eq!(
            hold(&[
                "has(request.resourceAttributes)",
                "request.resourceAttributes.namespace == 'a'"
            ]),
            Ok(true)
        );
        assert_eq!(hold(&["'system:masters' in request.groups"]), Ok(false));
        assert_eq!(
            hold(&[
                "request.nonResourceAttributes.path == '/'",
                "request.user != 'jane'"
            ]),
            Ok(false)
        );
        assert!(hold(&["request.nonResourceAttributes.path == '/'"]).is_err());
    }
}
