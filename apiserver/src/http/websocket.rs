//! Watches over WebSocket (RFC 6455): one text message an event. Browsers can open nothing else that stays open.
//!
//! The server only tells; of what a watcher sends, only a wish to close and pings matter.

use base64::Engine as _;
use bytes::{BufMut as _, Bytes, BytesMut};
use futures::StreamExt as _;
use http::header::{CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, UPGRADE};
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use keelson_api::status::{ApiError, ApiResult};
use ring::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use super::answer::{Body, Pieces, full};

/// Proves that the server has understood (RFC 6455, section 1.3).
const MAGIC: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
/// Browsers cannot send an Authorization header: they offer their token as a protocol, which is never chosen.
const TOKEN: &str = "base64url.bearer.authorization.k8s.io.";

/// The last frame of a message, in the first byte.
const FINAL: u8 = 0x80;
const TEXT: u8 = 0x1;
const CLOSE: u8 = 0x8;
const PING: u8 = 0x9;
const PONG: u8 = 0xA;
/// Control frames are no longer than this; watchers send nothing else.
const SHORT: usize = 125;
const MASK: usize = 4;

/// Whether the caller wants to speak WebSocket.
pub fn asked_for(headers: &HeaderMap) -> bool {
    let has = |name, word: &str| {
        let values = headers
            .get_all(name)
            .iter()
            .filter_map(|value| value.to_str().ok());
        values
            .flat_map(|value| value.split(','))
            .any(|part| part.trim().eq_ignore_ascii_case(word))
    };
    has(UPGRADE, "websocket") && has(CONNECTION, "upgrade")
}

/// Switches protocols; the lines of the watch become messages.
///
/// # Errors
/// 400 for a handshake that is none.
pub fn respond(headers: &HeaderMap, upgrade: Option<OnUpgrade>, lines: Pieces) -> ApiResult<Response<Body>> {
    let (Some(key), Some(upgrade)) = (headers.get(SEC_WEBSOCKET_KEY), upgrade) else {
        return Err(ApiError::bad_request("not a WebSocket handshake"));
    };
    let accept = HeaderValue::from_str(&accept(key.as_bytes())).map_err(ApiError::internal)?;
    tokio::spawn(async move {
        let told = match upgrade.await {
            Ok(connection) => tell(TokioIo::new(connection), lines).await,
            Err(error) => Err(std::io::Error::other(error)),
        };
        if let Err(error) = told {
            tracing::debug!(%error, "a watch over WebSocket ended");
        }
    });
    let mut response = Response::new(full(Bytes::new()));
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let answer = response.headers_mut();
    answer.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    answer.insert(UPGRADE, HeaderValue::from_static("websocket"));
    answer.insert(SEC_WEBSOCKET_ACCEPT, accept);
    // Browsers give up when none of the protocols they offer is chosen.
    let offered = headers
        .get(SEC_WEBSOCKET_PROTOCOL)
        .and_then(|value| value.to_str().ok());
    let mut offered = offered.unwrap_or_default().split(',').map(str::trim);
    let chosen = offered.find(|one| !one.is_empty() && !one.starts_with(TOKEN));
    if let Some(chosen) = chosen.and_then(|chosen| HeaderValue::from_str(chosen).ok()) {
        answer.insert(SEC_WEBSOCKET_PROTOCOL, chosen);
    }
    Ok(response)
}

fn accept(key: &[u8]) -> String {
    let proof = digest(&SHA1_FOR_LEGACY_USE_ONLY, &[key, MAGIC.as_bytes()].concat());
    base64::engine::general_purpose::STANDARD.encode(proof)
}

/// One frame that is a message of its own.
fn frame(kind: u8, payload: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(payload.len() + 10);
    out.put_u8(FINAL | kind);
    // Lengths are given in one byte, in two more or in eight more.
    let length = payload.len();
    match (u8::try_from(length), u16::try_from(length)) {
        (Ok(short), _) if length <= SHORT => out.put_u8(short),
        (_, Ok(medium)) => {
            out.put_u8(126);
            out.put_u16(medium);
        }
        _ => {
            out.put_u8(127);
            out.put_u64(u64::try_from(length).unwrap_or(u64::MAX));
        }
    }
    out.extend_from_slice(payload);
    out.freeze()
}

/// A frame of the client's.
struct Heard {
    kind: u8,
    payload: Vec<u8>,
}

