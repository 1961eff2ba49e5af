//! Points in the history.

/// One change: the store's revision, and the change's place among those of the same transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Revision {
    /// The store's revision after the change.
    pub main: i64,
    /// Which of the changes of that revision.
    pub sub: u32,
}

impl Revision {
    /// The first change of a revision.
    #[must_use]
    pub fn start_of(main: i64) -> Self {
        Self { main, sub: 0 }
    }
}
