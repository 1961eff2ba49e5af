//! Laying a few fields over an object on nobody's behalf: what admission policies apply.

use serde_json::Value;

use super::merge::merge;
use super::schema::Schema;
use super::tree::Tree;
use super::validate::validate;

/// The object with the fields laid over it. Nobody becomes their manager. What is owned as a whole may not be among
/// them: whoever writes a part of it would drop the rest. The error is in upstream's words.
pub fn overlay(schema: &dyn Schema, live: Value, fields: &Value) -> Result<Value, String> {
    let tree = Tree::of(fields)?;
    validate(schema, tree.root())
        .map_err(|why| format!("failed to convert patch object to typed object: {why}"))?;
    let mut whole = Vec::new();
    find_whole(schema, fields, &mut String::new(), &mut whole);
    if !whole.is_empty() {
        return Err(format!(
            "invalid ApplyConfiguration: may not mutate atomic arrays, maps or structs: {}",
            whole.join(", ")
        ));
    }
    merge(schema, live, fields).map_err(|why| format!("failed to merge patch: {why}"))
}

/// Places of values that are owned as a whole, below `path`.
fn find_whole(schema: &dyn Schema, value: &Value, path: &mut String, found: &mut Vec<String>) {
    let length = path.len();
    match value {
        Value::Object(map) => {
            if schema.atomic_map() {
                found.push(path.clone());
            }
            for (name, value) in map {
                if let Some(child) = schema.field(name).filter(|child| child.declared) {
                    path.push('.');
                    path.push_str(name);
                    find_whole(child.schema, value, path, found);
                    path.truncate(length);
                }
            }
        }
        Value::Array(list) => {
            if schema.list().is_atomic() {
                found.push(path.clone());
            }
            let Some(items) = schema.items() else { return };
            for (index, value) in list.iter().enumerate() {
                path.push_str(&format!("[{index}]"));
                find_whole(items, value, path, found);
                path.truncate(length);
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::schema::by_kind;

    fn laid(live: Value, fields: Value) -> Result<Value, String> {
        overlay(
            by_kind("apps", "v1", "Deployment").expect("deployments"),
            live,
            &fields,
        )
    }

    #[test]
    fn maps_and_keyed_lists_are_merged() {
        let live = json!({"metadata": {"labels": {"a": "b"}}, "spec": {"replicas": 1, "template": {"spec": {
            "containers": [{"name": "c", "image": "i"}]}}}});
        let fields = json!({"metadata": {"labels": {"x": "y"}}, "spec": {"replicas": 3, "template": {"spec": {
            "containers": [{"name": "c", "env": [{"name": "E", "value": "1"}]}, {"name": "side", "image": "s"}]}}}});
        let merged = laid(live, fields).expect("fields that fit");
        assert_eq!(merged["metadata"]["labels"], json!({"a": "b", "x": "y"}));
        assert_eq!(merged["spec"]["replicas"], 3);
        assert_eq!(
            merged["spec"]["template"]["spec"]["containers"],
            json!([{"name": "c", "image": "i", "env": [{"name": "E", "value": "1"}]}, {"name": "side", "image": "s"}])
        );
    }

    #[test]
    fn what_is_owned_as_a_whole_stays_whole() {
        let fields = json!({"spec": {"selector": {"matchLabels": {"a": "b"}}, "template": {"spec": {
            "containers": [{"name": "c", "args": ["x"]}]}}}});
        assert_eq!(
            laid(json!({}), fields),
            Err(
                "invalid ApplyConfiguration: may not mutate atomic arrays, maps or structs: .spec.selector, \
                 .spec.template.spec.containers[0].args"
                    .to_owned()
            )
        );
        let unknown = laid(json!({}), json!({"spec": {"nope": 1}})).expect_err("an unknown field");
        assert!(
            unknown.starts_with("failed to convert patch object to typed object: "),
            "{unknown}"
        );
    }
}
