//! Sets of fields, in the form they travel in: `metav1.FieldsV1`.
//!
//! A node that is empty is a member of the set; one with steps below is only on the way, unless it holds `"."`. The set
//! is kept as this very JSON, so that reading and writing managed fields costs nothing beyond the object's own.
//! Source: KEP-555, structured-merge-diff's `fieldpath`.

use serde_json::{Map, Value};

use super::element;
use super::schema::Schema;

/// What marks a node that has steps below as a member, too.
const ITSELF: &str = ".";

type Nodes = Map<String, Value>;

/// A set of fields.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FieldSet(Nodes);

fn below(value: &Value) -> Option<&Nodes> {
    value.as_object()
}

fn is_member(nodes: &Nodes) -> bool {
    nodes.is_empty() || nodes.contains_key(ITSELF)
}

fn has_children(nodes: &Nodes) -> bool {
    nodes.keys().any(|step| step != ITSELF)
}

/// A node from its two halves; `None` if there is nothing to keep.
fn node(member: bool, mut children: Nodes) -> Option<Value> {
    children.remove(ITSELF);
    match (member, children.is_empty()) {
        (false, true) => None,
        (true, false) => {
            children.insert(ITSELF.to_owned(), Value::Object(Nodes::new()));
            Some(Value::Object(children))
        }
        _ => Some(Value::Object(children)),
    }
}

impl FieldSet {
    /// The set of these paths, each of field names.
    pub fn of_fields(paths: &[&[&str]]) -> Self {
        let mut set = Self::default();
        for path in paths {
            let steps: Vec<String> = path.iter().map(|name| element::field(name)).collect();
            set.insert(&steps);
        }
        set
    }

    /// From `fieldsV1`. Steps are brought into one form; what cannot be read is an error.
    pub fn read(fields: &Value) -> Result<Self, String> {
        fn nodes(value: &Value) -> Result<Nodes, String> {
            let given = value.as_object().ok_or("a set of fields must be an object")?;
            let mut read = Nodes::new();
            for (step, inner) in given {
                if step == ITSELF {
                    read.insert(step.clone(), Value::Object(Nodes::new()));
                } else if let Some(step) = element::canonical(step)? {
                    read.insert(step, Value::Object(nodes(inner)?));
                }
            }
            Ok(read)
        }
        let mut read = nodes(fields)?;
        read.remove(ITSELF);
        Ok(Self(read))
    }

    /// A set that this module made before.
    pub(super) fn trusted(fields: Value) -> Self {
        match fields {
            Value::Object(nodes) => Self(nodes),
            _ => Self::default(),
        }
    }

    /// As `fieldsV1`.
    pub fn into_value(self) -> Value {
        Value::Object(self.0)
    }

    pub(super) fn from_branch(children: Nodes) -> Self {
        Self(children)
    }

    /// Whether nothing is in it.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds one path.
    pub fn insert(&mut self, path: &[String]) {
        fn into(nodes: &mut Nodes, path: &[String]) {
            let Some((first, rest)) = path.split_first() else {
                return;
            };
            match nodes.get_mut(first) {
                None => {
                    let mut inner = Nodes::new();
                    into(&mut inner, rest);
                    nodes.insert(first.clone(), Value::Object(inner));
                }
                Some(Value::Object(inner)) if rest.is_empty() => {
                    if !inner.is_empty() {
                        inner.insert(ITSELF.to_owned(), Value::Object(Nodes::new()));
                    }
                }
                Some(Value::Object(inner)) => {
                    if inner.is_empty() {
                        inner.insert(ITSELF.to_owned(), Value::Object(Nodes::new()));
                    }
                    into(inner, rest);
                }
                Some(_) => {}
            }
        }
        into(&mut self.0, path);
    }

    /// Whether a path is a member.
    pub fn contains(&self, path: &[String]) -> bool {
        let mut nodes = &self.0;
        for (i, step) in path.iter().enumerate() {
            match nodes.get(step).and_then(below) {
                Some(inner) if i + 1 == path.len() => return is_member(inner),
                Some(inner) => nodes = inner,
                None => return false,
            }
        }
        false
    }

    /// Adds every member of another set.
    pub fn union(&mut self, other: &FieldSet) {
        fn merge(ours: &mut Nodes, theirs: &Nodes) {
            for (step, value) in theirs {
                let Some(theirs) = below(value) else { continue };
                match ours.get_mut(step) {
                    None => {
                        ours.insert(step.clone(), value.clone());
                    }
                    Some(Value::Object(ours)) => {
                        let member = is_member(ours) || is_member(theirs);
                        merge(ours, theirs);
                        if member && !ours.is_empty() {
                            ours.insert(ITSELF.to_owned(), Value::Object(Nodes::new()));
                        }
                    }
                    Some(_) => {}
                }
            }
        }
        fn without_mark(nodes: &mut Nodes) {
            nodes.remove(ITSELF);
        }
        merge(&mut self.0, &other.0);
        without_mark(&mut self.0);
    }

