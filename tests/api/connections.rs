//! What becomes of a connection.

use std::process::Command;

use anyhow::{Result, ensure};
use keelson_tests::control_plane::ControlPlane;
use keelson_tests::process::succeed;

/// Clients keep connections and send the next request on one that was just answered.
#[test]
fn a_request_refused_before_its_body_was_read_leaves_the_connection_usable() -> Result<()> {
    let plane = ControlPlane::up(|_, _| Ok(Vec::new()))?;
    let body = plane.path("body");
    std::fs::write(&body, "x".repeat(100_000))?;
    let refused = [
        ("POST", "/apis/nobody.example.com/v1/things", 404),
        ("POST", "/api/v1/namespaces/default/configmaps?dryRun=some", 422),
    ];
    for (method, path, code) in refused {
        let mut command = Command::new("curl");
        for (number, (method, path)) in [(method, path), ("GET", "/readyz")].into_iter().enumerate() {
            if number > 0 {
                command.arg("--next");
            }
            command
                .args([
                    "-sS",
                    "--http1.1",
                    "--max-time",
                    "20",
                    "-X",
                    method,
                    "-H",
                    "Expect:",
                ])
                .args(["-o", "/dev/null", "-w", "%{http_code} %{num_connects}\n"])
                .arg("--cacert")
                .arg(&plane.authority.certificate)
                .args(plane.certificate("admin"));
            if method != "GET" {
                command
                    .args(["-H", "Content-Type: application/json", "--data-binary"])
                    .arg(format!("@{}", body.display()));
            }
            command.arg(format!("https://127.0.0.1:{}{path}", plane.port));
        }
        let told = succeed(command, None)?;
        ensure!(told == format!("{code} 1\n200 0\n"), "{method} {path}: {told}");
    }
    Ok(())
}
