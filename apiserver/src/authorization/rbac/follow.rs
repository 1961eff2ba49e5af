//! Keeps the index as the watch cache is.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, Role, RoleBinding};
use keelson_api::status::ApiResult;

use super::index::Index;
use crate::state::Server;
use crate::storage::cache::{ResourceCache, Signal, Start};
use crate::storage::entry::{Entry, EventType};
use crate::storage::filter::Filter;

/// The four kinds the index is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Followed {
    /// Roles of the cluster.
    ClusterRoles,
    /// Roles of namespaces.
    Roles,
    /// Bindings of the cluster.
    ClusterRoleBindings,
    /// Bindings of namespaces.
    RoleBindings,
}

const ALL: [Followed; 4] = [
    Followed::ClusterRoles,
    Followed::Roles,
    Followed::ClusterRoleBindings,
    Followed::RoleBindings,
];
/// How often it is looked whether the index has caught up.
const LOOK: Duration = Duration::from_millis(1);
/// Looks until a lagging index is taken as it is.
const LOOKS: u32 = 1000;
/// A watch that could not be started is started again after this.
const RETRY: Duration = Duration::from_millis(100);

/// Up to which revision of each kind the index is.
#[derive(Default)]
pub(super) struct Progress([AtomicI64; 4]);

impl Followed {
    fn cache(self, server: &Server) -> Option<&Arc<ResourceCache>> {
        let catalog = &server.catalog;
        match self {
            Followed::ClusterRoles => catalog.of::<ClusterRole>(),
            Followed::Roles => catalog.of::<Role>(),
            Followed::ClusterRoleBindings => catalog.of::<ClusterRoleBinding>(),
            Followed::RoleBindings => catalog.of::<RoleBinding>(),
        }
    }

    fn apply(self, index: &mut Index, kind: EventType, entry: &Entry) {
        let (namespace, name) = entry.key.split_once('/').unwrap_or(("", &entry.key));
        if kind == EventType::Deleted {
            match self {
                Followed::ClusterRoles | Followed::Roles => index.remove_role(namespace, name),
                _ => index.remove_binding(namespace, name),
            }
            return;
        }
        match self {
            Followed::ClusterRoles => {
                if let Some(role) = entry.read::<ClusterRole>() {
                    index.put_role("", name, role.rules.as_deref().unwrap_or(&[]));
                }
            }
            Followed::Roles => {
                if let Some(role) = entry.read::<Role>() {
                    index.put_role(namespace, name, role.rules.as_deref().unwrap_or(&[]));
                }
            }
            Followed::ClusterRoleBindings => {
                if let Some(binding) = entry.read::<ClusterRoleBinding>() {
                    let subjects = binding.subjects.as_deref().unwrap_or(&[]);
                    index.put_binding("", name, &binding.role_ref, subjects);
                }
            }
            Followed::RoleBindings => {
                if let Some(binding) = entry.read::<RoleBinding>() {
                    let subjects = binding.subjects.as_deref().unwrap_or(&[]);
                    index.put_binding(namespace, name, &binding.role_ref, subjects);
                }
            }
        }
    }
}

/// Starts following the caches.
pub fn start(server: &Arc<Server>) {
    for kind in ALL {
        let server = server.clone();
        tokio::spawn(async move {
            let shutdown = server.shutdown.clone();
            shutdown.run_until_cancelled(follow(&server, kind)).await
        });
    }
}

async fn follow(server: &Server, kind: Followed) {
    let Some(cache) = kind.cache(server) else { return };
    let rbac = &server.authorizer.rbac;
    let applied = &rbac.progress.0[kind as usize];
    let everything = Arc::new(Filter::namespace(""));
    loop {
        let Ok(mut watching) = cache.watch(everything.clone(), Start::Present, false, || 0) else {
            tokio::time::sleep(RETRY).await;
            continue;
        };
        {
            let mut index = rbac.index.write();
            index.clear(kind);
            for entry in &watching.initial {
                kind.apply(&mut index, EventType::Added, entry);
            }
        }
        applied.store(watching.revision, Ordering::Release);
        let mut signals = Vec::new();
        while watching.queue.recv_many(&mut signals, 256).await > 0 {
            let mut index = rbac.index.write();
            let mut reached = 0;
            for signal in signals.drain(..) {
                if let Signal::Event(seen, event) = signal {
                    kind.apply(&mut index, seen, &event.entry);
                    reached = event.entry.revision;
                }
            }
            drop(index);
            applied.fetch_max(reached, Ordering::Release);
        }
    }
}

/// Waits until the index shows everything written before this call.
///
/// # Errors
/// When the store does not say how far it is.
pub async fn catch_up(server: &Server) -> ApiResult<()> {
    server.catch_up().await?;
    for kind in ALL {
        let Some(cache) = kind.cache(server) else { continue };
        let (_, reached) = cache.snapshot(|| 0);
        for _ in 0..LOOKS {
            if server.authorizer.rbac.progress.0[kind as usize].load(Ordering::Acquire) >= reached {
                break;
            }
            tokio::time::sleep(LOOK).await;
        }
    }
    Ok(())
}
