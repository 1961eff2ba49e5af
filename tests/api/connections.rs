//! What becomes of a connection.

use anyhow::{Context as _, Result, ensure};
use keelson_tests::control_plane::ControlPlane;
use keelson_tests::wire::Line;

/// Clients keep connections and send the next request on one that was just answered, behind what was still to come of
/// the one before.
#[tokio::test]
async fn a_request_refused_before_its_body_was_read_leaves_the_connection_usable() -> Result<()> {
    let plane = ControlPlane::up(|_, _| Ok(Vec::new()))?;
    let body = [b'x'; 100_000];
    let refused = [
        ("/apis/nobody.example.com/v1/things", 404),
        ("/api/v1/namespaces/default/configmaps?dryRun=some", 422),
    ];
    let mut line = Line::connect(&plane, "admin").await?;
    for (path, code) in refused {
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        line.send(head.as_bytes()).await?;
        let (sent, rest) = body.split_at(1_000);
        line.send(sent).await?;
        let (head, status) = line
            .answer()
            .await
            .with_context(|| format!("{path} was not refused"))?;
        ensure!(
            head.starts_with(&format!("http/1.1 {code} ")),
            "{path}: {head}{status}"
        );
        line.send(rest).await?;
        line.send(b"GET /readyz HTTP/1.1\r\nHost: localhost\r\n\r\n")
            .await?;
        let (head, ready) = line
            .answer()
            .await
            .with_context(|| format!("nothing after {path}"))?;
        ensure!(
            head.starts_with("http/1.1 200 ") && ready == "ok",
            "{path}: {head}{ready}"
        );
    }
    Ok(())
}
