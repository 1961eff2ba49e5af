//! Backups: what `etcdctl snapshot save` receives, and making a new group from it.
//!
//! A backup is a database as etcd's own are ([`crate::bolt`]), followed by its SHA-256: `etcdctl snapshot status` and
//! `etcdctl snapshot restore` can read it, and a backup of an etcd can be restored here.
//!
//! | bucket | key | value |
//! | --- | --- | --- |
//! | `key` | revision, `_`, number of the change, `t` for a deletion | `mvccpb.KeyValue` |
//! | `lease` | number | `leasepb.Lease` |
//! | `members` | number in hexadecimal | JSON |
//! | `meta` | `consistent_index`, `term`, `scheduledCompactRev`, `finishedCompactRev` | numbers and revisions |

use std::io::Read;
use std::ops::ControlFlow;
use std::path::Path;

use anyhow::{Context, bail};
use bytes::Bytes;
use keelson_proto::mvcc::KeyValue;
use keelson_proto::store::StoredState;
use prost::Message;
use sha2::{Digest, Sha256};

use crate::bolt::read::{ReadError, Reader};
use crate::bolt::write::Writer;
use crate::cluster::Membership;
use crate::engine::sled::SledEngine;
use crate::engine::{Batch, Engine, Pressure};
use crate::error::StoreError;
use crate::history::History;
use crate::mvcc::hash::{bucket_key, bucket_value};
use crate::mvcc::index::Life;
use crate::mvcc::recent::Record;
use crate::mvcc::revision::Revision;
use crate::mvcc::schema;
use crate::state::{Applied, State};

const CHECKSUM_BYTES: usize = 32;
/// Bytes handed on, and written to the engine, at a time.
const CHUNK_BYTES: usize = 256 << 10;
const LOAD_BYTES: usize = 4 << 20;

const KEY: &str = "key";
const LEASE: &str = "lease";
const MEMBERS: &str = "members";
const META: &str = "meta";
const CONSISTENT_INDEX: &[u8] = b"consistent_index";
const TERM: &[u8] = b"term";
const SCHEDULED: &[u8] = b"scheduledCompactRev";
const FINISHED: &[u8] = b"finishedCompactRev";

/// A new group's log begins behind this.
pub const FOUNDING: Applied = Applied { index: 1, term: 1 };

/// A lease as etcd stores it (`leasepb.Lease`).
#[derive(Clone, PartialEq, Message)]
struct StoredLease {
    #[prost(int64, tag = "1")]
    id: i64,
    #[prost(int64, tag = "2")]
    ttl: i64,
}

/// A member as etcd stores it.
#[derive(serde::Serialize)]
#[serde(rename_all = "camelCase")]
struct JsonMember<'m> {
    id: u64,
    #[serde(rename = "peerURLs")]
    peer_urls: &'m [String],
    #[serde(skip_serializing_if = "str::is_empty")]
    name: &'m str,
    #[serde(rename = "clientURLs", skip_serializing_if = "<[String]>::is_empty")]
    client_urls: &'m [String],
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    is_learner: bool,
}

/// What is written by the way of a restore.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Bump {
    /// By how much the newest revision is raised, so that it is beyond all that clients have seen.
    pub revisions: i64,
    /// Compact at the newest revision, so that watches from before it are told to list again.
    pub compact: bool,
}

/// Writes a backup of the state, in pieces, until the taker breaks off. `false`: it did.
///
/// # Errors
/// When a record cannot be read.
pub fn write(state: &State, take: &mut dyn FnMut(Bytes) -> ControlFlow<()>) -> Result<bool, StoreError> {
    let history = History::capture(state);
    let pages = Writer::count(|writer| fill(&history, writer))?;
    let mut hash = Sha256::new();
    let mut buffer = Vec::with_capacity(CHUNK_BYTES * 2);
    let complete = {
        let mut sink = |page: &[u8]| {
            hash.update(page);
            buffer.extend_from_slice(page);
            if buffer.len() >= CHUNK_BYTES {
                return take(std::mem::take(&mut buffer).into());
            }
            ControlFlow::Continue(())
        };
        Writer::write(pages, &mut sink, |writer| fill(&history, writer))?
    };
    if !complete {
        return Ok(false);
    }
    buffer.extend_from_slice(&hash.finalize());
    Ok(take(buffer.into()).is_continue())
}

