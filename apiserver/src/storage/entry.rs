//! One object as the server keeps it: the bytes it serves, and what selectors look at.

use std::any::Any;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};

use bytes::{Bytes, BytesMut};
use keelson_api::object::Kind;
use keelson_api::text::string_end;
use serde::de::DeserializeOwned;

use super::selectable::Selectable;
use crate::registry::strategy::ErasedStrategy;

/// What a watch says about an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventType {
    /// It is there, and was not before.
    Added,
    /// It changed.
    Modified,
    /// It is gone.
    Deleted,
}

impl EventType {
    /// What a watch line begins with.
    pub const fn opening(self) -> &'static [u8] {
        match self {
            EventType::Added => br#"{"type":"ADDED","object":"#,
            EventType::Modified => br#"{"type":"MODIFIED","object":"#,
            EventType::Deleted => br#"{"type":"DELETED","object":"#,
        }
    }

    /// The object in a watch line of this kind.
    pub fn object_of(self, line: &[u8]) -> &[u8] {
        &line[self.opening().len()..line.len() - CLOSING.len()]
    }

    /// The word.
    pub const fn as_str(self) -> &'static str {
        match self {
            EventType::Added => "ADDED",
            EventType::Modified => "MODIFIED",
            EventType::Deleted => "DELETED",
        }
    }
}

/// What a watch line ends with.
pub const CLOSING: &[u8] = b"}\n";

/// One object at one revision.
#[derive(Debug)]
pub struct Entry {
    /// `namespace/name`, or the name alone.
    pub key: Arc<str>,
    /// Revision of the last write.
    pub revision: i64,
    /// The whole line of a watch, so that one allocation serves lists, gets and watches.
    line: Bytes,
    kind: EventType,
    selectable: Selectable,
    /// Whether the store holds other bytes than those shown: of an older version, or from before a default.
    revised: bool,
    /// Length of its field in a list in protobuf, 0 while nobody has asked.
    protobuf_length: AtomicU32,
    /// Filled only for what the server itself looks at again and again.
    decoded: OnceLock<Arc<dyn Any + Send + Sync>>,
}

impl Entry {
    /// An object read from the store. Errors say what is wrong with the stored bytes.
    pub fn new(
        strategy: &dyn ErasedStrategy,
        key: Arc<str>,
        revision: i64,
        stored: &[u8],
        kind: EventType,
    ) -> Result<Self, String> {
        let revised = strategy.stored(stored);
        let stored = revised.as_deref().unwrap_or(stored);
        let line = splice(kind, stored, revision).ok_or("there is no metadata")?;
        let found = strategy.selected(stored).map_err(|e| e.to_string())?;
        Ok(Self {
            key,
            revision,
            line,
            kind,
            selectable: Selectable::new(&found, strategy.info().selectable_fields),
            revised: revised.is_some(),
            protobuf_length: AtomicU32::new(0),
            decoded: OnceLock::new(),
        })
    }

    /// Whether a write of the same object would still change what is stored.
    pub fn revised(&self) -> bool {
        self.revised
    }

