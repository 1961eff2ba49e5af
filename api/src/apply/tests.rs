//! Applications as users make them, and what must hold for all of them.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::object::Object as _;
use crate::schema as table;
use crate::status::{ApiError, ApiResult};

const APPS: &str = "apps/v1";

/// One version of a built-in kind.
struct OneVersion(&'static table::Definition);

impl Converter for OneVersion {
    fn schema(&self, version: &str) -> Option<&dyn Schema> {
        (version == APPS).then_some(self.0 as &dyn Schema)
    }

    fn convert(&self, _: &Value, _: &str, _: &str) -> Option<Result<Value, String>> {
        None
    }
}

fn deployments() -> OneVersion {
    OneVersion(table::by_kind("apps", "v1", "Deployment").expect("deployments"))
}

fn manager(name: &str, operation: Operation) -> Manager {
    Manager {
        name: name.to_owned(),
        operation,
        version: APPS.to_owned(),
        subresource: String::new(),
    }
}

fn value(fields: FieldSet) -> Value {
    serde_json::from_str(&fields.into_json()).expect("json")
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).expect("a time")
}

/// An object and who manages it.
#[derive(Clone, Debug, Default, PartialEq)]
struct Live {
    object: Option<Value>,
    managed: Managed,
}

impl Live {
    fn apply(&mut self, name: &str, config: &Value, force: bool) -> Result<(), Failure> {
        let kind = deployments();
        let empty = json!({});
        let reset = FieldSet::of_fields(&[&["status"]]);
        let application = Application {
            config,
            live: self.object.as_ref().unwrap_or(&empty),
            exists: self.object.is_some(),
            manager: manager(name, Operation::Apply),
            force,
            reset: &reset,
            now: at(100),
        };
        application.validate(&kind)?;
        let (object, managed) = application.apply(&self.managed, &kind)?;
        if let Some(object) = object {
            self.object = Some(object);
        }
        self.managed = managed;
        Ok(())
    }

    fn update(&mut self, name: &str, second: i64, change: impl FnOnce(&mut Value)) {
        let mut new = self.object.clone().unwrap_or_else(|| json!({}));
        change(&mut new);
        let view = View {
            schema: deployments().0,
            old: self
                .object
                .as_ref()
                .map(|object| Tree::of_object(object).expect("a tree")),
            new: Tree::of_object(&new).expect("a tree"),
            reset: &FieldSet::of_fields(&[&["status"]]),
            shapes: None,
        };
        let by = manager(name, Operation::Update);
        update(&mut self.managed, by, at(second), &view, &mut |_| None).expect("an update");
        self.object = Some(new);
    }

    fn fields(&self, name: &str) -> Value {
        let entries = self.managed.clone().into_entries().unwrap_or_default();
        entries
            .into_iter()
            .find(|entry| entry.manager.as_deref() == Some(name))
            .and_then(|entry| entry.fields_v1)
            .map_or(Value::Null, |fields| {
                serde_json::from_str(&crate::packed::text(&fields)).expect("json")
            })
    }

    fn get(&self, pointer: &str) -> Value {
        self.object
            .as_ref()
            .and_then(|object| object.pointer(pointer))
            .cloned()
            .unwrap_or_default()
    }
}

fn config(spec: Value) -> Value {
    json!({"apiVersion": APPS, "kind": "Deployment", "metadata": {"name": "web"}, "spec": spec})
}

fn containers(list: Value) -> Value {
    json!({"template": {"spec": {"containers": list}}})
}

fn refused(result: Result<(), Failure>) -> ApiError {
    match result {
        Err(Failure::Conflicts(conflicts)) => conflict::refusal(conflicts),
        other => panic!("a conflict was expected: {other:?}"),
    }
}