fn fill(history: &History<'_>, writer: &mut Writer<'_>) -> Result<(), StoreError> {
    history.records(&|_| true, &mut |record| {
        writer.record(
            &bucket_key(record.revision, record.deleted),
            &bucket_value(record).encode_to_vec(),
        );
        match writer.stopped() {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        }
    })?;
    writer.end_bucket(KEY);
    let mut leases = history.leases.clone();
    leases.sort_unstable_by_key(|(id, _)| id.to_be_bytes());
    for (id, ttl) in leases {
        writer.record(&id.to_be_bytes(), &StoredLease { id, ttl }.encode_to_vec());
    }
    writer.end_bucket(LEASE);
    let mut members: Vec<(String, Vec<u8>)> = Vec::new();
    for member in &history.members {
        let json = JsonMember {
            id: member.id,
            peer_urls: &member.peer_urls,
            name: &member.name,
            client_urls: &member.client_urls,
            is_learner: member.learner,
        };
        let json = serde_json::to_vec(&json).map_err(|error| StoreError::Storage(error.to_string()))?;
        members.push((format!("{:x}", member.id), json));
    }
    members.sort();
    for (id, json) in members {
        writer.record(id.as_bytes(), &json);
    }
    writer.end_bucket(MEMBERS);
    let compacted = bucket_key(Revision::start_of(history.compacted), false);
    writer.record(CONSISTENT_INDEX, &history.applied.index.to_be_bytes());
    if history.compacted > 0 {
        // Not finished: whoever reads it drops what is left over.
        writer.record(SCHEDULED, &compacted);
    }
    writer.record(TERM, &history.applied.term.to_be_bytes());
    writer.end_bucket(META);
    Ok(())
}

/// Makes the state of a new group from a backup.
///
/// # Errors
/// When the backup is damaged, or the folder is in use.
pub fn restore(backup: &Path, state_folder: &Path, founders: &Membership, bump: Bump) -> anyhow::Result<()> {
    if state_folder.exists() {
        bail!(
            "{} exists: restore into an empty data folder",
            state_folder.display()
        );
    }
    let bytes = verify(backup)?;
    let unfinished = state_folder.with_extension("restoring");
    if unfinished.exists() {
        std::fs::remove_dir_all(&unfinished)?;
    }
    if let Some(parent) = state_folder.parent() {
        std::fs::create_dir_all(parent)?;
    }
    let file = std::fs::File::open(backup)?;
    let reader = Reader::open(&file, bytes).with_context(|| backup.display().to_string())?;
    let engine = SledEngine::open(&unfinished)?;
    load(&reader, &engine, founders, bump).with_context(|| format!("restoring {}", backup.display()))?;
    drop(engine);
    std::fs::rename(&unfinished, state_folder)?;
    if let Some(parent) = state_folder.parent() {
        std::fs::File::open(parent)?.sync_all()?;
    }
    Ok(())
}

/// Checks the checksum and returns how many bytes stand before it.
fn verify(backup: &Path) -> anyhow::Result<u64> {
    const BLOCK_BYTES: usize = 512;
    let mut file = std::fs::File::open(backup).with_context(|| format!("opening {}", backup.display()))?;
    let bytes = usize::try_from(file.metadata()?.len())?;
    if bytes % BLOCK_BYTES != CHECKSUM_BYTES {
        bail!(
            "{} has no checksum: it was cut short, or not saved by etcdctl",
            backup.display()
        );
    }
    let content = (bytes - CHECKSUM_BYTES) as u64;
    let mut hash = Sha256::new();
    let copied = std::io::copy(&mut (&mut file).take(content), &mut hash)?;
    let mut want = [0; CHECKSUM_BYTES];
    file.read_exact(&mut want)?;
    if copied != content || hash.finalize()[..] != want {
        bail!("{} is damaged: its checksum does not match", backup.display());
    }
    Ok(content)
}

