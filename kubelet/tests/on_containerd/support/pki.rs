//! Certificates for one test.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use http_body_util::{BodyExt, Empty};
use hyper_util::rt::TokioIo;
use keelson_daemon::tls::{PemSource, client_config};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::pki_types::ServerName;

pub struct Pki {
    dir: PathBuf,
}

impl Pki {
    /// An authority, a server, and an administrator.
    pub fn make(dir: &Path) -> Self {
        let ca_key = KeyPair::generate().expect("a key");
        let mut ca = CertificateParams::new(Vec::new()).expect("parameters");
        ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        ca.distinguished_name.push(DnType::CommonName, "test-ca");
        let ca_cert = ca.self_signed(&ca_key).expect("a certificate");
        std::fs::write(dir.join("ca.crt"), ca_cert.pem()).expect("written");
        let issuer = Issuer::new(ca, ca_key);
        let make = |name: &str, common_name: &str, organization: &str| {
            let key = KeyPair::generate().expect("a key");
            let mut params =
                CertificateParams::new(vec!["localhost".into(), "127.0.0.1".into()]).expect("parameters");
            params.distinguished_name.push(DnType::CommonName, common_name);
            params
                .distinguished_name
                .push(DnType::OrganizationName, organization);
            let cert = params.signed_by(&key, &issuer).expect("a certificate");
            std::fs::write(dir.join(format!("{name}.crt")), cert.pem()).expect("written");
            std::fs::write(dir.join(format!("{name}.key")), key.serialize_pem()).expect("written");
        };
        make("server", "server", "test");
        make("admin", "admin", "system:masters");
        make("node", "system:node:test-node", "system:nodes");
        Self { dir: dir.into() }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    pub fn write_kubeconfig(&self, server: &str) {
        let text = format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: c\n\
             clusters: [{{name: c, cluster: {{server: '{server}', certificate-authority: ca.crt}}}}]\n\
             users: [{{name: u, user: {{client-certificate: node.crt, client-key: node.key}}}}]\n\
             contexts: [{{name: c, context: {{cluster: c, user: u}}}}]\n"
        );
        std::fs::write(self.dir.join("kubeconfig"), text).expect("written");
    }

    /// One GET, as the administrator or as nobody.
    pub async fn get(&self, port: u16, path: &str, known: bool) -> (u16, String) {
        let file = |name: &str| PemSource::File(self.path(name));
        let identity = known.then(|| (file("admin.crt"), file("admin.key")));
        let mut config = client_config(Some(file("ca.crt")), identity).expect("a configuration");
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        let stream = tokio::net::TcpStream::connect(("127.0.0.1", port))
            .await
            .expect("a connection");
        let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
        let stream = connector
            .connect(ServerName::try_from("localhost").expect("a name"), stream)
            .await
            .expect("TLS");
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .expect("a handshake");
        tokio::spawn(connection);
        let request = hyper::Request::get(path)
            .header("host", "localhost")
            .body(Empty::<bytes::Bytes>::new())
            .expect("a request");
        let answer = sender.send_request(request).await.expect("an answer");
        let status = answer.status().as_u16();
        let body = answer.into_body().collect().await.expect("a body").to_bytes();
        (status, String::from_utf8_lossy(&body).into_owned())
    }
}
