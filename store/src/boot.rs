//! From flags and folders to a running member.

use std::sync::Arc;
use std::sync::mpsc;
use std::time::Duration;

use anyhow::bail;
use keelson_daemon::health::HealthServer;
use keelson_daemon::metrics::Metrics;
use keelson_proto::store::StoredMember;
use keelson_proto::store::proposal::Operation;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::compactor;
use crate::config::Config;
use crate::engine::EngineError;
use crate::error::StoreError;
use crate::folder;
use crate::persist::{self, FolderRoom};
use crate::raft::core::CoreError;
use crate::raft::driver;
use crate::raft::handle::{Command, Leadership, RaftHandle};
use crate::raft::start::{self, Manners, Surroundings};
use crate::server::listen::{self, ClientDoor, Door, Lock, PlainDoor};
use crate::server::{Api, Headers, Limits, metrics};
use crate::state::State;
use crate::transport::connect::Connector;
use crate::transport::peers::Peers;
use crate::transport::service::TransportService;
use crate::urls::Url;
use crate::wal::SyncTimes;
use crate::watch::session::WatchLimits;

/// What etcd leaves free in a watch response for the rest of the message.
const FRAGMENT_OVERHEAD: usize = 512 << 10;
/// How often the leader looks for leases that have run out.
const EXPIRY_EVERY: Duration = Duration::from_millis(500);
/// Leases revoked at a time.
const EXPIRY_BATCH: usize = 500;

/// Long ranges that are read at a time.
const BULK_READS: usize = 4;

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

    let opened = folder::open(&config, &connector).await?;
    let data = config.data_dir();
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
    let (persister, worker) = persist::persister(state.clone(), raft.clone(), Box::new(room), config.quota());
    let manners = Manners {
        election_ticks,
        election_timeout: Duration::from_millis(config.election_timeout),
        seed: rand::random(),
        pre_vote: config.pre_vote,
        keep_entries: config.snapshot_count,
        strict_reconfig: config.strict_reconfig_check,
    };
    let around = Surroundings {
        outbox: Box::new(peers.clone()),
        leadership: leadership.clone(),
        persister: persister.clone(),
    };
    let core = start::core(opened.found, manners, around)?;

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
        bulk_reads: Semaphore::new(BULK_READS),
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
    if let Err(error) = &result
        && is_damage(error)
    {
        folder::suspect(&data);
    }
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

/// Whether the applied state gave the reason for the end.
fn is_damage(error: &anyhow::Error) -> bool {
    let damage = |error: &StoreError| matches!(error, StoreError::Storage(_) | StoreError::Corrupt);
    match error.downcast_ref::<CoreError>() {
        Some(CoreError::Apply { source, .. } | CoreError::Install { source, .. }) => damage(source),
        Some(_) => false,
        None => error.downcast_ref::<StoreError>().is_some_and(damage) || error.is::<EngineError>(),
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
        let revocations = state.clock.expired(EXPIRY_BATCH).into_iter().map(|expiry| {
            let raft = raft.clone();
            async move {
                let lease = expiry.id;
                // Found again the next time if it did not work.
                if let Err(error) = raft.propose(Operation::LeaseExpiry(expiry)).await {
                    tracing::debug!(lease, %error, "revoking a lease that has run out");
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
