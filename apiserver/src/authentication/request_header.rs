//! Callers that an authenticating proxy vouches for: it shows a certificate of its own and names them in headers.
//!
//! <https://kubernetes.io/docs/reference/access-authn-authz/authentication/#authenticating-proxy>

use http::HeaderMap;

use super::User;
use crate::aggregator::flags::AggregatorArgs;
use crate::request_info::percent_decode;

/// Whom the headers of a proxy name that showed a certificate for `proxy`. `None` when they name nobody, or when that
/// proxy is not to be believed.
pub fn user(args: &AggregatorArgs, proxy: &str, headers: &HeaderMap) -> Option<User> {
    let allowed = &args.requestheader_allowed_names;
    if !allowed.is_empty() && !allowed.iter().any(|name| name == proxy) {
        tracing::debug!(proxy, "not one of the proxies that are believed");
        return None;
    }
    let first = |names: &[String]| {
        names
            .iter()
            .filter_map(|name| headers.get(name.as_str())?.to_str().ok())
            .find(|value| !value.is_empty())
            .map(str::to_owned)
    };
    let name = first(&args.requestheader_username_headers)?;
    let groups = args
        .requestheader_group_headers
        .iter()
        .flat_map(|name| headers.get_all(name.as_str()))
        .filter_map(|value| value.to_str().ok())
        .filter(|group| !group.is_empty())
        .map(str::to_owned);
    let mut user = User::named(name, groups);
    user.uid = first(&args.requestheader_uid_headers).unwrap_or_default();
    for (name, value) in headers {
        let Ok(value) = value.to_str() else { continue };
        let key = args
            .requestheader_extra_headers_prefix
            .iter()
            .find_map(|prefix| name.as_str().strip_prefix(prefix.to_ascii_lowercase().as_str()));
        if let Some(key) = key {
            user.extra
                .entry(percent_decode(key))
                .or_default()
                .push(value.to_owned());
        }
    }
    Some(user)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proxies_name_users_groups_and_extras() {
        let args = AggregatorArgs {
            requestheader_allowed_names: vec!["front".into()],
            requestheader_username_headers: vec!["X-Remote-User".into()],
            requestheader_uid_headers: vec!["X-Remote-Uid".into()],
            requestheader_group_headers: vec!["X-Remote-Group".into()],
            requestheader_extra_headers_prefix: vec!["X-Remote-Extra-".into()],
            ..AggregatorArgs::default()
        };
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("x-remote-user", "jane"),
            ("x-remote-uid", "7"),
            ("x-remote-group", "dev"),
            ("x-remote-group", "ops"),
            ("x-remote-extra-example.com%2fscopes", "view"),
        ] {
            headers.append(name, http::HeaderValue::from_static(value));
        }
        let jane = user(&args, "front", &headers).expect("jane");
        assert_eq!((jane.name.as_str(), jane.uid.as_str()), ("jane", "7"));
        assert_eq!(jane.groups, ["dev", "ops", "system:authenticated"]);
        assert_eq!(jane.extra["example.com/scopes"], ["view"]);
        assert_eq!(user(&args, "somebody", &headers), None);
        assert_eq!(user(&args, "front", &HeaderMap::new()), None);
    }
}
