//! Getting the whole state from another member.

use std::path::Path;

use anyhow::{Context, bail};
use keelson_proto::raft_transport::StateRequest;

use super::connect::Connector;
use crate::dump::Loader;
use crate::engine::sled::SledEngine;
use crate::urls::Url;

/// Asks the member at `url` for its state in the name of `member`, and prepares it at `folder`.
///
/// # Errors
/// When it does not answer, does not know the member, or what arrives is damaged.
pub async fn state(
    connector: &Connector,
    url: &Url,
    member: u64,
    folder: &Path,
) -> anyhow::Result<SledEngine> {
    let mut client = connector.connect(url).await?;
    let mut pieces = client.state(StateRequest { from: member }).await?.into_inner();
    if folder.exists() {
        std::fs::remove_dir_all(folder).with_context(|| format!("emptying {}", folder.display()))?;
    }
    let mut loader = Loader::new(folder)?;
    let mut crc = 0;
    while let Some(piece) = pieces.message().await? {
        crc = crc32c::crc32c_append(crc, &piece.data);
        loader = tokio::task::spawn_blocking(move || loader.take(&piece.data).map(|()| loader)).await??;
        let Some(want) = piece.crc else {
            continue;
        };
        if want != crc {
            bail!("the state was damaged on its way from {url}");
        }
        return Ok(tokio::task::spawn_blocking(move || loader.finish()).await??);
    }
    bail!("the state from {url} was cut short")
}
