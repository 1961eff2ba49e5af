//! The serializer that writes a [`Tree`] down.

use std::fmt;

use serde::ser::{self, Serialize};

use super::{Node, Tree};

/// Field that is left out of an object's metadata.
const LEFT_OUT: (&str, &str) = ("metadata", "managedFields");

/// Deeper values are refused: whatever reads the tree may recurse.
const MAX_DEPTH: u32 = 200;

/// Why a value could not be written down.
#[derive(Debug)]
pub(super) struct Refused(String);

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Refused {}

impl ser::Error for Refused {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self(message.to_string())
    }
}

type Result<T> = std::result::Result<T, Refused>;

pub(super) fn record<T: Serialize + ?Sized>(value: &T, object: bool) -> std::result::Result<Tree, String> {
    let mut recorder = Recorder {
        // A pod has some two hundred nodes and two kilobytes of keys and text.
        tree: Tree {
            nodes: Vec::with_capacity(256),
            text: String::with_capacity(2048),
        },
        depth: 0,
        object,
    };
    value.serialize(&mut recorder).map_err(|refused| refused.0)?;
    Ok(recorder.tree)
}

struct Recorder {
    tree: Tree,
    depth: u32,
    object: bool,
}

fn narrow(count: usize) -> Result<u32> {
    u32::try_from(count).map_err(|_| Refused("the value is too large".to_owned()))
}

impl Recorder {
    fn push(&mut self, node: Node) -> Result<()> {
        self.tree.nodes.push(node);
        Ok(())
    }

    fn text(&mut self, text: &str) -> Result<()> {
        let node = Node::Text {
            start: narrow(self.tree.text.len())?,
            len: narrow(text.len())?,
        };
        self.tree.text.push_str(text);
        self.push(node)
    }

    /// Begins a list or map, whose node is filled in at its end.
    fn open(&mut self, metadata: bool) -> Result<Open<'_>> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(Refused("the value is nested too deeply".to_owned()));
        }
        let at = self.tree.nodes.len();
        self.tree.nodes.push(Node::Null);
        Ok(Open {
            recorder: self,
            at,
            count: 0,
            last: None,
            sorted: true,
            metadata,
        })
    }

    /// Begins the one entry a variant with contents is.
    fn open_variant(&mut self, variant: &str) -> Result<Open<'_>> {
        let mut outer = self.open(false)?;
        outer.key(variant)?;
        Ok(outer)
    }
}

/// A list or map being written.
struct Open<'r> {
    recorder: &'r mut Recorder,
    at: usize,
    count: u32,
    /// Where the last key is.
    last: Option<usize>,
    sorted: bool,
    /// Whether this is the metadata of the object.
    metadata: bool,
}

impl Open<'_> {
    fn key(&mut self, key: &str) -> Result<()> {
        let tree = &self.recorder.tree;
        if let Some(Node::Text { start, len }) = self.last.and_then(|at| tree.nodes.get(at)) {
            self.sorted = self.sorted && tree.bytes(*start, *len) < key.as_bytes();
        }
        self.last = Some(self.recorder.tree.nodes.len());
        self.count += 1;
        self.recorder.text(key)
    }

    fn element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<()> {
        self.count += 1;
        value.serialize(&mut *self.recorder)
    }

    fn entry<T: Serialize + ?Sized>(&mut self, key: &str, value: &T) -> Result<()> {
        if self.metadata && key == LEFT_OUT.1 {
            return Ok(());
        }
        self.key(key)?;
        value.serialize(&mut *self.recorder)
    }

    fn span(&self) -> Result<u32> {
        narrow(self.recorder.tree.nodes.len() - self.at - 1)
    }

    fn close_list(self) -> Result<()> {
        let span = self.span()?;
        self.recorder.depth -= 1;
        self.recorder.tree.nodes[self.at] = Node::List {
            count: self.count,
            span,
        };
        Ok(())
    }

    fn close_map(mut self) -> Result<()> {
        if !self.sorted {
            self.sort();
        }
        let span = self.span()?;
        self.recorder.depth -= 1;
        self.recorder.tree.nodes[self.at] = Node::Map {
            count: self.count,
            span,
        };
        Ok(())
    }

    /// Puts the entries in order. Nodes know how far they reach, not where they are: whole entries may be moved. Of
    /// several entries of a key the last one stays.
    fn sort(&mut self) {
        let Tree { nodes, text } = &mut self.recorder.tree;
        let inside = nodes.split_off(self.at + 1);
        let mut entries: Vec<(&[u8], &[Node])> = Vec::with_capacity(self.count as usize);
        let mut rest = inside.as_slice();
        while let [Node::Text { start, len }, value, ..] = rest {
            let (start, len) = (*start as usize, *len as usize);
            let (entry, more) = rest.split_at((1 + value.extent()).min(rest.len()));
            entries.push((&text.as_bytes()[start..start + len], entry));
            rest = more;
        }
        entries.sort_by(|a, b| a.0.cmp(b.0));
        let mut kept = 0;
        for (i, (key, entry)) in entries.iter().enumerate() {
            if entries.get(i + 1).is_none_or(|next| next.0 != *key) {
                nodes.extend_from_slice(entry);
                kept += 1;
            }
        }
        self.count = kept;
    }
}

