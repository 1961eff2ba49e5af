//! What runs behind `proxy`: every method reaches it, and a page's root ends with a slash.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};

use anyhow::{Context as _, Result, ensure};
use keelson_tests::control_plane::ControlPlane;
use serde_json::json;

/// Answers every request with its method and target; returns the port.
fn echo() -> Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let port = listener.local_addr()?.port();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            if let Err(error) = answer(stream) {
                eprintln!("the test's server: {error:#}");
            }
        }
    });
    Ok(port)
}

fn answer(stream: TcpStream) -> Result<()> {
    let mut lines = BufReader::new(&stream).lines();
    let first = lines.next().context("a request")??;
    for line in lines.by_ref() {
        if line?.is_empty() {
            break;
        }
    }
    let (request, _) = first.rsplit_once(' ').context("a request line")?;
    let body = if request.starts_with("HEAD") { "" } else { request };
    let length = request.len();
    write!(
        &stream,
        "HTTP/1.1 200 OK\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}"
    )?;
    Ok(())
}

#[test]
fn every_method_reaches_what_is_behind_a_proxy() -> Result<()> {
    let plane = ControlPlane::up(|_, _| Ok(Vec::new()))?;
    let inside = "/api/v1/namespaces/default";
    let made = |path: &str, object: serde_json::Value| {
        let answer = plane.admin("POST", &format!("{inside}/{path}"), Some(&object.to_string()))?;
        ensure!(answer.code == 201, "{answer:?}");
        Ok(())
    };
    let port = echo()?;
    made("serviceaccounts", json!({"metadata": {"name": "default"}}))?;
    made(
        "pods",
        json!({"metadata": {"name": "echo"}, "spec": {
        "nodeName": "nowhere", "automountServiceAccountToken": false,
        "containers": [{"name": "c", "image": "i", "ports": [{"containerPort": port}]}]}}),
    )?;
    let status =
        json!({"status": {"phase": "Running", "podIP": "127.0.0.1", "podIPs": [{"ip": "127.0.0.1"}]}});
    let mut patch = plane.certificate("admin");
    patch.extend(["-H", "Content-Type: application/merge-patch+json", "-d"].map(str::to_owned));
    patch.push(status.to_string());
    let patched = plane.curl("PATCH", &format!("{inside}/pods/echo/status"), None, &patch)?;
    ensure!(patched.code == 200, "{patched:?}");

    let proxy = format!("{inside}/pods/echo:{port}/proxy");
    for method in ["DELETE", "GET", "OPTIONS", "PATCH", "POST", "PUT"] {
        let answer = plane.admin(method, &format!("{proxy}/some/path?with=1"), None)?;
        ensure!(
            answer.code == 200 && answer.body == format!("{method} /some/path?with=1"),
            "{answer:?}"
        );
    }
    for method in ["DELETE", "OPTIONS", "PATCH", "POST", "PUT"] {
        let answer = plane.admin(method, &format!("{proxy}?method={method}"), None)?;
        ensure!(
            answer.code == 200 && answer.body == format!("{method} /?method={method}"),
            "{answer:?}"
        );
    }
    let redirected = plane.admin("GET", &format!("{proxy}?method=GET"), None)?;
    ensure!(
        redirected.code == 301
            && redirected
                .headers
                .contains(&format!("location: {proxy}/?method=GET")),
        "{redirected:?}"
    );
    let mut head = plane.certificate("admin");
    head.push("-I".to_owned());
    let redirected = plane.curl("HEAD", &proxy, None, &head)?;
    ensure!(redirected.code == 301, "{redirected:?}");
    let elsewhere = plane.admin("OPTIONS", &format!("{inside}/pods/echo"), None)?;
    ensure!(elsewhere.code == 405, "{elsewhere:?}");
    Ok(())
}
