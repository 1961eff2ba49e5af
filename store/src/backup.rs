//! Backups: what `etcdctl snapshot save` receives, and making a new group from it.
//!
//! ```text
//! magic | records | zeros up to a multiple of 512 | SHA-256 of all that
//! ```
//!
//! The checksum at the end, and the length it gives the file, are where etcdctl looks for them. The records
//! are a [`crate::dump`]; an etcd server cannot read them, and this store cannot read etcd's.

use std::io::Read;
use std::path::Path;

use anyhow::{Context, bail};
use bytes::Bytes;
use keelson_proto::store::StoredState;
use prost::Message;
use sha2::{Digest, Sha256};

use crate::cluster::Membership;
use crate::dump::Loader;
use crate::engine::{Batch, Engine};
use crate::mvcc::schema;
use crate::state::Applied;

/// What a backup begins with.
pub const MAGIC: &[u8] = b"keelson-store-snapshot-1\n";
const BLOCK_BYTES: usize = 512;
const CHECKSUM_BYTES: usize = 32;
const END_BYTES: usize = 8;

/// A new group's log begins behind this.
pub const FOUNDING: Applied = Applied { index: 1, term: 1 };

/// The parts of a backup around the records.
pub struct Sealer {
    hash: Sha256,
    bytes: usize,
}

impl Default for Sealer {
    fn default() -> Self {
        Self {
            hash: Sha256::new(),
            bytes: 0,
        }
    }
}

impl Sealer {
    /// Counts in a piece of the backup.
    pub fn add(&mut self, piece: &[u8]) {
        self.hash.update(piece);
        self.bytes += piece.len();
    }

    /// What comes after the last record: filler and checksum.
    #[must_use]
    pub fn finish(mut self) -> Bytes {
        let mut filler = BLOCK_BYTES - self.bytes % BLOCK_BYTES;
        // An empty key and value mark the end of the records.
        if filler < END_BYTES {
            filler += BLOCK_BYTES;
        }
        let mut end = vec![0; filler];
        self.hash.update(&end);
        end.extend_from_slice(&self.hash.finalize());
        end.into()
    }
}

/// Makes the state of a new group from a backup.
///
/// # Errors
/// When the backup is damaged, or the folder is in use.
pub fn restore(backup: &Path, state_folder: &Path, founders: &Membership) -> anyhow::Result<()> {
    if state_folder.exists() {
        bail!(
            "{} exists: restore into an empty data folder",
            state_folder.display()
        );
    }
    let content_bytes = verify(backup)?;
    let mut file = std::fs::File::open(backup).with_context(|| format!("opening {}", backup.display()))?;
    let mut magic = vec![0; MAGIC.len()];
    file.read_exact(&mut magic)?;
    if magic != MAGIC {
        bail!("{} is not a snapshot of kube-store", backup.display());
    }
    let unfinished = state_folder.with_extension("restoring");
    if unfinished.exists() {
        std::fs::remove_dir_all(&unfinished)?;
    }
    if let Some(parent) = state_folder.parent() {
        std::fs::create_dir_all(parent)?;
    }
    let mut loader = Loader::new(&unfinished)?;
    let mut left = content_bytes - MAGIC.len();
    let mut buffer = vec![0; 256 << 10];
    while left > 0 {
        let piece = left.min(buffer.len());
        file.read_exact(&mut buffer[..piece])?;
        left -= piece;
        loader.take(&buffer[..piece])?;
    }
    let engine = loader.finish()?;
    refound(&engine, founders)?;
    drop(engine);
    std::fs::rename(&unfinished, state_folder)?;
    if let Some(parent) = state_folder.parent() {
        std::fs::File::open(parent)?.sync_all()?;
    }
    Ok(())
}

/// Checks the checksum and returns how many bytes stand before it.
fn verify(backup: &Path) -> anyhow::Result<usize> {
    let mut file = std::fs::File::open(backup).with_context(|| format!("opening {}", backup.display()))?;
    let bytes = usize::try_from(file.metadata()?.len())?;
    if bytes < MAGIC.len() + CHECKSUM_BYTES || bytes % BLOCK_BYTES != CHECKSUM_BYTES {
        bail!("{} has no checksum: it was cut short", backup.display());
    }
    let content = bytes - CHECKSUM_BYTES;
    let mut hash = Sha256::new();
    let copied = std::io::copy(&mut (&mut file).take(content as u64), &mut hash)?;
    let mut want = [0; CHECKSUM_BYTES];
    file.read_exact(&mut want)?;
    if copied != content as u64 || hash.finalize()[..] != want {
        bail!("{} is damaged: its checksum does not match", backup.display());
    }
    Ok(content)
}

/// The keys stay; the group is a new one.
fn refound(engine: &dyn Engine, founders: &Membership) -> anyhow::Result<()> {
    let encoded = engine
        .get(schema::STATE_KEY)?
        .context("the snapshot holds no state")?;
    let old = StoredState::decode(encoded).context("the snapshot's state")?;
    let state = StoredState {
        cluster_id: founders.cluster_id,
        applied_index: FOUNDING.index,
        applied_term: FOUNDING.term,
        revision: old.revision,
        compacted: old.compacted,
        members: founders.members.values().cloned().collect(),
        voters: founders.conf_state.voters.clone(),
        ..StoredState::default()
    };
    let mut batch = Batch::default();
    batch.put(schema::STATE_KEY.to_vec(), state.encode_to_vec().into());
    engine.commit(batch)?;
    Ok(())
}