/// The next frame. Longer ones than control frames are none of a watcher's business.
async fn hear(from: &mut (impl AsyncRead + Unpin)) -> std::io::Result<Heard> {
    let kind = from.read_u8().await? & 0x0F;
    let length = from.read_u8().await?;
    let (masked, length) = (length & 0x80 != 0, usize::from(length & 0x7F));
    if !masked || length > SHORT {
        return Err(std::io::Error::other("a frame no watcher sends"));
    }
    let mut mask = [0; MASK];
    from.read_exact(&mut mask).await?;
    let mut payload = vec![0; length];
    from.read_exact(&mut payload).await?;
    for (byte, key) in payload.iter_mut().zip(mask.iter().cycle()) {
        *byte ^= key;
    }
    Ok(Heard { kind, payload })
}

/// Sends the lines until there are no more, or the client has had enough.
async fn tell<S: AsyncRead + AsyncWrite + Send + 'static>(
    stream: S,
    mut lines: Pieces,
) -> std::io::Result<()> {
    let (mut from, mut to) = tokio::io::split(stream);
    // Hearing cannot be broken off halfway: a task of its own does it.
    let (heard, mut hearing) = tokio::sync::mpsc::channel(1);
    let ears = tokio::spawn(async move {
        while let Ok(frame) = hear(&mut from).await {
            if heard.send(frame).await.is_err() {
                break;
            }
        }
    });
    let result = async {
        loop {
            tokio::select! {
                piece = lines.next() => {
                    let Some(piece) = piece else { return to.write_all(&frame(CLOSE, &[])).await };
                    // Events are told one a line; no line break stands inside of one.
                    for line in piece.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
                        to.write_all(&frame(TEXT, line)).await?;
                    }
                    to.flush().await?;
                }
                heard = hearing.recv() => match heard {
                    Some(Heard { kind: PING, payload }) => to.write_all(&frame(PONG, &payload)).await?,
                    Some(Heard { kind: CLOSE, payload }) => return to.write_all(&frame(CLOSE, &payload)).await,
                    Some(_) => {}
                    None => return Ok(()),
                },
            }
        }
    }
    .await;
    ears.abort();
    let _ = to.shutdown().await;
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_handshake_is_known_and_answered() {
        let mut headers = HeaderMap::new();
        headers.insert(CONNECTION, HeaderValue::from_static("keep-alive, Upgrade"));
        assert!(!asked_for(&headers));
        headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
        assert!(asked_for(&headers));
        // The example of RFC 6455, section 1.3.
        assert_eq!(
            accept(b"dGhlIHNhbXBsZSBub25jZQ=="),
            "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
        );
    }

    #[test]
    fn lengths_are_written_in_one_three_or_nine_bytes() {
        assert_eq!(&frame(TEXT, b"hi")[..], b"\x81\x02hi");
        assert_eq!(&frame(TEXT, &[0; 126])[..4], b"\x81\x7e\x00\x7e");
        assert_eq!(&frame(TEXT, &[0; 65536])[..10], b"\x81\x7f\0\0\0\0\0\x01\0\0");
    }

    #[tokio::test]
    async fn events_become_messages_and_pings_are_answered() -> std::io::Result<()> {
        let (server, mut client) = tokio::io::duplex(4096);
        let first = futures::stream::iter([Bytes::from_static(b"{\"a\":1}\n{\"b\":2}\n")]);
        let lines: Pieces = Box::pin(first.chain(futures::stream::pending()));
        tokio::spawn(tell(server, lines));
        let mut told = [0; 18];
        client.read_exact(&mut told).await?;
        assert_eq!(&told, b"\x81\x07{\"a\":1}\x81\x07{\"b\":2}");
        // "x" under the mask 1, 2, 3, 4.
        client
            .write_all(&[FINAL | PING, 0x81, 1, 2, 3, 4, b'x' ^ 1])
            .await?;
        let mut pong = [0; 3];
        client.read_exact(&mut pong).await?;
        assert_eq!(&pong, &[FINAL | PONG, 1, b'x']);
        client.write_all(&[FINAL | CLOSE, 0x80, 0, 0, 0, 0]).await?;
        let mut rest = Vec::new();
        client.read_to_end(&mut rest).await?;
        assert_eq!(rest, [FINAL | CLOSE, 0]);
        Ok(())
    }
}
