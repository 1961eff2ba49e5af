//! Continue tokens: where a list cut into pages goes on, and which moment it shows.

use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use base64::{DecodeError, Engine as _};
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
        let invalid = |e: &dyn std::fmt::Display| {
            ApiError::bad_request(format!("invalid continue token: continue key is not valid: {e}"))
        };
        let text = text.trim_end_matches('=');
        let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|error| {
            let at = match error {
                DecodeError::InvalidByte(at, _) | DecodeError::InvalidLastSymbol(at, _) => at,
                // What is left over after the last group of four.
                DecodeError::InvalidLength(_) | DecodeError::InvalidPadding => text.len() / 4 * 4,
            };
            invalid(&format_args!("illegal base64 data at input byte {at}"))
        })?;
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
        for (rubbish, at) in [("%%%", 0), ("x", 0), ("abcdX", 4), ("ab%d", 2)] {
            let error = Position::decode(rubbish).expect_err(rubbish);
            let text = format!(
                "invalid continue token: continue key is not valid: illegal base64 data at input byte {at}"
            );
            assert_eq!((error.code(), error.message()), (400, text.as_str()), "{rubbish}");
        }
    }
}
