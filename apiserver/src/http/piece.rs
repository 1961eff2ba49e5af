//! Pieces of answers, sent from where they lie.
//!
//! What is kept is not copied to be sent: a [`Strand`] says where bytes are, and [`cut`] strings strands together into
//! pieces. The first to copy them is TLS, into the buffer where they are encrypted.

use std::io::IoSlice;
use std::ops::Range;
use std::sync::Arc;

use bytes::{Buf, Bytes, BytesMut};

/// What a piece is long: with the head that HTTP/2 gives its frame of data (RFC 9113, section 4.1), as much as a record
/// of TLS takes (RFC 8446, section 5.1). A byte more would be a record of its own.
const RECORD: usize = (16 << 10) - 9;
/// Of how many strands a piece is, at most. HTTP/2 shows no more places at a time to TLS, which would make a record of
/// what it is shown.
const PLACES: usize = 16;

/// Something that keeps bytes in memory, and shows the same ones each time.
pub type Keeper = Arc<dyn AsRef<[u8]> + Send + Sync>;

/// Bytes in one place.
pub enum Strand {
    /// Bytes for themselves.
    Own(Bytes),
    /// A part of what somebody keeps. Unlike [`Bytes`] it takes over a count of holders that there is already.
    Kept(Keeper, Range<usize>),
}

impl Strand {
    /// All that is kept.
    pub fn kept(keeper: Keeper) -> Self {
        let all = 0..(*keeper).as_ref().len();
        Self::Kept(keeper, all)
    }

    fn bytes(&self) -> &[u8] {
        match self {
            Self::Own(bytes) => bytes,
            Self::Kept(keeper, range) => &(**keeper).as_ref()[range.clone()],
        }
    }

    fn len(&self) -> usize {
        match self {
            Self::Own(bytes) => bytes.len(),
            Self::Kept(_, range) => range.len(),
        }
    }

    fn advance(&mut self, count: usize) {
        match self {
            Self::Own(bytes) => bytes.advance(count),
            Self::Kept(_, range) => range.start += count,
        }
    }

    /// Takes off the first bytes.
    fn split_to(&mut self, at: usize) -> Self {
        match self {
            Self::Own(bytes) => Self::Own(bytes.split_to(at)),
            Self::Kept(keeper, range) => {
                let first = range.start..range.start + at;
                range.start = first.end;
                Self::Kept(keeper.clone(), first)
            }
        }
    }
}

/// Bytes of an answer that are sent together.
pub enum Piece {
    /// In one place.
    One(Bytes),
    /// In several.
    Several(Strands),
}

impl From<Bytes> for Piece {
    fn from(bytes: Bytes) -> Self {
        Self::One(bytes)
    }
}

impl Buf for Piece {
    fn remaining(&self) -> usize {
        match self {
            Self::One(bytes) => bytes.len(),
            Self::Several(strands) => strands.remaining,
        }
    }

    fn chunk(&self) -> &[u8] {
        match self {
            Self::One(bytes) => bytes,
            Self::Several(strands) => strands.left.as_slice().first().map_or(&[], Strand::bytes),
        }
    }

    fn chunks_vectored<'a>(&'a self, places: &mut [IoSlice<'a>]) -> usize {
        match self {
            Self::One(bytes) => bytes.chunks_vectored(places),
            Self::Several(strands) => {
                let shown = places.iter_mut().zip(strands.left.as_slice());
                shown
                    .map(|(place, strand)| *place = IoSlice::new(strand.bytes()))
                    .count()
            }
        }
    }

    fn advance(&mut self, count: usize) {
        match self {
            Self::One(bytes) => bytes.advance(count),
            Self::Several(strands) => strands.advance(count),
        }
    }
}

/// Strands one after the other, none of them empty. Those that were sent are let go.
pub struct Strands {
    left: std::vec::IntoIter<Strand>,
    remaining: usize,
}

impl Strands {
    fn advance(&mut self, mut count: usize) {
        // What `Buf::advance` asks of its callers, and `Bytes` holds against them too.
        assert!(count <= self.remaining, "there are only {} bytes", self.remaining);
        self.remaining -= count;
        while let Some(first) = self.left.as_mut_slice().first_mut() {
            let length = first.len();
            if count < length {
                first.advance(count);
                return;
            }
            count -= length;
            self.left.next();
        }
    }
}

