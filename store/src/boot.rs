//! From flags and folders to a running member.

use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc;
use std::time::Duration;

use anyhow::{Context, bail};
use keelson_daemon::health::HealthServer;
use keelson_daemon::metrics::Metrics;
use keelson_proto::etcd::LeaseRevokeRequest;
use keelson_proto::store::StoredMember;
use keelson_proto::store::proposal::Operation;
use tokio_util::sync::CancellationToken;

use crate::backup;
use crate::cluster::{Membership, member_id};
use crate::compactor;
use crate::config::{ClusterState, Config};
use crate::engine::sled::SledEngine;
use crate::engine::{Batch, Engine};
use crate::mvcc::schema;
use crate::persist::{self, FolderRoom};
use crate::raft::driver;
use crate::raft::handle::{Command, Leadership, RaftHandle};
use crate::raft::start::{self, Found, Surroundings, Timing};
use crate::server::listen::{self, ClientDoor, Door, Lock, PlainDoor};
use crate::server::{Api, Headers, Limits, metrics};
use crate::state::{Applied, State, encode_state};
use crate::transport::connect::Connector;
use crate::transport::join;
use crate::transport::peers::Peers;
use crate::transport::service::TransportService;
use crate::urls::Url;
use crate::wal::disk::{FolderDisk, SpareSlot};
use crate::wal::{SyncTimes, Wal};
use crate::watch::session::WatchLimits;

const STATE_FOLDER: &str = "state";
const MEMBER_FILE: &str = "member-id";
/// What etcd leaves free in a watch response for the rest of the message.
const FRAGMENT_OVERHEAD: usize = 512 << 10;
/// How often the leader looks for leases that have run out.
const EXPIRY_EVERY: Duration = Duration::from_millis(500);
/// Leases revoked at a time.
const EXPIRY_BATCH: usize = 500;
/// Entries kept for members that are behind.
const KEEP_ENTRIES: u64 = 5_000;

/// What was found in the data folder, or made there.
struct Opened {
    found: Found,
    spare: Arc<SpareSlot>,
    syncs: Arc<SyncTimes>,
}

