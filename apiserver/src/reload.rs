//! Files that are read again whenever they change.

use std::path::PathBuf;
use std::time::Duration;

use sha2::{Digest as _, Sha256};
use tokio_util::sync::CancellationToken;

/// How often a file is looked at.
const LOOK: Duration = Duration::from_secs(5);

/// Follows a file until `shutdown`, and hands what it says to `load` whenever that is something new. What `load` cannot
/// use is reported and changes nothing.
pub fn follow(
    flag: &'static str,
    path: PathBuf,
    shutdown: CancellationToken,
    mut load: impl FnMut(&str) -> Result<(), String> + Send + 'static,
) {
    let looking = async move {
        let mut seen = read(&path).map(|text| digest(&text));
        loop {
            tokio::time::sleep(LOOK).await;
            // Gone, or half written: another look will do.
            let Some(text) = read(&path) else { continue };
            let now = Some(digest(&text));
            if now == seen {
                continue;
            }
            seen = now;
            match load(&text) {
                Ok(()) => tracing::info!(flag, file = %path.display(), "loaded again"),
                Err(error) => {
                    tracing::error!(flag, file = %path.display(), error, "not used: what was there before stays");
                }
            }
        }
    };
    tokio::spawn(async move { shutdown.run_until_cancelled(looking).await });
}

fn read(path: &PathBuf) -> Option<String> {
    std::fs::read_to_string(path).ok().filter(|text| !text.is_empty())
}

fn digest(text: &str) -> [u8; 32] {
    Sha256::digest(text).into()
}