/// Strings strands together into pieces that fill a record each, the last one as far as they go.
pub fn cut(strands: impl IntoIterator<Item = Strand>) -> impl Iterator<Item = Piece> {
    let mut strands = strands.into_iter();
    let mut rest = None;
    std::iter::from_fn(move || {
        let (mut together, mut length) = (Vec::with_capacity(PLACES), 0);
        while length < RECORD {
            let Some(mut strand) = rest.take().or_else(|| strands.next()) else {
                break;
            };
            if strand.len() == 0 {
                continue;
            }
            if length + strand.len() > RECORD {
                let first = strand.split_to(RECORD - length);
                rest = Some(std::mem::replace(&mut strand, first));
            }
            length += strand.len();
            together.push(strand);
        }
        piece(together, length)
    })
}

/// Copies strands of so many bytes to one place.
pub fn copied(strands: impl IntoIterator<Item = Strand>, length: usize) -> Bytes {
    let mut copy = BytesMut::with_capacity(length);
    for strand in strands {
        copy.extend_from_slice(strand.bytes());
    }
    copy.freeze()
}

/// So many bytes together.
fn piece(mut strands: Vec<Strand>, length: usize) -> Option<Piece> {
    if let [Strand::Own(bytes)] = strands.as_mut_slice() {
        return Some(Piece::One(std::mem::take(bytes)));
    }
    match strands.len() {
        0 => None,
        1..=PLACES => Some(Piece::Several(Strands {
            left: strands.into_iter(),
            remaining: length,
        })),
        _ => Some(Piece::One(copied(strands, length))),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn keeper(bytes: Vec<u8>) -> Keeper {
        Arc::new(bytes)
    }

    /// What a strand is long, whether somebody keeps it, and its first byte.
    fn strand() -> impl Strategy<Value = (usize, bool, u8)> {
        // Most are short, so that there are pieces of too many; some are longer than a piece.
        let length = prop_oneof![6 => 0..40_usize, 3 => 0..6000_usize, 1 => 0..3 * RECORD];
        (length, any::<bool>(), any::<u8>())
    }

    fn made((length, kept, first): (usize, bool, u8)) -> Strand {
        let numbers = (0..length).map(|at| first.wrapping_add((at % 251).to_le_bytes()[0]));
        let bytes: Vec<u8> = numbers.collect();
        match kept {
            true => Strand::kept(keeper(bytes)),
            false => Strand::Own(bytes.into()),
        }
    }

    /// What a piece shows at a time is what it has.
    fn shown(piece: &Piece) -> Vec<u8> {
        let mut places = [IoSlice::new(&[]); PLACES];
        let count = piece.chunks_vectored(&mut places);
        assert_eq!(piece.chunk(), &*places[0]);
        places[..count].iter().flat_map(|place| place.to_vec()).collect()
    }

    proptest! {
        #[test]
        fn pieces_are_their_strands_one_after_the_other(
            strands in prop::collection::vec(strand(), 0..80),
            steps in prop::collection::vec(1..20_000_usize, 1..8),
        ) {
            let strands: Vec<Strand> = strands.into_iter().map(made).collect();
            let whole: Vec<u8> = strands.iter().flat_map(|strand| strand.bytes().to_vec()).collect();
            let mut steps = steps.into_iter().cycle();
            let (mut sent, mut lengths) = (Vec::new(), Vec::new());
            for mut piece in cut(strands) {
                lengths.push(piece.remaining());
                while piece.has_remaining() {
                    let shown = shown(&piece);
                    prop_assert_eq!(shown.len(), piece.remaining());
                    let step = steps.next().map_or(0, |step| step.min(shown.len()));
                    sent.extend_from_slice(&shown[..step]);
                    piece.advance(step);
                }
                prop_assert!(piece.chunk().is_empty());
            }
            prop_assert_eq!(sent, whole);
            let last = lengths.pop();
            prop_assert!(last.is_none_or(|last| (1..=RECORD).contains(&last)));
            prop_assert!(lengths.iter().all(|length| *length == RECORD));
        }
    }

    #[test]
    fn what_was_sent_is_let_go() {
        let (first, second) = (keeper(vec![1; 100]), keeper(vec![2; 100]));
        let strands = [&first, &second].map(|keeper| Strand::kept(keeper.clone()));
        let mut piece = cut(strands).next().expect("a piece");
        piece.advance(99);
        assert_eq!((Arc::strong_count(&first), Arc::strong_count(&second)), (2, 2));
        piece.advance(1);
        assert_eq!((Arc::strong_count(&first), Arc::strong_count(&second)), (1, 2));
        piece.advance(100);
        assert_eq!(Arc::strong_count(&second), 1);
    }
}
