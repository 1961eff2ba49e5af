//! What a mutating policy makes of one object.

use k8s_openapi::api::admissionregistration::v1::{
    MutatingAdmissionPolicy, MutatingAdmissionPolicyBinding, Mutation,
};
use keelson_api::apply::overlay;
use keelson_api::patch::{PatchError, json as json_patch};
use keelson_api::status::ApiError;
use serde_json::Value;

use super::policy::{self, Binding, BindingKind, Policy, PolicyKind};
use crate::admission::expressions::run::{Expression, OUT_OF_BUDGET, PER_POLICY, Stop};
use crate::admission::expressions::surroundings::{Surroundings, Wanted};
use crate::admission::matching::Shown;
use crate::cel::eval::Scope;
use crate::cel::json;

/// The changes a policy makes, one after the other.
#[derive(Debug)]
pub struct Mutations {
    /// The changes.
    pub changes: Vec<Change>,
    /// Whether the policy looks again at what others change after it.
    pub reinvoked: bool,
}

/// One change.
#[derive(Debug)]
pub enum Change {
    /// Fields to be laid over the object.
    Apply(Expression),
    /// Steps of a JSON patch.
    Patch(Expression),
}

/// Why a change is not made.
#[derive(Debug)]
pub enum Problem {
    /// The failure policy decides what follows from it.
    Policy(String),
    /// The request ends with it.
    Request(Box<ApiError>),
}

impl Change {
    fn read(mutation: &Mutation, surroundings: &Surroundings) -> Self {
        let expression = |source: Option<&String>, wanted| {
            let source = source.map_or("", String::as_str);
            Expression::new(source, surroundings.compile(source, wanted))
        };
        match mutation.patch_type.as_str() {
            "JSONPatch" => {
                let source = mutation.json_patch.as_ref().and_then(|p| p.expression.as_ref());
                Change::Patch(expression(source, Wanted::Patches))
            }
            _ => {
                let source = mutation.apply_configuration.as_ref();
                let source = source.and_then(|apply| apply.expression.as_ref());
                Change::Apply(expression(source, Wanted::Object))
            }
        }
    }

    /// What the change comes to as JSON: fields, or the steps of a patch. Or what went wrong, in upstream's words.
    pub fn compute<'e>(&'e self, mut scope: Scope<'e, '_>) -> Result<Result<Value, String>, Stop> {
        let (Change::Apply(expression) | Change::Patch(expression)) = self;
        let mut left = PER_POLICY;
        match expression.run(&mut scope, &mut left) {
            Ok(Ok(value)) => Ok(json::of(&value).map_err(|why| format!("type mismatch: {why}"))),
            Ok(Err(why)) => Ok(Err(why)),
            Err(Stop::Budget) => Ok(Err(OUT_OF_BUDGET.to_owned())),
            Err(Stop::Open) => Err(Stop::Open),
        }
    }

    /// The object with the change made.
    pub fn make(&self, shown: &Shown, computed: Value) -> Result<Value, Problem> {
        match self {
            Change::Apply(_) => lay_over(shown, computed),
            Change::Patch(_) => patch(&shown.object, &computed),
        }
    }
}

fn lay_over(shown: &Shown, mut fields: Value) -> Result<Value, Problem> {
    let served = &shown.served;
    let version = served.api_version();
    let Some(schema) = served.strategy().ownership(&version) else {
        let why = format!(
            "Resource kind {version}, Kind={} not found. There can be a delay between when CustomResourceDefinitions are \
             created and when they are available.",
            served.info().kind
        );
        return Err(Problem::Request(Box::new(ApiError::service_unavailable(why))));
    };
    for field in ["apiVersion", "kind"] {
        fields[field] = shown.object[field].clone();
    }
    overlay(schema, shown.object.clone(), &fields)
        .map_err(|why| Problem::Policy(format!("error applying patch: {why}")))
}

fn patch(object: &Value, steps: &Value) -> Result<Value, Problem> {
    let failed = |error: PatchError| Problem::Policy(format!("JSONPath: {error}"));
    let steps = json_patch::parse(steps.to_string().as_bytes()).map_err(failed)?;
    let mut changed = object.clone();
    for step in &steps {
        match json_patch::apply(&mut changed, std::slice::from_ref(step)) {
            Ok(()) => {}
            // A patch whose test fails is not made, and nothing is wrong with that.
            Err(PatchError::DoesNotApply(_)) if matches!(step, json_patch::Operation::Test { .. }) => {
                return Ok(object.clone());
            }
            Err(error) => return Err(failed(error)),
        }
    }
    Ok(changed)
}

impl PolicyKind for MutatingAdmissionPolicy {
    type Does = Mutations;
    type Binding = MutatingAdmissionPolicyBinding;

    fn read(&self) -> Option<Policy<Mutations>> {
        let spec = self.spec.as_ref()?;
        policy::read(self, |surroundings| {
            let surroundings = surroundings.clone().with_patches();
            let mutations = spec.mutations.iter().flatten();
            Mutations {
                changes: mutations
                    .map(|mutation| Change::read(mutation, &surroundings))
                    .collect(),
                reinvoked: spec.reinvocation_policy.as_deref() == Some("IfNeeded"),
            }
        })
    }
}

impl BindingKind for MutatingAdmissionPolicyBinding {
    fn read(&self) -> Option<Binding> {
        let spec = self.spec.as_ref()?;
        Some(Binding::new(
            self.metadata.name.as_ref(),
            spec.policy_name.as_deref().unwrap_or_default(),
            spec.match_resources.as_ref(),
            spec.param_ref.as_ref(),
            &[],
        ))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_patch_whose_test_fails_changes_nothing() {
        let object = json!({"a": 1});
        let add = json!({"op": "add", "path": "/b", "value": 2});
        let made = |steps: Value| patch(&object, &steps).expect("a patch");
        assert_eq!(made(json!([add])), json!({"a": 1, "b": 2}));
        assert_eq!(
            made(json!([add, {"op": "test", "path": "/a", "value": 5}])),
            object
        );
        let missing = patch(&object, &json!([{"op": "remove", "path": "/x"}]));
        assert!(matches!(missing, Err(Problem::Policy(why)) if why.starts_with("JSONPath: ")));
    }
}
