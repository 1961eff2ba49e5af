//! The order of a merged list: the patch decides for what it names, the server for the rest, and each of the
//! server's elements stays before those of the patch that followed it.

use serde_json::Value;

/// How elements of a list are told apart.
#[derive(Clone, Copy)]
pub(super) struct Items<'a>(&'a str);

impl<'a> Items<'a> {
    /// By a key; by their value if the key is empty.
    pub(super) fn of(key: &'a str) -> Self {
        Self(key)
    }

    /// By their value.
    pub(super) fn plain() -> Self {
        Self("")
    }

    /// By the value of a field.
    pub(super) fn keyed(key: &'a str) -> Self {
        Self(key)
    }

    pub(super) fn same(self, a: &Value, b: &Value) -> bool {
        if self.0.is_empty() {
            a == b
        } else {
            a.get(self.0).is_some() && a.get(self.0) == b.get(self.0)
        }
    }

    fn position(self, list: &[Value], item: &Value) -> Option<usize> {
        list.iter().position(|one| self.same(one, item))
    }
}

/// Splits a list into what another list names and what it does not.
pub(super) fn partition(list: Vec<Value>, by: &[Value], items: Items<'_>) -> (Vec<Value>, Vec<Value>) {
    list.into_iter()
        .partition(|item| items.position(by, item).is_some())
}

/// Joins the elements the patch names and those only the server knows.
pub(super) fn in_order(
    mut patched: Vec<Value>,
    mut rest: Vec<Value>,
    patch_order: &[Value],
    server_order: &[Value],
    items: Items<'_>,
) -> Vec<Value> {
    patched.sort_by_key(|item| items.position(patch_order, item));
    rest.sort_by_key(|item| items.position(server_order, item).unwrap_or(usize::MAX));
    let mut joined = Vec::with_capacity(patched.len() + rest.len());
    let (mut patched, mut rest) = (patched.into_iter().peekable(), rest.into_iter().peekable());
    while let (Some(ours), Some(theirs)) = (patched.peek(), rest.peek()) {
        let first = match (
            items.position(server_order, theirs),
            items.position(server_order, ours),
        ) {
            (Some(theirs), Some(ours)) if theirs < ours => rest.next(),
            _ => patched.next(),
        };
        joined.extend(first);
    }
    joined.extend(patched);
    joined.extend(rest);
    joined
}
