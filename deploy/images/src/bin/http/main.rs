//! The toolbox's HTTP client, which goes by several names:
//!
//! ```text
//! curl          what tutorials type: -k -s -S -f -i -I -v -L -X -d -H -o -w -m --cacert --retry
//! wget          busybox's flags: -q -S -O -T --header --post-data --spider --no-check-certificate
//! keelson-http  -n TIMES URL          who answered how often, by the `Hostname:` line of the answers
//!               tcp|udp HOST:PORT TEXT  one raw exchange
//! ```
//!
//! Without `-k`, servers must show a certificate of the cluster's own authority, as mounted into every pod.
#![forbid(unsafe_code)]

mod curl;
mod exchange;
mod raw;
mod tls;
mod wget;

use std::process::ExitCode;

fn main() -> ExitCode {
    let mut arguments = std::env::args();
    let called = arguments.next().unwrap_or_default();
    let arguments: Vec<String> = arguments.collect();
    match called.rsplit('/').next() {
        Some("curl") => curl::run(&arguments),
        Some("wget") => wget::run(&arguments),
        _ => raw::run(&arguments),
    }
}
