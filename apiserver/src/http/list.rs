//! Lists: stored bytes between a head and a tail, made while they are sent.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use http::Response;
use http::header::{CONTENT_LENGTH, HeaderValue};
use keelson_api::status::ApiResult;

use super::answer::{Body, Pieces, answer, encode, full, gzip_pieces, maybe_gzip, streamed, with_warnings};
use super::negotiate::{Encoding, Shape};
use super::resources::{Wish, present};
use crate::audit;
use crate::handlers::Call;
use crate::handlers::list::ListAnswer;
use crate::storage::entry::Entry;
use crate::table;

/// Pieces are about this large: small enough to begin soon, large enough that each costs little.
const PIECE: usize = 64 << 10;

/// The answer to a list.
pub fn respond(call: &Call<'_>, list: ListAnswer, wish: Wish) -> ApiResult<Response<Body>> {
    if audit::wants_response() {
        let head = head(&call.served.list_kind(), &call.served.api_version(), &list);
        let whole = joined(&head, &list, |object| {
            Ok(present(call.served, Bytes::copy_from_slice(object)))
        })?;
        audit::response_body(&whole);
    }
    let content_type = wish.form.encoding.content_type();
    let response = match (wish.form.shape, wish.form.encoding) {
        (Shape::Whole, Encoding::Json) if !wish.pretty && shown_as_stored(call, &list) => {
            whole(call, list, wish.gzip)
        }
        _ => {
            let json = match wish.form.shape {
                Shape::Table => table::of_list(call.strategy(), &list, wish.include, &|json| {
                    present(call.served, json)
                })?,
                Shape::Metadata => {
                    let head = head("PartialObjectMetadataList", "meta.k8s.io/v1", &list);
                    joined(&head, &list, table::partial)?
                }
                Shape::Whole => {
                    let head = head(&call.served.list_kind(), &call.served.api_version(), &list);
                    joined(&head, &list, |object| {
                        Ok(present(call.served, Bytes::copy_from_slice(object)))
                    })?
                }
            };
            let body = encode(json, wish.form.encoding, wish.pretty)?;
            let mut response = answer(200, content_type, full(Bytes::new()));
            let body = maybe_gzip(&mut response, body, wish.gzip);
            *response.body_mut() = body;
            response
        }
    };
    Ok(with_warnings(response, &call.warnings()))
}

/// Whether the items can be sent as they are.
fn shown_as_stored(call: &Call<'_>, list: &ListAnswer) -> bool {
    let served = call.served;
    match served.custom_version() {
        None => served.as_stored(),
        Some(_) => list.items.iter().all(|entry| served.shows(&entry.object())),
    }
}

fn head(kind: &str, api_version: &str, list: &ListAnswer) -> String {
    format!(
        r#"{{"kind":"{kind}","apiVersion":"{api_version}","metadata":{},"items":["#,
        table::list_meta(list)
    )
}

const TAIL: &[u8] = b"]}\n";

fn joined(head: &str, list: &ListAnswer, each: impl Fn(&[u8]) -> ApiResult<Bytes>) -> ApiResult<Bytes> {
    let mut out = BytesMut::from(head.as_bytes());
    for (index, entry) in list.items.iter().enumerate() {
        if index > 0 {
            out.extend_from_slice(b",");
        }
        out.extend_from_slice(&each(&entry.object())?);
    }
    out.extend_from_slice(TAIL);
    Ok(out.freeze())
}

/// Stored bytes as they are.
fn whole(call: &Call<'_>, list: ListAnswer, gzip: bool) -> Response<Body> {
    let head = head(&call.served.list_kind(), &call.served.api_version(), &list);
    let commas = list.items.len().saturating_sub(1);
    let length = head.len() + list.items.iter().map(|e| e.size()).sum::<usize>() + commas + TAIL.len();
    let pieces = pieces(head, list.items);
    let mut response = answer(200, "application/json", full(Bytes::new()));
    if gzip && length >= super::answer::GZIP_THRESHOLD {
        let packed = gzip_pieces(&mut response, pieces);
        *response.body_mut() = streamed(packed);
    } else {
        response
            .headers_mut()
            .insert(CONTENT_LENGTH, HeaderValue::from(length));
        *response.body_mut() = streamed(pieces);
    }
    response
}

/// Head, items and tail, gathered into pieces.
fn pieces(head: String, items: Vec<Arc<Entry>>) -> Pieces {
    let state = (Some(head), items.into_iter().peekable(), false);
    let stream = futures::stream::unfold(state, |(head, mut items, mut begun)| async move {
        if head.is_none() && items.peek().is_none() {
            return None;
        }
        let mut piece = BytesMut::with_capacity(PIECE + PIECE / 4);
        if let Some(head) = head {
            piece.extend_from_slice(head.as_bytes());
        }
        while piece.len() < PIECE {
            let Some(entry) = items.next() else { break };
            if begun {
                piece.extend_from_slice(b",");
            }
            begun = true;
            piece.extend_from_slice(&entry.object());
        }
        if items.peek().is_none() {
            piece.extend_from_slice(TAIL);
        }
        Some((piece.freeze(), (None, items, begun)))
    });
    Box::pin(stream)
}
