//! An object taken down in the shape of its JSON, to be read quickly and compared with another.
//!
//! Whatever can be serialized is written into two flat buffers, without being encoded: one of nodes, one of text. Maps
//! are kept in the order of their keys, so that equal values have equal notes and two maps are compared in one pass.

use serde::Serialize;

mod recorder;

/// What a value is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sort {
    /// `null`.
    Null,
    /// A boolean, a number, a string.
    Scalar,
    /// A list.
    List,
    /// A map.
    Map,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Node {
    Null,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text {
        start: u32,
        len: u32,
    },
    /// `span`: nodes inside, elements and what is in them.
    List {
        count: u32,
        span: u32,
    },
    /// As a list; every entry is the text of its key and then its value.
    Map {
        count: u32,
        span: u32,
    },
}

impl Node {
    /// How many nodes the value takes, this one included.
    fn extent(self) -> usize {
        match self {
            Self::List { span, .. } | Self::Map { span, .. } => 1 + span as usize,
            _ => 1,
        }
    }
}

/// A value written down.
#[derive(Debug, Default)]
pub struct Tree {
    nodes: Vec<Node>,
    text: String,
}

impl Tree {
    /// Takes down an object. What it says of its own managed fields is left out.
    pub fn of_object<T: Serialize + ?Sized>(object: &T) -> Result<Self, String> {
        recorder::record(object, true)
    }

    /// Takes down any value.
    pub fn of<T: Serialize + ?Sized>(value: &T) -> Result<Self, String> {
        recorder::record(value, false)
    }

    /// The value.
    pub fn root(&self) -> Ref<'_> {
        Ref { tree: self, at: 0 }
    }
}

/// A value in a [`Tree`].
#[derive(Clone, Copy, Debug)]
pub struct Ref<'t> {
    tree: &'t Tree,
    at: usize,
}

impl<'t> Ref<'t> {
    fn node(self) -> Node {
        self.tree.nodes.get(self.at).copied().unwrap_or(Node::Null)
    }

    /// What the value is.
    pub fn sort(self) -> Sort {
        match self.node() {
            Node::Null => Sort::Null,
            Node::List { .. } => Sort::List,
            Node::Map { .. } => Sort::Map,
            _ => Sort::Scalar,
        }
    }

    /// The text of a string.
    pub fn text(self) -> Option<&'t str> {
        match self.node() {
            Node::Text { start, len } => {
                let start = start as usize;
                self.tree.text.get(start..start + len as usize)
            }
            _ => None,
        }
    }

    /// The boolean.
    pub fn boolean(self) -> Option<bool> {
        match self.node() {
            Node::Bool(value) => Some(value),
            _ => None,
        }
    }

    /// The number.
    pub fn number(self) -> Option<serde_json::Number> {
        match self.node() {
            Node::Int(value) => Some(value.into()),
            Node::Float(value) => serde_json::Number::from_f64(value),
            _ => None,
        }
    }

    /// How many elements or entries there are; none in what is neither list nor map.
    pub fn len(self) -> usize {
        match self.node() {
            Node::List { count, .. } | Node::Map { count, .. } => count as usize,
            _ => 0,
        }
    }

    /// Whether it is a list or map without anything, or neither.
    pub fn is_empty(self) -> bool {
        self.len() == 0
    }

    /// Whether it says no more than the zero value of its type: what is there although nobody wrote it.
    pub fn is_zero(self) -> bool {
        match self.node() {
            Node::Null => true,
            Node::Bool(value) => !value,
            Node::Int(value) => value == 0,
            Node::Float(value) => value == 0.0,
            Node::Text { len, .. } => len == 0,
            Node::List { count, .. } | Node::Map { count, .. } => count == 0,
        }
    }

    /// The elements of a list.
    pub fn items(self) -> Items<'t> {
        let left = match self.node() {
            Node::List { count, .. } => count,
            _ => 0,
        };
        Items {
            tree: self.tree,
            at: self.at + 1,
            left,
        }
    }

    /// The entries of a map, by key.
    pub fn entries(self) -> Entries<'t> {
        let left = match self.node() {
            Node::Map { count, .. } => count,
            _ => 0,
        };
        Entries {
            tree: self.tree,
            at: self.at + 1,
            left,
        }
    }

    /// An entry of a map.
    pub fn get(self, key: &str) -> Option<Ref<'t>> {
        self.entries()
            .find(|(name, _)| *name == key)
            .map(|(_, value)| value)
    }

    /// Whether two values are equal. Numbers are, however they are written.
    pub fn same(self, other: Ref<'_>) -> bool {
        let extent = self.node().extent();
        if other.node().extent() != extent {
            return false;
        }
        let (Some(ours), Some(theirs)) = (
            self.tree.nodes.get(self.at..self.at + extent),
            other.tree.nodes.get(other.at..other.at + extent),
        ) else {
            return self.node() == other.node();
        };
        ours.iter().zip(theirs).all(|pair| match pair {
            (Node::Text { start: a, len: n }, Node::Text { start: b, len: m }) => {
                n == m && self.tree.bytes(*a, *n) == other.tree.bytes(*b, *m)
            }
            (Node::Int(a), Node::Float(b)) | (Node::Float(b), Node::Int(a)) => *a as f64 == *b,
            (a, b) => a == b,
        })
    }
}

