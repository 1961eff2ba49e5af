//! What stands in flags.

use keelson_store::config::parse_duration;
use keelson_store::urls::{Url, parse_initial_cluster};

use super::fuzz;

const WORDS: [&str; 16] = [
    "http://",
    "https://",
    "unix://",
    "[::1]",
    ":2380",
    "localhost",
    "127.0.0.1",
    "%",
    "@",
    "?",
    "#",
    "/",
    ",",
    "=",
    "m",
    "h",
];

/// A URL that is taken is taken again as it is written.
#[test]
fn url() {
    fuzz("url").words(&WORDS).run(|bytes| {
        let text = String::from_utf8_lossy(bytes);
        if let Ok(url) = text.parse::<Url>() {
            assert_eq!(url.to_string().parse::<Url>().as_ref(), Ok(&url));
        }
    });
}

#[test]
fn initial_cluster() {
    fuzz("initial_cluster").words(&WORDS).run(|bytes| {
        let _ = parse_initial_cluster(&String::from_utf8_lossy(bytes));
    });
}

#[test]
fn duration() {
    fuzz("duration")
        .words(&["1", "s", "m", "h", "ms", "us", ".", "-", "99999999999999999999"])
        .run(|bytes| {
            let _ = parse_duration(&String::from_utf8_lossy(bytes));
        });
}
