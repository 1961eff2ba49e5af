//! Carries a request to the server of its group version, and brings back what that one says: answers, watches, upgrades.

use std::sync::Arc;

use http::header::{HeaderMap, HeaderName, HeaderValue};
use http::{Request, Response};

use super::remote::Remote;
use crate::authentication::User;
use crate::connect::forward::forward;
use crate::http::answer::{Body, text};
use crate::http::arriving::Arriving;
use crate::state::Server;

const USER: HeaderName = HeaderName::from_static("x-remote-user");
const UID: HeaderName = HeaderName::from_static("x-remote-uid");
const GROUP: HeaderName = HeaderName::from_static("x-remote-group");
const EXTRA: &str = "x-remote-extra-";
/// Whoever is acted for has been found out; the other server is not to find out again.
const IMPERSONATION: &str = "impersonate-";

/// The answer of another server, or 503 for why there is none.
pub async fn serve(
    server: &Arc<Server>,
    user: &User,
    remote: &Remote,
    mut request: Request<Arriving>,
) -> Response<Body> {
    if !remote.available {
        return text(503, "service unavailable\n");
    }
    let Ok(backend) = remote.backend(server).await else {
        return text(503, "service unavailable\n");
    };
    introduce(request.headers_mut(), user);
    let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
    let path = path.to_owned();
    match forward(&backend, &path, request).await {
        Ok(response) => response,
        Err(error) => text(
            503,
            format!("error trying to reach service: {}\n", error.message()),
        ),
    }
}

/// Says for whom the request is made, and nothing the caller itself may have said about that.
pub fn introduce(headers: &mut HeaderMap, user: &User) {
    let claimed: Vec<HeaderName> = headers
        .keys()
        .filter(|name| {
            let name = name.as_str();
            name == USER.as_str()
                || name == UID.as_str()
                || name == GROUP.as_str()
                || name.starts_with(EXTRA)
                || name.starts_with(IMPERSONATION)
        })
        .cloned()
        .collect();
    for name in claimed {
        headers.remove(name);
    }
    let mut add = |name: HeaderName, text: &str| {
        if let Ok(value) = HeaderValue::from_bytes(text.as_bytes()) {
            headers.append(name, value);
        }
    };
    add(USER, &user.name);
    if !user.uid.is_empty() {
        add(UID, &user.uid);
    }
    for group in &user.groups {
        add(GROUP, group);
    }
    for (key, values) in &user.extra {
        let Ok(name) = HeaderName::from_bytes(format!("{EXTRA}{}", escaped(key)).as_bytes()) else {
            continue;
        };
        for value in values {
            add(name.clone(), value);
        }
    }
}

/// A key as part of a header's name: what a name may not hold is percent-encoded (RFC 9110, section 5.1).
fn escaped(key: &str) -> String {
    let mut escaped = String::new();
    for byte in key.bytes() {
        match byte {
            b'a'..=b'z' | b'0'..=b'9' => escaped.push(char::from(byte)),
            b'!' | b'#' | b'$' | b'&' | b'\'' | b'*' | b'+' | b'-' | b'.' | b'^' | b'_' | b'`' | b'|'
            | b'~' => {
                escaped.push(char::from(byte));
            }
            byte => escaped.push_str(&format!("%{byte:02x}")),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn callers_cannot_say_who_they_are() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("x-remote-user", "root"),
            ("x-remote-group", "system:masters"),
            ("x-remote-extra-scopes", "all"),
            ("impersonate-user", "root"),
            ("accept", "application/json"),
        ] {
            headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        let mut user = User::named("jane", ["team".to_owned()]);
        user.uid = "42".to_owned();
        user.extra.insert(
            "Example.com/Scope".to_owned(),
            vec!["a".to_owned(), "b".to_owned()],
        );
        introduce(&mut headers, &user);
        let all = |name: &str| -> Vec<&str> {
            headers
                .get_all(name)
                .iter()
                .filter_map(|value| value.to_str().ok())
                .collect()
        };
        assert_eq!(all("x-remote-user"), ["jane"]);
        assert_eq!(all("x-remote-uid"), ["42"]);
        assert_eq!(all("x-remote-group"), ["team", "system:authenticated"]);
        assert_eq!(all("x-remote-extra-%45xample.com%2f%53cope"), ["a", "b"]);
        assert!(all("x-remote-extra-scopes").is_empty() && all("impersonate-user").is_empty());
        assert_eq!(all("accept"), ["application/json"]);
    }
}