#[test]
fn a_create_owns_what_it_wrote_and_not_what_every_object_has() {
    let mut live = Live::default();
    live.update("kubectl-create", 1, |object| {
        *object = config(json!({
            "replicas": 1,
            "selector": {"matchLabels": {"app": "web"}},
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%"}},
            "template": {
                "metadata": {"labels": {"app": "web"}},
                "spec": {
                    "containers": [{"name": "c", "image": "i", "ports": [{"containerPort": 80, "protocol": "TCP"}],
                        "livenessProbe": {"httpGet": {"path": "/"}}, "args": ["x"]}],
                    "securityContext": {},
                    "volumes": [{"name": "v", "emptyDir": {}}],
                },
            },
        }));
        object["metadata"] = json!({"name": "web", "uid": "u", "generation": 1, "labels": {"app": "web"}});
        object["status"] = json!({"replicas": 1});
    });
    let expected = json!({
        "f:metadata": {"f:labels": {".": {}, "f:app": {}}},
        "f:spec": {
            "f:replicas": {},
            "f:selector": {},
            "f:strategy": {"f:type": {}, "f:rollingUpdate": {".": {}, "f:maxSurge": {}}},
            "f:template": {
                "f:metadata": {"f:labels": {".": {}, "f:app": {}}},
                "f:spec": {
                    "f:containers": {
                        "k:{\"name\":\"c\"}": {
                            ".": {}, "f:name": {}, "f:image": {}, "f:args": {},
                            "f:ports": {".": {}, "k:{\"containerPort\":80,\"protocol\":\"TCP\"}":
                                {".": {}, "f:containerPort": {}, "f:protocol": {}}},
                            "f:livenessProbe": {".": {}, "f:httpGet": {".": {}, "f:path": {}}},
                        },
                    },
                    "f:securityContext": {},
                    "f:volumes": {".": {}, "k:{\"name\":\"v\"}": {".": {}, "f:name": {}, "f:emptyDir": {}}},
                },
            },
        },
    });
    assert_eq!(live.fields("kubectl-create"), expected);
}

#[test]
fn others_lose_what_is_changed_and_keep_their_time() {
    let mut live = Live::default();
    live.update("one", 1, |object| {
        *object = config(json!({"replicas": 1, "paused": true}))
    });
    live.update("two", 2, |object| object["spec"]["replicas"] = 2.into());
    assert_eq!(live.fields("one"), json!({"f:spec": {"f:paused": {}}}));
    assert_eq!(live.fields("two"), json!({"f:spec": {"f:replicas": {}}}));
    let time = |live: &Live, name: &str| {
        let entry = live.managed.entries().iter().find(|e| e.manager.name == name);
        entry.and_then(|e| e.time)
    };
    assert_eq!(
        (time(&live, "one"), time(&live, "two")),
        (Some(at(1)), Some(at(2)))
    );
    let before = live.clone();
    live.update("three", 3, |_| {});
    assert_eq!(live, before);
    // A status through the object itself is set back, and so nobody's.
    live.update("three", 3, |object| object["status"] = json!({"replicas": 2}));
    assert_eq!(live.fields("three"), Value::Null);
    live.update("two", 4, |object| {
        object["spec"].as_object_mut().expect("a spec").remove("paused");
    });
    assert_eq!(live.fields("one"), Value::Null);
}

#[test]
fn an_object_without_managers_stays_without() {
    let mut live = Live {
        object: Some(config(json!({"replicas": 1}))),
        managed: Managed::default(),
    };
    live.update("one", 1, |object| object["spec"]["replicas"] = 2.into());
    assert!(live.managed.is_empty());
    live.apply("applier", &config(json!({"paused": true})), false)
        .expect("applied");
    assert_eq!(
        live.fields("before-first-apply"),
        json!({"f:spec": {"f:replicas": {}}})
    );
}

#[test]
fn conflicts_are_told_and_can_be_forced() {
    let mut live = Live::default();
    live.apply("one", &config(json!({"replicas": 1})), false)
        .expect("applied");
    live.update("kubectl-scale", 5, |object| object["spec"]["replicas"] = 3.into());
    let wanted = config(json!({"replicas": 1, "paused": true}));
    let error = refused(live.clone().apply("one", &wanted, false));
    assert_eq!(error.code(), 409);
    assert_eq!(
        error.message(),
        "Apply failed with 1 conflict: conflict with \"kubectl-scale\" using apps/v1: .spec.replicas"
    );
    let cause = &error.causes()[0];
    assert_eq!(cause.reason.as_deref(), Some("FieldManagerConflict"));
    assert_eq!(cause.field.as_deref(), Some(".spec.replicas"));
    assert_eq!(
        cause.message.as_deref(),
        Some("conflict with \"kubectl-scale\" using apps/v1")
    );
    live.apply("one", &wanted, true).expect("forced");
    assert_eq!(live.get("/spec/replicas"), 1);
    assert_eq!(live.fields("kubectl-scale"), Value::Null);
    // The same value is no conflict: both manage it.
    live.apply("two", &config(json!({"replicas": 1, "paused": true})), false)
        .expect("shared");
    let wanted = config(json!({"replicas": 2, "paused": false}));
    let error = refused(live.apply("three", &wanted, false));
    assert_eq!(
        error.message(),
        "Apply failed with 4 conflicts: conflicts with \"one\":\n- .spec.paused\n- .spec.replicas\nconflicts with \
         \"two\":\n- .spec.paused\n- .spec.replicas"
    );
}

