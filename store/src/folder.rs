//! The data folder: opened, made for a new or joining member, or repaired.
//!
//! The log is the one thing that cannot be had from elsewhere: in it is what this member has promised. The applied
//! state can: from the log, if it reaches back to the beginning, or from another member.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use keelson_proto::store::StoredMember;

use crate::backup;
use crate::cluster::{Membership, member_id};
use crate::config::{ClusterState, Config};
use crate::engine::sled::SledEngine;
use crate::engine::{Batch, Engine};
use crate::mvcc::schema;
use crate::raft::start::{self, Found};
use crate::state::{Applied, State, encode_state};
use crate::transport::connect::Connector;
use crate::transport::{fetch, join};
use crate::urls::Url;
use crate::wal::disk::{FolderDisk, SpareSlot};
use crate::wal::{Replay, SyncTimes, Wal};

const STATE_FOLDER: &str = "state";
const MEMBER_FILE: &str = "member-id";
/// Where a damaged state is put, to be looked at.
const DAMAGED_FOLDER: &str = "state.damaged";
/// Where the state of another member is prepared.
const FETCHED_FOLDER: &str = "incoming-state";
/// There while the state failed its reader or writer and was not checked since.
const SUSPECT_FILE: &str = "state.suspect";
/// How long other members are asked for their state.
const FETCH_PATIENCE: Duration = Duration::from_secs(60);
const FETCH_RETRY: Duration = Duration::from_millis(500);

/// What was found in the data folder, or made there.
pub struct Opened {
    /// The member.
    pub found: Found,
    /// Where the log's next segment goes.
    pub spare: Arc<SpareSlot>,
    /// How long the log's disk takes.
    pub syncs: Arc<SyncTimes>,
}

/// Opens the data folder, or makes one: for a new group, or by asking the group that is to be joined.
///
/// # Errors
/// When it cannot be made, or is damaged beyond repair.
pub async fn open(config: &Config, connector: &Connector) -> anyhow::Result<Opened> {
    let data = config.data_dir();
    make_private(&data)?;
    remove_leftovers(&data)?;
    let wal_folder = config.wal_dir();
    let disk = FolderDisk::new(&wal_folder)
        .with_context(|| format!("making the folder {}", wal_folder.display()))?;
    let (spare, syncs) = (disk.spare(), disk.syncs());
    let (mut wal, replay) = Wal::open(Box::new(disk))?;
    let read = {
        let data = data.clone();
        tokio::task::spawn_blocking(move || read_state(&data)).await?
    };
    let (member, state) = match read {
        Ok((_, Some(state))) if state.applied_index() >= replay.mark.index => {
            (read_member(&data, config, &state)?, state)
        }
        Ok((engine, None)) if replay.is_empty() => {
            let (member, membership, applied) = found(config, connector).await?;
            write_member(&data, member)?;
            (member, begin(engine, membership, applied)?)
        }
        Ok((engine, state)) => {
            let reached = state.map_or(0, |state| state.applied_index());
            drop(engine);
            let reason = format!(
                "it ends at entry {reached}, but the log begins after entry {}",
                replay.mark.index
            );
            rebuild(config, connector, &replay, &reason).await?
        }
        Err(error) => rebuild(config, connector, &replay, &format!("{error:#}")).await?,
    };
    let replay = start::reconcile(&state, &mut wal, replay)
        .with_context(|| format!("comparing {} with the log", data.display()))?;
    Ok(Opened {
        found: Found {
            member,
            state: Arc::new(state),
            wal,
            replay,
        },
        spare,
        syncs,
    })
}

/// Notes that the state failed while it was in use, so that all of it is checked at the next start.
pub fn suspect(data: &Path) {
    if let Err(error) = std::fs::File::create(data.join(SUSPECT_FILE)) {
        tracing::warn!(%error, "noting that the applied state is to be checked");
    }
}

type Read = (Arc<dyn Engine>, Option<State>);

fn read_state(data: &Path) -> anyhow::Result<Read> {
    let engine: Arc<dyn Engine> = Arc::new(SledEngine::open(&data.join(STATE_FOLDER))?);
    let state = State::load(engine.clone())?;
    let suspect = data.join(SUSPECT_FILE);
    if suspect.exists() {
        // The start reads only what it needs; here every record counts.
        engine.scan(&[0], &[0xff], &mut |_, _| ControlFlow::Continue(()))?;
        std::fs::remove_file(suspect)?;
    }
    Ok((engine, state))
}

