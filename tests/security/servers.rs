//! Small HTTP servers of the tests' own: webhooks and an issuer of tokens.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

/// From the path and body of a request to the body of the answer; nothing is a 404.
pub type Handler = Arc<dyn Fn(&str, &str) -> Option<String> + Send + Sync>;

/// Serves plain HTTP on a free port.
pub fn http(handler: Handler) -> Result<u16> {
    listen(move |stream| answer(stream, &handler))
}

/// Serves HTTPS on a free port.
pub fn https(certificate: &Path, key: &Path, handler: Handler) -> Result<u16> {
    let certificate = CertificateDer::from_pem_file(certificate).map_err(|e| anyhow::anyhow!("{e}"))?;
    let key = PrivateKeyDer::from_pem_file(key).map_err(|e| anyhow::anyhow!("{e}"))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)?;
    let config = Arc::new(config);
    listen(move |stream| {
        let connection = ServerConnection::new(config.clone())?;
        answer(StreamOwned::new(connection, stream), &handler)
    })
}

fn listen(serve: impl Fn(TcpStream) -> Result<()> + Send + Sync + 'static) -> Result<u16> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let port = listener.local_addr()?.port();
    let serve = Arc::new(serve);
    std::thread::spawn(move || {
        while let Ok((stream, _)) = listener.accept() {
            let serve = serve.clone();
            std::thread::spawn(move || serve(stream));
        }
    });
    Ok(port)
}

/// Answers the requests of one connection, one after the other.
fn answer(stream: impl Read + Write, handler: &Handler) -> Result<()> {
    let mut stream = BufReader::new(stream);
    loop {
        let mut first = String::new();
        if stream.read_line(&mut first)? == 0 {
            return Ok(());
        }
        let path = first
            .split_whitespace()
            .nth(1)
            .context("a request line")?
            .to_owned();
        let mut length = 0;
        loop {
            let mut line = String::new();
            if stream.read_line(&mut line)? == 0 {
                return Ok(());
            }
            if let Some(value) = line.to_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse()?;
            }
            if line == "\r\n" {
                break;
            }
        }
        let mut body = vec![0; length];
        stream.read_exact(&mut body)?;
        let (status, body) = match handler(&path, &String::from_utf8(body)?) {
            Some(body) => ("200 OK", body),
            None => ("404 Not Found", String::new()),
        };
        let head = format!(
            "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        let out = stream.get_mut();
        out.write_all(head.as_bytes())?;
        out.write_all(body.as_bytes())?;
        out.flush()?;
    }
}

/// A kubeconfig whose cluster is a webhook at this URL.
pub fn webhook_config(url: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Config\nclusters: [{{name: a, cluster: {{server: '{url}'}}}}]\n\
         contexts: [{{name: c, context: {{cluster: a}}}}]\ncurrent-context: c\n"
    )
}
