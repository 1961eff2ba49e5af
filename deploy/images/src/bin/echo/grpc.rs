//! The gRPC health protocol, `grpc.health.v1.Health/Check`, over as much HTTP/2 (RFC 9113) as one small answer needs.
//!
//! Nothing else is served here, so every request is taken for a check and its headers are not even unpacked.

use std::collections::HashMap;
use std::io::{Error, ErrorKind, Read, Result, Write};
use std::net::TcpStream;

use crate::pages::Pages;

const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// The largest frame that may be sent without having asked (RFC 9113, section 4.2).
const FRAME_LIMIT: usize = 16 << 10;
/// A check holds a service's name and nothing more.
const MESSAGE_LIMIT: usize = 4 << 10;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RESET: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GO_AWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;

const END_STREAM: u8 = 0x1;
const ACK: u8 = 0x1;
const END_HEADERS: u8 = 0x4;
const PADDED: u8 = 0x8;

/// HPACK (RFC 7541): `:status: 200` from the static table, `content-type` with its name from there.
const ANSWER_HEADERS: &[u8] = b"\x88\x0f\x10\x10application/grpc";
/// A header of its own, its value to follow.
const GRPC_STATUS: &[u8] = b"\x00\x0bgrpc-status\x01";

/// `grpc.health.v1.HealthCheckResponse.ServingStatus`.
const SERVING: u8 = 1;
const NOT_SERVING: u8 = 2;

struct Frame {
    kind: u8,
    flags: u8,
    stream: u32,
    payload: Vec<u8>,
}

/// Answers the checks of one connection.
pub fn serve(mut stream: TcpStream, pages: &Pages) {
    let _ = stream.set_nodelay(true);
    // The other side has gone, or does not speak HTTP/2.
    let _ = converse(&mut stream, pages);
}

fn converse(stream: &mut TcpStream, pages: &Pages) -> Result<()> {
    let mut preface = [0; PREFACE.len()];
    stream.read_exact(&mut preface)?;
    if preface != *PREFACE {
        return Err(ErrorKind::InvalidData.into());
    }
    write(stream, SETTINGS, 0, 0, &[])?;
    let mut messages: HashMap<u32, Vec<u8>> = HashMap::new();
    loop {
        let frame = read(stream)?;
        match frame.kind {
            SETTINGS if frame.flags & ACK == 0 => write(stream, SETTINGS, ACK, 0, &[])?,
            PING if frame.flags & ACK == 0 => write(stream, PING, ACK, 0, &frame.payload)?,
            RESET => drop(messages.remove(&frame.stream)),
            GO_AWAY => return Ok(()),
            DATA => {
                let received = u32::try_from(frame.payload.len()).unwrap_or(0);
                if received > 0 {
                    write(stream, WINDOW_UPDATE, 0, 0, &received.to_be_bytes())?;
                }
                let message = messages.entry(frame.stream).or_default();
                message.extend_from_slice(unpadded(&frame)?);
                if message.len() > MESSAGE_LIMIT {
                    return Err(ErrorKind::InvalidData.into());
                }
                if frame.flags & END_STREAM != 0 {
                    let message = messages.remove(&frame.stream).unwrap_or_default();
                    answer(stream, frame.stream, status(pages, service(&message)))?;
                }
            }
            _ => {}
        }
    }
}

fn read(stream: &mut TcpStream) -> Result<Frame> {
    let mut head = [0; 9];
    stream.read_exact(&mut head)?;
    let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
    if length > FRAME_LIMIT {
        return Err(Error::new(ErrorKind::InvalidData, "frame too large"));
    }
    let mut payload = vec![0; length];
    stream.read_exact(&mut payload)?;
    Ok(Frame {
        kind: head[3],
        flags: head[4],
        stream: u32::from_be_bytes([head[5] & 0x7f, head[6], head[7], head[8]]),
        payload,
    })
}

fn write(stream: &mut TcpStream, kind: u8, flags: u8, id: u32, payload: &[u8]) -> Result<()> {
    let length = u32::try_from(payload.len()).map_err(|_| ErrorKind::InvalidData)?;
    let mut frame = length.to_be_bytes()[1..].to_vec();
    frame.extend_from_slice(&[kind, flags]);
    frame.extend_from_slice(&id.to_be_bytes());
    frame.extend_from_slice(payload);
    stream.write_all(&frame)
}

fn unpadded(frame: &Frame) -> Result<&[u8]> {
    if frame.flags & PADDED == 0 {
        return Ok(&frame.payload);
    }
    let short = || Error::from(ErrorKind::InvalidData);
    let (padding, data) = frame.payload.split_first().ok_or_else(short)?;
    let length = data.len().checked_sub(usize::from(*padding)).ok_or_else(short)?;
    Ok(&data[..length])
}

/// The service that is asked about: field 1 of the message behind gRPC's prefix of five bytes.
fn service(message: &[u8]) -> &[u8] {
    match message.get(5..) {
        Some([0x0a, length, name @ ..]) => name.get(..usize::from(*length)).unwrap_or_default(),
        _ => &[],
    }
}

/// What is to be said of a service; `None` of one that there is not.
fn status(pages: &Pages, service: &[u8]) -> Option<u8> {
    let well = match service {
        b"" | b"liveness" => !pages.failing(),
        b"readiness" => pages.ready(),
        _ => return None,
    };
    Some(if well { SERVING } else { NOT_SERVING })
}

fn answer(stream: &mut TcpStream, id: u32, status: Option<u8>) -> Result<()> {
    let trailers = |code: &[u8]| [GRPC_STATUS, code].concat();
    let Some(status) = status else {
        // NOT_FOUND, and no message.
        let headers = [ANSWER_HEADERS, &trailers(b"5")].concat();
        return write(stream, HEADERS, END_HEADERS | END_STREAM, id, &headers);
    };
    write(stream, HEADERS, END_HEADERS, id, ANSWER_HEADERS)?;
    // Not compressed, two bytes long: field 1, a number.
    write(stream, DATA, 0, id, &[0, 0, 0, 0, 2, 0x08, status])?;
    write(stream, HEADERS, END_HEADERS | END_STREAM, id, &trailers(b"0"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_service_is_found_in_the_message() {
        assert_eq!(service(b"\0\0\0\0\0"), b"");
        assert_eq!(service(b"\0\0\0\0\x0b\x0a\x09readiness"), b"readiness");
        assert_eq!(service(b"\0\0\0\0\x0b\x0a\x0areadiness"), b"", "cut short");
    }

    #[test]
    fn padding_is_taken_off() {
        let frame = |payload: &[u8]| Frame {
            kind: DATA,
            flags: PADDED,
            stream: 1,
            payload: payload.to_vec(),
        };
        assert_eq!(unpadded(&frame(b"\x02ab\0\0")).ok(), Some(&b"ab"[..]));
        assert!(unpadded(&frame(b"\x09ab")).is_err());
    }
}