/// Brings a backup's keys and leases to an empty engine; the group is a new one.
///
/// # Errors
/// When the backup does not hold what it should, or the engine fails.
pub fn load(
    reader: &Reader<'_>,
    engine: &dyn Engine,
    founders: &Membership,
    bump: Bump,
) -> anyhow::Result<()> {
    let mut batch = Batch::default();
    let mut last = Revision::start_of(1);
    let commit = |batch: &mut Batch| {
        engine
            .commit(std::mem::take(batch))
            .and_then(|()| engine.trim(Pressure::Busy))
            .map_err(|error| ReadError::Refused(error.to_string()))
    };
    let found = reader.bucket(KEY, &mut |key, value| {
        let record = parse_record(key, value).ok_or(ReadError::Damaged("a change of a key"))?;
        last = last.max(record.revision);
        // etcd marks a raised revision by a change of no key.
        if record.key.is_empty() {
            return Ok(());
        }
        batch.put(schema::meta_key(record.revision), schema::encode_meta(&record));
        if !record.deleted {
            batch.put(schema::value_key(record.revision), record.value);
        }
        if batch.bytes() >= LOAD_BYTES {
            commit(&mut batch)?;
        }
        Ok(())
    })?;
    if !found {
        bail!("the snapshot holds no keys");
    }
    reader.bucket(LEASE, &mut |_, value| {
        let lease = StoredLease::decode(value).map_err(|_| ReadError::Damaged("a lease"))?;
        batch.put(
            schema::lease_key(lease.id),
            Bytes::copy_from_slice(&lease.ttl.to_be_bytes()),
        );
        Ok(())
    })?;
    let mut compacted = 0;
    reader.bucket(META, &mut |key, value| {
        if key == SCHEDULED || key == FINISHED {
            let (revision, _) = parse_key(value).ok_or(ReadError::Damaged("the last compaction"))?;
            compacted = compacted.max(revision.main);
        }
        Ok(())
    })?;
    let revision = last
        .main
        .max(compacted)
        .checked_add(bump.revisions)
        .context("the newest revision cannot be raised so far")?;
    if bump.compact {
        compacted = revision;
    }
    let state = StoredState {
        cluster_id: founders.cluster_id,
        applied_index: FOUNDING.index,
        applied_term: FOUNDING.term,
        revision,
        compacted,
        members: founders.members.values().cloned().collect(),
        voters: founders.conf_state.voters.clone(),
        ..StoredState::default()
    };
    batch.put(schema::STATE_KEY.to_vec(), state.encode_to_vec().into());
    engine.commit(batch)?;
    Ok(())
}

/// A change's revision, and whether it was a deletion.
fn parse_key(key: &[u8]) -> Option<(Revision, bool)> {
    let main = i64::from_be_bytes(key.get(..8)?.try_into().ok()?);
    let sub = i64::from_be_bytes(key.get(9..17)?.try_into().ok()?);
    let deleted = match key.get(17..)? {
        [] => false,
        [b't'] => true,
        _ => return None,
    };
    let sub = u32::try_from(sub).ok()?;
    (main >= 0 && key[8] == b'_').then_some((Revision { main, sub }, deleted))
}

fn parse_record(key: &[u8], value: &[u8]) -> Option<Record> {
    let (revision, deleted) = parse_key(key)?;
    let pair = KeyValue::decode(value).ok()?;
    let life = Life {
        created: pair.create_revision,
        version: pair.version,
        lease: pair.lease,
    };
    Some(Record {
        revision,
        deleted,
        life: if deleted { Life::default() } else { life },
        key: pair.key,
        value: pair.value,
    })
}
