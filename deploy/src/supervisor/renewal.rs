//! Certificates, replaced before they expire.
//!
//! Daemons and their clients look at their certificates' files every half minute at most, so nothing is restarted.
//! Authorities live for ten years and are not replaced here.

use std::time::Duration;

use anyhow::{Context, ensure};
use tokio_util::sync::CancellationToken;

use crate::cluster::Paths;
use crate::steps::kubeconfigs;

/// How often certificates are looked at, for those that live at least a few days.
const LOOK_EVERY: Duration = Duration::from_secs(3600);
/// How many times in a certificate's life it is looked at.
const LOOKS: u32 = 100;

/// Looks at the certificates now and then until the supervisor's work is over.
pub(super) async fn run(paths: Paths, over: CancellationToken) {
    loop {
        let wait = match renew(&paths) {
            Ok(wait) => wait,
            Err(error) => {
                tracing::warn!(error = format!("{error:#}"), "renewing certificates");
                LOOK_EVERY
            }
        };
        tokio::select! {
            () = over.cancelled() => return,
            () = tokio::time::sleep(wait) => {}
        }
    }
}

/// Renews what is due, and returns how long to wait before the next look.
fn renew(paths: &Paths) -> anyhow::Result<Duration> {
    let cluster = paths.load()?.context("there is no cluster")?;
    for authority in ["ca.crt", "store-ca.crt"] {
        let path = paths.pki(authority);
        // Another authority would make every certificate in use worthless.
        ensure!(path.exists(), "{} is missing", path.display());
    }
    let outcome = crate::pki::ensure(&cluster)?;
    kubeconfigs::write_all(&cluster)?;
    if outcome.issued > 0 {
        tracing::info!(certificates = outcome.issued, "renewed");
    }
    let validity = cluster.parameters.certificate_validity;
    Ok((validity / LOOKS).clamp(Duration::from_secs(1), LOOK_EVERY))
}
