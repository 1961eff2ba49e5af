//! What callers reach that are nobody: health and the version, and with credentials that are wrong not even that.

use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use keelson_tests::authority::Authority;
use keelson_tests::control_plane::ControlPlane;
use keelson_tests::process::{eventually, output, succeed, text};
use serde_json::Value;

/// What is for everybody.
const OPEN: &[&str] = &["/healthz", "/livez", "/readyz", "/version", "/version/"];

fn json(plane: &ControlPlane, path: &str) -> Result<Value> {
    let answer = plane.admin("GET", path, None)?;
    ensure!(answer.code == 200, "{path}: {answer:?}");
    serde_json::from_str(&answer.body).context(answer.body)
}

fn items(of: &Value) -> &[Value] {
    of.as_array().map_or(&[], Vec::as_slice)
}

/// Every path that discovery names, with names and namespaces put in.
fn paths(plane: &ControlPlane) -> Result<BTreeSet<String>> {
    let mut paths = BTreeSet::new();
    for path in items(&json(plane, "/")?["paths"]) {
        paths.insert(path.as_str().context("a path")?.to_owned());
    }
    let mut versions = vec!["/api/v1".to_owned()];
    for group in items(&json(plane, "/apis")?["groups"]) {
        for version in items(&group["versions"]) {
            versions.push(format!(
                "/apis/{}",
                version["groupVersion"].as_str().context("a version")?
            ));
        }
    }
    for version in versions {
        for resource in items(&json(plane, &version)?["resources"]) {
            let name = resource["name"].as_str().context("a name")?;
            let (plural, subresource) = name.split_once('/').unwrap_or((name, ""));
            let place = match resource["namespaced"] == true {
                true => format!("{version}/namespaces/default/{plural}"),
                false => format!("{version}/{plural}"),
            };
            if subresource.is_empty() {
                paths.insert(format!("{version}/{plural}"));
                paths.insert(place.clone());
                paths.insert(format!("{place}/some"));
            } else {
                paths.insert(format!("{place}/some/{subresource}"));
            }
        }
        paths.insert(version);
    }
    for more in [
        "/metrics",
        "/openapi/v2",
        "/openapi/v3",
        "/logs",
        "/debug/pprof/",
        "/nothing",
        "/apis/no.such/v1/things",
    ] {
        paths.insert(more.to_owned());
    }
    Ok(paths)
}

/// The codes of many requests over one connection: curl says them one a line.
fn codes(
    plane: &ControlPlane,
    method: &str,
    paths: &BTreeSet<String>,
    who: &[String],
) -> Result<Vec<(u16, String)>> {
    let mut command = Command::new("curl");
    command
        .args([
            "-sS",
            "--http1.1",
            "--max-time",
            "120",
            "-X",
            method,
            "-w",
            "%{http_code}\n",
        ])
        .arg("--cacert")
        .arg(&plane.authority.certificate)
        .args(who);
    if method != "GET" {
        command.args(["-H", "Content-Type: application/json", "--data-binary", "{}"]);
    }
    for path in paths {
        let url = format!("https://127.0.0.1:{}{path}", plane.port);
        command.args(["-o", "/dev/null", &url]);
    }
    let told = succeed(command, None)?;
    let codes: Result<Vec<u16>, _> = told.split_whitespace().map(str::parse).collect();
    let codes = codes?;
    ensure!(
        codes.len() == paths.len(),
        "{} answers to {} requests",
        codes.len(),
        paths.len()
    );
    Ok(codes.into_iter().zip(paths.iter().cloned()).collect())
}

