//! Admission policies: rules and changes that are said in CEL.

use std::time::Duration;

use anyhow::{Result, bail, ensure};
use keelson_tests::process::{eventually, output, text};
use serde_json::{Value, json};

use crate::{Stage, Story};

pub const STORIES: &[Story] = &[
    (
        "a_policy_holds_to_its_parameters",
        a_policy_holds_to_its_parameters,
    ),
    ("a_policy_warns_in_its_own_words", a_policy_warns_in_its_own_words),
    ("a_policy_asks_who_may", a_policy_asks_who_may),
    ("a_policy_is_read_when_written", a_policy_is_read_when_written),
    (
        "a_policy_speaks_of_ones_own_kinds",
        a_policy_speaks_of_ones_own_kinds,
    ),
    ("a_policy_changes_objects", a_policy_changes_objects),
    ("a_policy_looks_once_more", a_policy_looks_once_more),
    (
        "policies_are_objects_like_others",
        policies_are_objects_like_others,
    ),
];

const GROUP: &str = "admissionregistration.k8s.io/v1";
/// Until a policy is in force.
const SOON: Duration = Duration::from_secs(20);

/// `matchConstraints` for creations and changes in the story's namespace.
fn constraints(stage: &Stage, group: &str, version: &str, resource: &str) -> Value {
    json!({
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": stage.namespace}},
        "resourceRules": [{"apiGroups": [group], "apiVersions": [version], "operations": ["CREATE", "UPDATE"],
            "resources": [resource]}],
    })
}

/// Feeds a policy and its binding, both called after the namespace.
fn put(stage: &Stage, kind: &str, name: &str, spec: Value, binding: Value) -> Result<()> {
    let name = format!("{name}.{}", stage.namespace);
    let meta = json!({"name": name});
    let mut binding = binding;
    binding["policyName"] = name.as_str().into();
    let policy = json!({"apiVersion": GROUP, "kind": kind, "metadata": meta, "spec": spec});
    let binding =
        json!({"apiVersion": GROUP, "kind": format!("{kind}Binding"), "metadata": meta, "spec": binding});
    let both = json!({"apiVersion": "v1", "kind": "List", "items": [policy, binding]});
    stage.kubectl.feed("apply -f -", &both.to_string()).map(drop)
}

fn drop_all(stage: &Stage, kind: &str, names: &[&str]) -> Result<()> {
    for name in names {
        let name = format!("{name}.{}", stage.namespace);
        stage.kubectl.run(&format!("delete {kind} {name}"))?;
        stage.kubectl.run(&format!("delete {kind}binding {name}"))?;
    }
    Ok(())
}

/// The words of a refusal, once there is one.
fn refused_soon(stage: &Stage, words: &str) -> Result<String> {
    eventually(words, SOON, || stage.kubectl.refused(words, None))
}

fn deployment(name: &str, replicas: u32) -> String {
    format!("create deployment {name} --image=keelson.local/echo:1 --replicas={replicas} --dry-run=server")
}

fn a_policy_holds_to_its_parameters(stage: &Stage) -> Result<()> {
    let (kubectl, namespace) = (&stage.kubectl, &stage.namespace);
    kubectl.run("create configmap limits --from-literal=max=3")?;
    let spec = json!({
        "paramKind": {"apiVersion": "v1", "kind": "ConfigMap"},
        "matchConstraints": constraints(stage, "apps", "v1", "deployments"),
        "matchConditions": [{"name": "not-exempt", "expression": "!object.metadata.name.startsWith('exempt')"}],
        "variables": [{"name": "max", "expression": "int(params.data.max)"}],
        "validations": [{"expression": "object.spec.replicas <= variables.max",
            "messageExpression": "'at most ' + string(variables.max) + ' replicas here'"}],
    });
    let binding = json!({"validationActions": ["Deny"],
        "paramRef": {"name": "limits", "parameterNotFoundAction": "Deny"}});
    put(stage, "ValidatingAdmissionPolicy", "limits", spec, binding)?;
    let refusal = refused_soon(stage, &deployment("web", 4))?;
    let wanted = format!(
        "ValidatingAdmissionPolicy 'limits.{namespace}' with binding 'limits.{namespace}' denied request: at most 3 \
         replicas here"
    );
    ensure!(refusal.contains(&wanted), "{refusal}");
    kubectl.run(&deployment("web", 3))?;
    kubectl.run(&deployment("exempt", 4))?;
    // The rule is about other versions of the same resource as well, and about its parts only where it says so.
    kubectl.run("create deployment web --image=keelson.local/echo:1 --replicas=0")?;
    kubectl.run("patch configmap limits -p {\"data\":{\"max\":\"5\"}}")?;
    eventually("the new limit", SOON, || {
        kubectl.run(&deployment("more", 5)).map(drop)
    })?;
    let refusal = kubectl.refused("patch deployment web -p {\"spec\":{\"replicas\":6}}", None)?;
    ensure!(
        refusal.contains("The deployments \"web\" is invalid") && refusal.contains("at most 5 replicas here"),
        "{refusal}"
    );
    kubectl.run("delete configmap limits")?;
    let missing =
        "failed to configure binding: no params found for policy binding with `Deny` parameterNotFoundAction";
    eventually("no parameters", SOON, || {
        let refusal = kubectl.refused(&deployment("web2", 1), None)?;
        if !refusal.contains(missing) {
            bail!("{refusal}");
        }
        Ok(())
    })?;
    drop_all(stage, "validatingadmissionpolicy", &["limits"])?;
    eventually("nobody minds", SOON, || {
        kubectl.run(&deployment("web2", 9)).map(drop)
    })
}

