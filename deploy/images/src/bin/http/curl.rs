//! `curl`, as far as tutorials go.

use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;

use crate::exchange::{Answer, Request, exchange};
use crate::tls::Trust;

/// curl's exit codes, which scripts look at.
const USAGE: u8 = 2;
const NO_CONNECTION: u8 = 7;
const HTTP_ERROR: u8 = 22;
const TIMEOUT: u8 = 28;

const REDIRECTS: u32 = 10;

#[derive(Default)]
struct Options {
    silent: bool,
    show_errors: bool,
    fail: bool,
    include: bool,
    head: bool,
    verbose: bool,
    follow: bool,
    output: Option<String>,
    write_out: Option<String>,
    retries: u32,
}

pub fn run(arguments: &[String]) -> ExitCode {
    let (options, requests) = match parse(arguments) {
        Ok(parsed) => parsed,
        Err(message) => {
            eprintln!("curl: {message}");
            return ExitCode::from(USAGE);
        }
    };
    let mut code = 0;
    for request in requests {
        code = one(&options, request);
    }
    ExitCode::from(code)
}

fn one(options: &Options, mut request: Request) -> u8 {
    let mut tries = 0;
    let mut redirects = 0;
    loop {
        match exchange(&request) {
            Ok(answer) if options.follow && (300..400).contains(&answer.status) && redirects < REDIRECTS => {
                let Some(place) = answer.header("location") else {
                    return show(options, &request, &answer);
                };
                request.url = elsewhere(&request.url, place);
                redirects += 1;
            }
            Ok(answer) => return show(options, &request, &answer),
            Err(_) if tries < options.retries => {
                tries += 1;
                std::thread::sleep(Duration::from_secs(1));
            }
            Err(error) => {
                if !options.silent || options.show_errors {
                    eprintln!("curl: {error}");
                }
                if let Some(format) = &options.write_out {
                    print!("{}", written(format, 0, 0));
                }
                let late = matches!(
                    error.kind(),
                    std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut
                );
                return if late { TIMEOUT } else { NO_CONNECTION };
            }
        }
    }
}

fn show(options: &Options, request: &Request, answer: &Answer) -> u8 {
    if options.verbose {
        eprintln!("> {} {}", request.method, request.url);
        answer.head.lines().for_each(|line| eprintln!("< {line}"));
    }
    if options.fail && answer.status >= 400 {
        if !options.silent || options.show_errors {
            eprintln!("curl: (22) The requested URL returned error: {}", answer.status);
        }
        return HTTP_ERROR;
    }
    let mut bytes = Vec::new();
    if options.include || options.head {
        bytes.extend_from_slice(answer.head.as_bytes());
        bytes.extend_from_slice(b"\n\n");
    }
    bytes.extend_from_slice(&answer.body);
    let result = match options.output.as_deref() {
        None | Some("-") => std::io::stdout().write_all(&bytes),
        Some(path) => std::fs::write(path, &bytes),
    };
    if let Err(error) = result {
        eprintln!("curl: (23) {error}");
        return 23;
    }
    if let Some(format) = &options.write_out {
        print!("{}", written(format, answer.status, answer.body.len()));
    }
    0
}

fn written(format: &str, status: u16, size: usize) -> String {
    format
        .replace("%{http_code}", &format!("{status:03}"))
        .replace("%{response_code}", &format!("{status:03}"))
        .replace("%{size_download}", &size.to_string())
        .replace("\\n", "\n")
        .replace("\\t", "\t")
}

fn elsewhere(url: &str, place: &str) -> String {
    if place.contains("://") {
        return place.to_owned();
    }
    let start = url.find("://").map_or(0, |at| at + 3);
    let end = url[start..].find('/').map_or(url.len(), |at| start + at);
    format!("{}{place}", &url[..end])
}

