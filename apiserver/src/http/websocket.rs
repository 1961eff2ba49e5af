//! Watches over WebSocket (RFC 6455): one text message an event. Browsers can open nothing else that stays open.
//!
//! The server only tells; of what a watcher sends, only a wish to close and pings matter.

use base64::Engine as _;
use bytes::Bytes;
use futures::{SinkExt as _, StreamExt as _};
use http::header::{CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, UPGRADE};
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use keelson_api::status::{ApiError, ApiResult};
use ring::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error, Message, Utf8Bytes};

use super::answer::{Body, Telling, full};

/// Proves that the server has understood (RFC 6455, section 1.3).
const MAGIC: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
/// Browsers cannot send an Authorization header: they offer their token as a protocol, which is never chosen.
const TOKEN: &str = "base64url.bearer.authorization.k8s.io.";

/// Control frames are no longer than this (section 5.5); watchers send nothing else.
const SHORT: usize = 125;

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
pub fn respond(
    headers: &HeaderMap,
    upgrade: Option<OnUpgrade>,
    telling: Telling,
) -> ApiResult<Response<Body>> {
    let (Some(key), Some(upgrade)) = (headers.get(SEC_WEBSOCKET_KEY), upgrade) else {
        return Err(ApiError::bad_request("not a WebSocket handshake"));
    };
    let accept = HeaderValue::from_str(&accept(key.as_bytes())).map_err(ApiError::internal)?;
    tokio::spawn(async move {
        let told = match upgrade.await {
            Ok(connection) => tell(TokioIo::new(connection), telling).await,
            Err(error) => Err(Error::Io(std::io::Error::other(error))),
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

/// Sends each line as a message until there are no more, or the client has had enough. Pings and its wish to close are
/// answered by the protocol's own layer while it is listened to.
///
/// # Errors
/// When the connection breaks, or the client does not keep to the protocol.
pub async fn tell<S: AsyncRead + AsyncWrite + Unpin>(stream: S, mut telling: Telling) -> Result<(), Error> {
    let config = WebSocketConfig::default()
        .max_message_size(Some(SHORT))
        .max_frame_size(Some(SHORT));
    let mut socket = WebSocketStream::from_raw_socket(stream, Role::Server, Some(config)).await;
    loop {
        tokio::select! {
            lines = telling.next() => {
                let Some(lines) = lines else { return socket.close(None).await };
                for mut line in lines {
                    line.truncate(line.trim_ascii_end().len());
                    let text = Utf8Bytes::try_from(line).map_err(|error| Error::Utf8(error.to_string()))?;
                    socket.feed(Message::Text(text)).await?;
                }
                socket.flush().await?;
            }
            heard = socket.next() => match heard {
                Some(Ok(_)) => {}
                Some(Err(error)) => return Err(error),
                None => return Ok(()),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    // Opcodes of frames that are messages of their own (section 5.2).
    const CLOSE: u8 = 0x88;
    const PING: u8 = 0x89;
    const PONG: u8 = 0x8A;

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

    #[tokio::test]
    async fn events_become_messages_and_pings_are_answered() -> std::io::Result<()> {
        let (server, mut client) = tokio::io::duplex(4096);
        let lines = ["{\"a\":1}\n", "{\"b\":2}\n"].map(Bytes::from);
        let first = futures::stream::iter([lines.to_vec()]);
        tokio::spawn(tell(server, Box::pin(first.chain(futures::stream::pending()))));
        let mut told = [0; 18];
        client.read_exact(&mut told).await?;
        assert_eq!(&told, b"\x81\x07{\"a\":1}\x81\x07{\"b\":2}");
        // "x" under the mask 1, 2, 3, 4.
        client.write_all(&[PING, 0x81, 1, 2, 3, 4, b'x' ^ 1]).await?;
        let mut pong = [0; 3];
        client.read_exact(&mut pong).await?;
        assert_eq!(&pong, &[PONG, 1, b'x']);
        client.write_all(&[CLOSE, 0x80, 0, 0, 0, 0]).await?;
        let mut rest = Vec::new();
        client.read_to_end(&mut rest).await?;
        assert_eq!(rest, [CLOSE, 0]);
        Ok(())
    }
}