#[test]
fn what_is_no_longer_applied_goes_unless_others_manage_it() {
    let mut live = Live::default();
    let both = json!([{"name": "a", "image": "1", "env": [{"name": "X", "value": "1"}]}, {"name": "b", "image": "1"}]);
    live.apply("one", &config(containers(both)), false)
        .expect("applied");
    live.update("other", 5, |object| {
        for container in object["spec"]["template"]["spec"]["containers"]
            .as_array_mut()
            .expect("containers")
        {
            container["tty"] = true.into();
        }
    });
    let only_a = config(containers(json!([{"name": "a", "image": "1"}])));
    live.apply("one", &only_a, false).expect("applied");
    // The environment was only the applier's, as was the second container itself, whatever others did in it.
    assert_eq!(
        live.get("/spec/template/spec/containers"),
        json!([{"name": "a", "image": "1", "tty": true}])
    );
    live.apply("two", &config(json!({"replicas": 3})), false)
        .expect("applied");
    live.apply("two", &config(json!({})), false).expect("applied");
    assert_eq!(live.get("/spec/replicas"), Value::Null);
    assert_eq!(live.fields("two"), json!({"f:spec": {}}));
}

#[test]
fn lists_are_merged_by_their_keys_in_the_applied_order() {
    let mut live = Live::default();
    let list = |names: &[&str]| -> Value { names.iter().map(|n| json!({"name": n, "image": "i"})).collect() };
    live.apply("one", &config(containers(list(&["a", "b", "c"]))), false)
        .expect("applied");
    live.apply("two", &config(containers(list(&["d", "b", "a"]))), false)
        .expect("applied");
    let names: Vec<_> = live
        .get("/spec/template/spec/containers")
        .as_array()
        .expect("containers")
        .iter()
        .map(|c| c["name"].as_str().expect("a name").to_owned())
        .collect();
    assert_eq!(names, ["d", "b", "c", "a"]);
    // A port without a protocol is the port of the default protocol.
    let port = |port: Value| config(containers(json!([{"name": "a", "image": "i", "ports": [port]}])));
    live.apply("one", &port(json!({"containerPort": 80})), false)
        .expect("applied");
    live.apply(
        "two",
        &port(json!({"containerPort": 80, "protocol": "TCP", "name": "http"})),
        false,
    )
    .expect("applied");
    let ports = live.get("/spec/template/spec/containers/0/ports");
    assert_eq!(
        ports,
        json!([{"containerPort": 80, "protocol": "TCP", "name": "http"}])
    );
}

#[test]
fn atomic_things_are_owned_as_a_whole() {
    let mut live = Live::default();
    live.apply(
        "one",
        &config(json!({"selector": {"matchLabels": {"a": "1"}}})),
        false,
    )
    .expect("applied");
    assert_eq!(live.fields("one"), json!({"f:spec": {"f:selector": {}}}));
    let error = refused(live.apply(
        "two",
        &config(json!({"selector": {"matchLabels": {"b": "1"}}})),
        false,
    ));
    assert!(
        error.message().ends_with("conflict with \"one\": .spec.selector"),
        "{}",
        error.message()
    );
}

#[test]
fn what_does_not_fit_is_told_with_its_place() {
    let told = |spec: Value| match Live::default().apply("one", &config(spec), false) {
        Err(Failure::Invalid(problem)) => problem,
        other => panic!("a mistake was expected: {other:?}"),
    };
    assert_eq!(told(json!({"foo": 1})), ".spec.foo: field not declared in schema");
    assert_eq!(
        told(json!({"replicas": "1"})),
        ".spec.replicas: expected numeric (int or float), got string"
    );
    assert_eq!(
        told(containers(
            json!([{"name": "a", "env": [{"name": "X", "value": 5}]}])
        )),
        ".spec.template.spec.containers[name=\"a\"].env[name=\"X\"].value: expected string, got \
         &value.valueUnstructured{Value:5}"
    );
    assert_eq!(
        told(containers(json!([{"name": "a"}, {"name": "a"}]))),
        ".spec.template.spec.containers: duplicate entries for key [name=\"a\"]"
    );
}

