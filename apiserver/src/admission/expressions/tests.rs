use k8s_openapi::api::admissionregistration::v1::MatchCondition;
use serde_json::{Value as Json, json};

use super::FailurePolicy;
use super::conditions::{Conditions, Verdict};
use super::surroundings::{Surroundings, Wanted};
use crate::cel::eval::Scope;
use crate::cel::value::Value;

fn judged(expressions: &[&str], policy: FailurePolicy) -> Verdict {
    let object: Json = json!({"metadata": {"name": "x", "labels": {"a": "b"}}});
    let conditions: Vec<MatchCondition> = expressions
        .iter()
        .enumerate()
        .map(|(i, expression)| MatchCondition {
            name: format!("c{i}"),
            expression: (*expression).to_owned(),
        })
        .collect();
    let conditions = Conditions::read(&conditions, &Surroundings::new().with_authorizer());
    let mut scope = Scope::new(vec![("object", Value::json(&object, None))]);
    conditions.judge(&mut scope, policy).expect("an end")
}

#[test]
fn one_condition_that_does_not_hold_decides() {
    use FailurePolicy::{Fail, Ignore};
    let (yes, no, wrong) = (
        "object.metadata.name == 'x'",
        "object.metadata.name == 'y'",
        "object.spec.a == 1",
    );
    assert_eq!(judged(&[yes, yes], Fail), Verdict::Met);
    assert_eq!(judged(&[yes, no], Fail), Verdict::Unmet);
    assert_eq!(judged(&[wrong, no], Fail), Verdict::Unmet);
    assert_eq!(judged(&[wrong, yes], Ignore), Verdict::Unmet);
    let failed = "expression 'object.spec.a == 1' resulted in error: no such key: spec".to_owned();
    assert_eq!(judged(&[wrong, yes], Fail), Verdict::Failed(failed.clone()));
    let twice = Verdict::Failed(format!(
        "[{failed}, expression '!object.b' resulted in error: no such key: b]"
    ));
    assert_eq!(judged(&[wrong, "!object.b"], Fail), twice);
}

#[test]
fn mistakes_are_found_when_an_expression_is_read() {
    let plain = Surroundings::new();
    let full = Surroundings::new().with_authorizer().with_params(Some(None));
    let compiled =
        |surroundings: &Surroundings, text: &str, wanted| surroundings.compile(text, wanted).map(|_| ());
    for text in [
        "object.spec.replicas <= params.maxReplicas",
        "request.userInfo.groups.exists(g, g == 'system:masters') && request.dryRun",
        "authorizer.group('apps').resource('deployments').namespace('x').check('create').allowed()",
        "authorizer.requestResource.check('update').allowed() || authorizer.path('/x').check('get').reason() == ''",
        "authorizer.serviceAccount('a', 'b').group('').resource('pods').name('x').check('get').allowed()",
        "namespaceObject.metadata.labels['a'] == 'b' && namespaceObject.metadata.creationTimestamp.getFullYear() > 1",
        "has(request.subResource) && request.options.kind == 'CreateOptions'",
    ] {
        assert_eq!(compiled(&full, text, Wanted::Bool), Ok(()), "{text}");
    }
    for (text, error) in [
        ("params.a == 1", "undeclared reference to 'params'"),
        (
            "authorizer.path('/').check('get').allowed()",
            "undeclared reference to 'authorizer'",
        ),
        ("request.object == null", "undefined field 'object'"),
        ("object.spec.paused", "must evaluate to bool but got dyn"),
        ("1 + 1", "must evaluate to bool but got int"),
        ("variables.x", "undeclared reference to 'variables'"),
        ("Object{} == Object{}", "undeclared reference to 'Object'"),
    ] {
        let found = compiled(&plain, text, Wanted::Bool).expect_err(text);
        assert!(found.contains(error), "{text}: {found}");
    }
    assert_eq!(
        compiled(&plain, "1", Wanted::TextOrNull),
        Err("must evaluate to one of [string null_type] but got int".to_owned())
    );
}

#[test]
fn variables_know_those_before_them() {
    let mut surroundings = Surroundings::new().with_variables();
    assert!(surroundings.add_variable("a", "object.x + 1").is_ok());
    assert!(surroundings.add_variable("b", "variables.a > 2").is_ok());
    let unknown = surroundings
        .add_variable("c", "variables.d")
        .expect_err("unknown");
    assert!(unknown.contains("undefined field 'd'"), "{unknown}");
    assert!(
        surroundings
            .compile("variables.b && variables.c", Wanted::Bool)
            .is_ok()
    );
    assert!(surroundings.compile("variables.a", Wanted::Bool).is_err());
}

#[test]
fn changes_are_written_with_types_of_their_own() {
    let surroundings = Surroundings::new().with_patches();
    for (text, wanted) in [
        ("Object{spec: Object.spec{replicas: 3}}", Wanted::Object),
        (
            "[JSONPatch{op: 'add', path: '/a', value: object.b}]",
            Wanted::Patches,
        ),
        (
            "object.l.map(x, JSONPatch{op: 'remove', path: '/' + x})",
            Wanted::Patches,
        ),
    ] {
        assert!(surroundings.compile(text, wanted).is_ok(), "{text}");
    }
    for (text, wanted, error) in [
        (
            "Object.spec{}",
            Wanted::Object,
            "must evaluate to Object but got Object.spec",
        ),
        (
            "{'a': 1}",
            Wanted::Object,
            "must evaluate to Object but got map(string, int)",
        ),
        (
            "[JSONPatch{op: 1}]",
            Wanted::Patches,
            "expected type of field 'op' is 'string' but provided type is 'int'",
        ),
        ("[JSONPatch{nope: 1}]", Wanted::Patches, "undefined field 'nope'"),
        ("Other{}", Wanted::Object, "undeclared reference to 'Other'"),
    ] {
        let found = surroundings.compile(text, wanted).expect_err(text);
        assert!(found.contains(error), "{text}: {found}");
    }
}
