//! What a request is about, read from its method, path and query alone.

use crate::registry::info::Verb;

/// A request to the API's objects, or to anything else.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RequestInfo {
    /// `/api/v1/...` and `/apis/GROUP/VERSION/...`, at least as far as a resource.
    Resource(ResourceRequest),
    /// Everything else: discovery, health, metrics, documents.
    NonResource,
}

/// A request to a collection, an object or a subresource.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ResourceRequest {
    /// Empty for the core group.
    pub group: String,
    /// `v1`.
    pub version: String,
    /// The plural.
    pub resource: String,
    /// Empty: cluster scope or all namespaces.
    pub namespace: String,
    /// Empty: the collection.
    pub name: String,
    /// Empty: the object itself.
    pub subresource: String,
    /// What follows the subresource, with its leading slash.
    pub rest: String,
    /// A path that begins with `watch/`.
    pub legacy_watch: bool,
}

impl RequestInfo {
    /// Reads a path. Segments are percent-decoded.
    pub fn parse(path: &str) -> RequestInfo {
        let mut parts = path
            .trim_start_matches('/')
            .split('/')
            .map(percent_decode)
            .collect::<Vec<_>>();
        // A trailing slash means nothing on an object's path, but belongs to a proxied one.
        let trailing = parts.last().is_some_and(String::is_empty) && parts.len() > 1;
        if trailing {
            parts.pop();
        }
        let mut parts = parts.into_iter();
        let mut request = ResourceRequest::default();
        match parts.next().as_deref() {
            Some("api") => {}
            Some("apis") => request.group = parts.next().unwrap_or_default(),
            _ => return RequestInfo::NonResource,
        }
        request.version = parts.next().unwrap_or_default();
        let mut first = parts.next().unwrap_or_default();
        if first == "watch" {
            request.legacy_watch = true;
            first = parts.next().unwrap_or_default();
        }
        if first.is_empty() {
            return RequestInfo::NonResource;
        }
        let rest: Vec<String> = parts.collect();
        let mut rest = rest.into_iter().peekable();
        if first == "namespaces" && rest.len() >= 2 {
            // `/namespaces/x/status` is the namespace's own, `/namespaces/x/pods` a collection in it.
            let namespace = rest.next().unwrap_or_default();
            let own =
                rest.len() == 1 && matches!(rest.peek().map(String::as_str), Some("status" | "finalize"));
            request.namespace.clone_from(&namespace);
            if own {
                request.resource = first;
                request.name = namespace;
                request.namespace = String::new();
            } else {
                request.resource = rest.next().unwrap_or_default();
                request.name = rest.next().unwrap_or_default();
            }
        } else {
            request.resource = first;
            request.name = rest.next().unwrap_or_default();
        }
        request.subresource = rest.next().unwrap_or_default();
        for part in rest {
            request.rest.push('/');
            request.rest.push_str(&part);
        }
        if trailing && request.subresource == "proxy" {
            request.rest.push('/');
        }
        RequestInfo::Resource(request)
    }
}

impl ResourceRequest {
    /// The verb authorization knows the request by, or `None` for a method without one.
    pub fn verb(&self, method: &http::Method, watch: bool) -> Option<Verb> {
        let collection = self.name.is_empty();
        let watch = watch || self.legacy_watch;
        Some(match method.as_str() {
            "GET" | "HEAD" if watch && self.subresource.is_empty() => Verb::Watch,
            "GET" | "HEAD" if collection => Verb::List,
            "GET" | "HEAD" => Verb::Get,
            "POST" => Verb::Create,
            "PUT" => Verb::Update,
            "PATCH" => Verb::Patch,
            "DELETE" if collection => Verb::DeleteCollection,
            "DELETE" => Verb::Delete,
            _ => return None,
        })
    }
}

/// Decodes `%2F` and its like; what is not valid UTF-8 is replaced.
pub fn percent_decode(text: &str) -> String {
    if !text.contains('%') {
        return text.to_owned();
    }
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let escaped = (bytes[at] == b'%')
            .then(|| text.get(at + 1..at + 3))
            .flatten()
            .filter(|hex| hex.bytes().all(|digit| digit.is_ascii_hexdigit()))
            .and_then(|hex| u8::from_str_radix(hex, 16).ok());
        match escaped {
            Some(byte) => {
                out.push(byte);
                at += 3;
            }
            None => {
                out.push(bytes[at]);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// The parameters of a query string, decoded, in order.
pub fn query_pairs(query: Option<&str>) -> Vec<(String, String)> {
    let decode = |text: &str| percent_decode(&text.replace('+', " "));
    query
        .unwrap_or_default()
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decode(key), decode(value))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_two_digits_are_an_escape() {
        assert_eq!(percent_decode("a%2Fb%c3%a9"), "a/b\u{e9}");
        assert_eq!(percent_decode("%+f%-1%f%"), "%+f%-1%f%");
    }

    fn parse(path: &str) -> ResourceRequest {
        match RequestInfo::parse(path) {
            RequestInfo::Resource(request) => request,
            RequestInfo::NonResource => ResourceRequest::default(),
        }
    }

    #[test]
    fn paths_are_taken_apart() {
        let pod = parse("/api/v1/namespaces/default/pods/web/log");
        assert_eq!(
            (pod.namespace.as_str(), pod.resource.as_str()),
            ("default", "pods")
        );
        assert_eq!((pod.name.as_str(), pod.subresource.as_str()), ("web", "log"));
        let all = parse("/apis/apps/v1/deployments");
        assert_eq!(
            (all.group.as_str(), all.resource.as_str(), all.name.as_str()),
            ("apps", "deployments", "")
        );
        let namespace = parse("/api/v1/namespaces/x/finalize");
        assert_eq!(
            (namespace.resource.as_str(), namespace.name.as_str()),
            ("namespaces", "x")
        );
        assert_eq!(namespace.subresource, "finalize");
        assert_eq!(parse("/api/v1/namespaces/x").name, "x");
        let node = parse("/api/v1/nodes/n1/proxy/metrics/");
        assert_eq!(
            (node.subresource.as_str(), node.rest.as_str()),
            ("proxy", "/metrics/")
        );
        let watch = parse("/api/v1/watch/namespaces/default/pods");
        assert!(watch.legacy_watch && watch.resource == "pods");
        assert_eq!(RequestInfo::parse("/apis/apps/v1"), RequestInfo::NonResource);
        assert_eq!(RequestInfo::parse("/healthz"), RequestInfo::NonResource);
        assert_eq!(
            parse("/api/v1/namespaces/d/services/http:web%3A80/proxy").name,
            "http:web:80"
        );
    }

    #[test]
    fn queries_are_taken_apart() {
        let pairs = query_pairs(Some("labelSelector=a%3Db%2Cc&watch&x=1+2"));
        assert_eq!(pairs[0], ("labelSelector".into(), "a=b,c".into()));
        assert_eq!(pairs[1], ("watch".into(), String::new()));
        assert_eq!(pairs[2].1, "1 2");
    }
}
