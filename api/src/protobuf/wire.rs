//! The wire format of protobuf: tags, varints, lengths.

/// Writes one message.
#[derive(Debug, Default)]
pub(crate) struct Writer(Vec<u8>);

impl Writer {
    pub(crate) fn with_capacity(bytes: usize) -> Self {
        Self(Vec::with_capacity(bytes))
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn into_bytes(self) -> Vec<u8> {
        self.0
    }

    /// Bytes outside any field.
    pub(crate) fn raw(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    fn varint(&mut self, mut number: u64) {
        while number >= 0x80 {
            self.0.push((number & 0x7f) as u8 | 0x80);
            number >>= 7;
        }
        self.0.push(number as u8);
    }

    fn tag(&mut self, field: u32, kind: u64) {
        self.varint(u64::from(field) << 3 | kind);
    }

    /// What a field of so many bytes begins with.
    pub(crate) fn opening(&mut self, field: u32, length: usize) {
        self.tag(field, 2);
        self.varint(length as u64);
    }

    pub(crate) fn bytes(&mut self, field: u32, bytes: &[u8]) {
        self.opening(field, bytes.len());
        self.0.extend_from_slice(bytes);
    }

    pub(crate) fn string(&mut self, field: u32, text: &str) {
        self.bytes(field, text.as_bytes());
    }

    pub(crate) fn message(&mut self, field: u32, message: &Self) {
        self.bytes(field, &message.0);
    }

    /// Integers, negative ones in ten bytes.
    pub(crate) fn int(&mut self, field: u32, number: i64) {
        self.tag(field, 0);
        self.varint(number.cast_unsigned());
    }

    pub(crate) fn bool(&mut self, field: u32, value: bool) {
        self.int(field, i64::from(value));
    }

    pub(crate) fn double(&mut self, field: u32, number: f64) {
        self.tag(field, 1);
        self.0.extend_from_slice(&number.to_le_bytes());
    }
}

/// The value of a field as it is on the wire.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Wire<'a> {
    Varint(u64),
    Fixed64(u64),
    Fixed32(u32),
    Bytes(&'a [u8]),
}

impl<'a> Wire<'a> {
    pub(crate) fn int(self) -> Result<i64, String> {
        match self {
            Self::Varint(number) => Ok(number.cast_signed()),
            _ => Err("proto: wrong wireType for an integer".to_owned()),
        }
    }

    pub(crate) fn bytes(self) -> Result<&'a [u8], String> {
        match self {
            Self::Bytes(bytes) => Ok(bytes),
            _ => Err("proto: wrong wireType for bytes".to_owned()),
        }
    }

    pub(crate) fn text(self) -> Result<String, String> {
        std::str::from_utf8(self.bytes()?)
            .map(str::to_owned)
            .map_err(|_| "proto: a string is not UTF-8".to_owned())
    }
}

/// Reads the fields of one message.
pub(crate) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// The next field's number and value.
    pub(crate) fn next(&mut self) -> Result<Option<(u32, Wire<'a>)>, String> {
        if self.0.is_empty() {
            return Ok(None);
        }
        let tag = self.varint()?;
        let field = u32::try_from(tag >> 3).map_err(|_| "proto: illegal tag".to_owned())?;
        if field == 0 {
            return Err("proto: illegal tag 0".to_owned());
        }
        let wire = match tag & 7 {
            0 => Wire::Varint(self.varint()?),
            1 => Wire::Fixed64(u64::from_le_bytes(self.array()?)),
            2 => {
                let length = usize::try_from(self.varint()?).map_err(|_| unexpected_end())?;
                Wire::Bytes(self.take(length)?)
            }
            5 => Wire::Fixed32(u32::from_le_bytes(self.array()?)),
            other => return Err(format!("proto: illegal wireType {other}")),
        };
        Ok(Some((field, wire)))
    }

    pub(crate) fn varint(&mut self) -> Result<u64, String> {
        let mut number = 0u64;
        for shift in (0..64).step_by(7) {
            let (&byte, rest) = self.0.split_first().ok_or_else(unexpected_end)?;
            self.0 = rest;
            number |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(number);
            }
        }
        Err("proto: integer overflow".to_owned())
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], String> {
        let (bytes, rest) = self.0.split_at_checked(length).ok_or_else(unexpected_end)?;
        self.0 = rest;
        Ok(bytes)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], String> {
        let (bytes, rest) = self.0.split_first_chunk::<N>().ok_or_else(unexpected_end)?;
        self.0 = rest;
        Ok(*bytes)
    }
}

fn unexpected_end() -> String {
    "unexpected EOF".to_owned()
}
