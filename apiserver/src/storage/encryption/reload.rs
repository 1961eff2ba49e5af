//! `--encryption-provider-config-automatic-reload`: the file is read again whenever it changes.

use std::path::PathBuf;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::config::EncryptionConfiguration;
use super::{Encryption, Rules};
use crate::reload::Reloads;

/// Follows the file until `shutdown`.
pub fn start(encryption: Arc<Encryption>, path: PathBuf, reloads: Reloads, shutdown: CancellationToken) {
    let file = path.clone();
    crate::reload::follow(
        "--encryption-provider-config",
        path,
        reloads,
        shutdown,
        move |text| {
            let rules = EncryptionConfiguration::read(text, &file).and_then(Rules::new)?;
            encryption.replace(rules);
            Ok(())
        },
    );
}
