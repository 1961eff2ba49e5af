//! A webhook of the test's own: an HTTPS server that answers admission reviews as a story tells it to.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::Arc;

use anyhow::{Context as _, Result};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use serde_json::{Value, json};

/// What a webhook answers: the path it was reached at, and the review's request, make a response.
pub type Answer = fn(&str, &Value) -> Value;

/// A running server. It ends with the test program.
pub struct Webhooks {
    port: u16,
    authority: String,
}

impl Webhooks {
    /// Starts a server on a port of its own.
    ///
    /// # Errors
    /// When there is no port, or no certificate can be made.
    pub fn start(answer: Answer) -> Result<Self> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new(Vec::new())?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = params.self_signed(&key)?;
        let issuer = Issuer::new(params, key);
        let own_key = KeyPair::generate()?;
        let own = CertificateParams::new(vec!["localhost".to_owned(), "127.0.0.1".to_owned()])?
            .signed_by(&own_key, &issuer)?;
        let private = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(own_key.serialize_der()));
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(vec![own.der().clone()], private)?;
        let config = Arc::new(config);
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let port = listener.local_addr()?.port();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let config = config.clone();
                std::thread::spawn(move || {
                    if let Err(error) = serve(stream, config, answer) {
                        eprintln!("the test's webhook: {error:#}");
                    }
                });
            }
        });
        Ok(Self {
            port,
            authority: authority.pem(),
        })
    }

    /// `clientConfig` of a webhook that is reached at `path`.
    #[must_use]
    pub fn client(&self, path: &str) -> Value {
        // A JSON text of bytes is their base64; any encoder of the API's own types knows how.
        let bundle = k8s_openapi::ByteString(self.authority.clone().into_bytes());
        json!({"url": format!("https://127.0.0.1:{}{path}", self.port), "caBundle": bundle})
    }
}

fn serve(stream: TcpStream, config: Arc<ServerConfig>, answer: Answer) -> Result<()> {
    let mut stream = BufReader::new(StreamOwned::new(ServerConnection::new(config)?, stream));
    let mut line = String::new();
    stream.read_line(&mut line)?;
    let target = line.split(' ').nth(1).context("a request line")?.to_owned();
    let mut length = 0;
    loop {
        let mut line = String::new();
        stream.read_line(&mut line)?;
        let Some((name, value)) = line.split_once(':') else {
            break;
        };
        if name.eq_ignore_ascii_case("content-length") {
            length = value.trim().parse()?;
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body)?;
    let review: Value = serde_json::from_slice(&body)?;
    let path = target.split('?').next().unwrap_or_default();
    let mut response = answer(path, &review["request"]);
    response["uid"] = review["request"]["uid"].clone();
    let body = json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response})
        .to_string();
    let stream = stream.get_mut();
    write!(
        stream,
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    )?;
    stream.flush()?;
    stream.conn.send_close_notify();
    stream.flush()?;
    Ok(())
}