fn a_policy_warns_in_its_own_words(stage: &Stage) -> Result<()> {
    let kubectl = &stage.kubectl;
    let spec = json!({
        "matchConstraints": constraints(stage, "", "v1", "configmaps"),
        "validations": [{"expression": "has(object.metadata.labels) && 'team' in object.metadata.labels",
            "message": "no team", "reason": "Forbidden"},
            {"expression": "namespaceObject.metadata.name == object.metadata.namespace"}],
        "auditAnnotations": [{"key": "who", "valueExpression": "request.userInfo.username"}],
    });
    put(
        stage,
        "ValidatingAdmissionPolicy",
        "team",
        spec.clone(),
        json!({"validationActions": ["Warn", "Audit"]}),
    )?;
    eventually("a warning", SOON, || {
        let command = kubectl.command(&["create", "configmap", "c", "--dry-run=server"]);
        let told = output(command, None)?;
        let told = (told.status.success(), text(&told.stderr));
        let wanted = format!(
            "Warning: Validation failed for ValidatingAdmissionPolicy 'team.{0}' with binding 'team.{0}': no team",
            stage.namespace
        );
        if told.0 && told.1.contains(&wanted) {
            return Ok(());
        }
        bail!("{told:?}")
    })?;
    put(
        stage,
        "ValidatingAdmissionPolicy",
        "team",
        spec,
        json!({"validationActions": ["Deny"]}),
    )?;
    let refusal = refused_soon(stage, "create configmap c --dry-run=server")?;
    ensure!(
        refusal.contains("configmaps \"c\" is forbidden: ValidatingAdmissionPolicy"),
        "{refusal}"
    );
    drop_all(stage, "validatingadmissionpolicy", &["team"])
}

fn a_policy_asks_who_may(stage: &Stage) -> Result<()> {
    let (kubectl, namespace) = (&stage.kubectl, &stage.namespace);
    for who in ["plain", "breaker"] {
        kubectl.run(&format!("create serviceaccount {who}"))?;
    }
    kubectl.run("create role maps --verb=create --resource=configmaps")?;
    kubectl.run("create role glass --verb=break --resource=configmaps")?;
    kubectl.run(&format!(
        "create rolebinding maps --role=maps --serviceaccount={namespace}:plain --serviceaccount={namespace}:breaker"
    ))?;
    kubectl.run(&format!(
        "create rolebinding glass --role=glass --serviceaccount={namespace}:breaker"
    ))?;
    let spec = json!({
        "matchConstraints": constraints(stage, "", "v1", "configmaps"),
        "matchConditions": [{"name": "accounts",
            "expression": format!("request.userInfo.username.startsWith('system:serviceaccount:{namespace}:')")}],
        "validations": [{"expression": "authorizer.requestResource.check('break').allowed()",
            "message": "only who may break"}],
    });
    put(
        stage,
        "ValidatingAdmissionPolicy",
        "break",
        spec,
        json!({"validationActions": ["Deny"]}),
    )?;
    let create = "create configmap c --dry-run=server";
    let token = kubectl.run("create token plain")?;
    let plain = kubectl.with_token(token.trim())?;
    let refusal = eventually("the policy", SOON, || {
        let refusal = plain.refused(create, None)?;
        if refusal.contains("cannot create resource") {
            bail!("no role yet: {refusal}");
        }
        Ok(refusal)
    })?;
    ensure!(
        refusal.contains("denied request: only who may break"),
        "{refusal}"
    );
    let token = kubectl.run("create token breaker")?;
    kubectl.with_token(token.trim())?.run(create)?;
    kubectl.run(create)?;
    drop_all(stage, "validatingadmissionpolicy", &["break"])
}

