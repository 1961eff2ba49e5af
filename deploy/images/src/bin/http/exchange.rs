//! One request and its answer.

use std::io::{Error, ErrorKind, Read, Result, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

use crate::tls::{self, Trust};

/// What to ask.
#[derive(Clone)]
pub struct Request {
    pub method: String,
    pub url: String,
    pub headers: Vec<String>,
    pub body: Option<String>,
    pub timeout: Option<Duration>,
    pub trust: Trust,
}

/// What came back.
pub struct Answer {
    /// Status line and headers, without carriage returns.
    pub head: String,
    pub status: u16,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head
            .lines()
            .skip(1)
            .filter_map(|line| line.split_once(':'))
            .find(|(n, _)| n.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.trim())
    }
}

/// A URL's parts.
struct Target<'a> {
    secure: bool,
    authority: &'a str,
    host: &'a str,
    port: u16,
    path: String,
}

impl<'a> Target<'a> {
    fn parse(url: &'a str) -> Result<Self> {
        let (secure, rest) = match url.split_once("://") {
            Some(("http", rest)) => (false, rest),
            Some(("https", rest)) => (true, rest),
            Some((scheme, _)) => return Err(wrong(format!("protocol {scheme:?} is not supported"))),
            None => (false, url),
        };
        let rest = rest.split('#').next().unwrap_or_default();
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, path) = rest.split_at(end);
        let path = if path.starts_with('/') {
            path.to_owned()
        } else {
            format!("/{path}")
        };
        let default = if secure { 443 } else { 80 };
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) if !port.contains(']') => (
                host,
                port.parse()
                    .map_err(|_| wrong(format!("{port:?} is not a port")))?,
            ),
            _ => (authority, default),
        };
        let host = host.trim_start_matches('[').trim_end_matches(']');
        if host.is_empty() {
            return Err(wrong(format!("{url:?} names no host")));
        }
        Ok(Self {
            secure,
            authority,
            host,
            port,
            path,
        })
    }
}

/// Sends the request and reads the whole answer.
pub fn exchange(request: &Request) -> Result<Answer> {
    let target = Target::parse(&request.url)?;
    let stream = connect(target.host, target.port, request.timeout)?;
    let text = text(request, &target);
    let received = if target.secure {
        tls::converse(stream, target.host, &request.trust, text.as_bytes())?
    } else {
        let mut stream = stream;
        stream.write_all(text.as_bytes())?;
        let mut received = Vec::new();
        read_to_end(&mut stream, &mut received)?;
        received
    };
    parse(&received, request.method == "HEAD")
}

fn text(request: &Request, target: &Target<'_>) -> String {
    let mut text = format!(
        "{} {} HTTP/1.1\r\nHost: {}\r\n",
        request.method, target.path, target.authority
    );
    let given = |name: &str| {
        request
            .headers
            .iter()
            .any(|h| h.split(':').next().is_some_and(|n| n.eq_ignore_ascii_case(name)))
    };
    for (name, value) in [("User-Agent", "keelson-http/1"), ("Accept", "*/*")] {
        if !given(name) {
            text.push_str(&format!("{name}: {value}\r\n"));
        }
    }
    for header in &request.headers {
        text.push_str(&format!("{header}\r\n"));
    }
    if let Some(body) = &request.body {
        if !given("Content-Type") {
            text.push_str("Content-Type: application/x-www-form-urlencoded\r\n");
        }
        text.push_str(&format!("Content-Length: {}\r\n", body.len()));
    }
    text.push_str("Connection: close\r\n\r\n");
    text.push_str(request.body.as_deref().unwrap_or_default());
    text
}

/// Tries each of the host's addresses.
pub fn connect(host: &str, port: u16, timeout: Option<Duration>) -> Result<TcpStream> {
    let mut last = Error::new(ErrorKind::NotFound, format!("could not resolve host: {host}"));
    let addresses = (host, port)
        .to_socket_addrs()
        .map_err(|_| Error::new(ErrorKind::NotFound, last.to_string()))?;
    for address in addresses {
        let connected = match timeout {
            Some(timeout) => TcpStream::connect_timeout(&address, timeout),
            None => TcpStream::connect(address),
        };
        match connected {
            Ok(stream) => {
                stream.set_read_timeout(timeout)?;
                return Ok(stream);
            }
            Err(error) => last = Error::new(error.kind(), format!("connecting to {address}: {error}")),
        }
    }
    Err(last)
}

/// Reads until the other side closes, which it need not do politely once everything is there.
pub fn read_to_end(stream: &mut impl Read, into: &mut Vec<u8>) -> Result<()> {
    match stream.read_to_end(into) {
        Err(error)
            if !into.is_empty()
                && matches!(
                    error.kind(),
                    ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset
                ) =>
        {
            Ok(())
        }
        other => other.map(drop),
    }
}

fn parse(received: &[u8], head_only: bool) -> Result<Answer> {
    const END: &[u8] = b"\r\n\r\n";
    let end = received
        .windows(END.len())
        .position(|window| window == END)
        .ok_or_else(|| wrong("the answer is not HTTP".into()))?;
    let head = String::from_utf8_lossy(&received[..end]).replace('\r', "");
    let status = head
        .split_whitespace()
        .nth(1)
        .and_then(|code| code.parse().ok())
        .ok_or_else(|| wrong(format!("no status in {:?}", head.lines().next())))?;
    let rest = &received[end + END.len()..];
    let mut answer = Answer {
        head,
        status,
        body: Vec::new(),
    };
    // What precedes the real answer when a body was announced.
    if status == 100 {
        return parse(rest, head_only);
    }
    if !head_only {
        answer.body = match answer.header("transfer-encoding") {
            Some(encoding) if encoding.eq_ignore_ascii_case("chunked") => unchunk(rest)?,
            _ => rest.to_vec(),
        };
    }
    Ok(answer)
}

fn unchunk(mut rest: &[u8]) -> Result<Vec<u8>> {
    let broken = || wrong("broken chunked encoding".into());
    let mut body = Vec::new();
    loop {
        let end = rest
            .windows(2)
            .position(|window| window == b"\r\n")
            .ok_or_else(broken)?;
        let size = std::str::from_utf8(&rest[..end]).map_err(|_| broken())?;
        let size = usize::from_str_radix(size.split(';').next().unwrap_or_default().trim(), 16)
            .map_err(|_| broken())?;
        if size == 0 {
            return Ok(body);
        }
        let data = end + 2;
        body.extend_from_slice(rest.get(data..data + size).ok_or_else(broken)?);
        rest = rest.get(data + size + 2..).ok_or_else(broken)?;
    }
}

pub fn wrong(message: String) -> Error {
    Error::new(ErrorKind::InvalidData, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_are_put_together() -> Result<()> {
        let answer = parse(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n1;x=y\r\n!\r\n0\r\n\r\n",
            false,
        )?;
        assert_eq!(
            (answer.status, answer.body.as_slice()),
            (200, b"hello!".as_slice())
        );
        Ok(())
    }

    #[test]
    fn urls_are_taken_apart() -> Result<()> {
        let target = Target::parse("https://[::1]:6443/api?x=1")?;
        assert_eq!(
            (target.secure, target.host, target.port, target.path.as_str()),
            (true, "::1", 6443, "/api?x=1")
        );
        let target = Target::parse("web")?;
        assert_eq!(
            (target.secure, target.host, target.port, target.path.as_str()),
            (false, "web", 80, "/")
        );
        Ok(())
    }
}
