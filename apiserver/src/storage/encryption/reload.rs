//! `--encryption-provider-config-automatic-reload`: the file is read again whenever it changes.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use sha2::{Digest as _, Sha256};
use tokio_util::sync::CancellationToken;

use super::config::EncryptionConfiguration;
use super::{Encryption, Rules};

/// How often the file is looked at.
const LOOK: Duration = Duration::from_secs(5);

/// Follows the file until `shutdown`. What cannot be used is reported and changes nothing.
pub fn start(encryption: Arc<Encryption>, path: PathBuf, shutdown: CancellationToken) {
    tokio::spawn(async move { shutdown.run_until_cancelled(follow(encryption, path)).await });
}

async fn follow(encryption: Arc<Encryption>, path: PathBuf) {
    let mut seen = digest(&path);
    loop {
        tokio::time::sleep(LOOK).await;
        let now = digest(&path);
        if now.is_none() || now == seen {
            continue;
        }
        seen = now;
        match EncryptionConfiguration::load(&path).and_then(Rules::new) {
            Ok(rules) => {
                encryption.replace(rules);
                tracing::info!(file = %path.display(), "the encryption configuration was loaded again");
            }
            Err(error) => {
                tracing::error!(file = %path.display(), error, "the encryption configuration is not used");
            }
        }
    }
}

fn digest(path: &PathBuf) -> Option<[u8; 32]> {
    Some(Sha256::digest(std::fs::read(path).ok()?).into())
}