fn a_policy_is_read_when_written(stage: &Stage) -> Result<()> {
    let kubectl = &stage.kubectl;
    let policy = |validations: Value| {
        json!({"apiVersion": GROUP, "kind": "ValidatingAdmissionPolicy",
            "metadata": {"name": format!("read.{}", stage.namespace)},
            "spec": {"matchConstraints": constraints(stage, "apps", "v1", "deployments"), "validations": validations}})
        .to_string()
    };
    for (rule, what) in [
        (
            json!({"expression": "object.spec."}),
            "spec.validations[0].expression: Invalid value: \"object.spec.\": compilation failed: ERROR",
        ),
        (
            json!({"expression": "params.x"}),
            "undeclared reference to 'params'",
        ),
        (json!({"expression": "1 + 1"}), "must evaluate to bool"),
        (
            json!({"expression": "true", "messageExpression": "1"}),
            "spec.validations[0].messageExpression: Invalid value: \"1\": must evaluate to string",
        ),
        (
            json!({"expression": "true", "reason": "Because"}),
            "spec.validations[0].reason: Unsupported value",
        ),
    ] {
        let refusal = kubectl.refused("create -f -", Some(&policy(json!([rule]))))?;
        ensure!(refusal.contains(what), "{rule}: {refusal}");
    }
    // What types say are warnings.
    let wrong = json!([{"expression": "object.replicas > 1"}, {"expression": "object.spec.replicas > 1"}]);
    kubectl.feed("create -f -", &policy(wrong))?;
    let place = format!("get validatingadmissionpolicy read.{}", stage.namespace);
    kubectl.until(
        &format!("{place} -o jsonpath={{.status.observedGeneration}}"),
        |seen| seen == "1",
    )?;
    let found = kubectl.json(&place)?;
    let warnings = &found["status"]["typeChecking"]["expressionWarnings"];
    ensure!(
        warnings[0]["fieldRef"] == "spec.validations[0].expression"
            && warnings[0]["warning"]
                == "apps/v1, Kind=Deployment: ERROR: <input>:1:7: undefined field 'replicas'\n | object.replicas > 1\n | \
                    ......^\n"
            && warnings[1].is_null(),
        "{warnings}"
    );
    kubectl.run(&format!(
        "delete validatingadmissionpolicy read.{}",
        stage.namespace
    ))?;
    Ok(())
}

fn a_policy_speaks_of_ones_own_kinds(stage: &Stage) -> Result<()> {
    let kubectl = &stage.kubectl;
    let group = format!("{}.example.org", stage.namespace);
    let version = |name: &str, storage: bool| {
        json!({"name": name, "served": true, "storage": storage, "schema": {"openAPIV3Schema": {"type": "object",
            "properties": {"spec": {"type": "object", "properties": {"size": {"type": "integer"}}}}}}})
    };
    let definition = |plural: &str, kind: &str, scope: &str| {
        json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
            "metadata": {"name": format!("{plural}.{group}")},
            "spec": {"group": group, "scope": scope, "names": {"plural": plural, "kind": kind},
                "versions": [version("v1", true), version("v2", false)]}})
        .to_string()
    };
    for (plural, kind, scope) in [("boxes", "Box", "Namespaced"), ("limits", "Limit", "Cluster")] {
        kubectl.feed("create -f -", &definition(plural, kind, scope))?;
        kubectl.run(&format!(
            "wait --for=condition=Established --timeout=30s crd/{plural}.{group}"
        ))?;
    }
    let made = |kind: &str, version: &str, name: &str, size: u32, labels: Value| {
        json!({"apiVersion": format!("{group}/{version}"), "kind": kind,
            "metadata": {"name": name, "labels": labels}, "spec": {"size": size}})
        .to_string()
    };
    kubectl.feed(
        "create -f -",
        &made("Limit", "v1", "small", 5, json!({"for": "boxes"})),
    )?;
    let spec = json!({
        "paramKind": {"apiVersion": format!("{group}/v1"), "kind": "Limit"},
        "matchConstraints": constraints(stage, &group, "v2", "boxes"),
        "validations": [{"expression": "object.spec.size <= params.spec.size && object.apiVersion.endsWith('/v2')"}],
    });
    let binding = json!({"validationActions": ["Deny"], "paramRef": {
        "selector": {"matchLabels": {"for": "boxes"}}, "parameterNotFoundAction": "Deny"}});
    put(stage, "ValidatingAdmissionPolicy", "boxes", spec, binding)?;
    // The rule names v2 and holds for v1: it is shown the object in its own version.
    let large = made("Box", "v1", "large", 6, json!({}));
    let refusal = eventually("the policy", SOON, || {
        kubectl.refused("create --dry-run=server -f -", Some(&large))
    })?;
    ensure!(
        refusal.contains("denied request: failed expression: object.spec.size <= params.spec.size"),
        "{refusal}"
    );
    kubectl.feed("create -f -", &made("Box", "v1", "fits", 5, json!({})))?;
    drop_all(stage, "validatingadmissionpolicy", &["boxes"])?;
    for plural in ["boxes", "limits"] {
        kubectl.run(&format!("delete crd {plural}.{group}"))?;
    }
    Ok(())
}

