//! `/healthz`, `/livez` and `/readyz`, whole or check by check.

use std::sync::Arc;
use std::time::Duration;

use http::Response;

use crate::handlers::options::Query;
use crate::http::answer::{Body, text};
use crate::state::Server;

/// How long the store may take to say how far it is.
const STORE_PATIENCE: Duration = Duration::from_secs(2);

/// One thing that may be wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Check {
    Ping,
    Log,
    Store,
    Caches,
    Roles,
    Keys,
    Shutdown,
}

impl Check {
    fn name(self) -> &'static str {
        match self {
            Check::Ping => "ping",
            Check::Log => "log",
            Check::Store => "etcd",
            Check::Caches => "informer-sync",
            Check::Roles => "poststarthook/rbac/bootstrap-roles",
            Check::Keys => "kms-providers",
            Check::Shutdown => "shutdown",
        }
    }

    async fn run(self, server: &Arc<Server>) -> Result<(), String> {
        match self {
            Check::Ping | Check::Log => Ok(()),
            Check::Store => match tokio::time::timeout(STORE_PATIENCE, server.freshness.revision()).await {
                Ok(Ok(_)) => Ok(()),
                Ok(Err(error)) => Err(error.to_string()),
                Err(_) => Err("the store does not answer".into()),
            },
            Check::Caches if server.feed.loaded() => Ok(()),
            Check::Caches => Err("objects are being loaded from the store".into()),
            Check::Roles if server.authorizer.ready() => Ok(()),
            Check::Roles => Err("the roles of the system are being made".into()),
            Check::Keys => match server.store.encryption() {
                Some(encryption) => encryption.health().await,
                None => Ok(()),
            },
            Check::Shutdown if server.shutdown.is_cancelled() => Err("process is shutting down".into()),
            Check::Shutdown => Ok(()),
        }
    }
}

fn checks(endpoint: &str) -> &'static [Check] {
    match endpoint {
        "readyz" => &[
            Check::Ping,
            Check::Log,
            Check::Store,
            Check::Caches,
            Check::Roles,
            Check::Keys,
            Check::Shutdown,
        ],
        "livez" => &[Check::Ping, Check::Log],
        _ => &[Check::Ping, Check::Log, Check::Store, Check::Keys],
    }
}

/// The answer to `/readyz`, `/readyz?verbose`, `/readyz/etcd` and their like.
pub async fn answer(server: &Arc<Server>, path: &str, query: Query<'_>) -> Response<Body> {
    let mut parts = path.trim_start_matches('/').splitn(2, '/');
    let endpoint = parts.next().unwrap_or_default();
    let checks = checks(endpoint);
    if let Some(one) = parts.next() {
        return match checks.iter().find(|check| check.name() == one) {
            None => text(404, "404 page not found\n"),
            Some(check) => match check.run(server).await {
                Ok(()) => text(200, "ok"),
                Err(error) => text(500, format!("internal server error: {error}\n")),
            },
        };
    }
    let excluded = query.all("exclude");
    let (mut lines, mut failed) = (String::new(), Vec::new());
    for check in checks {
        let name = check.name();
        if excluded.iter().any(|e| e == name) {
            lines.push_str(&format!("[+]{name} excluded: ok\n"));
            continue;
        }
        match check.run(server).await {
            Ok(()) => lines.push_str(&format!("[+]{name} ok\n")),
            Err(error) => {
                tracing::info!(endpoint, check = name, %error, "health check failed");
                lines.push_str(&format!("[-]{name} failed: reason withheld\n"));
                failed.push(name);
            }
        }
    }
    if !failed.is_empty() {
        return text(500, format!("{lines}{endpoint} check failed\n"));
    }
    if query.flag("verbose") {
        text(200, format!("{lines}{endpoint} check passed\n"))
    } else {
        text(200, "ok")
    }
}
