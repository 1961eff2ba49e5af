//! Sets of fields, in the form they travel in: `metav1.FieldsV1`.
//!
//! A node that is empty is a member of the set; one with steps below is only on the way, unless it holds `"."`. The set
//! is kept as this very text and worked on as text: two sets are gone through side by side, in the order of their steps,
//! so that reading, writing and changing managed fields takes no more than a pass over what is stored.
//! Source: KEP-555, structured-merge-diff's `fieldpath`.

use std::cmp::Ordering;

use serde_json::Value;

use super::element;
use super::schema::Schema;

mod text;

use text::{ITSELF, Opened, Reader, Writer, Written, write_step};

/// A set of fields.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FieldSet {
    /// The members of the root, without the braces around them.
    members: String,
}

/// What becomes of two sets that are gone through side by side.
struct Rule {
    /// Whether what only our set has is kept.
    ours: bool,
    /// Whether what only their set has is kept.
    theirs: bool,
    /// What both have something at: whether the place is a member, from whether it is one of ours and of theirs.
    /// Nothing is left of it or of what lies below when the answer is `None`.
    shared: fn(bool, bool) -> Option<bool>,
}

/// Goes through two nodes side by side, up to the end of one of them. What the other has then: the step that its reader
/// has entered.
fn pair<'t>(
    ours: &mut Reader<'t>,
    theirs: &mut Reader<'t>,
    rule: &Rule,
    out: &mut Writer,
) -> (Option<Written<'t>>, Option<Written<'t>>) {
    let (mut a, mut b) = (ours.step(), theirs.step());
    while let (Some(one), Some(other)) = (a, b) {
        match one.order(other) {
            Ordering::Less => a = pass(ours, one, rule.ours, out),
            Ordering::Greater => b = pass(theirs, other, rule.theirs, out),
            Ordering::Equal => {
                // Both are asked: that moves them on.
                let (of_ours, of_theirs) = (ours.member(), theirs.member());
                if let Some(member) = (rule.shared)(of_ours, of_theirs) {
                    let node = out.open(one, member);
                    combine(ours, theirs, rule, out);
                    out.close(node);
                } else {
                    ours.skip();
                    theirs.skip();
                }
                (a, b) = (ours.step(), theirs.step());
            }
        }
    }
    (a, b)
}

/// Passes the node that was entered by this step; the next step.
fn pass<'t>(reader: &mut Reader<'t>, step: Written<'t>, keep: bool, out: &mut Writer) -> Option<Written<'t>> {
    let inside = reader.skip();
    if keep {
        out.whole(step, inside);
    }
    reader.step()
}