/// Runs a member until `shutdown`.
///
/// # Errors
/// When it cannot start, or cannot go on.
pub async fn run(config: Config, shutdown: CancellationToken) -> anyhow::Result<()> {
    let tick = Duration::from_millis(config.heartbeat_interval);
    let election_ticks = (config.election_timeout / config.heartbeat_interval) as usize;
    if election_ticks < 5 {
        bail!(
            "--election-timeout ({}ms) should be at least as 5 times as --heartbeat-interval ({}ms)",
            config.election_timeout,
            config.heartbeat_interval
        );
    }
    let auto_compaction = config.auto_compaction()?;
    let client_lock = config.client_tls()?.map(|tls| Lock {
        tls,
        judge: config.client_cert_auth || config.trusted_ca_file.is_some(),
    });
    let peer_lock = config.peer_tls()?.map(|tls| Lock {
        tls,
        judge: config.peer_client_cert_auth || config.peer_trusted_ca_file.is_some(),
    });
    let connector = Connector::new(config.peer_client_tls()?);

    let opened = open(&config, &connector).await?;
    let (member, state) = (opened.found.member, opened.found.state.clone());
    let cluster = state.read(|inner| inner.shared.membership.cluster_id);
    tracing::info!(
        member = format!("{member:x}"),
        cluster = format!("{cluster:x}"),
        revision = state.revision(),
        applied = state.applied_index(),
        entries = opened.found.replay.entries.len(),
        "opened the store"
    );

    let (commands, inbox) = mpsc::channel();
    let leadership = Arc::new(Leadership::default());
    let raft = RaftHandle::new(commands, leadership.clone(), member);
    let stop = CancellationToken::new();
    let peers = Peers::new(
        cluster,
        connector,
        state.clone(),
        raft.clone(),
        tokio::runtime::Handle::current(),
        stop.clone(),
    );
    let room = FolderRoom {
        folder: config.data_dir(),
        spare: opened.spare,
    };
    let (persister, worker) =
        persist::persister(state.clone(), raft.clone(), Box::new(room), config.quota());
    let timing = Timing {
        election_ticks,
        election_timeout: Duration::from_millis(config.election_timeout),
        seed: rand::random(),
        pre_vote: config.pre_vote,
        keep_entries: KEEP_ENTRIES,
    };
    let around = Surroundings {
        outbox: Box::new(peers.clone()),
        leadership: leadership.clone(),
        persister: persister.clone(),
    };
    let core = start::core(opened.found, timing, around)?;

    // Whichever of the two threads ends first ends the member.
    let (ended, mut end) = tokio::sync::mpsc::unbounded_channel::<anyhow::Result<()>>();
    let core_ended = ended.clone();
    let core_thread = std::thread::Builder::new().name("raft".into()).spawn(move || {
        let result = driver::run(core, &inbox, tick).map_err(anyhow::Error::from);
        let _ = core_ended.send(result);
    })?;
    let persist_thread = std::thread::Builder::new()
        .name("persist".into())
        .spawn(move || {
            let result = worker.run().map_err(anyhow::Error::from);
            let _ = ended.send(result);
        })?;

    let api = Arc::new(Api {
        state: state.clone(),
        raft: raft.clone(),
        peers,
        headers: Headers {
            cluster_id: cluster,
            member_id: member,
            leadership: leadership.clone(),
        },
        limits: Limits {
            request_bytes: config.max_request_bytes,
            txn_ops: config.max_txn_ops,
            min_lease_ttl: (config.election_timeout * 3 / 2).div_ceil(1000) as i64,
            quota_bytes: config.quota(),
            election_timeout: Duration::from_millis(config.election_timeout),
            watch: WatchLimits {
                fragment_bytes: config.max_request_bytes + FRAGMENT_OVERHEAD,
                progress_interval: config.watch_progress_notify_interval,
            },
        },
        token: config.initial_cluster_token.clone(),
        shutdown: stop.clone(),
    });
    let plain = plain_door(&api, opened.syncs);
    let transport = TransportService::new(cluster, state.clone(), raft.clone(), config.data_dir());
    let mut servers = Vec::new();
    for url in &config.listen_peer_urls {
        let door = listen::peer_door(transport.clone());
        servers.push(listen::serve(url, door, peer_lock.clone(), stop.clone()).await?);
    }
    for url in &config.listen_client_urls {
        let door = Door::Client(Box::new(ClientDoor::new(&api, plain.clone())));
        servers.push(listen::serve(url, door, client_lock.clone(), stop.clone()).await?);
    }
    let metrics_lock = client_lock.map(|lock| Lock { judge: false, ..lock });
    for url in &config.listen_metrics_urls {
        let door = Door::Plain(plain.clone());
        servers.push(listen::serve(url, door, metrics_lock.clone(), stop.clone()).await?);
    }
    tokio::spawn(expire_leases(state.clone(), raft.clone(), stop.clone()));
    tokio::spawn(compactor::run(
        state.clone(),
        raft.clone(),
        auto_compaction,
        stop.clone(),
    ));
    let published = publish(config, state.clone(), raft.clone(), stop.clone());
    tokio::spawn(async move {
        published.await;
        keelson_daemon::notify::ready();
        tracing::info!("ready");
    });

    let result = tokio::select! {
        () = shutdown.cancelled() => Ok(()),
        ended = end.recv() => ended.unwrap_or(Ok(())),
    };
    stop.cancel();
    for server in servers {
        let _ = server.await;
    }
    raft.send(Command::Stop);
    let joined = tokio::task::spawn_blocking(move || {
        let _ = core_thread.join();
        persister.stop();
        persist_thread.join()
    });
    let _ = joined.await;
    result
}

