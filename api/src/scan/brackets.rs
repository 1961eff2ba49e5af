//! Finding the end of what is between brackets, sixty-four bytes at a time.

use wide::u8x16;

/// Bytes looked at together.
const BLOCK: usize = 64;
/// Bytes that are compared at once.
const LANES: usize = 16;

/// Behind the bracket that closes what was opened before `from`; `None` if none does. Whether brackets are of one sort
/// is not checked.
pub(crate) fn end(json: &[u8], from: usize) -> Option<usize> {
    let mut walk = Walk {
        depth: 1,
        inside: false,
        escaped: false,
    };
    let mut at = from;
    loop {
        let rest = json.get(at..)?;
        let Some(block) = rest.first_chunk() else {
            let mut last = [b' '; BLOCK];
            last[..rest.len()].copy_from_slice(rest);
            return Some(at + walk.through(&last)? + 1);
        };
        if let Some(place) = walk.through(block) {
            return Some(at + place + 1);
        }
        at += BLOCK;
    }
}

struct Walk {
    /// Brackets that are open.
    depth: u32,
    /// Whether in a string.
    inside: bool,
    /// Whether a backslash came before.
    escaped: bool,
}

impl Walk {
    /// Passes a block, or answers where in it the last bracket that is open is closed.
    fn through(&mut self, block: &[u8; BLOCK]) -> Option<usize> {
        let bytes = Bytes::of(block);
        let (escaped, beyond) = escaped(bytes.places(b'\\'), self.escaped);
        let strings = between(bytes.places(b'"') & !escaped) ^ if self.inside { u64::MAX } else { 0 };
        // Square brackets differ from curly ones in one bit, which these have.
        let folded = bytes.with(b'{' ^ b'[');
        let counts = !(strings | escaped);
        let opened = folded.places(b'{') & counts;
        let closed = folded.places(b'}') & counts;
        let (more, fewer) = (opened.count_ones(), closed.count_ones());
        if fewer >= self.depth
            && let Some(place) = self.last(opened, closed)
        {
            return Some(place);
        }
        self.depth = self.depth + more - fewer;
        self.inside = strings >> (BLOCK - 1) == 1;
        self.escaped = beyond;
        None
    }

    /// Where none of the brackets is open any more.
    fn last(&self, opened: u64, mut closed: u64) -> Option<usize> {
        let mut ended = 0;
        while closed != 0 {
            let bracket = closed & closed.wrapping_neg();
            ended += 1;
            if self.depth + (opened & (bracket - 1)).count_ones() == ended {
                return Some(bracket.trailing_zeros() as usize);
            }
            closed ^= bracket;
        }
        None
    }
}

/// A block, ready to be compared.
struct Bytes([u8x16; BLOCK / LANES]);

impl Bytes {
    fn of(block: &[u8; BLOCK]) -> Self {
        let (parts, _) = block.as_chunks::<LANES>();
        Self(std::array::from_fn(|i| u8x16::from(parts[i])))
    }

    /// With these bits set in every byte.
    fn with(&self, bits: u8) -> Self {
        Self(self.0.map(|part| part | u8x16::splat(bits)))
    }

    /// Where this byte is, a bit each.
    fn places(&self, byte: u8) -> u64 {
        let found = self.0.map(|part| part.cmp_eq(u8x16::splat(byte)).move_mask());
        found
            .iter()
            .rev()
            .fold(0, |places, found| places << LANES | u64::from(*found as u16))
    }
}

/// What comes after backslashes that are not themselves escaped, and whether the byte after the block does.
fn escaped(mut backslashes: u64, first: bool) -> (u64, bool) {
    let mut escaped = u64::from(first);
    let mut beyond = false;
    backslashes &= !escaped;
    while backslashes != 0 {
        let backslash = backslashes & backslashes.wrapping_neg();
        let next = backslash << 1;
        beyond = next == 0;
        escaped |= next;
        backslashes &= !(next | backslash);
    }
    (escaped, beyond)
}

/// From each quote to the one before the next.
fn between(quotes: u64) -> u64 {
    let mut odd = quotes;
    for distance in [1, 2, 4, 8, 16, 32] {
        odd ^= odd << distance;
    }
    odd
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The same, byte by byte.
    fn plainly(json: &[u8], from: usize) -> Option<usize> {
        let (mut depth, mut inside, mut escaped) = (1, false, false);
        let ends = json.get(from..)?.iter().position(|byte| {
            match byte {
                _ if std::mem::take(&mut escaped) => {}
                b'"' => inside = !inside,
                b'\\' => escaped = true,
                b'{' | b'[' if !inside => depth += 1,
                b'}' | b']' if !inside => depth -= 1,
                _ => {}
            }
            depth == 0
        });
        Some(from + ends? + 1)
    }

    #[test]
    fn brackets_in_strings_do_not_count() {
        let text = br#""a":"}\"]\\","b":[{"c":[]},"}}}}}}}}}}}}}}}}}}}}}"]},"d":1}"#;
        assert_eq!(end(text, 0), Some(text.len() - b",\"d\":1}".len()));
        assert_eq!(end(br#""a":{}"#, 0), None);
        assert_eq!(end(b"", 1), None);
    }

    proptest! {
        #[test]
        fn nested_brackets_end_where_they_do(inside in r#"([\[{]["a]?|"[\[\]\\"a]{0,70}"|[\]}]|a){0,200}"#) {
            prop_assert_eq!(end(inside.as_bytes(), 0), plainly(inside.as_bytes(), 0));
        }

        #[test]
        fn blocks_and_bytes_agree(text in r#"[\[\]{}"\\a,]{0,300}"#, from in 0_usize..20) {
            prop_assert_eq!(end(text.as_bytes(), from), plainly(text.as_bytes(), from));
        }
    }
}