fn begin(engine: Arc<dyn Engine>, membership: Membership, applied: Applied) -> anyhow::Result<State> {
    let state = State::founding(engine.clone(), membership, applied);
    let mut batch = Batch::default();
    batch.put(schema::STATE_KEY.to_vec(), state.read(encode_state));
    engine.commit(batch)?;
    Ok(state)
}

/// Makes the applied state anew: from the log if it has everything, or else with that of another member.
async fn rebuild(
    config: &Config,
    connector: &Connector,
    replay: &Replay,
    reason: &str,
) -> anyhow::Result<(u64, State)> {
    let data = config.data_dir();
    let folder = data.join(STATE_FOLDER);
    tracing::error!(folder = %folder.display(), reason, "the applied state is damaged: it is made anew");
    let member = std::fs::read_to_string(data.join(MEMBER_FILE))
        .ok()
        .and_then(|text| u64::from_str_radix(text.trim(), 16).ok())
        .with_context(|| format!("{} is damaged, and so is {MEMBER_FILE}", folder.display()))?;
    if replay.mark.index <= backup::FOUNDING.index
        && config.initial_cluster_state == ClusterState::New
        && let Ok((founder, membership)) = founders(config)
        && founder == member
    {
        set_aside(&data)?;
        let engine: Arc<dyn Engine> = Arc::new(SledEngine::open(&folder)?);
        let state = begin(engine, membership, backup::FOUNDING)?;
        tracing::warn!(
            entries = replay.entries.len(),
            "the applied state is made anew from the log"
        );
        return Ok((member, state));
    }
    let others: Vec<Url> = config
        .initial_members()?
        .into_iter()
        .filter(|other| other.name != config.name)
        .flat_map(|other| other.peer_urls)
        .collect();
    let started = Instant::now();
    let fetched = data.join(FETCHED_FOLDER);
    while !others.is_empty() && started.elapsed() < FETCH_PATIENCE {
        for url in &others {
            match fetch_state(connector, url, member, &fetched, replay.mark.index).await {
                Ok(()) => {
                    set_aside(&data)?;
                    std::fs::rename(&fetched, &folder)
                        .with_context(|| format!("renaming {}", fetched.display()))?;
                    std::fs::File::open(&data)?.sync_all()?;
                    let (_, state) = tokio::task::spawn_blocking(move || read_state(&data)).await??;
                    let state = state.context("the state of the other member is empty")?;
                    tracing::warn!(%url, applied = state.applied_index(), "the applied state is another member's now");
                    return Ok((member, state));
                }
                Err(error) => tracing::warn!(%url, error = format!("{error:#}"), "asking for the state"),
            }
        }
        tokio::time::sleep(FETCH_RETRY).await;
    }
    bail!(
        "{} is damaged ({reason}), the log begins too late to make it anew, and no other member could give its own. \
         Start this member again when another one can be reached; if there is none, empty {} and restore a backup with \
         `kube-store restore`",
        folder.display(),
        data.display()
    )
}

async fn fetch_state(
    connector: &Connector,
    url: &Url,
    member: u64,
    folder: &Path,
    least: u64,
) -> anyhow::Result<()> {
    let engine = fetch::state(connector, url, member, folder).await?;
    let engine: Arc<dyn Engine> = Arc::new(engine);
    let state = tokio::task::spawn_blocking(move || State::load(engine)).await??;
    let applied = state.map_or(0, |state| state.applied_index());
    if applied < least {
        bail!("it is at entry {applied} only, and entry {least} is needed");
    }
    Ok(())
}

/// Puts the damaged state where it is in nobody's way.
fn set_aside(data: &Path) -> anyhow::Result<()> {
    let (folder, aside): (PathBuf, PathBuf) = (data.join(STATE_FOLDER), data.join(DAMAGED_FOLDER));
    if aside.exists() {
        std::fs::remove_dir_all(&aside).with_context(|| format!("deleting {}", aside.display()))?;
    }
    if folder.exists() {
        std::fs::rename(&folder, &aside).with_context(|| format!("renaming {}", folder.display()))?;
    }
    let suspect = data.join(SUSPECT_FILE);
    if suspect.exists() {
        std::fs::remove_file(suspect)?;
    }
    Ok(())
}