/// Opens the data folder, or makes one: for a new group, or by asking the group that is to be joined.
async fn open(config: &Config, connector: &Connector) -> anyhow::Result<Opened> {
    let data = config.data_dir();
    make_private(&data)?;
    remove_leftovers(&data)?;
    let state_folder = data.join(STATE_FOLDER);
    let path = state_folder.clone();
    let engine: Arc<dyn Engine> = Arc::new(
        tokio::task::spawn_blocking(move || SledEngine::open(&path))
            .await
            .context("opening the applied state")??,
    );
    let (member, state) = match State::load(engine.clone()).context("reading the applied state")? {
        Some(state) => (read_member(&data, config, &state)?, state),
        None => {
            let (member, membership, applied) = found(config, connector).await?;
            let state = State::founding(engine.clone(), membership, applied);
            write_member(&data, member)?;
            let mut batch = Batch::default();
            batch.put(schema::STATE_KEY.to_vec(), state.read(encode_state));
            engine.commit(batch)?;
            (member, state)
        }
    };
    let wal_folder = config.wal_dir();
    let disk = FolderDisk::new(&wal_folder)
        .with_context(|| format!("making the folder {}", wal_folder.display()))?;
    let (spare, syncs) = (disk.spare(), disk.syncs());
    let (mut wal, replay) = Wal::open(Box::new(disk))?;
    let replay = start::reconcile(&state, &mut wal, replay).with_context(|| {
        format!(
            "{} is not the state that belongs to {}",
            state_folder.display(),
            wal_folder.display()
        )
    })?;
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
pub fn restore(config: &Config, snapshot: &Path) -> anyhow::Result<()> {
    let data = config.data_dir();
    let wal = config.wal_dir();
    if wal.exists() {
        bail!("{} exists: restore into an empty data folder", wal.display());
    }
    make_private(&data)?;
    let (member, membership) = founders(config)?;
    backup::restore(snapshot, &data.join(STATE_FOLDER), &membership)?;
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

fn plain_door(api: &Arc<Api>, syncs: Arc<SyncTimes>) -> Arc<PlainDoor> {
    let registry = Metrics::new();
    metrics::register(
        &registry,
        api.state.clone(),
        api.raft.leadership.clone(),
        api.raft.member,
        syncs,
    );
    let leadership = api.raft.leadership.clone();
    let health = HealthServer::new(registry).check("leader", move || {
        if leadership.leader() == 0 {
            return Err("the cluster has no leader".into());
        }
        Ok(())
    });
    Arc::new(PlainDoor::new(health, api.clone()))
}

/// Proposes to revoke leases that have run out, while this member leads.
async fn expire_leases(state: Arc<State>, raft: RaftHandle, stop: CancellationToken) {
    let mut clock = tokio::time::interval(EXPIRY_EVERY);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = clock.tick() => {}
        }
        let revocations = state.clock.expired(EXPIRY_BATCH).into_iter().map(|id| {
            let raft = raft.clone();
            async move {
                let revoke = Operation::LeaseRevoke(LeaseRevokeRequest { id });
                // Found again the next time if it did not work.
                if let Err(error) = raft.propose(revoke).await {
                    tracing::debug!(lease = id, %error, "revoking a lease that has run out");
                }
            }
        });
        futures::future::join_all(revocations).await;
    }
}

/// Tells the group this member's name and client URLs, as soon as there is a leader to tell.
async fn publish(config: Config, state: Arc<State>, raft: RaftHandle, stop: CancellationToken) {
    let client_urls: Vec<String> = config.advertise_client_urls.iter().map(Url::to_string).collect();
    loop {
        let known = state.read(|inner| {
            let members = &inner.shared.membership.members;
            members
                .get(&raft.member)
                .is_some_and(|member| member.name == config.name && member.client_urls == client_urls)
        });
        if known && raft.linearize().await.is_ok() {
            return;
        }
        let update = Operation::MemberUpdate(StoredMember {
            id: raft.member,
            name: config.name.clone(),
            client_urls: client_urls.clone(),
            ..StoredMember::default()
        });
        let told = tokio::select! {
            () = stop.cancelled() => return,
            told = raft.propose(update) => told,
        };
        match told {
            Ok(_) => return,
            Err(error) => tracing::debug!(%error, "telling the group this member's name"),
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(Duration::from_millis(100)) => {}
        }
    }
}