    /// Takes out every member of another set: those alone, not what lies below them.
    pub fn subtract(&mut self, other: &FieldSet) {
        fn walk(ours: &mut Nodes, theirs: &Nodes) {
            for (step, theirs) in theirs {
                let (Some(theirs), Some(Value::Object(inner))) = (below(theirs), ours.get_mut(step)) else {
                    continue;
                };
                let member = is_member(inner) && !is_member(theirs);
                let mut children = std::mem::take(inner);
                children.remove(ITSELF);
                walk(&mut children, theirs);
                match node(member, children) {
                    Some(left) => {
                        ours.insert(step.clone(), left);
                    }
                    None => {
                        ours.remove(step);
                    }
                }
            }
        }
        walk(&mut self.0, &other.0);
    }

    /// Takes out one path of field names, but not what lies below it.
    pub fn subtract_path(&mut self, path: &[&str]) {
        fn walk(nodes: &mut Nodes, path: &[&str]) {
            let Some((name, rest)) = path.split_first() else {
                return;
            };
            let step = element::field(name);
            let Some(Value::Object(inner)) = nodes.get_mut(&step) else {
                return;
            };
            if rest.is_empty() {
                if inner.is_empty() {
                    nodes.remove(&step);
                } else {
                    inner.remove(ITSELF);
                }
                return;
            }
            if inner.is_empty() {
                return;
            }
            walk(inner, rest);
            if !has_children(inner) {
                if is_member(inner) && !inner.is_empty() {
                    inner.clear();
                } else {
                    nodes.remove(&step);
                }
            }
        }
        walk(&mut self.0, path);
    }

    /// Takes out every member of another set and everything below it.
    pub fn subtract_below(&mut self, other: &FieldSet) {
        fn walk(ours: &mut Nodes, theirs: &Nodes) {
            for (step, theirs) in theirs {
                let (Some(theirs), Some(Value::Object(inner))) = (below(theirs), ours.get_mut(step)) else {
                    continue;
                };
                if is_member(theirs) {
                    ours.remove(step);
                    continue;
                }
                let member = is_member(inner);
                walk(inner, theirs);
                match (has_children(inner), member) {
                    (true, _) => {}
                    (false, true) => inner.clear(),
                    (false, false) => {
                        ours.remove(step);
                    }
                }
            }
        }
        walk(&mut self.0, &other.0);
    }

    /// The members of both sets.
    pub fn intersection(&self, other: &FieldSet) -> FieldSet {
        fn walk(ours: &Nodes, theirs: &Nodes) -> Nodes {
            let mut both = Nodes::new();
            for (step, value) in ours {
                let (Some(ours), Some(theirs)) = (below(value), theirs.get(step).and_then(below)) else {
                    continue;
                };
                if step == ITSELF {
                    continue;
                }
                let member = is_member(ours) && is_member(theirs);
                if let Some(node) = node(member, walk(ours, theirs)) {
                    both.insert(step.clone(), node);
                }
            }
            both
        }
        Self(walk(&self.0, &other.0))
    }

    /// Every member's path, a node's before those below it.
    pub fn paths(&self) -> Vec<Vec<String>> {
        fn walk(nodes: &Nodes, path: &mut Vec<String>, found: &mut Vec<Vec<String>>) {
            let steps = || {
                nodes
                    .iter()
                    .filter(|(step, _)| *step != ITSELF)
                    .filter_map(|(step, value)| Some((step, below(value)?)))
            };
            for (step, inner) in steps() {
                if is_member(inner) {
                    let mut whole = path.clone();
                    whole.push(step.clone());
                    found.push(whole);
                }
            }
            for (step, inner) in steps().filter(|(_, inner)| has_children(inner)) {
                path.push(step.clone());
                walk(inner, path, found);
                path.pop();
            }
        }
        let mut found = Vec::new();
        walk(&self.0, &mut Vec::new(), &mut found);
        found
    }