fn parse(arguments: &[String]) -> Result<(Options, Vec<Request>), String> {
    let mut options = Options::default();
    let mut method = None;
    let (mut headers, mut body, mut urls) = (Vec::new(), None::<String>, Vec::new());
    let mut timeout = None;
    let mut trust = Trust::Cluster;
    let mut rest = spread(arguments).into_iter();
    while let Some(argument) = rest.next() {
        let mut value = || {
            rest.next()
                .ok_or_else(|| format!("option {argument}: requires parameter"))
        };
        match argument.as_str() {
            "-k" | "--insecure" => trust = Trust::Anybody,
            "-s" | "--silent" => options.silent = true,
            "-S" | "--show-error" => options.show_errors = true,
            "-f" | "--fail" => options.fail = true,
            "-i" | "--include" => options.include = true,
            "-I" | "--head" => options.head = true,
            "-v" | "--verbose" => options.verbose = true,
            "-L" | "--location" => options.follow = true,
            "-4" | "-g" | "--globoff" | "-N" | "--no-buffer" | "--retry-connrefused" | "--http1.1" => {}
            "-X" | "--request" => method = Some(value()?),
            "-H" | "--header" => headers.push(value()?),
            "-d" | "--data" | "--data-binary" | "--data-raw" => {
                let more = value()?;
                body = Some(body.map_or(more.clone(), |before| format!("{before}&{more}")));
            }
            "-o" | "--output" => options.output = Some(value()?),
            "-w" | "--write-out" => options.write_out = Some(value()?),
            "-m" | "--max-time" | "--connect-timeout" => {
                let text = value()?;
                let seconds: f64 = text.parse().map_err(|_| format!("{text:?} is not a time"))?;
                timeout = Duration::try_from_secs_f64(seconds)
                    .ok()
                    .filter(|limit| !limit.is_zero());
            }
            "--cacert" => trust = Trust::File(value()?),
            "--retry" => options.retries = value()?.parse().map_err(|_| "--retry takes a number")?,
            "--retry-delay" => drop(value()?),
            "-A" | "--user-agent" => headers.push(format!("User-Agent: {}", value()?)),
            "--url" => urls.push(value()?),
            _ if !argument.starts_with('-') => urls.push(argument),
            _ => return Err(format!("option {argument}: is unknown")),
        }
    }
    if urls.is_empty() {
        return Err("no URL specified".into());
    }
    let method = method.unwrap_or_else(|| {
        let default = if options.head {
            "HEAD"
        } else if body.is_some() {
            "POST"
        } else {
            "GET"
        };
        default.into()
    });
    let request = |url| Request {
        method: method.clone(),
        url,
        headers: headers.clone(),
        body: body.clone(),
        timeout,
        trust: trust.clone(),
    };
    Ok((options, urls.into_iter().map(request).collect()))
}

/// `-sSk` as `-s -S -k`, `-XPOST` as `-X POST`, `--name=value` as two.
fn spread(arguments: &[String]) -> Vec<String> {
    const WITH_VALUE: &str = "XHdowmA";
    let mut spread = Vec::new();
    let mut is_value = false;
    for argument in arguments {
        if is_value || !argument.starts_with('-') || argument == "-" {
            spread.push(argument.clone());
            is_value = false;
        } else if argument.starts_with("--") {
            is_value = matches!(
                argument.as_str(),
                "--request"
                    | "--header"
                    | "--data"
                    | "--data-raw"
                    | "--data-binary"
                    | "--output"
                    | "--write-out"
                    | "--user-agent"
            );
            spread.push(argument.clone());
        } else {
            let letters: Vec<char> = argument.chars().skip(1).collect();
            for (index, letter) in letters.iter().enumerate() {
                spread.push(format!("-{letter}"));
                if WITH_VALUE.contains(*letter) {
                    let value: String = letters[index + 1..].iter().collect();
                    is_value = value.is_empty();
                    if !value.is_empty() {
                        spread.push(value);
                    }
                    break;
                }
            }
        }
    }
    spread
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_read_as_curl_reads_them() {
        let line = [
            "-ksS",
            "-o",
            "/dev/null",
            "-w",
            "%{http_code}",
            "-XPOST",
            "https://x",
        ]
        .map(String::from);
        let (options, requests) = parse(&line).unwrap_or_else(|message| panic!("{message}"));
        assert!(options.silent && options.show_errors);
        assert_eq!(options.output.as_deref(), Some("/dev/null"));
        assert_eq!(requests[0].method, "POST");
        assert!(matches!(requests[0].trust, Trust::Anybody));
        assert!(parse(&["--no-such".to_owned()]).is_err());
    }
}
