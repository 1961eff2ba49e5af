//! Which revisions every key has. All of it is in memory, so it is kept small: a key that was written once
//! takes its bytes and about a hundred more.

use std::collections::BTreeMap;
use std::ops::Bound;

use smallvec::SmallVec;

use super::key_range::KeyRange;
use super::revision::Revision;

/// A change of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    /// When.
    pub revision: Revision,
    /// Whether it was a deletion.
    pub deleted: bool,
}

/// What is known of a key without reading a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Life {
    /// Revision at which the key's current life began.
    pub created: i64,
    /// Changes since then; 0 after a deletion.
    pub version: i64,
    /// The lease it hangs on; 0 is none.
    pub lease: i64,
}

/// A key's history, oldest change first; never empty.
#[derive(Debug, Clone)]
pub struct Item {
    history: SmallVec<[Stamp; 1]>,
    life: Life,
}

impl Item {
    /// The newest change.
    #[must_use]
    pub fn last(&self) -> Option<Stamp> {
        self.history.last().copied()
    }

    /// The key's present life, if it is alive.
    #[must_use]
    pub fn alive(&self) -> Option<(Revision, Life)> {
        self.last()
            .filter(|stamp| !stamp.deleted)
            .map(|stamp| (stamp.revision, self.life))
    }

    /// The change that made the key what it was at `revision`, if it was alive.
    #[must_use]
    pub fn at(&self, revision: i64) -> Option<Revision> {
        let after = self
            .history
            .partition_point(|stamp| stamp.revision.main <= revision);
        let stamp = self.history[..after].last()?;
        (!stamp.deleted).then_some(stamp.revision)
    }

    /// The change before the one at `revision`, if the key was alive then.
    #[must_use]
    pub fn before(&self, revision: Revision) -> Option<Revision> {
        let position = self.history.partition_point(|stamp| stamp.revision < revision);
        let stamp = self.history[..position].last()?;
        (!stamp.deleted).then_some(stamp.revision)
    }

    /// What is known of the change at `revision` without reading its record: only the newest is.
    #[must_use]
    pub fn life_at(&self, revision: Revision) -> Option<Life> {
        (self.last()?.revision == revision).then_some(self.life)
    }

    /// All changes, oldest first.
    #[must_use]
    pub fn history(&self) -> &[Stamp] {
        &self.history
    }
}

/// Every key that has a history.
#[derive(Debug, Default)]
pub struct Index {
    keys: BTreeMap<Box<[u8]>, Item>,
}

impl Index {
    /// How many keys there are, the deleted ones with a history included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// A key's history.
    #[must_use]
    pub fn get(&self, key: &[u8]) -> Option<&Item> {
        self.keys.get(key)
    }

    /// The histories of the keys in a range, in the keys' order.
    pub fn range<'a>(&'a self, range: &'a KeyRange) -> impl Iterator<Item = (&'a [u8], &'a Item)> {
        range
            .bounds()
            .into_iter()
            .flat_map(|bounds| self.keys.range::<[u8], _>(bounds))
            .map(|(key, item)| (key.as_ref(), item))
    }

    /// Every key from a place on.
    pub fn after<'a>(&'a self, from: Bound<&'a [u8]>) -> impl Iterator<Item = (&'a [u8], &'a Item)> {
        self.keys
            .range::<[u8], _>((from, Bound::Unbounded))
            .map(|(key, item)| (key.as_ref(), item))
    }

    /// Every key.
    pub fn all(&self) -> impl Iterator<Item = (&[u8], &Item)> {
        self.keys.iter().map(|(key, item)| (key.as_ref(), item))
    }

    /// Records a put and returns the key's life before and after it.
    pub fn put(&mut self, key: &[u8], revision: Revision, lease: i64) -> (Option<Life>, Life) {
        let stamp = Stamp {
            revision,
            deleted: false,
        };
        let born = Life {
            created: revision.main,
            version: 1,
            lease,
        };
        match self.keys.get_mut(key) {
            Some(item) => {
                let before = item.alive().map(|(_, life)| life);
                item.life = match before {
                    Some(life) => Life {
                        created: life.created,
                        version: life.version + 1,
                        lease,
                    },
                    None => born,
                };
                item.history.push(stamp);
                (before, item.life)
            }
            None => {
                let item = Item {
                    history: SmallVec::from_buf([stamp]),
                    life: born,
                };
                self.keys.insert(key.into(), item);
                (None, born)
            }
        }
    }

    /// Records a deletion and returns the life that ended, if there was one.
    pub fn delete(&mut self, key: &[u8], revision: Revision) -> Option<Life> {
        let item = self.keys.get_mut(key)?;
        let (_, life) = item.alive()?;
        item.history.push(Stamp {
            revision,
            deleted: true,
        });
        item.life = Life::default();
        Some(life)
    }

    /// Takes in a record that was read from the engine. Records come in the order of their revisions.
    pub fn restore(&mut self, key: &[u8], stamp: Stamp, life: Life) {
        match self.keys.get_mut(key) {
            Some(item) => {
                item.history.push(stamp);
                item.life = life;
            }
            None => {
                let item = Item {
                    history: SmallVec::from_buf([stamp]),
                    life,
                };
                self.keys.insert(key.into(), item);
            }
        }
    }

    /// Forgets what of a key's history is not needed to read or watch from `revision` on, and returns it. With it
    /// goes a key whose last change before then was its deletion.
    pub fn compact(&mut self, key: &[u8], revision: i64) -> SmallVec<[Revision; 4]> {
        let Some(item) = self.keys.get_mut(key) else {
            return SmallVec::new();
        };
        let superseded = superseded(&item.history, revision);
        let gone: SmallVec<[Revision; 4]> = item
            .history
            .drain(..superseded)
            .map(|stamp| stamp.revision)
            .collect();
        if item.history.is_empty() {
            self.keys.remove(key);
        } else {
            item.history.shrink_to_fit();
        }
        gone
    }
}

/// How many changes of a history are not needed to read or watch from `revision` on. A deletion at that very revision
/// is: a watch may begin there.
#[must_use]
pub fn superseded(history: &[Stamp], revision: i64) -> usize {
    let by_then = history.partition_point(|stamp| stamp.revision.main <= revision);
    match history[..by_then].last() {
        Some(last) if last.deleted && last.revision.main < revision => by_then,
        Some(_) => by_then - 1,
        None => 0,
    }
}
