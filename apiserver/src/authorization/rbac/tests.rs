use std::ops::ControlFlow;

use super::*;
use crate::authorization::attributes::Resource;
use k8s_openapi::api::rbac::v1::{PolicyRule, RoleRef, Subject};
use proptest::prelude::*;
use serde_json::json;

fn rbac() -> Rbac {
    let rbac = Rbac::default();
    let rules: Vec<PolicyRule> = serde_json::from_value(json!([
        {"verbs": ["get", "list"], "apiGroups": [""], "resources": ["pods"]}
    ]))
    .expect("rules");
    let reference = |kind: &str, name: &str| -> RoleRef {
        serde_json::from_value(json!({"kind": kind, "name": name})).expect("a reference")
    };
    let subjects =
        |json: serde_json::Value| -> Vec<Subject> { serde_json::from_value(json).expect("subjects") };
    let mut index = rbac.index.write();
    index.put_role("a", "reader", &rules);
    index.put_role("", "viewer", &rules);
    index.put_binding(
        "a",
        "b",
        &reference("Role", "reader"),
        &subjects(json!([
            {"kind": "ServiceAccount", "name": "s", "namespace": "a"}, {"kind": "User", "name": "jane"}
        ])),
    );
    index.put_binding(
        "",
        "v",
        &reference("ClusterRole", "viewer"),
        &subjects(json!([{"kind": "Group", "name": "watchers"}])),
    );
    drop(index);
    rbac
}

fn list(namespace: &'static str) -> Attributes<'static> {
    Attributes::resource(
        "list",
        Resource {
            resource: "pods",
            namespace,
            ..Resource::default()
        },
    )
}

#[test]
fn roles_reach_as_far_as_their_bindings() {
    let rbac = rbac();
    let account = User::named("system:serviceaccount:a:s", []);
    let verdict = rbac.decide(&account, &list("a"));
    assert!(verdict.allowed());
    assert_eq!(
        verdict.reason.to_string(),
        "RBAC: allowed by RoleBinding \"b/a\" of Role \"reader\" to ServiceAccount \"s/a\""
    );
    assert!(!rbac.decide(&account, &list("b")).allowed());
    assert!(!rbac.decide(&account, &list("")).allowed());
    let watcher = User::named("x", ["watchers".to_owned()]);
    let verdict = rbac.decide(&watcher, &list(""));
    assert_eq!(
        verdict.reason.to_string(),
        "RBAC: allowed by ClusterRoleBinding \"v\" of ClusterRole \"viewer\" to Group \"watchers\""
    );
}

#[test]
fn what_is_removed_counts_no_more_and_missing_roles_are_named() {
    let rbac = rbac();
    let jane = User::named("jane", []);
    rbac.index.write().remove_role("a", "reader");
    let verdict = rbac.decide(&jane, &list("a"));
    assert_eq!(
        verdict.reason.to_string(),
        "RBAC: role.rbac.authorization.k8s.io \"reader\" not found"
    );
    rbac.index.write().remove_binding("a", "b");
    let verdict = rbac.decide(&jane, &list("a"));
    assert!(!verdict.allowed() && verdict.reason.to_string().is_empty());
}

/// Something that happens to a cluster.
#[derive(Debug, Clone)]
enum Step {
    PutRole(&'static str, &'static str, Vec<PolicyRule>),
    RemoveRole(&'static str, &'static str),
    Bind(&'static str, &'static str, RoleRef, Vec<Subject>),
    Unbind(&'static str, &'static str),
    Ask(Vec<Question>),
}

#[derive(Debug, Clone)]
struct Question {
    user: User,
    verb: &'static str,
    path: Option<&'static str>,
    group: &'static str,
    resource: &'static str,
    subresource: &'static str,
    namespace: &'static str,
    name: &'static str,
}

impl Question {
    fn attributes(&self) -> Attributes<'static> {
        match self.path {
            Some(path) => Attributes::path(self.verb, path),
            None => Attributes::resource(
                self.verb,
                Resource {
                    group: self.group,
                    resource: self.resource,
                    subresource: self.subresource,
                    namespace: self.namespace,
                    name: self.name,
                    ..Resource::default()
                },
            ),
        }
    }
}

const NAMESPACES: &[&str] = &["", "n1", "n2"];
const ROLES: &[&str] = &["r1", "r2", "r3"];
const NAMES: &[&str] = &["b1", "b2", "b3", "b4"];

fn one_of(of: &'static [&'static str]) -> impl Strategy<Value = &'static str> {
    proptest::sample::select(of)
}

fn some_of(of: &'static [&'static str], least: usize) -> impl Strategy<Value = Vec<String>> {
    proptest::collection::vec(one_of(of).prop_map(str::to_owned), least..3)
}

