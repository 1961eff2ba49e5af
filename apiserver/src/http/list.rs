//! Lists: items between a head and a tail, made while they are sent.
//!
//! Stored bytes are sent from where they lie. Other forms, tables, protobuf and YAML among them, are made item by item:
//! a list costs what is on its way to its reader, not what it is long.

use std::iter::Peekable;
use std::sync::Arc;
use std::vec::IntoIter;

use bytes::{Bytes, BytesMut};
use futures::{StreamExt as _, stream};
use http::Response;
use http::header::{CONTENT_LENGTH, HeaderValue};
use jiff::Timestamp;
use keelson_api::protobuf::ListForm;
use keelson_api::status::ApiResult;

use super::answer::{Body, GZIP_THRESHOLD, Parts, answer, full, gzip_parts, made, maybe_gzip, with_warnings};
use super::negotiate::{Encoding, Shape};
use super::piece::{Strand, copied, cut};
use super::readable;
use super::resources::{Wish, present};
use crate::audit;
use crate::handlers::Call;
use crate::handlers::list::ListAnswer;
use crate::storage::entry::Entry;
use crate::table;

/// Pieces are about this large: small enough to begin soon, large enough that each costs little.
const PIECE: usize = 64 << 10;
/// What is made before an answer begins: up to here, whatever is wrong with an item can still be said.
const AT_FIRST: usize = 256 << 10;
const TAIL: &[u8] = b"]}\n";

/// The answer to a list.
pub fn respond(call: &Call<'_>, list: ListAnswer, wish: Wish) -> ApiResult<Response<Body>> {
    if audit::wants_response() {
        audit::response_body(&objects(call, &list)?.all()?);
    }
    let encoding = wish.form.encoding;
    let response = match (wish.form.shape, encoding) {
        (Shape::Whole, Encoding::Json) if !wish.pretty && shown_as_stored(call, &list) => {
            stored(call, list, wish.gzip)
        }
        (_, Encoding::Protobuf) => protobuf(call, list, wish)?,
        (_, Encoding::Json) if !wish.pretty => begun(shaped(call, list, wish)?, encoding, wish.gzip)?,
        _ => begun(shaped(call, list, wish)?.readable(wish)?, encoding, wish.gzip)?,
    };
    Ok(with_warnings(response, &call.warnings()))
}

/// Whether the items can be sent as they are.
fn shown_as_stored(call: &Call<'_>, list: &ListAnswer) -> bool {
    let served = call.served;
    match served.custom_version() {
        None => served.as_stored(),
        Some(_) => list.items.iter().all(|entry| served.shows(entry.json())),
    }
}

fn head(kind: &str, api_version: &str, list: &ListAnswer) -> String {
    format!(
        r#"{{"kind":"{kind}","apiVersion":"{api_version}","metadata":{},"items":["#,
        table::list_meta(list)
    )
}

/// Makes what an item looks like in an answer.
type Make = Box<dyn Fn(&Entry) -> ApiResult<Bytes> + Send>;

/// A list on its way whose items are made.
struct Making {
    head: Bytes,
    items: Peekable<IntoIter<Arc<Entry>>>,
    make: Make,
    /// Between items.
    separator: &'static [u8],
    /// Until it is sent.
    tail: Option<Bytes>,
    /// Whether there was an item.
    begun: bool,
}

impl Making {
    fn json(head: String, items: Vec<Arc<Entry>>, make: Make) -> Self {
        Self {
            head: head.into(),
            items: items.into_iter().peekable(),
            make,
            separator: b",",
            tail: Some(Bytes::from_static(TAIL)),
            begun: false,
        }
    }

    /// The same for people, of JSON that is sent to none.
    fn readable(self, wish: Wish) -> ApiResult<Self> {
        let empty = [self.head.as_ref(), TAIL].concat();
        let (any, json) = (self.items.len() > 0, self.make);
        let (frame, separator, make): (_, _, Make) = match wish.form.encoding {
            Encoding::Yaml => (
                readable::yaml_frame(&empty, field(wish.form.shape), any)?,
                b"".as_slice(),
                Box::new(move |entry| readable::yaml_item(&json(entry)?).map(Bytes::from)),
            ),
            _ => (
                readable::indented_frame(&empty, any),
                b",".as_slice(),
                Box::new(move |entry| Ok(readable::indented_item(&json(entry)?).into())),
            ),
        };
        Ok(Self {
            head: frame.head.into(),
            make,
            separator,
            tail: Some(frame.tail.into()),
            ..self
        })
    }