impl Tree {
    fn bytes(&self, start: u32, len: u32) -> &[u8] {
        let start = start as usize;
        self.text
            .as_bytes()
            .get(start..start + len as usize)
            .unwrap_or_default()
    }
}

/// The elements of a list.
#[derive(Clone, Debug)]
pub struct Items<'t> {
    tree: &'t Tree,
    at: usize,
    left: u32,
}

impl<'t> Iterator for Items<'t> {
    type Item = Ref<'t>;

    fn next(&mut self) -> Option<Ref<'t>> {
        self.left = self.left.checked_sub(1)?;
        let item = Ref {
            tree: self.tree,
            at: self.at,
        };
        self.at += item.node().extent();
        Some(item)
    }
}

/// The entries of a map.
#[derive(Clone, Debug)]
pub struct Entries<'t> {
    tree: &'t Tree,
    at: usize,
    left: u32,
}

impl<'t> Iterator for Entries<'t> {
    type Item = (&'t str, Ref<'t>);

    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        let key = Ref {
            tree: self.tree,
            at: self.at,
        };
        let value = Ref {
            tree: self.tree,
            at: self.at + 1,
        };
        self.at += 1 + value.node().extent();
        Some((key.text().unwrap_or_default(), value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn keeps_maps_in_order_and_compares_in_one_pass() {
        #[derive(Serialize)]
        struct Unordered {
            b: i32,
            a: Vec<&'static str>,
            c: Option<bool>,
        }
        let one = Tree::of(&Unordered {
            b: 1,
            a: vec!["x", "y"],
            c: None,
        })
        .expect("a tree");
        let other = Tree::of(&json!({"a": ["x", "y"], "b": 1.0, "c": null})).expect("a tree");
        let keys: Vec<_> = one.root().entries().map(|(key, _)| key).collect();
        assert_eq!(keys, ["a", "b", "c"]);
        assert!(one.root().same(other.root()));
        let third = Tree::of(&json!({"a": ["x", "z"], "b": 1, "c": null})).expect("a tree");
        assert!(!one.root().same(third.root()));
        assert!(one.root().get("b").is_some_and(|b| b.number() == Some(1.into())));
        assert!(one.root().get("c").is_some_and(|c| c.sort() == Sort::Null));
    }

    #[test]
    fn leaves_out_what_an_object_says_of_its_managers() {
        let object = json!({"metadata": {"name": "a", "managedFields": [{"manager": "m"}]}, "spec": {"managedFields": 1}});
        let tree = Tree::of_object(&object).expect("a tree");
        assert_eq!(tree.root().get("metadata").map(Ref::len), Some(1));
        assert_eq!(tree.root().get("spec").map(Ref::len), Some(1));
    }
}
