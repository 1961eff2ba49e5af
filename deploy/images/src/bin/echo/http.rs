//! As much HTTP/1.1 as an echo server needs: request line, headers, bodies by length or in chunks, keep-alive.

use std::io::{BufRead, BufReader, Error, ErrorKind, Read, Result, Write};
use std::net::TcpStream;

/// A head or body beyond this is refused: the server runs in small containers.
const LIMIT: usize = 1 << 20;

/// One request.
pub struct Request {
    pub method: String,
    pub target: String,
    pub version: String,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    pub keep_alive: bool,
}

impl Request {
    /// The target without its query.
    pub fn path(&self) -> &str {
        self.target.split('?').next().unwrap_or_default()
    }

    /// A number in the query.
    pub fn query(&self, name: &str) -> Option<u64> {
        let (_, query) = self.target.split_once('?')?;
        let (_, value) = query
            .split('&')
            .filter_map(|pair| pair.split_once('='))
            .find(|(n, _)| *n == name)?;
        value.parse().ok()
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(n, _)| n.eq_ignore_ascii_case(name))
            .map(|(_, v)| v.as_str())
    }
}

/// One answer.
pub struct Answer {
    pub status: &'static str,
    pub body: Vec<u8>,
    /// The process ends with this code once the answer is written.
    pub exit: Option<i32>,
}

/// A connection with what was read ahead.
pub struct Connection {
    reader: BufReader<TcpStream>,
}

impl Connection {
    pub fn new(stream: TcpStream) -> Self {
        Self {
            reader: BufReader::new(stream),
        }
    }

    /// The next request; none when the client has closed.
    pub fn read(&mut self) -> Result<Option<Request>> {
        let Some(line) = self.line()? else { return Ok(None) };
        let mut words = line.split_whitespace().map(str::to_owned);
        let (Some(method), Some(target)) = (words.next(), words.next()) else {
            return Err(bad("request line"));
        };
        let version = words.next().unwrap_or_else(|| "HTTP/1.0".into());
        let mut headers = Vec::new();
        loop {
            let line = self.line()?.ok_or_else(|| bad("headers end early"))?;
            if line.is_empty() {
                break;
            }
            let (name, value) = line.split_once(':').ok_or_else(|| bad("header"))?;
            headers.push((name.trim().to_owned(), value.trim().to_owned()));
            if headers.len() > 200 {
                return Err(bad("too many headers"));
            }
        }
        let mut request = Request {
            keep_alive: version == "HTTP/1.1",
            method,
            target,
            version,
            headers,
            body: Vec::new(),
        };
        if let Some(connection) = request.header("connection") {
            request.keep_alive = request.keep_alive && !connection.eq_ignore_ascii_case("close");
        }
        if request.header("expect").is_some() {
            self.reader
                .get_mut()
                .write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
        }
        if request
            .header("transfer-encoding")
            .is_some_and(|e| e.eq_ignore_ascii_case("chunked"))
        {
            request.body = self.chunks()?;
        } else if let Some(length) = request.header("content-length") {
            let length: usize = length.parse().map_err(|_| bad("content length"))?;
            request.body = self.exactly(length)?;
        }
        Ok(Some(request))
    }

    pub fn write(&mut self, answer: &Answer, keep_alive: bool, head_only: bool) -> Result<()> {
        let connection = if keep_alive { "keep-alive" } else { "close" };
        let mut bytes = format!(
            "HTTP/1.1 {}\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {}\r\nConnection: {connection}\r\n\r\n",
            answer.status,
            answer.body.len(),
        )
        .into_bytes();
        if !head_only {
            bytes.extend_from_slice(&answer.body);
        }
        self.reader.get_mut().write_all(&bytes)
    }

    fn line(&mut self) -> Result<Option<String>> {
        let mut line = Vec::new();
        let read = (&mut self.reader)
            .take(LIMIT as u64)
            .read_until(b'\n', &mut line)?;
        if read == 0 {
            return Ok(None);
        }
        while line.last().is_some_and(|b| matches!(b, b'\n' | b'\r')) {
            line.pop();
        }
        Ok(Some(String::from_utf8_lossy(&line).into_owned()))
    }

    fn exactly(&mut self, length: usize) -> Result<Vec<u8>> {
        if length > LIMIT {
            return Err(bad("body too large"));
        }
        let mut body = vec![0; length];
        self.reader.read_exact(&mut body)?;
        Ok(body)
    }

    fn chunks(&mut self) -> Result<Vec<u8>> {
        let mut body = Vec::new();
        loop {
            let line = self.line()?.ok_or_else(|| bad("chunks end early"))?;
            let size = line.split(';').next().unwrap_or_default().trim();
            let size = usize::from_str_radix(size, 16).map_err(|_| bad("chunk size"))?;
            if body.len() + size > LIMIT {
                return Err(bad("body too large"));
            }
            body.extend(self.exactly(size)?);
            self.line()?;
            if size == 0 {
                return Ok(body);
            }
        }
    }
}

fn bad(what: &str) -> Error {
    Error::new(ErrorKind::InvalidData, what.to_owned())
}