#[test]
fn client_side_apply_is_no_conflict_where_nothing_has_changed() {
    let applied = config(json!({"replicas": 1, "paused": true}));
    let mut live = Live::default();
    live.update("kubectl-client-side-apply", 1, |object| {
        *object = applied.clone();
        object["metadata"]["annotations"] = json!({last_applied::ANNOTATION: applied.to_string()});
    });
    let wanted = config(json!({"replicas": 2, "paused": true}));
    let Err(Failure::Conflicts(conflicts)) = live.clone().apply("kubectl", &wanted, false) else {
        panic!("a conflict was expected");
    };
    let object = live.object.clone().expect("an object");
    let kind = deployments();
    let left = last_applied::remaining(&conflicts, &object, APPS, kind.0).expect("an annotation");
    assert!(left.is_empty(), "{left:?}");
    live.update("kubectl-edit", 2, |object| object["spec"]["replicas"] = 5.into());
    let Err(Failure::Conflicts(conflicts)) = live.clone().apply("kubectl", &wanted, false) else {
        panic!("a conflict was expected");
    };
    let object = live.object.clone().expect("an object");
    let left = last_applied::remaining(&conflicts, &object, APPS, kind.0).expect("an annotation");
    assert_eq!(left.len(), 1);
    let mut followed = object;
    last_applied::follow(&mut followed, &wanted);
    let text = last_applied::annotation(&followed).expect("an annotation");
    assert_eq!(serde_json::from_str::<Value>(text).expect("json"), wanted);
}

#[test]
fn without_a_schema_maps_are_granular_and_lists_atomic() {
    let (old, new) = (
        json!({"spec": {"a": {"b": 1}, "l": [{"name": "x"}]}}),
        json!({"spec": {"a": {"b": 1, "c": 2}, "l": [{"name": "y"}], "s": 1}}),
    );
    let (old, new) = (Tree::of(&old).expect("a tree"), Tree::of(&new).expect("a tree"));
    let comparison = compare(&Deduced, Some(old.root()), new.root()).expect("a comparison");
    assert_eq!(
        value(comparison.added),
        json!({"f:spec": {"f:a": {"f:c": {}}, "f:s": {}}})
    );
    assert_eq!(value(comparison.modified), json!({"f:spec": {"f:l": {}}}));
    // A map where there was a scalar.
    let (old, new) = (json!({"a": 1}), json!({"a": {"b": 1}}));
    let (old, new) = (Tree::of(&old).expect("a tree"), Tree::of(&new).expect("a tree"));
    let comparison = compare(&Deduced, Some(old.root()), new.root()).expect("a comparison");
    assert_eq!(value(comparison.modified), json!({"f:a": {}}));
    assert_eq!(value(comparison.added), json!({"f:a": {"f:b": {}}}));
}

/// Specs of Deployments with the kinds of fields that matter: scalars, granular maps, lists by key, atomic lists.
fn specs() -> impl Strategy<Value = Value> {
    let name = prop::sample::select(vec!["a", "b", "c"]);
    let container = (
        name.clone(),
        "[xy]",
        prop::option::of(any::<bool>()),
        prop::collection::vec("[pq]", 0..3),
    )
        .prop_map(|(name, image, tty, args)| {
            let mut container = json!({"name": name, "image": image});
            if let Some(tty) = tty {
                container["tty"] = tty.into();
            }
            if !args.is_empty() {
                container["args"] = args.into();
            }
            container
        });
    let containers = prop::collection::vec(container, 0..4).prop_map(|mut list| {
        list.sort_by_key(|c: &Value| c["name"].to_string());
        list.dedup_by_key(|c| c["name"].clone());
        list
    });
    let labels = prop::collection::btree_map("[kl]", "[vw]", 0..3);
    (prop::option::of(0..3i32), containers, labels).prop_map(|(replicas, containers, labels)| {
        let mut spec = json!({});
        if let Some(replicas) = replicas {
            spec["replicas"] = replicas.into();
        }
        if !containers.is_empty() {
            spec["template"]["spec"]["containers"] = containers.into();
        }
        if !labels.is_empty() {
            spec["template"]["metadata"]["labels"] = json!(labels);
        }
        config(spec)
    })
}