fn founders(config: &Config) -> anyhow::Result<(u64, Membership)> {
    let members = config.initial_members()?;
    let mut own = 0;
    let stored = members
        .into_iter()
        .map(|member| {
            let peer_urls: Vec<String> = member.peer_urls.iter().map(Url::to_string).collect();
            let id = member_id(&peer_urls, &config.initial_cluster_token);
            if member.name == config.name {
                own = id;
            }
            StoredMember {
                id,
                name: member.name,
                peer_urls,
                ..StoredMember::default()
            }
        })
        .collect();
    Ok((own, Membership::founding(stored)))
}

async fn found(config: &Config, connector: &Connector) -> anyhow::Result<(u64, Membership, Applied)> {
    match config.initial_cluster_state {
        ClusterState::New => {
            let (member, membership) = founders(config)?;
            Ok((member, membership, backup::FOUNDING))
        }
        ClusterState::Existing => {
            let others: Vec<Url> = config
                .initial_members()?
                .into_iter()
                .filter(|member| member.name != config.name)
                .flat_map(|member| member.peer_urls)
                .collect();
            let (member, membership) =
                join::ask(connector, &others, &config.initial_advertise_peer_urls).await?;
            Ok((member, membership, Applied::default()))
        }
    }
}

/// Makes the data folder of a new group from a backup.
///
/// # Errors
/// When the backup is damaged, or the folder is in use.
pub fn restore(config: &Config, snapshot: &Path, bump: backup::Bump) -> anyhow::Result<()> {
    let data = config.data_dir();
    let wal = config.wal_dir();
    if wal.exists() {
        bail!("{} exists: restore into an empty data folder", wal.display());
    }
    make_private(&data)?;
    let (member, membership) = founders(config)?;
    backup::restore(snapshot, &data.join(STATE_FOLDER), &membership, bump)?;
    write_member(&data, member)?;
    tracing::info!(folder = %data.display(), "restored");
    Ok(())
}

fn make_private(folder: &Path) -> anyhow::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    std::fs::create_dir_all(folder)
        .and_then(|()| std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o700)))
        .with_context(|| format!("making the data folder {}", folder.display()))
}

/// Snapshots that were being received when the member stopped.
fn remove_leftovers(data: &Path) -> anyhow::Result<()> {
    let entries = std::fs::read_dir(data).with_context(|| format!("listing {}", data.display()))?;
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name.starts_with("incoming-") {
            std::fs::remove_dir_all(entry.path())?;
        }
    }
    // A snapshot was being put in place: the old state is moved away, the new one not yet there.
    let (state, old) = (data.join(STATE_FOLDER), data.join("state.old"));
    if old.exists() {
        if state.exists() {
            std::fs::remove_dir_all(&old)?;
        } else {
            std::fs::rename(&old, &state)?;
        }
    }
    Ok(())
}

fn write_member(data: &Path, member: u64) -> anyhow::Result<()> {
    use std::io::Write;
    let path = data.join(MEMBER_FILE);
    let mut file = std::fs::File::create(&path).with_context(|| format!("writing {}", path.display()))?;
    writeln!(file, "{member:x}")?;
    file.sync_all()?;
    std::fs::File::open(data)?.sync_all()?;
    Ok(())
}

fn read_member(data: &Path, config: &Config, state: &State) -> anyhow::Result<u64> {
    let path = data.join(MEMBER_FILE);
    match std::fs::read_to_string(&path) {
        Ok(text) => u64::from_str_radix(text.trim(), 16)
            .with_context(|| format!("{} does not hold a member's identity", path.display())),
        // The file is only lost by accident; the group still knows who has these URLs.
        Err(_) => {
            let own: Vec<String> = config
                .initial_advertise_peer_urls
                .iter()
                .map(Url::to_string)
                .collect();
            state
                .read(|inner| {
                    let members = inner.shared.membership.members.values();
                    members
                        .filter(|member| member.peer_urls == own)
                        .map(|member| member.id)
                        .next()
                })
                .with_context(|| format!("{} is missing", path.display()))
        }
    }
}