/// Goes through the two nodes that the readers stand in, and leaves them.
fn combine<'t>(ours: &mut Reader<'t>, theirs: &mut Reader<'t>, rule: &Rule, out: &mut Writer) {
    let (mut a, mut b) = pair(ours, theirs, rule, out);
    while let Some(step) = a {
        a = pass(ours, step, rule.ours, out);
    }
    while let Some(step) = b {
        b = pass(theirs, step, rule.theirs, out);
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
        fn nodes(value: &Value, out: &mut Writer) -> Result<(), String> {
            let given = value.as_object().ok_or("a set of fields must be an object")?;
            // Of steps that turn out to be the same one, the last one stands.
            let mut steps = std::collections::BTreeMap::new();
            for (step, inner) in given.iter().filter(|(step, _)| *step != ITSELF) {
                if let Some(step) = element::canonical(step)? {
                    steps.insert(step, inner);
                }
            }
            let mut written = String::new();
            for (step, inner) in steps {
                let member = inner
                    .as_object()
                    .is_none_or(|inner| inner.is_empty() || inner.contains_key(ITSELF));
                written.clear();
                write_step(&mut written, &step);
                let node = out.open(Written(&written), member);
                nodes(inner, out)?;
                out.close(node);
            }
            Ok(())
        }
        let mut out = Writer::default();
        nodes(fields, &mut out)?;
        Ok(Self {
            members: out.finish(),
        })
    }

    /// The same from JSON.
    pub fn parse(json: &str) -> Result<Self, String> {
        let value: Value = serde_json::from_str(json).map_err(|e| e.to_string())?;
        Self::read(&value)
    }

    /// A set as an object in the store has it. That is what [`FieldSet::into_json`] wrote; what plainly is not is read
    /// anew, or is nothing.
    pub(super) fn stored(json: &str) -> Self {
        let ours =
            |members: &&str| members.is_empty() || (members.starts_with('"') && members.ends_with('}'));
        // Every byte is looked at, which compares many at once.
        let spaced = |members: &str| {
            members
                .bytes()
                .fold(false, |found, b| found | b.is_ascii_whitespace())
        };
        match json
            .strip_prefix('{')
            .and_then(|json| json.strip_suffix('}'))
            .filter(ours)
            .filter(|members| !spaced(members))
        {
            Some(members) => Self {
                members: members.to_owned(),
            },
            None => Self::parse(json).unwrap_or_default(),
        }
    }

    /// As `fieldsV1`: JSON.
    pub fn into_json(self) -> String {
        let mut json = self.members;
        json.insert(0, '{');
        json.push('}');
        json
    }

    pub(super) fn from_branch(branch: Branch) -> Self {
        Self {
            members: branch.children,
        }
    }

    /// The members of the root, without the braces around them.
    pub(super) fn members(&self) -> &str {
        &self.members
    }

    fn reader(&self) -> Reader<'_> {
        Reader::new(&self.members)
    }

    fn combined(&self, other: &FieldSet, rule: &Rule) -> Self {
        let mut out = Writer::with_capacity(self.members.len() + other.members.len());
        let (mut ours, mut theirs) = (self.reader(), other.reader());
        let (a, b) = pair(&mut ours, &mut theirs, rule, &mut out);
        // What one of them still has stays as it is, or goes: mostly all but the beginning.
        for (step, rest, keep) in [(a, ours, rule.ours), (b, theirs, rule.theirs)] {
            if let Some(step) = step.filter(|_| keep) {
                out.all(step, rest.all());
            }
        }
        Self {
            members: out.finish(),
        }
    }

    /// Whether nothing is in it.
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// Adds one path.
    pub fn insert(&mut self, path: &[String]) {
        let mut one = String::new();
        for (i, step) in path.iter().enumerate() {
            one.push_str(if i == 0 { "\"" } else { "{\"" });
            write_step(&mut one, step);
            one.push_str("\":");
        }
        if !path.is_empty() {
            one.push_str("{}");
            one.extend(std::iter::repeat_n('}', path.len() - 1));
        }
        self.union(&Self { members: one });
    }

    /// Whether a path is a member.
    pub fn contains(&self, path: &[String]) -> bool {
        let mut view = self.view();
        let mut member = false;
        for step in path {
            (member, view) = view.step(step);
        }
        member
    }

    /// Adds every member of another set.
    pub fn union(&mut self, other: &FieldSet) {
        const RULE: Rule = Rule {
            ours: true,
            theirs: true,
            shared: |ours, theirs| Some(ours || theirs),
        };
        if self.is_empty() {
            self.members.clone_from(&other.members);
        } else if !other.is_empty() {
            *self = self.combined(other, &RULE);
        }
    }

    /// Takes out every member of another set: those alone, not what lies below them.
    pub fn subtract(&mut self, other: &FieldSet) {
        const RULE: Rule = Rule {
            ours: true,
            theirs: false,
            shared: |ours, theirs| Some(ours && !theirs),
        };
        if !self.is_empty() && !other.is_empty() {
            *self = self.combined(other, &RULE);
        }
    }

    /// Takes out every member of another set and everything below it.
    pub fn subtract_below(&mut self, other: &FieldSet) {
        const RULE: Rule = Rule {
            ours: true,
            theirs: false,
            shared: |ours, theirs| (!theirs).then_some(ours),
        };
        if self.may_share_with(other) {
            *self = self.combined(other, &RULE);
        }
    }

    /// Whether one of the first steps of another set stands anywhere in this one: a look at the text, which is quicker
    /// than going through it.
    fn may_share_with(&self, other: &FieldSet) -> bool {
        let mut theirs = other.reader();
        while let Some(step) = theirs.step() {
            if self.members.contains(step.0) {
                return true;
            }
            theirs.skip();
        }
        false
    }

    /// The members of both sets.
    pub fn intersection(&self, other: &FieldSet) -> FieldSet {
        const RULE: Rule = Rule {
            ours: false,
            theirs: false,
            shared: |ours, theirs| Some(ours && theirs),
        };
        self.combined(other, &RULE)
    }

    /// Every member's path, a node's before those below it.
    pub fn paths(&self) -> Vec<Vec<String>> {
        fn walk(mut reader: Reader<'_>, path: &mut Vec<String>, found: &mut Vec<Vec<String>>) {
            let mut below = Vec::new();
            while let Some(step) = reader.step() {
                let step = step.plain();
                if reader.member() {
                    let mut whole = path.clone();
                    whole.push(step.clone());
                    found.push(whole);
                }
                let inside = reader.skip();
                if !inside.is_empty() {
                    below.push((step, inside));
                }
            }
            for (step, inside) in below {
                path.push(step);
                walk(Reader::new(inside), path, found);
                path.pop();
            }
        }
        let mut found = Vec::new();
        walk(self.reader(), &mut Vec::new(), &mut found);
        found
    }

    /// The steps of the first level: each with whether it is a member and what lies below it.
    pub(super) fn view(&self) -> SetView<'_> {
        SetView(&self.members)
    }

    /// The same set and, besides, every field of a struct that the set has something below of.
    pub(super) fn with_named_fields(&self, schema: &dyn Schema) -> FieldSet {
        fn walk(reader: &mut Reader<'_>, schema: Option<&dyn Schema>, out: &mut Writer) {
            while let Some(step) = reader.step() {
                let plain = step.plain();
                let name = element::field_name(&plain);
                let found = name.and_then(|name| schema?.field(name));
                let declared = found.as_ref().is_some_and(|field| field.declared);
                let below = match name {
                    Some(_) => found.map(|field| field.schema),
                    None => schema.and_then(|list| list.items()),
                };
                let node = out.open(step, reader.member() || declared);
                walk(reader, below, out);
                out.close(node);
            }
        }
        let mut out = Writer::with_capacity(self.members.len());
        walk(&mut self.reader(), Some(schema), &mut out);
        Self {
            members: out.finish(),
        }
    }

    /// The set after the schema has changed: of what is now owned as a whole, nothing below remains.
    pub(super) fn settled(&self, schema: &dyn Schema) -> FieldSet {
        fn walk(reader: &mut Reader<'_>, schema: &dyn Schema, out: &mut Writer) {
            while let Some(step) = reader.step() {
                let plain = step.plain();
                let there = match element::field_name(&plain) {
                    Some(name) => schema.field(name).map(|field| field.schema),
                    None => schema.items(),
                };
                let Some(there) = there else {
                    out.whole(step, reader.skip());
                    continue;
                };
                let member = reader.member();
                let mut ahead = *reader;
                let first = ahead.step();
                let whole = first.is_some() && {
                    let mut elements = false;
                    let mut step = first;
                    while let Some(one) = step {
                        elements |= !one.0.starts_with("f:");
                        ahead.skip();
                        step = ahead.step();
                    }
                    if elements {
                        there.list().is_atomic()
                    } else {
                        there.atomic_map()
                    }
                };
                if whole {
                    out.whole(step, "");
                    reader.skip();
                } else {
                    let node = out.open(step, member);
                    walk(reader, there, out);
                    out.close(node);
                }
            }
        }
        let mut out = Writer::with_capacity(self.members.len());
        walk(&mut self.reader(), schema, &mut out);
        Self {
            members: out.finish(),
        }
    }
}