impl<'r> ser::Serializer for &'r mut Recorder {
    type Ok = ();
    type Error = Refused;
    type SerializeSeq = Open<'r>;
    type SerializeTuple = Open<'r>;
    type SerializeTupleStruct = Open<'r>;
    type SerializeTupleVariant = Open<'r>;
    type SerializeMap = Open<'r>;
    type SerializeStruct = Open<'r>;
    type SerializeStructVariant = Open<'r>;

    fn serialize_bool(self, value: bool) -> Result<()> {
        self.push(Node::Bool(value))
    }

    fn serialize_i8(self, value: i8) -> Result<()> {
        self.push(Node::Int(value.into()))
    }

    fn serialize_i16(self, value: i16) -> Result<()> {
        self.push(Node::Int(value.into()))
    }

    fn serialize_i32(self, value: i32) -> Result<()> {
        self.push(Node::Int(value.into()))
    }

    fn serialize_i64(self, value: i64) -> Result<()> {
        self.push(Node::Int(value))
    }

    fn serialize_u8(self, value: u8) -> Result<()> {
        self.push(Node::Int(value.into()))
    }

    fn serialize_u16(self, value: u16) -> Result<()> {
        self.push(Node::Int(value.into()))
    }

    fn serialize_u32(self, value: u32) -> Result<()> {
        self.push(Node::Int(value.into()))
    }

    fn serialize_u64(self, value: u64) -> Result<()> {
        self.push(i64::try_from(value).map_or(Node::Float(value as f64), Node::Int))
    }

    fn serialize_f32(self, value: f32) -> Result<()> {
        self.push(Node::Float(value.into()))
    }

    fn serialize_f64(self, value: f64) -> Result<()> {
        self.push(Node::Float(value))
    }

    fn serialize_char(self, value: char) -> Result<()> {
        self.text(value.encode_utf8(&mut [0; 4]))
    }

    fn serialize_str(self, value: &str) -> Result<()> {
        self.text(value)
    }

    fn serialize_bytes(self, value: &[u8]) -> Result<()> {
        value.serialize(self)
    }

    fn serialize_none(self) -> Result<()> {
        self.push(Node::Null)
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<()> {
        value.serialize(self)
    }

    fn serialize_unit(self) -> Result<()> {
        self.push(Node::Null)
    }

    fn serialize_unit_struct(self, _: &'static str) -> Result<()> {
        self.push(Node::Null)
    }

    fn serialize_unit_variant(self, _: &'static str, _: u32, variant: &'static str) -> Result<()> {
        self.text(variant)
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(self, _: &'static str, value: &T) -> Result<()> {
        value.serialize(self)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        value: &T,
    ) -> Result<()> {
        let outer = self.open_variant(variant)?;
        value.serialize(&mut *outer.recorder)?;
        outer.close_map()
    }

    fn serialize_seq(self, _: Option<usize>) -> Result<Open<'r>> {
        self.open(false)
    }

    fn serialize_tuple(self, _: usize) -> Result<Open<'r>> {
        self.open(false)
    }

    fn serialize_tuple_struct(self, _: &'static str, _: usize) -> Result<Open<'r>> {
        self.open(false)
    }

    fn serialize_tuple_variant(self, _: &'static str, _: u32, _: &'static str, _: usize) -> Result<Open<'r>> {
        Err(Refused(
            "no type of the API has variants with several values".to_owned(),
        ))
    }

