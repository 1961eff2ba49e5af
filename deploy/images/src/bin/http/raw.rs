//! Under its own name: who answers, and exchanges below HTTP.

use std::collections::BTreeMap;
use std::io::{Error, ErrorKind, Read, Result, Write};
use std::net::{ToSocketAddrs, UdpSocket};
use std::process::ExitCode;
use std::time::Duration;

use crate::exchange::{Request, connect, exchange, wrong};
use crate::tls::Trust;

const TIMEOUT: Duration = Duration::from_secs(5);

pub fn run(arguments: &[String]) -> ExitCode {
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let result = match words.as_slice() {
        ["tcp", address, text] => tcp(address, text),
        ["udp", address, text] => udp(address, text),
        ["-n", times, url] => times
            .parse()
            .map_err(|_| wrong(format!("{times:?} is not a number")))
            .and_then(|times| count(times, url)),
        _ => {
            eprintln!("usage: keelson-http -n TIMES URL\n       keelson-http tcp|udp HOST:PORT TEXT");
            return ExitCode::from(2);
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("keelson-http: {error}");
            ExitCode::FAILURE
        }
    }
}

fn count(times: u32, url: &str) -> Result<()> {
    let request = Request {
        method: "GET".into(),
        url: url.into(),
        headers: Vec::new(),
        body: None,
        timeout: Some(TIMEOUT),
        trust: Trust::Anybody,
    };
    let mut answered: BTreeMap<String, u32> = BTreeMap::new();
    for _ in 0..times {
        let answer = exchange(&request)?;
        let body = String::from_utf8_lossy(&answer.body);
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

fn tcp(address: &str, text: &str) -> Result<()> {
    let (host, port) = address
        .rsplit_once(':')
        .ok_or_else(|| wrong(format!("{address:?} is not HOST:PORT")))?;
    let port = port
        .parse()
        .map_err(|_| wrong(format!("{port:?} is not a port")))?;
    let mut stream = connect(host, port, Some(TIMEOUT))?;
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
    socket.set_read_timeout(Some(TIMEOUT))?;
    socket.send(text.as_bytes())?;
    let mut buffer = [0; 65_536];
    let read = socket.recv(&mut buffer)?;
    println!("{}", String::from_utf8_lossy(&buffer[..read]));
    Ok(())
}
