//! How a value looks in its file, and what stands in its place in sled.
//!
//! ```text
//! file:  CRC32C of what follows | length of the key | length of the value | key | value
//! sled:  0 | value                                   a short value itself
//!        1 | file | offset | length of the record    a longer one
//! ```
//!
//! Numbers are big-endian and have 32 bits.

use bytes::Bytes;

/// Values up to this length stay in sled: they are hardly longer than what says where they are.
pub const INLINE_BYTES: usize = 64;

const INLINE: u8 = 0;
const APART: u8 = 1;
const HEAD_BYTES: usize = 12;

/// Where a record is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The file.
    pub file: u32,
    /// Where it begins there.
    pub offset: u32,
    /// Length of the whole record.
    pub bytes: u32,
}

impl Place {
    /// Where it ends.
    #[must_use]
    pub fn end(self) -> u64 {
        u64::from(self.offset) + u64::from(self.bytes)
    }
}

/// What sled holds for a key.
#[derive(Debug, PartialEq)]
pub enum Stored {
    /// The value, from this byte on.
    Inline,
    /// Where the value is.
    Apart(Place),
}

/// What sled holds for a short value.
#[must_use]
pub fn inline(value: &[u8]) -> Vec<u8> {
    let mut stored = Vec::with_capacity(1 + value.len());
    stored.push(INLINE);
    stored.extend_from_slice(value);
    stored
}

/// What sled holds for a value that is elsewhere.
#[must_use]
pub fn apart(place: Place) -> Vec<u8> {
    let mut stored = Vec::with_capacity(13);
    stored.push(APART);
    for number in [place.file, place.offset, place.bytes] {
        stored.extend_from_slice(&number.to_be_bytes());
    }
    stored
}

/// Reads what sled held. An inline value is what follows its first byte.
///
/// # Errors
/// When it is neither.
pub fn stored(bytes: &[u8]) -> std::io::Result<Stored> {
    match bytes.split_first() {
        Some((&INLINE, _)) => Ok(Stored::Inline),
        Some((&APART, place)) if place.len() == 12 => Ok(Stored::Apart(Place {
            file: number(place, 0),
            offset: number(place, 4),
            bytes: number(place, 8),
        })),
        _ => Err(damaged("a value is neither here nor elsewhere")),
    }
}

/// Length of the record of a key and a value; `None` if it is too long for a record.
#[must_use]
pub fn record_bytes(key: &[u8], value: &[u8]) -> Option<u32> {
    u32::try_from(HEAD_BYTES + key.len() + value.len()).ok()
}

/// Appends a record.
pub fn encode(buffer: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    let start = buffer.len();
    buffer.extend_from_slice(&[0; 4]);
    buffer.extend_from_slice(&(key.len() as u32).to_be_bytes());
    buffer.extend_from_slice(&(value.len() as u32).to_be_bytes());
    buffer.extend_from_slice(key);
    buffer.extend_from_slice(value);
    let sum = crc32c::crc32c(&buffer[start + 4..]);
    buffer[start..start + 4].copy_from_slice(&sum.to_be_bytes());
}

/// How long the record is that begins here; `None` if its head is not all there.
#[must_use]
pub fn claimed_bytes(bytes: &[u8]) -> Option<u64> {
    (bytes.len() >= HEAD_BYTES)
        .then(|| HEAD_BYTES as u64 + u64::from(number(bytes, 4)) + u64::from(number(bytes, 8)))
}

/// Key and value of a record, which must be all of `bytes`.
///
/// # Errors
/// When it does not read as it was written.
pub fn decode(bytes: &Bytes) -> std::io::Result<(Bytes, Bytes)> {
    if claimed_bytes(bytes) != Some(bytes.len() as u64) || number(bytes, 0) != crc32c::crc32c(&bytes[4..]) {
        return Err(damaged("a value does not read as it was written"));
    }
    let key_end = HEAD_BYTES + number(bytes, 4) as usize;
    Ok((bytes.slice(HEAD_BYTES..key_end), bytes.slice(key_end..)))
}

/// An error that says what does not fit.
#[must_use]
pub fn damaged(what: &str) -> std::io::Error {
    std::io::Error::new(std::io::ErrorKind::InvalidData, what)
}

/// The number at `at`, which must be within.
fn number(bytes: &[u8], at: usize) -> u32 {
    let mut number = [0; 4];
    number.copy_from_slice(&bytes[at..at + 4]);
    u32::from_be_bytes(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_reads_back_and_a_changed_one_does_not() -> std::io::Result<()> {
        let mut buffer = Vec::new();
        encode(&mut buffer, b"key", b"value");
        assert_eq!(record_bytes(b"key", b"value"), Some(buffer.len() as u32));
        let (key, value) = decode(&Bytes::from(buffer.clone()))?;
        assert_eq!((&key[..], &value[..]), (&b"key"[..], &b"value"[..]));
        for place in 0..buffer.len() {
            let mut changed = buffer.clone();
            changed[place] ^= 4;
            assert!(decode(&Bytes::from(changed)).is_err(), "{place}");
            assert!(decode(&Bytes::copy_from_slice(&buffer[..place])).is_err());
        }
        Ok(())
    }

    #[test]
    fn what_sled_holds_reads_back() -> std::io::Result<()> {
        let place = Place {
            file: 7,
            offset: 1 << 20,
            bytes: 300,
        };
        assert_eq!(stored(&apart(place))?, Stored::Apart(place));
        assert_eq!(stored(&inline(b"short"))?, Stored::Inline);
        assert!(stored(b"").is_err());
        assert!(stored(&apart(place)[..12]).is_err());
        assert!(stored(&[2, 0]).is_err());
        Ok(())
    }
}