/// A set, or what lies below one of its nodes.
#[derive(Clone, Copy)]
pub(super) struct SetView<'s>(&'s str);

impl<'s> SetView<'s> {
    /// Whether the step is a member, and what lies below it.
    pub(super) fn step(self, step: &str) -> (bool, SetView<'s>) {
        let mut wanted = String::with_capacity(step.len());
        write_step(&mut wanted, step);
        let mut reader = Reader::new(self.0);
        while let Some(found) = reader.step() {
            if found.0 == wanted {
                return (reader.member(), SetView(reader.skip()));
            }
            reader.skip();
        }
        (false, SetView(""))
    }

    /// Whether nothing lies here.
    pub(super) fn is_empty(self) -> bool {
        self.0.is_empty()
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
    children: String,
}

/// A step that something is hung at.
#[derive(Clone, Copy)]
pub(super) enum Step<'s> {
    /// A field or an entry of a map.
    Field(&'s str),
    /// An element of a list.
    Element(&'s str),
}

impl Step<'_> {
    /// Appends the step as sets have it.
    fn write(self, out: &mut String) {
        match self {
            Step::Field(name) => {
                out.push_str("f:");
                write_step(out, name);
            }
            Step::Element(step) => write_step(out, step),
        }
    }
}

/// A set that is written from its first step to its last.
#[derive(Default)]
pub(super) struct SetWriter {
    writer: Writer,
    /// Where steps are spelled.
    step: String,
}

impl SetWriter {
    fn spell(&mut self, step: Step<'_>) {
        self.step.clear();
        step.write(&mut self.step);
    }

    /// Writes a member without anything below.
    pub(super) fn leaf(&mut self, step: Step<'_>) {
        self.spell(step);
        self.writer.whole(Written(&self.step), "");
    }

    /// Begins a node.
    pub(super) fn open(&mut self, step: Step<'_>, member: bool) -> Opened {
        self.spell(step);
        self.writer.open(Written(&self.step), member)
    }

    /// Ends the node that was begun last.
    pub(super) fn close(&mut self, node: Opened) {
        self.writer.close(node);
    }

    /// The set.
    pub(super) fn finish(self) -> FieldSet {
        FieldSet {
            members: self.writer.finish(),
        }
    }
}

impl Branch {
    /// The place itself.
    pub(super) fn leaf() -> Self {
        Self {
            member: true,
            children: String::new(),
        }
    }

    /// Hangs a branch below this one, if there is something to hang. Steps come in their order.
    pub(super) fn attach(&mut self, step: Step<'_>, branch: Branch) {
        if !branch.member && branch.children.is_empty() {
            return;
        }
        let out = &mut self.children;
        if !out.is_empty() {
            out.push(',');
        }
        out.push('"');
        step.write(out);
        out.push_str("\":{");
        if branch.member && !branch.children.is_empty() {
            out.push_str("\".\":{},");
        }
        out.push_str(&branch.children);
        out.push('}');
    }

    /// Takes over what lies below another branch, all of which comes after what lies here.
    pub(super) fn append(&mut self, branch: Branch) {
        if !self.children.is_empty() && !branch.children.is_empty() {
            self.children.push(',');
        }
        self.children.push_str(&branch.children);
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