    /// Adds a piece to `out`; false when there is no more.
    fn piece(&mut self, out: &mut BytesMut) -> ApiResult<bool> {
        if self.tail.is_none() {
            return Ok(false);
        }
        let enough = out.len() + PIECE;
        out.extend_from_slice(&std::mem::take(&mut self.head));
        while out.len() < enough {
            let Some(entry) = self.items.next() else { break };
            if self.begun {
                out.extend_from_slice(self.separator);
            }
            self.begun = true;
            out.extend_from_slice(&(self.make)(&entry)?);
        }
        if self.items.peek().is_none()
            && let Some(tail) = self.tail.take()
        {
            out.extend_from_slice(&tail);
        }
        Ok(true)
    }

    /// The whole list.
    fn all(mut self) -> ApiResult<Bytes> {
        let mut out = BytesMut::new();
        while self.piece(&mut out)? {}
        Ok(out.freeze())
    }

    /// What is left, while it is sent.
    fn parts(self) -> Parts {
        let making = stream::unfold(Some(self), |making| async move {
            let mut making = making?;
            let mut piece = BytesMut::with_capacity(PIECE + PIECE / 4);
            match making.piece(&mut piece) {
                Ok(false) => None,
                Ok(true) => Some((Ok(piece.freeze().into()), Some(making))),
                Err(error) => {
                    tracing::error!(%error, "a list ends where an item cannot be shown");
                    Some((Err(error), None))
                }
            }
        });
        Box::pin(making)
    }
}

/// The objects of a list as JSON.
fn objects(call: &Call<'_>, list: &ListAnswer) -> ApiResult<Making> {
    let head = head(&call.served.list_kind(), &call.served.api_version(), list);
    let served = call.served.clone();
    let make: Make = Box::new(move |entry| Ok(present(&served, entry.object())));
    Ok(Making::json(head, list.items.clone(), make))
}

/// What a list of this shape calls its items.
fn field(shape: Shape) -> &'static str {
    match shape {
        Shape::Table => "rows",
        Shape::Whole | Shape::Metadata => "items",
    }
}

/// A list as JSON of the shape wanted.
fn shaped(call: &Call<'_>, list: ListAnswer, wish: Wish) -> ApiResult<Making> {
    match wish.form.shape {
        Shape::Whole => objects(call, &list),
        Shape::Metadata => {
            let head = head("PartialObjectMetadataList", "meta.k8s.io/v1", &list);
            let make: Make = Box::new(|entry| table::partial(entry.json()));
            Ok(Making::json(head, list.items, make))
        }
        Shape::Table => {
            let head = table::list_head(call.strategy(), &list);
            let (served, now) = (call.served.clone(), Timestamp::now());
            let make: Make = Box::new(move |entry| {
                let whole = |json| present(&served, json);
                table::row(served.strategy(), entry.json(), wish.include, now, &whole).map(Bytes::from)
            });
            Ok(Making::json(head, list.items, make))
        }
    }
}

/// Stored bytes as they are.
fn stored(call: &Call<'_>, list: ListAnswer, gzip: bool) -> Response<Body> {
    let head = head(&call.served.list_kind(), &call.served.api_version(), &list);
    let commas = list.items.len().saturating_sub(1);
    let length = head.len() + list.items.iter().map(|e| e.json().len()).sum::<usize>() + commas + TAIL.len();
    let items = list.items.into_iter().enumerate().flat_map(|(at, entry)| {
        let separator = (at > 0).then(|| Strand::Own(Bytes::from_static(b",")));
        separator.into_iter().chain([Strand::kept(entry)])
    });
    let strands = [Strand::Own(head.into())].into_iter().chain(items);
    let strands = strands.chain([Strand::Own(Bytes::from_static(TAIL))]);
    if length <= PIECE {
        return whole(copied(strands, length), Encoding::Json, gzip);
    }
    let parts = stream::iter(cut(strands).map(Ok));
    send(Box::pin(parts), Encoding::Json, Some(length), gzip)
}