fn a_policy_changes_objects(stage: &Stage) -> Result<()> {
    let kubectl = &stage.kubectl;
    kubectl.run("create configmap marks --from-literal=team=blue")?;
    let spec = json!({
        "failurePolicy": "Fail", "reinvocationPolicy": "Never",
        "paramKind": {"apiVersion": "v1", "kind": "ConfigMap"},
        "matchConstraints": constraints(stage, "apps", "v1", "deployments"),
        "matchConditions": [{"name": "web", "expression": "object.metadata.name == 'web'"}],
        "variables": [{"name": "team", "expression": "params.data.team"}],
        "mutations": [
            {"patchType": "ApplyConfiguration", "applyConfiguration": {"expression":
                "Object{metadata: Object.metadata{labels: {'team': variables.team}}, spec: Object.spec{template: \
                 Object.spec.template{spec: Object.spec.template.spec{containers: [Object.spec.template.spec.containers{\
                 name: 'side', image: 'keelson.local/echo:1'}]}}}}"}},
            {"patchType": "JSONPatch", "jsonPatch": {"expression":
                "[JSONPatch{op: 'test', path: '/metadata/labels/team', value: 'blue'}, JSONPatch{op: 'add', path: \
                 '/metadata/annotations', value: {}}, JSONPatch{op: 'add', path: '/metadata/annotations/' + \
                 jsonpatch.escapeKey('example.com/a'), value: string(object.spec.replicas)}]"}},
        ],
    });
    let binding = json!({"paramRef": {"name": "marks", "parameterNotFoundAction": "Deny"}});
    put(stage, "MutatingAdmissionPolicy", "marks", spec, binding)?;
    let create = "create deployment web --image=keelson.local/echo:1 --replicas=2 --dry-run=server -o json";
    let made = eventually("the policy", SOON, || {
        let made: Value = serde_json::from_str(&kubectl.run(create)?)?;
        if made["metadata"]["labels"]["team"].is_null() {
            bail!("{made}");
        }
        Ok(made)
    })?;
    let containers = &made["spec"]["template"]["spec"]["containers"];
    let named = |name: &str| {
        containers
            .as_array()
            .is_some_and(|all| all.iter().any(|c| c["name"] == name))
    };
    ensure!(
        made["metadata"]["labels"] == json!({"app": "web", "team": "blue"})
            && made["metadata"]["annotations"]["example.com/a"] == "2"
            && named("echo")
            && named("side"),
        "{made}"
    );
    let other =
        kubectl.run("create deployment other --image=keelson.local/echo:1 --dry-run=server -o json")?;
    ensure!(!other.contains("team"), "{other}");
    // What fails is told; and the whole of a list that has no keys cannot be applied by halves.
    let broken = json!({
        "failurePolicy": "Fail", "reinvocationPolicy": "Never",
        "matchConstraints": constraints(stage, "", "v1", "pods"),
        "mutations": [{"patchType": "ApplyConfiguration", "applyConfiguration": {"expression":
            "Object{spec: Object.spec{containers: [Object.spec.containers{name: 'c', args: ['x']}]}}"}}],
    });
    put(stage, "MutatingAdmissionPolicy", "broken", broken, json!({}))?;
    let refusal = refused_soon(stage, "run c --image=keelson.local/echo:1 --dry-run=server")?;
    let wanted = format!(
        "policy 'broken.{0}' with binding 'broken.{0}' denied request: error applying patch: invalid ApplyConfiguration: \
         may not mutate atomic arrays, maps or structs: .spec.containers[0].args",
        stage.namespace
    );
    ensure!(refusal.contains(&wanted), "{refusal}");
    drop_all(stage, "mutatingadmissionpolicy", &["marks", "broken"])
}