fn some_rule() -> impl Strategy<Value = PolicyRule> {
    let verbs = some_of(&["get", "list", "delete", "dance", "sing", "*"], 0);
    let groups = some_of(&["", "apps", "batch", "*"], 1);
    let resources = some_of(&["pods", "nodes", "pods/log", "*/log", "*", "a/b/c"], 1);
    let urls = some_of(&["/a", "/a/*", "/a/b", "/ab*", "*", "/a/**"], 1);
    let names = some_of(&["a", "b", ""], 0);
    (verbs, groups, resources, names, urls, 0..3).prop_map(
        |(verbs, groups, resources, names, urls, about)| PolicyRule {
            verbs,
            api_groups: (about != 0).then_some(groups),
            resources: (about != 0).then_some(resources),
            resource_names: (about != 0).then_some(names),
            non_resource_urls: (about != 1).then_some(urls),
        },
    )
}

fn some_question() -> impl Strategy<Value = Question> {
    let user = (
        one_of(&["jane", "joe", "system:serviceaccount:n1:s"]),
        one_of(&["dev", "ops"]),
    );
    let paths = one_of(&["/a", "/a/b", "/abc", "/", "/a/*", "/b"]);
    let what = (
        one_of(&["", "apps", "*"]),
        one_of(&["pods", "nodes", "pods/log", "a", "a/b"]),
        one_of(&["", "log", "b/c", "c"]),
    );
    let verbs = one_of(&["get", "list", "dance", "hop", "*"]);
    (
        user,
        verbs,
        proptest::option::weighted(0.3, paths),
        what,
        one_of(NAMESPACES),
        one_of(&["", "a", "c"]),
    )
        .prop_map(|((user, group), verb, path, what, namespace, name)| Question {
            user: User::named(user, [group.to_owned()]),
            verb,
            path,
            group: what.0,
            resource: what.1,
            subresource: what.2,
            namespace,
            name,
        })
}

fn some_step() -> impl Strategy<Value = Step> {
    let rules = proptest::collection::vec(some_rule(), 0..40);
    let kind = one_of(&["User", "Group", "ServiceAccount"]);
    let whom =
        (kind, one_of(&["jane", "dev", "s", "system:authenticated"])).prop_map(|(kind, name)| Subject {
            kind: kind.into(),
            name: name.into(),
            namespace: (kind == "ServiceAccount").then(|| "n1".into()),
            ..Subject::default()
        });
    let role = (one_of(&["Role", "ClusterRole"]), one_of(ROLES)).prop_map(|(kind, name)| RoleRef {
        kind: kind.into(),
        name: name.into(),
        ..RoleRef::default()
    });
    let whoms = proptest::collection::vec(whom, 1..4);
    prop_oneof![
        3 => (one_of(NAMESPACES), one_of(ROLES), rules).prop_map(|(n, r, rules)| Step::PutRole(n, r, rules)),
        1 => (one_of(NAMESPACES), one_of(ROLES)).prop_map(|(n, r)| Step::RemoveRole(n, r)),
        3 => (one_of(NAMESPACES), one_of(NAMES), role, whoms).prop_map(|(n, b, r, whoms)| Step::Bind(n, b, r, whoms)),
        1 => (one_of(NAMESPACES), one_of(NAMES)).prop_map(|(n, b)| Step::Unbind(n, b)),
        3 => proptest::collection::vec(some_question(), 1..30).prop_map(Step::Ask),
    ]
}

/// Rule by rule, in the order of the grants.
fn plainly(index: &Index, question: &Question) -> String {
    let attributes = question.attributes();
    let mut missing = Vec::new();
    let found = index.visit(&question.user, attributes.namespace(), |grant, rules| {
        match rules {
            Some(rules) if Rbac::rules_allow(rules, &attributes) => {
                return ControlFlow::Break(grant.to_string());
            }
            Some(_) => {}
            None => missing.push(grant.missing_role()),
        }
        ControlFlow::Continue(())
    });
    match found {
        ControlFlow::Break(grant) => grant,
        ControlFlow::Continue(()) => format!("{missing:?}"),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn tables_decide_as_rules_do_one_by_one(steps in proptest::collection::vec(some_step(), 1..40)) {
        let mut index = Index::default();
        for step in steps {
            match step {
                Step::PutRole(namespace, name, rules) => index.put_role(namespace, name, &rules),
                Step::RemoveRole(namespace, name) => index.remove_role(namespace, name),
                Step::Bind(namespace, name, role, whoms) => index.put_binding(namespace, name, &role, &whoms),
                Step::Unbind(namespace, name) => index.remove_binding(namespace, name),
                Step::Ask(questions) => for question in questions {
                    let attributes = question.attributes();
                    for _ in 0..index::OFTEN {
                        let _not_yet = index.decide(&question.user, &attributes);
                    }
                    let decided = match index.decide(&question.user, &attributes) {
                        Ok(grant) => grant.to_string(),
                        Err(missing) => format!("{missing:?}"),
                    };
                    prop_assert_eq!(decided, plainly(&index, &question), "{:?}", question);
                },
            }
        }
    }
}