    /// The steps of the first level: each with whether it is a member and what lies below it.
    pub(super) fn view(&self) -> SetView<'_> {
        SetView(Some(&self.0))
    }

    /// The same set and, besides, every field of a struct that the set has something below of.
    pub(super) fn with_named_fields(&self, schema: &dyn Schema) -> FieldSet {
        fn walk(nodes: &Nodes, schema: Option<&dyn Schema>) -> Nodes {
            let mut out = Nodes::new();
            for (step, value) in nodes {
                let Some(inner) = below(value).filter(|_| step != ITSELF) else {
                    continue;
                };
                let name = element::field_name(step);
                let found = name.and_then(|name| schema?.field(name));
                let declared = found.as_ref().is_some_and(|field| field.declared);
                let below = match name {
                    Some(_) => found.map(|field| field.schema),
                    None => schema.and_then(|list| list.items()),
                };
                let member = is_member(inner) || declared;
                if let Some(node) = node(member, walk(inner, below)) {
                    out.insert(step.clone(), node);
                }
            }
            out
        }
        Self(walk(&self.0, Some(schema)))
    }

    /// The set after the schema has changed: of what is now owned as a whole, nothing below remains.
    pub(super) fn settled(&self, schema: &dyn Schema) -> FieldSet {
        fn walk(nodes: &Nodes, schema: &dyn Schema) -> Nodes {
            let mut out = Nodes::new();
            for (step, value) in nodes {
                let Some(inner) = below(value).filter(|_| step != ITSELF) else {
                    continue;
                };
                let named = element::field_name(step);
                let there = match named {
                    Some(name) => schema.field(name).map(|field| field.schema),
                    None => schema.items(),
                };
                let whole = there.filter(|_| has_children(inner)).is_some_and(|there| {
                    let elements = inner
                        .keys()
                        .any(|step| step != ITSELF && element::field_name(step).is_none());
                    if elements {
                        there.list().is_atomic()
                    } else {
                        there.atomic_map()
                    }
                });
                let kept = match there {
                    _ if whole => Some(Value::Object(Nodes::new())),
                    Some(there) => node(is_member(inner), walk(inner, there)),
                    None => Some(value.clone()),
                };
                if let Some(kept) = kept {
                    out.insert(step.clone(), kept);
                }
            }
            out
        }
        Self(walk(&self.0, schema))
    }
}

/// A set, or what lies below one of its nodes.
#[derive(Clone, Copy)]
pub(super) struct SetView<'s>(Option<&'s Nodes>);

impl<'s> SetView<'s> {
    /// Whether the step is a member, and what lies below it.
    pub(super) fn step(self, step: &str) -> (bool, SetView<'s>) {
        match self.0.and_then(|nodes| nodes.get(step)).and_then(below) {
            Some(inner) => (
                is_member(inner),
                SetView(Some(inner).filter(|inner| has_children(inner))),
            ),
            None => (false, SetView(None)),
        }
    }

    /// Whether nothing lies here.
    pub(super) fn is_empty(self) -> bool {
        self.0.is_none_or(|nodes| !has_children(nodes))
    }
}

/// A path as messages show it: `.spec.containers[name="a"].image`.
pub fn show_path(path: &[String]) -> String {
    let mut out = String::new();
    for step in path {
        element::show(step, &mut out);
    }
    out
}

/// What a walk found at one place: whether the place itself is meant, and what lies below.
#[derive(Default)]
pub(super) struct Branch {
    pub(super) member: bool,
    pub(super) children: Nodes,
}

impl Branch {
    /// The place itself.
    pub(super) fn leaf() -> Self {
        Self {
            member: true,
            children: Nodes::new(),
        }
    }

    /// Hangs a branch below this one. `step` is made only when there is something to hang.
    pub(super) fn attach(&mut self, step: impl FnOnce() -> String, branch: Branch) {
        if let Some(node) = node(branch.member, branch.children) {
            self.children.insert(step(), node);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn set(value: Value) -> FieldSet {
        FieldSet::read(&value).expect("a set")
    }

    #[test]
    fn a_node_may_be_a_member_and_have_others_below() {
        let one = set(json!({"f:a": {".": {}, "f:b": {}}, "f:c": {"f:d": {}}}));
        let shown: Vec<_> = one.paths().iter().map(|p| show_path(p)).collect();
        assert_eq!(shown, [".a", ".a.b", ".c.d"]);
        let mut left = one.clone();
        left.subtract(&set(json!({"f:a": {}})));
        assert_eq!(left, set(json!({"f:a": {"f:b": {}}, "f:c": {"f:d": {}}})));
        left.subtract(&set(json!({"f:a": {"f:b": {}}, "f:c": {}})));
        assert_eq!(left, set(json!({"f:c": {"f:d": {}}})));
        let mut left = one.clone();
        left.subtract_below(&set(json!({"f:a": {}})));
        assert_eq!(left, set(json!({"f:c": {"f:d": {}}})));
        let mut both = set(json!({"f:a": {}}));
        both.union(&set(json!({"f:a": {"f:b": {}}, "f:c": {"f:d": {}}})));
        assert_eq!(both, one);
        assert_eq!(
            one.intersection(&set(json!({"f:a": {}, "f:c": {}}))),
            set(json!({"f:a": {}}))
        );
    }

    #[test]
    fn reads_only_what_is_a_set() {
        assert!(FieldSet::read(&json!({"a": {}})).is_err());
        assert!(FieldSet::read(&json!({"f:a": []})).is_err());
        assert_eq!(set(json!({"f:a": {}, "?:b": {}})), set(json!({"f:a": {}})));
    }
}