#[test]
fn who_is_nobody_reaches_nothing_but_health_and_the_version() -> Result<()> {
    let plane = ControlPlane::up(|folder, authority| {
        authority.issue_expired("late", &["system:masters"])?;
        let other = folder.join("other");
        std::fs::create_dir(&other)?;
        Authority::new(&other, "ca")?.issue("stranger", &["system:masters"])?;
        Ok(vec!["--enable-bootstrap-token-auth=true".into()])
    })?;
    let paths = paths(&plane)?;
    ensure!(paths.len() > 200, "{paths:?}");
    for method in ["GET", "POST", "PUT", "PATCH", "DELETE"] {
        for (code, path) in codes(&plane, method, &paths, &[])? {
            let open = method == "GET" && OPEN.contains(&path.as_str());
            ensure!(code == if open { 200 } else { 403 }, "{method} {path}: {code}");
        }
    }
    let bearer = |token: &str| vec!["-H".to_owned(), format!("Authorization: Bearer {token}")];
    let wrong = [
        ("a token", bearer("nonsense")),
        ("a JWT", bearer("eyJhbGciOiJub25lIn0.eyJzdWIiOiJ4In0.")),
        ("a bootstrap token", bearer("nobody.0123456789abcdef")),
        ("an expired certificate", plane.certificate("late")),
        (
            "a certificate of another authority",
            plane.certificate("other/stranger"),
        ),
    ];
    for (what, who) in wrong {
        for (code, path) in codes(&plane, "GET", &paths, &who)? {
            ensure!(code == 401, "{what}: GET {path}: {code}");
        }
    }
    Ok(())
}

/// A greeting as a client would send it that knows nothing newer than this version, and all that 1.2 needs otherwise:
/// RFC 5246, section 7.4.1.2.
fn greeting(minor: u8) -> Vec<u8> {
    let mut hello = vec![3, minor];
    hello.extend([7; 32]);
    // No session, two cipher suites, no compression.
    hello.extend([0, 0, 4, 0xc0, 0x2b, 0xc0, 0x2f, 1, 0]);
    // Groups, point formats, and algorithms of signatures.
    hello.extend([0, 26, 0, 10, 0, 6, 0, 4, 0, 0x1d, 0, 0x17]);
    hello.extend([0, 11, 0, 2, 1, 0, 0, 13, 0, 6, 0, 4, 4, 3, 8, 4]);
    let length = u8::try_from(hello.len()).unwrap_or(u8::MAX);
    let mut record = vec![22, 3, 1, 0, length + 4, 1, 0, 0, length];
    record.extend(hello);
    record
}

/// The beginning of what the server says to that.
fn answered(plane: &ControlPlane, minor: u8) -> Result<[u8; 7]> {
    let mut stream = TcpStream::connect(("127.0.0.1", plane.port))?;
    stream.set_read_timeout(Some(Duration::from_secs(20)))?;
    stream.write_all(&greeting(minor))?;
    let mut answer = [0; 7];
    stream.read_exact(&mut answer)?;
    Ok(answer)
}

#[test]
fn old_versions_of_tls_are_refused_and_new_certificates_shown() -> Result<()> {
    let plane = ControlPlane::up(|_, authority| {
        authority.issue("renewed", &[])?;
        Ok(Vec::new())
    })?;
    for minor in [1, 2] {
        let answer = answered(&plane, minor)?;
        // A fatal alert: protocol_version.
        ensure!(answer[0] == 21 && answer[5..] == [2, 70], "{minor}: {answer:?}");
    }
    let answer = answered(&plane, 3)?;
    // The server's greeting.
    ensure!(answer[0] == 22 && answer[5] == 2, "{answer:?}");
    let versions = |flags: &[&str]| {
        let flags = flags.iter().map(|flag| (*flag).to_owned()).collect::<Vec<_>>();
        plane.curl("GET", "/livez", None, &flags)
    };
    ensure!(versions(&["--tls-max", "1.2"])?.code == 200);
    ensure!(versions(&["--tlsv1.3"])?.code == 200);

    let shown = || -> Result<String> {
        let mut command = Command::new("curl");
        command
            .args(["-sv", "-o", "/dev/null", "--cacert"])
            .arg(&plane.authority.certificate)
            .arg(format!("https://127.0.0.1:{}/livez", plane.port));
        let told = text(&output(command, None)?.stderr);
        let subject = told.lines().find(|line| line.contains("subject:"));
        subject.map(str::to_owned).context(told)
    };
    ensure!(shown()?.contains("CN=server"), "{}", shown()?);
    for end in ["crt", "key"] {
        std::fs::copy(
            plane.path(&format!("renewed.{end}")),
            plane.path(&format!("server.{end}")),
        )?;
    }
    eventually("the new certificate is shown", Duration::from_secs(60), || {
        let shown = shown()?;
        ensure!(shown.contains("CN=renewed"), "{shown}");
        Ok(())
    })
}
