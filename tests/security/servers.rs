//! Small HTTP servers of the tests' own: webhooks and an issuer of tokens.

use std::path::Path;
use std::sync::Arc;

use anyhow::Result;
use keelson_tests::servers::{Asked, Identity, Server};

/// From the path and body of a request to the body of the answer; nothing is a 404.
pub type Handler = Arc<dyn Fn(&str, &str) -> Option<String> + Send + Sync>;

/// Serves plain HTTP on a free port.
pub fn http(handler: Handler) -> Result<u16> {
    Server::for_good(None, move |asked| answer(&asked, &handler))
}

/// Serves HTTPS on a free port.
pub fn https(certificate: &Path, key: &Path, handler: Handler) -> Result<u16> {
    let identity = Identity::read(certificate, key)?;
    Server::for_good(Some(&identity), move |asked| answer(&asked, &handler))
}

fn answer(asked: &Asked, handler: &Handler) -> (u16, String) {
    let body = std::str::from_utf8(&asked.body).ok();
    match body.and_then(|body| handler(asked.head.uri.path(), body)) {
        Some(body) => (200, body),
        None => (404, String::new()),
    }
}

/// A kubeconfig whose cluster is a webhook at this URL.
pub fn webhook_config(url: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Config\nclusters: [{{name: a, cluster: {{server: '{url}'}}}}]\n\
         contexts: [{{name: c, context: {{cluster: a}}}}]\ncurrent-context: c\n"
    )
}
