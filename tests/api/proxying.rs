//! What runs behind `proxy`: every method reaches it, and a page's root ends with a slash. What listens for the
//! server's machine alone is not reached, whatever addresses pods and nodes say they have.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};

use anyhow::{Context as _, Result, ensure};
use keelson_tests::control_plane::ControlPlane;
use keelson_tests::isolation::in_own_network;
use serde_json::{Value, json};

/// Where a pod and a node may be (RFC 5737).
const ADDRESS: &str = "192.0.2.7";
const INSIDE: &str = "/api/v1/namespaces/default";

/// Answers every request with its method and target; returns the port.
fn echo() -> Result<u16> {
    let listener = TcpListener::bind((ADDRESS, 0))?;
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

fn made(plane: &ControlPlane, path: &str, object: &Value) -> Result<()> {
    let answer = plane.admin("POST", path, Some(&object.to_string()))?;
    ensure!(answer.code == 201, "{answer:?}");
    Ok(())
}

/// A pod that says it runs at the address.
fn pod(plane: &ControlPlane, name: &str, address: &str, port: u16) -> Result<()> {
    let pods = format!("{INSIDE}/pods");
    made(
        plane,
        &pods,
        &json!({"metadata": {"name": name}, "spec": {
            "nodeName": "nowhere", "automountServiceAccountToken": false,
            "containers": [{"name": "c", "image": "i", "ports": [{"containerPort": port}]}]}}),
    )?;
    let status = json!({"status": {"phase": "Running", "podIP": address, "podIPs": [{"ip": address}]}});
    let mut patch = plane.certificate("admin");
    patch.extend(["-H", "Content-Type: application/merge-patch+json", "-d"].map(str::to_owned));
    patch.push(status.to_string());
    let patched = plane.curl("PATCH", &format!("{pods}/{name}/status"), None, &patch)?;
    ensure!(patched.code == 200, "{patched:?}");
    Ok(())
}

#[test]
fn every_method_reaches_what_is_behind_a_proxy() -> Result<()> {
    in_own_network(ADDRESS, || {
        let plane = ControlPlane::up(|_, _| Ok(Vec::new()))?;
        let port = echo()?;
        made(
            &plane,
            &format!("{INSIDE}/serviceaccounts"),
            &json!({"metadata": {"name": "default"}}),
        )?;
        pod(&plane, "echo", ADDRESS, port)?;
        methods(&plane, &format!("{INSIDE}/pods/echo:{port}/proxy"))?;
        places(&plane, port)
    })
}

fn methods(plane: &ControlPlane, proxy: &str) -> Result<()> {
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
    let redirected = plane.curl("HEAD", proxy, None, &head)?;
    ensure!(redirected.code == 301, "{redirected:?}");
    let elsewhere = plane.admin("OPTIONS", &format!("{INSIDE}/pods/echo"), None)?;
    ensure!(elsewhere.code == 405, "{elsewhere:?}");
    Ok(())
}

/// What is reached on pods and nodes, by address.
fn places(plane: &ControlPlane, port: u16) -> Result<()> {
    let node = |name: &str, address: &str| {
        let status = json!({"addresses": [{"type": "InternalIP", "address": address}]});
        let node = json!({"metadata": {"name": name}, "status": status});
        made(plane, "/api/v1/nodes", &node)
    };
    let refused = |path: &str| {
        let answer = plane.admin("GET", path, None)?;
        let status: Value = serde_json::from_str(&answer.body)?;
        ensure!(
            answer.code == 400
                && status["reason"] == "BadRequest"
                && status["message"] == "address not allowed",
            "{path}: {answer:?}"
        );
        Ok(())
    };
    // The port that is a container's first is not asked for by number.
    let answer = plane.admin("GET", &format!("{INSIDE}/pods/echo/proxy/"), None)?;
    ensure!(answer.code == 200 && answer.body == "GET /", "{answer:?}");
    node("near", ADDRESS)?;
    let answer = plane.admin("GET", &format!("/api/v1/nodes/near:{port}/proxy/metrics"), None)?;
    ensure!(answer.code == 200 && answer.body == "GET /metrics", "{answer:?}");
    for (name, address) in [
        ("loopback", "127.0.0.1"),
        ("loopback6", "::1"),
        ("mapped", "::ffff:127.0.0.1"),
        ("link-local", "169.254.169.254"),
        ("group", "224.0.0.1"),
        ("all", "255.255.255.255"),
        ("none", "0.0.0.0"),
    ] {
        pod(plane, name, address, port)?;
        refused(&format!("{INSIDE}/pods/{name}:{port}/proxy/"))?;
        node(name, address)?;
        refused(&format!("/api/v1/nodes/{name}:{port}/proxy/"))?;
    }
    Ok(())
}