    fn serialize_map(self, _: Option<usize>) -> Result<Open<'r>> {
        let metadata = self.at_metadata();
        self.open(metadata)
    }

    fn serialize_struct(self, _: &'static str, _: usize) -> Result<Open<'r>> {
        let metadata = self.at_metadata();
        self.open(metadata)
    }

    fn serialize_struct_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Open<'r>> {
        Err(Refused("no type of the API has variants with fields".to_owned()))
    }
}

impl Recorder {
    /// Whether the value to come is the metadata of the object.
    fn at_metadata(&self) -> bool {
        let is_key = |node: &Node| match *node {
            Node::Text { start, len } => self.tree.bytes(start, len) == LEFT_OUT.0.as_bytes(),
            _ => false,
        };
        self.object && self.depth == 1 && self.tree.nodes.last().is_some_and(is_key)
    }
}

impl ser::SerializeSeq for Open<'_> {
    type Ok = ();
    type Error = Refused;

    fn serialize_element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<()> {
        self.element(value)
    }

    fn end(self) -> Result<()> {
        self.close_list()
    }
}

impl ser::SerializeTuple for Open<'_> {
    type Ok = ();
    type Error = Refused;

    fn serialize_element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<()> {
        self.element(value)
    }

    fn end(self) -> Result<()> {
        self.close_list()
    }
}

impl ser::SerializeTupleStruct for Open<'_> {
    type Ok = ();
    type Error = Refused;

    fn serialize_field<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<()> {
        self.element(value)
    }

    fn end(self) -> Result<()> {
        self.close_list()
    }
}

impl ser::SerializeTupleVariant for Open<'_> {
    type Ok = ();
    type Error = Refused;

    fn serialize_field<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<()> {
        self.element(value)
    }

    fn end(self) -> Result<()> {
        self.close_list()
    }
}

impl ser::SerializeMap for Open<'_> {
    type Ok = ();
    type Error = Refused;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<()> {
        let written = Tree::of(key).map_err(Refused)?;
        match written.root().text() {
            Some(text) => self.key(text),
            None => Err(Refused("a map of the API has strings for keys".to_owned())),
        }
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<()> {
        value.serialize(&mut *self.recorder)
    }

    fn serialize_entry<K: Serialize + ?Sized, V: Serialize + ?Sized>(
        &mut self,
        key: &K,
        value: &V,
    ) -> Result<()> {
        // Written in place first; a key to be left out takes the entry with it.
        let (nodes, text) = (self.recorder.tree.nodes.len(), self.recorder.tree.text.len());
        let tree = &self.recorder.tree;
        let previous = match self.last.and_then(|at| tree.nodes.get(at)) {
            Some(Node::Text { start, len }) => Some((*start, *len)),
            _ => None,
        };
        key.serialize(&mut *self.recorder)?;
        let tree = &mut self.recorder.tree;
        let Some(&Node::Text { start, len }) = tree.nodes.get(nodes) else {
            return Err(Refused("a map of the API has strings for keys".to_owned()));
        };
        if self.metadata && tree.bytes(start, len) == LEFT_OUT.1.as_bytes() {
            tree.nodes.truncate(nodes);
            tree.text.truncate(text);
            return Ok(());
        }
        if let Some((before, length)) = previous {
            self.sorted = self.sorted && tree.bytes(before, length) < tree.bytes(start, len);
        }
        self.last = Some(nodes);
        self.count += 1;
        value.serialize(&mut *self.recorder)
    }

    fn end(self) -> Result<()> {
        self.close_map()
    }
}

impl ser::SerializeStruct for Open<'_> {
    type Ok = ();
    type Error = Refused;

    fn serialize_field<T: Serialize + ?Sized>(&mut self, key: &'static str, value: &T) -> Result<()> {
        self.entry(key, value)
    }

    fn end(self) -> Result<()> {
        self.close_map()
    }
}

impl ser::SerializeStructVariant for Open<'_> {
    type Ok = ();
    type Error = Refused;

    fn serialize_field<T: Serialize + ?Sized>(&mut self, key: &'static str, value: &T) -> Result<()> {
        self.entry(key, value)
    }

    fn end(self) -> Result<()> {
        self.close_map()
    }
}