/// What is made for this answer.
fn begun(mut making: Making, encoding: Encoding, gzip: bool) -> ApiResult<Response<Body>> {
    let (mut first, mut length) = (Vec::new(), 0);
    while length < AT_FIRST {
        let mut piece = BytesMut::new();
        if !making.piece(&mut piece)? {
            let all: Vec<Bytes> = first;
            return Ok(whole(all.concat().into(), encoding, gzip));
        }
        length += piece.len();
        first.push(piece.freeze());
    }
    let first = first.into_iter().map(|piece| Ok(piece.into()));
    let parts = stream::iter(first).chain(making.parts());
    Ok(send(Box::pin(parts), encoding, None, gzip))
}

/// Protobuf says how long a list is before its items come. Those of a short list are at hand then; those of a long one
/// are made again when they are sent, but measured only once for as long as they stay what they are.
fn protobuf(call: &Call<'_>, list: ListAnswer, wish: Wish) -> ApiResult<Response<Body>> {
    let served = call.served.clone();
    let shape = wish.form.shape;
    let (api_version, kind) = match shape {
        Shape::Whole => (served.api_version(), served.list_kind().into_owned()),
        Shape::Metadata => (
            "meta.k8s.io/v1".to_owned(),
            "PartialObjectMetadataList".to_owned(),
        ),
        Shape::Table => ("meta.k8s.io/v1".to_owned(), "Table".to_owned()),
    };
    let form = Arc::new(ListForm::of(&api_version, &kind)?);
    let as_stored = shape == Shape::Whole && served.as_stored();
    let items = form.clone();
    let make: Make = Box::new(move |entry| {
        let item = match shape {
            Shape::Metadata => table::partial(entry.json())?,
            _ => present(&served, entry.object()),
        };
        items.item(&item).map(Bytes::from)
    });
    let (mut at_hand, mut length) = (Some(BytesMut::new()), 0);
    for entry in &list.items {
        if let Some(known) = entry.protobuf_length().filter(|_| as_stored) {
            length += known;
            at_hand = None;
            continue;
        }
        let item = make(entry)?;
        length += item.len();
        if as_stored {
            entry.keep_protobuf_length(item.len());
        }
        at_hand = at_hand.filter(|items| items.len() + item.len() <= AT_FIRST);
        if let Some(items) = &mut at_hand {
            items.extend_from_slice(&item);
        }
    }
    let (head, tail) = form.around(&table::list_meta(&list), length);
    if let Some(items) = at_hand {
        let body = [head.as_slice(), &items, &tail].concat();
        return Ok(whole(body.into(), Encoding::Protobuf, wish.gzip));
    }
    let length = head.len() + length + tail.len();
    let making = Making {
        head: head.into(),
        items: list.items.into_iter().peekable(),
        make,
        separator: b"",
        tail: Some(tail.into()),
        begun: false,
    };
    if length <= PIECE {
        return Ok(whole(making.all()?, Encoding::Protobuf, wish.gzip));
    }
    Ok(send(making.parts(), Encoding::Protobuf, Some(length), wish.gzip))
}

/// An answer that is there already.
fn whole(body: Bytes, encoding: Encoding, gzip: bool) -> Response<Body> {
    let mut response = answer(200, encoding.content_type(), full(Bytes::new()));
    let body = maybe_gzip(&mut response, body, gzip);
    *response.body_mut() = body;
    response
}

/// An answer of parts, whose length may be known.
fn send(parts: Parts, encoding: Encoding, length: Option<usize>, gzip: bool) -> Response<Body> {
    let mut response = answer(200, encoding.content_type(), full(Bytes::new()));
    if gzip && length.is_none_or(|length| length >= GZIP_THRESHOLD) {
        let packed = gzip_parts(&mut response, parts);
        *response.body_mut() = made(packed);
        return response;
    }
    if let Some(length) = length {
        response
            .headers_mut()
            .insert(CONTENT_LENGTH, HeaderValue::from(length));
    }
    *response.body_mut() = made(parts);
    response
}
