//! A webhook of the test's own: an HTTPS server that answers admission reviews as a story tells it to.

use std::net::Ipv4Addr;

use anyhow::Result;
use serde_json::{Value, json};

use crate::servers::{Asked, Identity, Server};

/// What a webhook answers: the path it was reached at, and the review's request, make a response.
pub type Answer = fn(&str, &Value) -> Value;

/// A running server. It ends when this is dropped.
pub struct Webhooks {
    server: Server,
    identity: Identity,
}

impl Webhooks {
    /// Starts a server on a port of its own.
    ///
    /// # Errors
    /// When there is no port, or no certificate can be made.
    pub fn start(answer: Answer) -> Result<Self> {
        let identity = Identity::of(vec!["localhost".to_owned(), Ipv4Addr::LOCALHOST.to_string()])?;
        let server = Server::start(Ipv4Addr::LOCALHOST, Some(&identity), move |asked| {
            review(&asked, answer)
        })?;
        Ok(Self { server, identity })
    }

    /// `clientConfig` of a webhook that is reached at `path`.
    #[must_use]
    pub fn client(&self, path: &str) -> Value {
        // A JSON text of bytes is their base64; any encoder of the API's own types knows how.
        let bundle = k8s_openapi::ByteString(self.identity.certificate.clone().into_bytes());
        json!({"url": format!("https://{}{path}", self.server.address), "caBundle": bundle})
    }
}

fn review(asked: &Asked, answer: Answer) -> (u16, String) {
    let review: Value = match serde_json::from_slice(&asked.body) {
        Ok(review) => review,
        Err(error) => return (400, json!({"message": error.to_string()}).to_string()),
    };
    let mut response = answer(asked.head.uri.path(), &review["request"]);
    response["uid"] = review["request"]["uid"].clone();
    let review =
        json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response});
    (200, review.to_string())
}
