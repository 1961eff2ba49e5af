//! Finding the end of what is between brackets, sixteen bytes at a time.

use wide::u8x16;

/// Bytes looked at together.
const BLOCK: usize = 16;
/// All of them, a bit each.
const ALL: u32 = (1 << BLOCK) - 1;

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
        if let Some(block) = rest.first_chunk()
            && walk.passes(block)
        {
            at += BLOCK;
            continue;
        }
        // The bracket may be among the next bytes, or the text ends.
        if rest.is_empty() {
            return None;
        }
        for byte in rest.iter().take(BLOCK) {
            at += 1;
            walk.step(*byte);
            if walk.depth == 0 {
                return Some(at);
            }
        }
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
    /// Passes one byte.
    fn step(&mut self, byte: u8) {
        if std::mem::take(&mut self.escaped) {
            return;
        }
        match byte {
            b'"' => self.inside = !self.inside,
            b'\\' => self.escaped = true,
            b'{' | b'[' if !self.inside => self.depth += 1,
            b'}' | b']' if !self.inside => self.depth -= 1,
            _ => {}
        }
    }

    /// Passes a block, unless as many brackets are closed in it as are open before it.
    fn passes(&mut self, block: &[u8; BLOCK]) -> bool {
        let bytes = u8x16::from(*block);
        let places = |bytes: u8x16, byte| bytes.cmp_eq(u8x16::splat(byte)).move_mask() as u32;
        let escaped = escaped(places(bytes, b'\\'), self.escaped);
        let strings = between(places(bytes, b'"') & !escaped) ^ if self.inside { ALL } else { 0 };
        // Square brackets differ from curly ones in one bit, which these have.
        let folded = bytes | u8x16::splat(b'{' ^ b'[');
        let counts = !(strings | escaped);
        let opened = places(folded, b'{') & counts;
        let closed = places(folded, b'}') & counts;
        if opened | closed != 0 {
            let closed = closed.count_ones();
            if closed >= self.depth {
                return false;
            }
            self.depth = self.depth + opened.count_ones() - closed;
        }
        self.inside = strings >> (BLOCK - 1) & 1 == 1;
        self.escaped = escaped > ALL;
        true
    }
}

/// What comes after backslashes that are not themselves escaped; one bit more than the block has.
fn escaped(mut backslashes: u32, first: bool) -> u32 {
    let mut escaped = u32::from(first);
    backslashes &= !escaped;
    while backslashes != 0 {
        let next = 2 << backslashes.trailing_zeros();
        escaped |= next;
        backslashes &= !(next | next >> 1);
    }
    escaped
}

/// From each quote to the one before the next.
fn between(quotes: u32) -> u32 {
    let mut odd = quotes;
    for distance in [1, 2, 4, 8] {
        odd ^= odd << distance;
    }
    odd & ALL
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The same, byte by byte.
    fn plainly(json: &[u8], from: usize) -> Option<usize> {
        let mut walk = Walk {
            depth: 1,
            inside: false,
            escaped: false,
        };
        let ends = json.get(from..)?.iter().position(|byte| {
            walk.step(*byte);
            walk.depth == 0
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
        fn blocks_and_bytes_agree(text in r#"[\[\]{}"\\a,]{0,120}"#, from in 0_usize..20) {
            prop_assert_eq!(end(text.as_bytes(), from), plainly(text.as_bytes(), from));
        }
    }
}