proptest! {
    /// Applying again changes nothing, and nobody's fields.
    #[test]
    fn applying_twice_is_applying_once(first in specs(), second in specs()) {
        let mut live = Live::default();
        live.apply("one", &first, false).expect("applied");
        live.apply("two", &second, true).expect("applied");
        let before = live.clone();
        live.apply("two", &second, false).expect("applied");
        prop_assert_eq!(&live, &before);
    }

    /// What is applied is there, whatever was there before.
    #[test]
    fn the_applied_is_in_the_result(first in specs(), second in specs()) {
        let mut live = Live::default();
        live.apply("one", &first, false).expect("applied");
        live.apply("two", &second, true).expect("applied");
        let kind = deployments();
        let tree = |value: &Value| Tree::of(value).expect("a tree");
        let comparison = compare(kind.0, Some(tree(&second).root()), tree(live.object.as_ref().expect("an object")).root())
            .expect("a comparison");
        prop_assert!(comparison.modified.is_empty() && comparison.removed.is_empty(), "{comparison:?}");
    }

    /// A manager that applies alone gets exactly what it says, the last time counting.
    #[test]
    fn alone_the_last_one_counts(first in specs(), second in specs()) {
        let mut live = Live::default();
        live.apply("one", &first, false).expect("applied");
        live.apply("one", &second, false).expect("applied");
        let mut fresh = Live::default();
        fresh.apply("one", &second, false).expect("applied");
        prop_assert_eq!(live.get("/spec"), fresh.get("/spec"));
        prop_assert_eq!(live.fields("one"), fresh.fields("one"));
    }

    /// Managers that do not touch each other's fields may come in any order.
    #[test]
    fn order_does_not_matter_without_conflicts(first in specs(), second in specs()) {
        let run = |order: [(&str, &Value); 2]| {
            let mut live = Live::default();
            order.iter().try_for_each(|(name, config)| live.apply(name, config, false)).map(|()| live)
        };
        let (Ok(one), Ok(other)) = (
            run([("one", &first), ("two", &second)]),
            run([("two", &second), ("one", &first)]),
        ) else {
            return Ok(());
        };
        for name in ["one", "two"] {
            prop_assert_eq!(one.fields(name), other.fields(name));
        }
        let kind = deployments();
        let tree = |live: &Live| Tree::of(live.object.as_ref().expect("an object")).expect("a tree");
        let comparison = compare(kind.0, Some(tree(&one).root()), tree(&other).root()).expect("a comparison");
        prop_assert!(comparison.is_empty(), "{comparison:?}");
    }

    /// Sets read back as they were written, and add and take away as sets do.
    #[test]
    fn sets_are_sets(first in specs(), second in specs()) {
        let kind = deployments();
        let of = |config: &Value| {
            let tree = Tree::of(config).expect("a tree");
            compare(kind.0, None, tree.root()).expect("a comparison").changed()
        };
        let (a, b) = (of(&first), of(&second));
        prop_assert_eq!(&FieldSet::parse(&a.clone().into_json()).expect("a set"), &a);
        let mut union = a.clone();
        union.union(&b);
        let mut other = b.clone();
        other.union(&a);
        prop_assert_eq!(&union, &other);
        let mut only_a = a.clone();
        only_a.subtract(&b);
        let mut again = only_a.clone();
        again.union(&a.intersection(&b));
        prop_assert_eq!(&again, &a);
        for path in only_a.paths() {
            prop_assert!(a.contains(&path) && !b.contains(&path));
        }
        let mut nothing = a.clone();
        nothing.subtract_below(&a);
        prop_assert!(nothing.is_empty());
    }
}

#[test]
fn the_metadata_tells_what_changed_in_it() {
    let pod = |annotations: Value, labels: Value| -> Pod {
        let json = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": "a", "annotations": annotations, "labels": labels, "managedFields": [{"manager": "m"}]},
            "spec": {"containers": [{"name": "c", "image": "i"}]},
        });
        serde_json::from_value(json).expect("a pod")
    };
    let schema = table::by_kind("", "v1", "Pod").expect("pods");
    let old = pod(json!({"a": "1", "b": "2"}), json!(null));
    let new = pod(json!({"a": "3"}), json!({"c": "4"}));
    let compared = |old: ApiResult<Tree>, new: ApiResult<Tree>| {
        let (old, new) = (old.expect("a tree"), new.expect("a tree"));
        compare(schema, Some(old.root()), new.root()).expect("a comparison")
    };
    let of_metadata = compared(old.tree_of_metadata(), new.tree_of_metadata());
    assert_eq!(of_metadata, compared(old.tree(), new.tree()));
    let modified = value(of_metadata.modified);
    assert_eq!(modified, json!({"f:metadata": {"f:annotations": {"f:a": {}}}}));
}
