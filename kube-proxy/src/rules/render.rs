//! Table → nft's language, whole or as the difference to another. Either text is one transaction.

use std::fmt::Write;

use super::table::{Chain, Set, SetKind, Table};

/// Elements in one statement: nft's parser slows down on very long lines.
const ELEMENTS_IN_A_LINE: usize = 200;

/// The table from nothing, replacing one of the same name.
#[must_use]
pub fn whole(table: &Table) -> String {
    let mut text = Text::new(table);
    let full_name = text.table.clone();
    // Deleting what is not there would fail, so it is made first.
    let _ = write!(
        text.out,
        "add table {full_name}\ndelete table {full_name}\nadd table {full_name}\n"
    );
    for (name, set) in &table.sets {
        text.declare_set(name, set);
    }
    for (name, chain) in &table.chains {
        text.declare_chain(name, chain);
    }
    for (name, chain) in &table.chains {
        text.rules(name, chain);
    }
    for (name, set) in &table.sets {
        text.elements("add", name, set.kind, set.elements.iter());
    }
    text.out
}

/// Removes the tables of one name, whether they are there or not.
#[must_use]
pub fn removal(families: &[super::Family], name: &str) -> String {
    let mut text = String::new();
    for family in families {
        let table = format!("{} {name}", family.name());
        let _ = write!(text, "add table {table}\ndelete table {table}\n");
    }
    text
}

/// What turns `old` into `new`: empty if they are the same, none if only the whole can.
#[must_use]
pub fn difference(old: &Table, new: &Table) -> Option<String> {
    if (old.family, &old.name) != (new.family, &new.name) {
        return None;
    }
    // A set's type and a chain's hook cannot be changed in place.
    let redeclared = old.sets.iter().any(|(name, set)| {
        new.sets
            .get(name)
            .is_some_and(|n| (n.kind, &n.declaration) != (set.kind, &set.declaration))
    }) || old
        .chains
        .iter()
        .any(|(name, chain)| new.chains.get(name).is_some_and(|n| n.hook != chain.hook));
    if redeclared {
        return None;
    }
    let mut text = Text::new(new);
    // First what is referred to, then what refers to it; removals the other way round.
    for (name, set) in new.sets.iter().filter(|(name, _)| !old.sets.contains_key(*name)) {
        text.declare_set(name, set);
    }
    for (name, chain) in new
        .chains
        .iter()
        .filter(|(name, _)| !old.chains.contains_key(*name))
    {
        text.declare_chain(name, chain);
    }
    for (name, chain) in &new.chains {
        match old.chains.get(name) {
            Some(before) if before.rules == chain.rules => {}
            Some(_) => {
                text.flush(name);
                text.rules(name, chain);
            }
            None => text.rules(name, chain),
        }
    }
    for (name, before) in &old.sets {
        let Some(after) = new.sets.get(name) else { continue };
        let gone = before
            .elements
            .iter()
            .filter(|(key, value)| after.elements.get(*key) != Some(value));
        text.elements("delete", name, before.kind, gone);
    }
    for (name, after) in &new.sets {
        let before = old.sets.get(name).map(|set| &set.elements);
        let added = after
            .elements
            .iter()
            .filter(|(key, value)| before.and_then(|b| b.get(*key)) != Some(value));
        text.elements("add", name, after.kind, added);
    }
    let removed: Vec<_> = old
        .chains
        .keys()
        .filter(|name| !new.chains.contains_key(*name))
        .collect();
    for name in &removed {
        text.flush(name);
    }
    for name in removed {
        text.delete("chain", name);
    }
    for (name, set) in old.sets.iter().filter(|(name, _)| !new.sets.contains_key(*name)) {
        text.delete(word(set.kind), name);
    }
    Some(text.out)
}

fn word(kind: SetKind) -> &'static str {
    match kind {
        SetKind::Set => "set",
        SetKind::Map => "map",
    }
}

struct Text {
    /// Family and name.
    table: String,
    out: String,
}

impl Text {
    fn new(table: &Table) -> Self {
        Self {
            table: format!("{} {}", table.family.name(), table.name),
            out: String::new(),
        }
    }

    fn line(&mut self, verb: &str, what: &str, rest: std::fmt::Arguments<'_>) {
        let _ = writeln!(self.out, "{verb} {what} {} {rest}", self.table);
    }

    fn declare_set(&mut self, name: &str, set: &Set) {
        self.line(
            "add",
            word(set.kind),
            format_args!("{name} {{ {} }}", set.declaration),
        );
    }

    fn declare_chain(&mut self, name: &str, chain: &Chain) {
        if chain.hook.is_empty() {
            self.line("add", "chain", format_args!("{name}"));
        } else {
            self.line("add", "chain", format_args!("{name} {{ {} }}", chain.hook));
        }
    }

    fn rules(&mut self, name: &str, chain: &Chain) {
        for rule in &chain.rules {
            self.line("add", "rule", format_args!("{name} {rule}"));
        }
    }

    fn flush(&mut self, name: &str) {
        self.line("flush", "chain", format_args!("{name}"));
    }

    fn delete(&mut self, what: &str, name: &str) {
        self.line("delete", what, format_args!("{name}"));
    }

    fn elements<'a>(
        &mut self,
        verb: &str,
        name: &str,
        kind: SetKind,
        elements: impl Iterator<Item = (&'a String, &'a String)>,
    ) {
        let texts: Vec<String> = elements
            .map(|(key, value)| match kind {
                SetKind::Set => key.clone(),
                SetKind::Map => format!("{key} : {value}"),
            })
            .collect();
        for chunk in texts.chunks(ELEMENTS_IN_A_LINE) {
            self.line(verb, "element", format_args!("{name} {{ {} }}", chunk.join(", ")));
        }
    }
}
