//! Continue tokens: where a list cut into pages goes on, and which moment it shows.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use keelson_api::status::{ApiError, ApiResult};
use serde::{Deserialize, Serialize};

/// Version of the token's form, shared with upstream.
const VERSION: &str = "meta.k8s.io/v1";
/// A token that goes on in the present instead of the list's own moment.
pub const INCONSISTENT: i64 = -1;

#[derive(Serialize, Deserialize)]
struct Token {
    v: String,
    rv: i64,
    start: String,
}

/// Where to go on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Position {
    /// The revision the list shows, or [`INCONSISTENT`].
    pub revision: i64,
    /// The key after which it goes on.
    pub after: String,
}

impl Position {
    /// The token a client sends back.
    pub fn encode(&self) -> String {
        // Keys are ordered; a zero byte makes "from" out of "after".
        let token = Token {
            v: VERSION.into(),
            rv: self.revision,
            start: format!("{}\0", self.after),
        };
        URL_SAFE_NO_PAD.encode(serde_json::to_vec(&token).unwrap_or_default())
    }

    /// Reads a token back.
    pub fn decode(text: &str) -> ApiResult<Self> {
        let invalid =
            |e: &dyn std::fmt::Display| ApiError::bad_request(format!("continue key is not valid: {e}"));
        let bytes = URL_SAFE_NO_PAD
            .decode(text.trim_end_matches('='))
            .map_err(|e| invalid(&e))?;
        let token: Token = serde_json::from_slice(&bytes).map_err(|e| invalid(&e))?;
        if token.v != VERSION {
            return Err(invalid(&"server does not recognize this encoded version"));
        }
        if token.rv == 0 {
            return Err(invalid(
                &"incorrect encoded start resourceVersion (version meta.k8s.io/v1)",
            ));
        }
        if token.start.is_empty() {
            return Err(invalid(&"encoded start key empty (version meta.k8s.io/v1)"));
        }
        if token.start.split('/').any(|part| part == "..") {
            return Err(invalid(&"invalid key"));
        }
        Ok(Self {
            revision: token.rv,
            after: token.start.trim_end_matches('\0').to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_come_back_and_rubbish_is_refused() {
        let position = Position {
            revision: 12,
            after: "default/web-1".into(),
        };
        assert_eq!(
            Position::decode(&position.encode()).expect("a position"),
            position
        );
        assert_eq!(Position::decode("%%%").expect_err("rubbish").code(), 400);
    }
}
