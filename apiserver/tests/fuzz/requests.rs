//! Paths, parameters, headers and bodies of requests.

use http::header::{ACCEPT, ACCEPT_ENCODING, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue};
use keelson_apiserver::handlers::options::{ListOptions, Query, parse_delete_options, resource_version};
use keelson_apiserver::http::{negotiate, websocket};
use keelson_apiserver::request_info::{RequestInfo, percent_decode};
use keelson_apiserver::storage::paging::Position;
use keelson_fuzz::bounded;
use tokio::io::AsyncWriteExt as _;

use super::{fuzz, text};

/// Frames of a watcher that should only listen.
#[test]
fn frames_of_websockets() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .expect("a runtime");
    let hear = |input: &[u8]| {
        runtime.block_on(async {
            // Pongs are no longer than pings: everything fits in.
            let (server, mut client) = tokio::io::duplex(64 << 10);
            client.write_all(input).await.expect("written");
            client.shutdown().await.expect("ended");
            let _ = websocket::tell(server, Box::pin(futures::stream::pending())).await;
        });
    };
    let words = ["\x01", "\x0a", "\x7e", "\x7f", "\x00\x00\x00\x00"];
    let examples = [
        vec![0x89, 0x81, 1, 2, 3, 4, b'x' ^ 1],
        vec![0x81, 0x81, 0, 0, 0, 0, b'x', 0x88, 0x82, 0, 0, 0, 0, 3, 232],
        vec![0x01, 0x81, 0, 0, 0, 0, b'x', 0x80, 0x80, 0, 0, 0, 0],
        vec![0x82, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
    ];
    fuzz("websocket")
        .examples(examples)
        .words(&words)
        .run(bounded(hear));
}

#[test]
fn paths_queries_and_tokens() {
    let read = |input: &[u8]| {
        let input = text(input);
        let (path, query) = input.split_once('?').unwrap_or((&input, ""));
        let _ = RequestInfo::parse(path);
        let decoded = percent_decode(&input);
        assert!(decoded.len() <= 3 * input.len());
        let pairs: Vec<(String, String)> = form_urlencoded::parse(query.as_bytes()).into_owned().collect();
        if let Ok(options) = ListOptions::parse(Query(&pairs)) {
            let _ = (options.validate(true), options.validate(false), options.moment());
            let _ = Position::decode(&options.continue_token);
        }
        let _ = resource_version(&input);
        if let Ok(position) = Position::decode(&input) {
            assert_eq!(Position::decode(&position.encode()).ok(), Some(position));
        }
    };
    let words = [
        "/api/v1",
        "/apis/",
        "/namespaces/",
        "/watch",
        "/pods",
        "/status",
        "/proxy/",
        "/%2F",
        "%",
        "%00",
        "//",
        "?",
        "&",
        "=",
        "limit=",
        "continue=",
        "resourceVersion=",
        "resourceVersionMatch=",
        "NotOlderThan",
        "Exact",
        "sendInitialEvents=true",
        "timeoutSeconds=",
        "watch=1",
        "labelSelector=",
        "-1",
        "9223372036854775808",
    ];
    fuzz("request").words(&words).run(bounded(read));
}

#[test]
fn media_types() {
    let read = |input: &[u8]| {
        let Ok(value) = HeaderValue::from_bytes(input) else {
            return;
        };
        let mut headers = HeaderMap::new();
        for name in [ACCEPT, ACCEPT_ENCODING, CONTENT_TYPE] {
            headers.insert(name, value.clone());
        }
        let _ = negotiate::accepted(&headers);
        let _ = (negotiate::form(&headers, true), negotiate::form(&headers, false));
        let _ = (
            negotiate::body_encoding(&headers),
            negotiate::accepts_gzip(&headers),
        );
    };
    let words = [
        "application/json",
        "application/yaml",
        "application/vnd.kubernetes.protobuf",
        "*/*",
        "application/*",
        ";",
        "as=Table",
        "v=v1",
        "g=meta.k8s.io",
        "q=0.1",
        "q=",
        ",",
        "=",
        "\"",
        "gzip",
        "stream=watch",
        "charset=utf-8",
    ];
    fuzz("media-type").words(&words).run(bounded(read));
}

#[test]
fn options_of_deletes() {
    let read = |input: &[u8]| drop(parse_delete_options(input));
    let words = [
        "\"propagationPolicy\":",
        "\"Orphan\"",
        "\"gracePeriodSeconds\":",
        "\"preconditions\":",
        "\"uid\":",
        "\"dryRun\":",
        "[\"All\"]",
        "-1",
        "null",
        "\"kind\":\"DeleteOptions\"",
        "\"apiVersion\":\"v1\"",
    ];
    fuzz("delete-options").words(&words).run(bounded(read));
}
