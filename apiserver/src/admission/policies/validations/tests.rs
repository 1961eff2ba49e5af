use serde_json::{Value as Json, json};

use super::*;
use crate::cel::library::authz::{Asker, Check, Decision, Resource};

fn policy(spec: Json) -> Policy<Validations> {
    let policy = json!({"metadata": {"name": "p"}, "spec": spec});
    let policy: ValidatingAdmissionPolicy = serde_json::from_value(policy).expect("a policy");
    policy.read().expect("a spec")
}

fn outcome(spec: Json) -> Outcome {
    let policy = policy(spec);
    let object = json!({"metadata": {"name": "x"}, "spec": {"replicas": 7}});
    let params = json!({"max": 5});
    let names = vec![
        ("object", Value::json(&object, None)),
        ("params", Value::json(&params, None)),
    ];
    run(&policy, Scope::with_variables(names, &policy.variables)).expect("an end")
}

fn messages(spec: Json) -> Vec<String> {
    outcome(spec)
        .denials
        .into_iter()
        .map(|denial| denial.message)
        .collect()
}

#[test]
fn violations_are_told_in_the_words_of_the_policy() {
    let small = "object.spec.replicas <= 5";
    assert_eq!(
        messages(json!({"validations": [{"expression": small}]})),
        ["failed expression: object.spec.replicas <= 5"]
    );
    assert_eq!(
        messages(json!({"validations": [{"expression": small, "message": " too many "}]})),
        ["too many"]
    );
    let computed = "'at most 5, not ' + string(object.spec.replicas)";
    assert_eq!(
        messages(
            json!({"validations": [{"expression": small, "message": "m", "messageExpression": computed}]})
        ),
        ["at most 5, not 7"]
    );
    for useless in [
        "''",
        "'a\\nb'",
        "object.nope",
        "authorizer.path('/').check('get').reason()",
    ] {
        assert_eq!(
            messages(
                json!({"validations": [{"expression": small, "message": "m", "messageExpression": useless}]})
            ),
            ["m"],
            "{useless}"
        );
    }
    let denied = outcome(
        json!({"validations": [{"expression": small, "reason": "Forbidden"}, {"expression": "true"}]}),
    );
    assert_eq!(denied.denials[0].reason.as_deref(), Some("Forbidden"));
    assert_eq!(denied.denials.len(), 1);
}

#[test]
fn what_cannot_be_computed_counts_as_the_failure_policy_says() {
    let broken = json!([{"expression": "object.nope == 1"}]);
    assert_eq!(
        messages(json!({"validations": broken})),
        ["expression 'object.nope == 1' resulted in error: no such key: nope"]
    );
    assert!(messages(json!({"validations": broken, "failurePolicy": "Ignore"})).is_empty());
    let all = "[0,1,2,3,4,5,6,7,8,9]";
    let dear =
        format!("{all}.all(a, {all}.all(b, {all}.all(c, {all}.all(d, {all}.all(e, {all}.all(f, a >= 0))))))");
    let expensive = messages(json!({"validations": [{"expression": dear}]}));
    assert!(
        expensive[0].ends_with("resulted in error: operation cancelled: actual cost limit exceeded"),
        "{expensive:?}"
    );
    let many: Vec<Json> = (0..12).map(|_| json!({"expression": dear})).collect();
    assert_eq!(messages(json!({"validations": many})), [OUT_OF_BUDGET]);
}

#[test]
fn conditions_variables_parameters_and_notes() {
    let rule =
        json!([{"expression": "variables.ok", "messageExpression": "'over ' + string(variables.limit)"}]);
    let variables = json!([
        {"name": "limit", "expression": "params.max"},
        {"name": "broken", "expression": "object.nope"},
        {"name": "ok", "expression": "object.spec.replicas <= variables.limit"},
    ]);
    let params = json!({"apiVersion": "v1", "kind": "ConfigMap"});
    let whole = json!({"validations": rule, "variables": variables, "paramKind": params,
        "auditAnnotations": [{"key": "high", "valueExpression": "variables.ok ? '' : 'yes'"},
                             {"key": "none", "valueExpression": "null"}]});
    let found = outcome(whole.clone());
    assert_eq!(found.denials[0].message, "over 5");
    assert_eq!(found.notes, [("high".to_owned(), "yes".to_owned())]);
    let mut apart = whole.clone();
    apart["matchConditions"] = json!([{"name": "other", "expression": "object.metadata.name == 'y'"}]);
    assert_eq!(outcome(apart), Outcome::default());
    let failing = json!({"validations": [{"expression": "variables.broken == 1"}], "variables": variables,
        "paramKind": params});
    assert_eq!(
        messages(failing),
        [
            "expression 'variables.broken == 1' resulted in error: composited variable \"broken\" fails to evaluate: no \
          such key: nope"
        ]
    );
    let unnoted = outcome(json!({"auditAnnotations": [{"key": "k", "valueExpression": "object.nope"}]}));
    // Of no known type: refused when it is written, and no better when it is run.
    assert_eq!(unnoted.broken_notes.len(), 1);
}

#[test]
fn who_may_do_what_is_asked_once() {
    let policy = policy(json!({"validations": [
        {"expression": "authorizer.requestResource.check('create').allowed()"},
        {"expression": "authorizer.requestResource.check('create').reason() == 'because'"},
    ]}));
    let asker = std::sync::Arc::<Asker>::default();
    let pods = Resource {
        resource: "pods".to_owned(),
        ..Resource::default()
    };
    let check = std::sync::Arc::new(Check::new(asker.clone(), pods));
    let attempt = || {
        let names = vec![("authorizer", Value::Check(check.clone()))];
        run(&policy, Scope::with_variables(names, &policy.variables))
    };
    assert_eq!(attempt(), Err(Stop::Open));
    let question = asker.open().expect("a question");
    assert_eq!(question.verb, "create");
    let decision = Decision {
        allowed: true,
        reason: "because".to_owned(),
    };
    asker.answer(question, decision);
    assert_eq!(attempt(), Ok(Outcome::default()));
}
