//! Sets of completion indexes, written as `1,3-5,7`.

use std::collections::BTreeSet;
use std::fmt;

/// A set of indexes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Indexes(BTreeSet<i32>);

impl Indexes {
    /// Reads the written form; what is no index, or not below `limit`, is left out.
    #[must_use]
    pub fn parse(text: &str, limit: i32) -> Self {
        let mut set = BTreeSet::new();
        for part in text.split(',') {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            if let (Ok(first), Ok(last)) = (first.trim().parse::<i32>(), last.trim().parse::<i32>()) {
                set.extend(first.max(0)..=last.min(limit - 1));
            }
        }
        Self(set)
    }

    /// Puts an index in.
    pub fn insert(&mut self, index: i32) {
        self.0.insert(index);
    }

    /// Whether an index is in.
    #[must_use]
    pub fn contains(&self, index: i32) -> bool {
        self.0.contains(&index)
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> i32 {
        i32::try_from(self.0.len()).unwrap_or(i32::MAX)
    }

    /// How many of these are in `other` too.
    #[must_use]
    pub fn common(&self, other: &Self) -> i32 {
        i32::try_from(self.0.intersection(&other.0).count()).unwrap_or(i32::MAX)
    }
}

impl FromIterator<i32> for Indexes {
    fn from_iter<I: IntoIterator<Item = i32>>(indexes: I) -> Self {
        Self(indexes.into_iter().collect())
    }
}

impl fmt::Display for Indexes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut indexes = self.0.iter().copied().peekable();
        let mut separator = "";
        while let Some(first) = indexes.next() {
            let mut last = first;
            while indexes.next_if_eq(&(last + 1)).is_some() {
                last += 1;
            }
            write!(f, "{separator}{first}")?;
            match last - first {
                0 => {}
                1 => write!(f, ",{last}")?,
                _ => write!(f, "-{last}")?,
            }
            separator = ",";
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn written_and_read() {
        let set = Indexes::parse("1,3-5,7", 10);
        assert_eq!((set.len(), set.contains(4), set.contains(2)), (5, true, false));
        assert_eq!(set.to_string(), "1,3-5,7");
        assert_eq!(Indexes::parse("0-9", 3).to_string(), "0-2");
        assert_eq!(Indexes::from_iter([4, 5]).to_string(), "4,5");
        assert_eq!(Indexes::parse("", 3).to_string(), "");
    }
}