    /// What somebody keeps beside the object: made when it is first asked for. `None` where something else is kept.
    pub fn beside<T: Default + Send + Sync + 'static>(&self) -> Option<Arc<T>> {
        let kept = self.decoded.get_or_init(|| Arc::new(T::default()));
        kept.clone().downcast().ok()
    }

    /// The same object as it was when it was deleted at `revision`.
    pub fn buried(&self, revision: i64) -> Self {
        Self {
            key: self.key.clone(),
            revision,
            line: self.line_at(EventType::Deleted, revision),
            kind: EventType::Deleted,
            selectable: self.selectable.clone(),
            revised: self.revised,
            protobuf_length: AtomicU32::new(0),
            decoded: OnceLock::new(),
        }
    }

    /// The object decoded. That one cannot be read is logged: the server wrote it itself.
    pub fn read<T: DeserializeOwned>(&self) -> Option<T> {
        let of = std::any::type_name::<T>();
        serde_json::from_slice(self.json())
            .inspect_err(|error| tracing::error!(key = %self.key, of, %error, "stored object cannot be read"))
            .ok()
    }

    /// The object decoded, and kept so: for the few objects that admission looks at with every request.
    pub fn typed<K: Kind>(&self) -> Option<Arc<K>> {
        if let Some(known) = self.decoded.get()
            && let Ok(object) = known.clone().downcast()
        {
            return Some(object);
        }
        let object: Arc<K> = Arc::new(self.read()?);
        let kept: Arc<dyn Any + Send + Sync> = object.clone();
        // Somebody else may have been faster; theirs is as good.
        let _ = self.decoded.set(kept);
        Some(object)
    }

    /// JSON of the object, `metadata.resourceVersion` included.
    pub fn json(&self) -> &[u8] {
        self.kind.object_of(&self.line)
    }

    /// The same, to be kept.
    pub fn object(&self) -> Bytes {
        self.line.slice_ref(self.json())
    }

    /// What [`Entry::keep_protobuf_length`] was told.
    pub fn protobuf_length(&self) -> Option<usize> {
        let length = self.protobuf_length.load(Ordering::Relaxed);
        usize::try_from(length).ok().filter(|length| *length > 0)
    }

    /// Remembers how long the object is as an item of a list in protobuf, in the version that is stored.
    pub fn keep_protobuf_length(&self, length: usize) {
        self.protobuf_length
            .store(u32::try_from(length).unwrap_or_default(), Ordering::Relaxed);
    }

    /// The object's line in a watch.
    pub fn line(&self, kind: EventType) -> Bytes {
        if kind == self.kind {
            self.line.clone()
        } else {
            self.line_at(kind, self.revision)
        }
    }

    /// The object's line in a watch, said to be of another revision.
    pub fn line_at(&self, kind: EventType, revision: i64) -> Bytes {
        let object = self.json();
        let (head, tail) = cut_version(object);
        let mut buffer = itoa(revision);
        let version = buffer.as_text();
        let mut line = BytesMut::with_capacity(object.len() + 64);
        line.extend_from_slice(kind.opening());
        line.extend_from_slice(head);
        line.extend_from_slice(version);
        line.extend_from_slice(tail);
        line.extend_from_slice(CLOSING);
        line.freeze()
    }

    /// The namespace, empty for cluster scope.
    pub fn namespace(&self) -> &str {
        self.key.rsplit_once('/').map_or("", |(namespace, _)| namespace)
    }

    /// The name.
    pub fn name(&self) -> &str {
        self.key.rsplit_once('/').map_or(&self.key, |(_, name)| name)
    }

    /// Value of a label.
    pub fn label(&self, key: &str) -> Option<&str> {
        self.selectable.label(key)
    }

    /// Every label: key and value.
    pub fn labels(&self) -> impl Iterator<Item = (&str, &str)> {
        self.selectable.labels()
    }

    /// Value of a selectable field, empty when it has none.
    pub fn field(&self, name: &str) -> &str {
        match name {
            "metadata.name" => self.name(),
            "metadata.namespace" => self.namespace(),
            _ => self.selectable.field(name),
        }
    }
}

const VERSION: &[u8] = br#""resourceVersion":""#;

/// Where the text after the opening brace of the object's own `metadata` begins. Kinds may have other fields before it,
/// with `metadata` of their own inside: only the outermost level counts.
fn metadata_start(object: &[u8]) -> Option<usize> {
    let (mut depth, mut at) = (0_usize, 0);
    while at < object.len() {
        match object[at] {
            b'{' | b'[' => depth += 1,
            b'}' | b']' => depth = depth.checked_sub(1)?,
            b'"' => {
                let end = string_end(object, at + 1)?;
                if depth == 1
                    && &object[at + 1..end] == b"metadata"
                    && let Some(rest) = object[end + 1..].strip_prefix(b":{")
                {
                    return Some(object.len() - rest.len());
                }
                at = end;
            }
            _ => {}
        }
        at += 1;
    }
    None
}

/// Stored bytes with `metadata.resourceVersion` filled in, between the opening and closing of a watch line.
fn splice(kind: EventType, stored: &[u8], revision: i64) -> Option<Bytes> {
    let mut line = BytesMut::with_capacity(stored.len() + 72);
    line.extend_from_slice(kind.opening());
    splice_into(&mut line, stored, revision)?;
    line.extend_from_slice(CLOSING);
    Some(line.freeze())
}

