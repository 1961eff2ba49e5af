//! etcd's way of naming keys: a key and the end of a range.

use std::ops::Bound;

use bytes::Bytes;

/// Both ends of a range.
pub type KeyBounds<'k> = (Bound<&'k [u8]>, Bound<&'k [u8]>);

/// Keys a request means.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum KeyRange {
    /// One key.
    One(Bytes),
    /// From the first, included, to the second, excluded.
    Span(Bytes, Bytes),
    /// All keys from this one on.
    From(Bytes),
}

impl KeyRange {
    /// Reads a request's `key` and `range_end`: none is one key, a zero byte is everything from the key on.
    #[must_use]
    pub fn new(key: &Bytes, range_end: &Bytes) -> Self {
        match range_end.as_ref() {
            [] => Self::One(key.clone()),
            [0] => Self::From(key.clone()),
            _ => Self::Span(key.clone(), range_end.clone()),
        }
    }

    /// The first key it could hold.
    #[must_use]
    pub fn start(&self) -> &Bytes {
        match self {
            Self::One(key) | Self::From(key) | Self::Span(key, _) => key,
        }
    }

    /// Whether a key is meant.
    #[must_use]
    pub fn contains(&self, key: &[u8]) -> bool {
        match self {
            Self::One(only) => only.as_ref() == key,
            Self::From(start) => key >= start.as_ref(),
            Self::Span(start, end) => key >= start.as_ref() && key < end.as_ref(),
        }
    }

    /// What is meant from a key on that is meant.
    #[must_use]
    pub fn rest_from(&self, key: &[u8]) -> Self {
        let key = Bytes::copy_from_slice(key);
        match self {
            Self::One(_) => Self::One(key),
            Self::From(_) => Self::From(key),
            Self::Span(_, end) => Self::Span(key, end.clone()),
        }
    }

    /// Whether some key is meant by both.
    #[must_use]
    pub fn overlaps(&self, other: &Self) -> bool {
        self.start_before_end_of(other) && other.start_before_end_of(self)
    }

    fn start_before_end_of(&self, other: &Self) -> bool {
        match other {
            Self::One(key) => self.start() <= key,
            Self::From(_) => true,
            Self::Span(_, end) => self.start() < end,
        }
    }

    /// As the bounds of an ordered map; `None` if no key is meant.
    #[must_use]
    pub fn bounds(&self) -> Option<KeyBounds<'_>> {
        match self {
            Self::One(key) => Some((Bound::Included(key), Bound::Included(key))),
            Self::From(start) => Some((Bound::Included(start), Bound::Unbounded)),
            Self::Span(start, end) if start < end => Some((Bound::Included(start), Bound::Excluded(end))),
            Self::Span(..) => None,
        }
    }
}
