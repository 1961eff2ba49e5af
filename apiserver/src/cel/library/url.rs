//! `url('https://example.com:80/a?b=c')`.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::super::eval::Failure;
use super::super::value::{Key, Value};
use super::Outcome;
use crate::request_info::query_pairs;

/// An absolute URL or path.
#[derive(Debug, PartialEq, Eq)]
pub struct Url {
    scheme: String,
    /// With its port.
    host: String,
    path: String,
    query: String,
}

impl Url {
    fn parse(text: &str) -> Result<Self, Failure> {
        let bad = |why: &str| {
            Failure::error(format!(
                "URL parse error during conversion from string: parse {text:?}: {why}"
            ))
        };
        if text.chars().any(|c| c.is_control() || c == ' ') {
            return Err(bad("invalid character"));
        }
        let (rest, _fragment) = text.split_once('#').unwrap_or((text, ""));
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        if rest.starts_with('/') && !rest.starts_with("//") {
            return Ok(Self {
                scheme: String::new(),
                host: String::new(),
                path: rest.to_owned(),
                query: query.to_owned(),
            });
        }
        let (scheme, after) = rest
            .split_once("://")
            .ok_or_else(|| bad("invalid URI for request"))?;
        let named = scheme.starts_with(|c: char| c.is_ascii_alphabetic())
            && scheme
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c));
        if !named {
            return Err(bad("first path segment in URL cannot contain colon"));
        }
        let end = after.find('/').unwrap_or(after.len());
        let (authority, path) = after.split_at(end);
        let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
        let port = host.rsplit_once(':').filter(|_| !host.ends_with(']'));
        if port.is_some_and(|(_, port)| !port.bytes().all(|b| b.is_ascii_digit())) {
            return Err(bad("invalid port after host"));
        }
        Ok(Self {
            scheme: scheme.to_owned(),
            host: host.to_owned(),
            path: path.to_owned(),
            query: query.to_owned(),
        })
    }

    fn port(&self) -> Option<(&str, &str)> {
        self.host.rsplit_once(':').filter(|_| !self.host.ends_with(']'))
    }
}

/// Functions without a receiver.
pub fn function<'v>(name: &str, args: &[Value<'v>]) -> Option<Outcome<'v>> {
    let [value] = args else { return None };
    let text = value.as_str()?;
    Some(match name {
        "url" => Url::parse(text).map(|url| Value::Url(Arc::new(url))),
        "isURL" => Ok(Value::Bool(Url::parse(text).is_ok())),
        _ => return None,
    })
}

/// Methods of URLs.
pub fn method<'v>(name: &str, own: &Url) -> Option<Outcome<'v>> {
    Some(Ok(match name {
        "getScheme" => Value::text(own.scheme.as_str()),
        "getHost" => Value::text(own.host.as_str()),
        "getHostname" => {
            let host = own.port().map_or(own.host.as_str(), |(host, _)| host);
            Value::text(host.trim_start_matches('[').trim_end_matches(']'))
        }
        "getPort" => Value::text(own.port().map_or("", |(_, port)| port)),
        "getEscapedPath" => Value::text(own.path.as_str()),
        "getQuery" => {
            let mut map: BTreeMap<Key, Vec<Value<'v>>> = BTreeMap::new();
            for (key, value) in query_pairs(Some(&own.query)) {
                map.entry(Key::String(key.into()))
                    .or_default()
                    .push(Value::text(value));
            }
            let map = map
                .into_iter()
                .map(|(key, values)| (key, Value::List(Arc::new(values))))
                .collect();
            Value::Map(Arc::new(map))
        }
        _ => return None,
    }))
}
