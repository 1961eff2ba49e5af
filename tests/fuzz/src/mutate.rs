//! Making inputs of others.

use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;

/// Most changes made at once.
const MOST_CHANGES: u32 = 6;
/// Numbers at which programs go wrong.
const NUMBERS: [u64; 16] = [
    0,
    1,
    0x7f,
    0x80,
    0xff,
    0x100,
    0x7fff,
    0x8000,
    0xffff,
    0x7fff_ffff,
    0x8000_0000,
    0xffff_ffff,
    0x7fff_ffff_ffff_ffff,
    0x8000_0000_0000_0000,
    0xffff_ffff_ffff_fffe,
    0xffff_ffff_ffff_ffff,
];

/// Changes inputs.
pub struct Mutator {
    /// Longer inputs are not made.
    pub longest: usize,
    words: Vec<Vec<u8>>,
}

/// A place in an input of `length` bytes, and how many bytes from there on.
fn part(length: usize, random: &mut StdRng) -> (usize, usize) {
    let from = random.random_range(0..length);
    let most = length - from;
    let bytes = if random.random_bool(0.5) {
        random.random_range(1..=most.min(8))
    } else {
        random.random_range(1..=most)
    };
    (from, from + bytes)
}

fn varint(mut number: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while number >= 0x80 {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
    bytes
}

impl Mutator {
    /// Makes nothing longer than `longest`.
    #[must_use]
    pub fn new(longest: usize) -> Self {
        Self {
            longest,
            words: Vec::new(),
        }
    }

    /// Text that means something.
    pub fn add_words(&mut self, words: &[&str]) {
        self.words
            .extend(words.iter().map(|word| word.as_bytes().to_vec()));
    }

    /// Changes an input in a few places.
    pub fn mutate(&self, input: &mut Vec<u8>, others: &[Vec<u8>], random: &mut StdRng) {
        for _ in 0..random.random_range(1..=MOST_CHANGES) {
            self.change(input, others, random);
        }
        input.truncate(self.longest);
    }

    fn change(&self, input: &mut Vec<u8>, others: &[Vec<u8>], random: &mut StdRng) {
        if input.is_empty() {
            return self.insert(input, random);
        }
        let (from, to) = part(input.len(), random);
        match random.random_range(0..12) {
            0 => input[from] ^= 1 << random.random_range(0..8),
            1 => input[from] = random.random(),
            2 => input[from] = input[from].wrapping_add_signed(random.random_range(-8..=8)),
            3 => drop(input.drain(from..to)),
            4 => input.truncate(to),
            5 => {
                // The same again, often: this is how things nest.
                let piece = input[from..to].to_vec();
                let most = (self.longest.saturating_sub(input.len()) / piece.len()).max(1);
                let times = [1, 2, 16, 200, most]
                    .choose(random)
                    .map_or(1, |times| (*times).min(most));
                input.splice(to..to, piece.repeat(times));
            }
            6 => {
                let piece = input[from..to].to_vec();
                let at = random.random_range(0..=input.len());
                input.splice(at..at, piece);
            }
            7 => {
                let number = NUMBERS.choose(random).copied().unwrap_or(0);
                let number = number.wrapping_add_signed(random.random_range(-2..=2));
                let width = *[1, 2, 4, 8].choose(random).unwrap_or(&1);
                let mut bytes = number.to_le_bytes()[..width].to_vec();
                if random.random_bool(0.5) {
                    bytes.reverse();
                }
                let end = (from + bytes.len()).min(input.len());
                input.splice(from..end, bytes);
            }
            8 => {
                // Half of this and half of another.
                if let Some(other) = others.choose(random)
                    && !other.is_empty()
                {
                    let (start, end) = part(other.len(), random);
                    input.splice(from..to, other[start..end].iter().copied());
                }
            }
            9 => {
                let other = random.random_range(0..input.len());
                input.swap(from, other);
            }
            _ => self.insert(input, random),
        }
    }

    fn insert(&self, input: &mut Vec<u8>, random: &mut StdRng) {
        let at = random.random_range(0..=input.len());
        let piece = match random.random_range(0..4) {
            0 => (0..random.random_range(1..9)).map(|_| random.random()).collect(),
            1 => varint(NUMBERS.choose(random).copied().unwrap_or(0)),
            2 => NUMBERS
                .choose(random)
                .copied()
                .unwrap_or(0)
                .to_string()
                .into_bytes(),
            _ => self.words.choose(random).cloned().unwrap_or_else(|| vec![0]),
        };
        input.splice(at..at, piece);
    }
}

/// Makes an input that fails as short as it can be and fails still.
pub fn shorten(input: &[u8], tries: u32, fails: &impl Fn(&[u8]) -> bool) -> Vec<u8> {
    let mut best = input.to_vec();
    let mut left = tries;
    let mut piece = best.len().div_ceil(2).max(1);
    loop {
        let mut from = 0;
        let mut shorter = false;
        while from < best.len() && left > 0 {
            let to = (from + piece).min(best.len());
            let tried = [&best[..from], &best[to..]].concat();
            left -= 1;
            if fails(&tried) {
                best = tried;
                shorter = true;
            } else {
                from = to;
            }
        }
        if left == 0 || (piece == 1 && !shorter) {
            return best;
        }
        if !shorter {
            piece /= 2;
        }
    }
}