fn splice_into(out: &mut BytesMut, stored: &[u8], revision: i64) -> Option<()> {
    let at = metadata_start(stored)?;
    out.extend_from_slice(&stored[..at]);
    out.extend_from_slice(VERSION);
    out.extend_from_slice(itoa(revision).as_text());
    let rest = &stored[at..];
    out.extend_from_slice(if rest.first() == Some(&b'}') {
        b"\""
    } else {
        b"\","
    });
    out.extend_from_slice(rest);
    Some(())
}

/// Stored bytes with `metadata.resourceVersion` filled in.
pub fn with_version(stored: &[u8], revision: i64) -> Bytes {
    let mut out = BytesMut::with_capacity(stored.len() + 48);
    match splice_into(&mut out, stored, revision) {
        Some(()) => out.freeze(),
        None => Bytes::copy_from_slice(stored),
    }
}

/// Splits served bytes around the digits of `metadata.resourceVersion`.
fn cut_version(object: &[u8]) -> (&[u8], &[u8]) {
    let begin = metadata_start(object).map_or(0, |at| at + VERSION.len());
    let length = object[begin..].iter().take_while(|b| b.is_ascii_digit()).count();
    (&object[..begin], &object[begin + length..])
}

struct Digits([u8; 20], usize);

impl Digits {
    fn as_text(&mut self) -> &[u8] {
        &self.0[self.1..]
    }
}

fn itoa(number: i64) -> Digits {
    let mut digits = Digits([b'0'; 20], 20);
    let mut rest = number.unsigned_abs();
    loop {
        digits.1 -= 1;
        digits.0[digits.1] = b'0' + u8::try_from(rest % 10).unwrap_or_default();
        rest /= 10;
        if rest == 0 {
            return digits;
        }
    }
}

/// The JSON of the object, for an answer that is sent from where it lies.
impl AsRef<[u8]> for Entry {
    fn as_ref(&self) -> &[u8] {
        self.json()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const POD: &[u8] =
        br#"{"apiVersion":"v1","kind":"Pod","metadata":{"name":"a","namespace":"n"},"spec":{}}"#;

    #[test]
    fn the_version_is_spliced_in_and_replaced() {
        let line = splice(EventType::Added, POD, 120).expect("metadata");
        let entry = Entry {
            key: "n/a".into(),
            revision: 120,
            line,
            kind: EventType::Added,
            selectable: Selectable::default(),
            revised: false,
            protobuf_length: AtomicU32::new(0),
            decoded: OnceLock::new(),
        };
        let text = String::from_utf8(entry.json().to_vec()).expect("text");
        assert!(
            text.contains(r#""metadata":{"resourceVersion":"120","name":"a""#),
            "{text}"
        );
        let gone = entry.buried(4711);
        let text = String::from_utf8(gone.line(EventType::Deleted).to_vec()).expect("text");
        assert!(
            text.starts_with(r#"{"type":"DELETED","object":{"apiVersion":"v1""#),
            "{text}"
        );
        assert!(
            text.contains(r#""resourceVersion":"4711","name":"a""#) && text.ends_with("{}}}\n"),
            "{text}"
        );
        let again = String::from_utf8(entry.line(EventType::Modified).to_vec()).expect("text");
        assert!(
            again.starts_with(r#"{"type":"MODIFIED","object":{"#) && again.contains(r#""120""#),
            "{again}"
        );
    }

    #[test]
    fn only_the_outermost_metadata_counts() {
        let revision =
            br#"{"kind":"R","data":{"metadata":{"a":"\\"}},"text":"\"metadata\":{","metadata":{"name":"x"}}"#;
        let text = String::from_utf8(with_version(revision, 5).to_vec()).expect("text");
        assert!(
            text.ends_with(r#""metadata":{"resourceVersion":"5","name":"x"}}"#),
            "{text}"
        );
        assert!(text.contains(r#""data":{"metadata":{"a":"#), "{text}");
    }

    #[test]
    fn empty_metadata_stays_json() {
        let bytes = with_version(br#"{"metadata":{}}"#, 7);
        assert_eq!(&bytes[..], br#"{"metadata":{"resourceVersion":"7"}}"#);
    }
}