fn a_policy_looks_once_more(stage: &Stage) -> Result<()> {
    let kubectl = &stage.kubectl;
    let append = |again: &str, letter: &str| {
        json!({
            "failurePolicy": "Fail", "reinvocationPolicy": again,
            "matchConstraints": constraints(stage, "", "v1", "configmaps"),
            "matchConditions": [{"name": "chosen", "expression": "object.metadata.name == 'chosen'"}],
            "mutations": [{"patchType": "JSONPatch", "jsonPatch": {"expression": format!(
                "[JSONPatch{{op: 'add', path: '/data/seen', value: object.data.seen + '{letter}'}}]")}}],
        })
    };
    // Policies run in the order of their names. The first looks again because the second changed the object after it.
    put(
        stage,
        "MutatingAdmissionPolicy",
        "a",
        append("IfNeeded", "a"),
        json!({}),
    )?;
    put(
        stage,
        "MutatingAdmissionPolicy",
        "b",
        append("Never", "b"),
        json!({}),
    )?;
    eventually("both policies", SOON, || {
        let made = kubectl
            .run("create configmap chosen --from-literal=seen=x --dry-run=server -o jsonpath={.data.seen}")?;
        if made != "xaba" {
            bail!("{made}");
        }
        Ok(())
    })?;
    drop_all(stage, "mutatingadmissionpolicy", &["a", "b"])
}

fn policies_are_objects_like_others(stage: &Stage) -> Result<()> {
    let kubectl = &stage.kubectl;
    let name = format!("api.{}", stage.namespace);
    let constraints = constraints(stage, "apps", "v1", "deployments");
    let kinds = [
        (
            "ValidatingAdmissionPolicy",
            json!({"matchConstraints": constraints, "validations": [{"expression": "true"}]}),
        ),
        (
            "ValidatingAdmissionPolicyBinding",
            json!({"policyName": name, "validationActions": ["Deny"]}),
        ),
        (
            "MutatingAdmissionPolicy",
            json!({"matchConstraints": constraints, "reinvocationPolicy": "Never", "mutations": [
            {"patchType": "JSONPatch", "jsonPatch": {"expression": "[JSONPatch{op: 'remove', path: '/x'}]"}}]}),
        ),
        ("MutatingAdmissionPolicyBinding", json!({"policyName": name})),
    ];
    for (kind, spec) in kinds {
        let object = json!({"apiVersion": GROUP, "kind": kind,
            "metadata": {"name": name, "labels": {"story": stage.namespace}}, "spec": spec});
        kubectl.feed("create -f -", &object.to_string())?;
        let plural = match kind {
            _ if kind.ends_with("Policy") => format!("{}ies", kind.trim_end_matches('y').to_lowercase()),
            _ => format!("{}s", kind.to_lowercase()),
        };
        kubectl.run(&format!("annotate {plural} {name} patched=true"))?;
        let found = kubectl.json(&format!("get {plural} {name}"))?;
        ensure!(
            found["metadata"]["generation"] == 1 && found["metadata"]["annotations"]["patched"] == "true",
            "{found}"
        );
        let path = format!("/apis/{GROUP}/{plural}");
        let listed = kubectl.run(&format!(
            "get --raw {path}?labelSelector=story={}",
            stage.namespace
        ))?;
        ensure!(listed.contains(&name), "{listed}");
        kubectl.run(&format!("delete {plural} -l story={}", stage.namespace))?;
        let gone = kubectl.run(&format!("get {plural} -l story={} -o name", stage.namespace))?;
        ensure!(gone.trim().is_empty(), "{gone}");
    }
    Ok(())
}
