//! The fields of new objects that are like one that came before.
//!
//! Which fields somebody manages who creates an object depends on what there is in it, and hardly on the values: the pods
//! of a template, the events of a reporter, the leases of nodes have the same. What was worked out for the first of them
//! is kept under all of the object that it depends on, its shape.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;

use super::schema::Schema;
use super::set::FieldSet;
use super::tree::{Ref, Sort};
use crate::schema;

/// Shapes kept at most; with one more all of them are forgotten.
const MOST: usize = 256;
/// Bytes of the largest shape that is kept.
const LARGEST: usize = 16 << 10;

/// Ends a text in a shape: no byte of UTF-8.
const END: u8 = 0xff;

/// Sets of fields, by the shapes of the new objects they are of. A shape and its set take some four kilobytes.
#[derive(Debug, Default)]
pub struct Shapes(Mutex<HashMap<Box<[u8]>, Arc<FieldSet>>>);

impl Shapes {
    /// What `work_out` finds for this object, or found for one of the same shape.
    pub(super) fn fields(
        &self,
        schema: &dyn Schema,
        reset: &FieldSet,
        object: Ref<'_>,
        work_out: impl FnOnce() -> Result<FieldSet, String>,
    ) -> Result<FieldSet, String> {
        let Some(shape) = shape(schema, reset, object) else {
            return work_out();
        };
        let known = self.0.lock().get(shape.as_slice()).cloned();
        if let Some(known) = known {
            return Ok(FieldSet::clone(&known));
        }
        let fields = work_out()?;
        let mut known = self.0.lock();
        if known.len() >= MOST {
            known.clear();
        }
        known.insert(shape.into(), Arc::new(fields.clone()));
        Ok(fields)
    }
}

/// All that the fields of a new object depend on. `None` where that cannot be told, and for objects that are too large.
fn shape(schema: &dyn Schema, reset: &FieldSet, object: Ref<'_>) -> Option<Vec<u8>> {
    let name = schema.name()?;
    let mut out = Vec::with_capacity(4096);
    text(name, &mut out);
    text(reset.members(), &mut out);
    outline(object, false, &mut out);
    (out.len() <= LARGEST).then_some(out)
}

/// Names of fields and what sort their values are. A value itself counts where it may be what tells the elements of a
/// list apart.
fn outline(value: Ref<'_>, in_list: bool, out: &mut Vec<u8>) {
    match value.sort() {
        Sort::Null => out.push(b'n'),
        Sort::Scalar if value.is_zero() => out.push(b'0'),
        Sort::Scalar => out.push(b's'),
        Sort::Map => {
            out.push(b'{');
            for (name, inner) in value.entries() {
                text(name, out);
                if in_list && inner.sort() == Sort::Scalar && schema::is_list_key(name) {
                    scalar(inner, out);
                } else {
                    outline(inner, in_list, out);
                }
            }
            out.push(b'}');
        }
        Sort::List => {
            out.push(b'[');
            for element in value.items() {
                match element.sort() {
                    Sort::Scalar => scalar(element, out),
                    _ => outline(element, true, out),
                }
            }
            out.push(b']');
        }
    }
}

fn text(text: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(text.as_bytes());
    out.push(END);
}

fn scalar(value: Ref<'_>, out: &mut Vec<u8>) {
    match (value.text(), value.boolean()) {
        (Some(string), _) => {
            out.push(b'"');
            text(string, out);
        }
        (None, Some(boolean)) => out.push(if boolean { b't' } else { b'f' }),
        (None, None) => {
            out.push(b'#');
            let number = value.number().map(|number| number.to_string());
            text(&number.unwrap_or_default(), out);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::super::compare::compare;
    use super::super::tree::Tree;
    use super::*;

    fn pods() -> &'static schema::Definition {
        schema::by_kind("", "v1", "Pod").expect("pods")
    }

    fn anew(tree: &Tree) -> Result<FieldSet, String> {
        compare(pods(), None, tree.root()).map(|found| found.added)
    }

    fn pod(name: &str, image: &str, env: Value) -> Value {
        json!({"metadata": {"name": name, "labels": {"app": name}},
            "spec": {"containers": [{"name": "c", "image": image, "env": [env], "args": ["-v"]}]}})
    }

    /// Shapes that are known after a pod like the first and then these.
    fn shapes(others: &[Value]) -> usize {
        let shapes = Shapes::default();
        let first = pod("a", "i", json!({"name": "E", "value": "1"}));
        for object in std::iter::once(&first).chain(others) {
            let tree = Tree::of_object(object).expect("a tree");
            let found = shapes.fields(pods(), &FieldSet::default(), tree.root(), || anew(&tree));
            assert_eq!(found, anew(&tree), "{object}");
        }
        shapes.0.lock().len()
    }

    #[test]
    fn values_make_no_shape_but_where_they_tell_elements_apart() {
        assert_eq!(shapes(&[pod("b", "j", json!({"name": "E", "value": "2"}))]), 1);
        assert_eq!(shapes(&[pod("a", "i", json!({"name": "F", "value": "1"}))]), 2);
        assert_eq!(shapes(&[pod("a", "i", json!({"name": "E", "value": null}))]), 2);
        assert_eq!(shapes(&[pod("a", "", json!({"name": "E", "value": "1"}))]), 2);
        let mut labelled = pod("a", "i", json!({"name": "E", "value": "1"}));
        labelled["metadata"]["labels"]["more"] = "x".into();
        assert_eq!(shapes(&[labelled]), 2);
    }

    #[test]
    fn no_more_is_kept_than_there_is_room_for() {
        let others: Vec<Value> = (0..MOST)
            .map(|n| pod("a", "i", json!({"name": format!("E{n}"), "value": "1"})))
            .collect();
        assert_eq!(shapes(&others[1..]), MOST);
        assert_eq!(shapes(&others), 1);
        let huge = pod("a", "i", json!({"name": "x".repeat(LARGEST), "value": "1"}));
        assert_eq!(shapes(&[huge]), 1);
    }

    /// Pods of some sort: names of fields that pods have, values that fit and such that do not.
    fn some_pod() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(json!(null)),
            Just(json!(false)),
            Just(json!(true)),
            Just(json!(0)),
            Just(json!(80)),
            Just(json!(80.0)),
            Just(json!("")),
            Just(json!("a")),
            Just(json!("TCP")),
        ];
        let name = prop_oneof![
            Just("metadata"),
            Just("spec"),
            Just("labels"),
            Just("finalizers"),
            Just("containers"),
            Just("name"),
            Just("ports"),
            Just("containerPort"),
            Just("protocol"),
            Just("volumes"),
            Just("emptyDir"),
            Just("args"),
            Just("status"),
        ];
        leaf.prop_recursive(6, 24, 3, move |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
                prop::collection::vec((name.clone(), inner), 0..4)
                    .prop_map(|entries| entries.into_iter().map(|(k, v)| (k.to_owned(), v)).collect()),
            ]
        })
    }

    proptest! {
        #[test]
        fn known_shapes_have_the_fields_that_would_be_found(pods_of_all_sorts in prop::collection::vec(some_pod(), 2..12)) {
            let shapes = Shapes::default();
            for pod in pods_of_all_sorts {
                let whole = json!({"metadata": {"labels": pod.clone()}, "spec": {"containers": [pod.clone()], "volumes": pod}});
                let tree = Tree::of_object(&whole).expect("a tree");
                let found = shapes.fields(pods(), &FieldSet::default(), tree.root(), || anew(&tree));
                prop_assert_eq!(found, anew(&tree));
            }
        }
    }
}
