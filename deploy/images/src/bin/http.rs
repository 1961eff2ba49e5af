//! A small HTTP client for the toolbox, where busybox's wget says too little: status line, headers and body,
//! repeated requests with a summary of who answered, raw TCP and UDP exchanges.
//!
//! ```text
//! keelson-http [-X METHOD] [-d BODY] [-H NAME:VALUE] [-n TIMES] [-t SECONDS] [-i] http://HOST[:PORT]/PATH
//! keelson-http tcp HOST:PORT TEXT
//! keelson-http udp HOST:PORT TEXT
//! ```
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::io::{Error, ErrorKind, Read, Result, Write};
use std::net::{TcpStream, ToSocketAddrs, UdpSocket};
use std::time::Duration;

const USAGE: &str =
    "usage: keelson-http [-X METHOD] [-d BODY] [-H NAME:VALUE] [-n TIMES] [-t SECONDS] [-i] URL
       keelson-http tcp|udp HOST:PORT TEXT";

struct Request {
    method: String,
    body: String,
    headers: Vec<String>,
    times: u32,
    timeout: Duration,
    show_head: bool,
    url: String,
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let result = match arguments.first().map(String::as_str) {
        Some("tcp") if arguments.len() == 3 => tcp(&arguments[1], &arguments[2]),
        Some("udp") if arguments.len() == 3 => udp(&arguments[1], &arguments[2]),
        _ => match parse(arguments) {
            Some(request) => http(&request),
            None => {
                eprintln!("{USAGE}");
                std::process::exit(2)
            }
        },
    };
    if let Err(error) = result {
        eprintln!("keelson-http: {error}");
        std::process::exit(1);
    }
}

fn parse(arguments: Vec<String>) -> Option<Request> {
    let mut request = Request {
        method: "GET".into(),
        body: String::new(),
        headers: Vec::new(),
        times: 1,
        timeout: Duration::from_secs(5),
        show_head: false,
        url: String::new(),
    };
    let mut rest = arguments.into_iter();
    while let Some(argument) = rest.next() {
        match argument.as_str() {
            "-X" => request.method = rest.next()?,
            "-d" => request.body = rest.next()?,
            "-H" => request.headers.push(rest.next()?),
            "-n" => request.times = rest.next()?.parse().ok()?,
            "-t" => request.timeout = Duration::from_secs(rest.next()?.parse().ok()?),
            "-i" => request.show_head = true,
            _ if request.url.is_empty() && !argument.starts_with('-') => request.url = argument,
            _ => return None,
        }
    }
    (!request.url.is_empty()).then_some(request)
}

/// One request prints its answer; several print how often each `Hostname:` answered.
fn http(request: &Request) -> Result<()> {
    let mut answered: BTreeMap<String, u32> = BTreeMap::new();
    for _ in 0..request.times {
        let (head, body) = exchange(request)?;
        if request.times == 1 {
            if request.show_head {
                println!("{head}\n");
            }
            print!("{body}");
            let ok = head
                .split_whitespace()
                .nth(1)
                .is_some_and(|code| code.starts_with(['2', '3']));
            return if ok {
                Ok(())
            } else {
                Err(Error::other(head.lines().next().unwrap_or_default().to_owned()))
            };
        }
        let host = body
            .lines()
            .find_map(|line| line.strip_prefix("Hostname: "))
            .unwrap_or("?");
        *answered.entry(host.to_owned()).or_default() += 1;
    }
    for (host, times) in answered {
        println!("{times} {host}");
    }
    Ok(())
}

fn exchange(request: &Request) -> Result<(String, String)> {
    let rest = request.url.strip_prefix("http://").unwrap_or(&request.url);
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let path = if path.is_empty() { "/" } else { path };
    let colon_in_port = authority.rsplit(']').next().unwrap_or_default().contains(':');
    let address = if colon_in_port {
        authority.to_owned()
    } else {
        format!("{authority}:80")
    };
    let mut stream = connect(&address, request.timeout)?;
    let mut text = format!(
        "{} {path} HTTP/1.1\r\nHost: {authority}\r\nConnection: close\r\n",
        request.method
    );
    for header in &request.headers {
        text.push_str(&format!("{header}\r\n"));
    }
    if !request.body.is_empty() {
        text.push_str(&format!("Content-Length: {}\r\n", request.body.len()));
    }
    text.push_str("\r\n");
    text.push_str(&request.body);
    stream.write_all(text.as_bytes())?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let (head, body) = answer
        .split_once("\r\n\r\n")
        .ok_or_else(|| Error::new(ErrorKind::InvalidData, "the answer is not HTTP"))?;
    Ok((head.replace('\r', ""), body.to_owned()))
}

fn connect(address: &str, timeout: Duration) -> Result<TcpStream> {
    let mut last = Error::new(ErrorKind::NotFound, format!("{address}: no address"));
    for candidate in address.to_socket_addrs()? {
        match TcpStream::connect_timeout(&candidate, timeout) {
            Ok(stream) => {
                stream.set_read_timeout(Some(timeout))?;
                return Ok(stream);
            }
            Err(error) => last = Error::new(error.kind(), format!("connecting to {candidate}: {error}")),
        }
    }
    Err(last)
}

fn tcp(address: &str, text: &str) -> Result<()> {
    let mut stream = connect(address, Duration::from_secs(5))?;
    stream.write_all(text.as_bytes())?;
    stream.shutdown(std::net::Shutdown::Write)?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    println!("{}", String::from_utf8_lossy(&answer));
    Ok(())
}

fn udp(address: &str, text: &str) -> Result<()> {
    let target = address
        .to_socket_addrs()?
        .next()
        .ok_or_else(|| Error::new(ErrorKind::NotFound, format!("{address}: no address")))?;
    let socket = UdpSocket::bind(if target.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" })?;
    socket.connect(target)?;
    socket.set_read_timeout(Some(Duration::from_secs(5)))?;
    socket.send(text.as_bytes())?;
    let mut buffer = [0; 65_536];
    let read = socket.recv(&mut buffer)?;
    println!("{}", String::from_utf8_lossy(&buffer[..read]));
    Ok(())
}
