//! `wget`, with busybox's flags and messages.

use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;

use crate::exchange::{Request, exchange};
use crate::tls::Trust;

pub fn run(arguments: &[String]) -> ExitCode {
    match fetch(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("wget: {message}");
            ExitCode::FAILURE
        }
    }
}

fn fetch(arguments: &[String]) -> Result<(), String> {
    let mut request = Request {
        method: "GET".into(),
        url: String::new(),
        headers: Vec::new(),
        body: None,
        timeout: None,
        trust: Trust::Cluster,
    };
    let (mut quiet, mut show_head, mut spider, mut output) = (false, false, false, None::<String>);
    let mut rest = arguments.iter().cloned();
    while let Some(argument) = rest.next() {
        let (name, attached) = match argument.split_once('=') {
            Some((name, value)) if argument.starts_with("--") => (name.to_owned(), Some(value.to_owned())),
            _ => (argument.clone(), None),
        };
        let mut value = || {
            attached
                .clone()
                .or_else(|| rest.next())
                .ok_or_else(|| format!("option requires an argument -- {name}"))
        };
        match name.as_str() {
            "-q" | "--quiet" => quiet = true,
            "-S" | "--server-response" => show_head = true,
            "--spider" => spider = true,
            "--no-check-certificate" => request.trust = Trust::Anybody,
            "-c" | "-nv" => {}
            "-O" | "--output-document" => output = Some(value()?),
            "-T" | "--timeout" | "-t" | "--tries" => {
                let number = value()?
                    .parse()
                    .map_err(|_| format!("invalid number for {name}"))?;
                if name == "-T" || name == "--timeout" {
                    request.timeout = Some(Duration::from_secs(number));
                }
            }
            "--header" => request.headers.push(value()?),
            "-U" | "--user-agent" => request.headers.push(format!("User-Agent: {}", value()?)),
            "--post-data" => {
                request.body = Some(value()?);
                request.method = "POST".into();
            }
            "-qO-" => {
                quiet = true;
                output = Some("-".into());
            }
            "-qO" => {
                quiet = true;
                output = Some(value()?);
            }
            "-O-" => output = Some("-".into()),
            _ if !name.starts_with('-') => request.url = argument,
            _ => return Err(format!("unrecognized option: {name}")),
        }
    }
    if request.url.is_empty() {
        return Err("missing URL".into());
    }
    if !quiet {
        eprintln!("Connecting to {}", request.url);
    }
    let answer = exchange(&request).map_err(|error| format!("can't fetch {}: {error}", request.url))?;
    if show_head {
        answer.head.lines().for_each(|line| eprintln!("  {line}"));
    }
    if !(200..300).contains(&answer.status) {
        return Err(format!(
            "server returned error: {}",
            answer.head.lines().next().unwrap_or_default()
        ));
    }
    if spider {
        return Ok(());
    }
    let last = request
        .url
        .rsplit('/')
        .next()
        .filter(|name| !name.is_empty())
        .unwrap_or("index.html");
    match output.as_deref().unwrap_or(last) {
        "-" => std::io::stdout()
            .write_all(&answer.body)
            .map_err(|error| error.to_string()),
        path => std::fs::write(path, &answer.body).map_err(|error| format!("can't open '{path}': {error}")),
    }
}
