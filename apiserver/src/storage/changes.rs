//! Waiting for changes of a kind: for whoever in the server looks after all its objects.

use std::sync::Arc;
use std::time::Duration;

use keelson_api::object::Kind;

use super::cache::{ResourceCache, Start, Watching};
use super::filter::Filter;
use crate::state::Server;

/// How often it is asked whether the caches are filled.
const FILLING: Duration = Duration::from_millis(20);
/// Changes taken together, at most.
const BATCH: usize = 256;

/// Says that something has changed, not what: whoever waits looks at everything.
pub struct Changes<'s> {
    server: &'s Server,
    cache: &'s Arc<ResourceCache>,
    watching: Watching,
}

impl<'s> Changes<'s> {
    /// Of one kind, from now on; `None` when it is not served. Waits until the caches are filled.
    pub async fn of<K: Kind>(server: &'s Server) -> Option<Self> {
        while !server.feed.loaded() {
            tokio::time::sleep(FILLING).await;
        }
        let cache = server.catalog.of::<K>()?;
        let watching = watch(server, cache)?;
        Some(Self {
            server,
            cache,
            watching,
        })
    }

    /// Waits for a change, or for `pause` to pass. Whether there can be more.
    pub async fn wait(&mut self, pause: Duration) -> bool {
        let mut events = Vec::new();
        tokio::select! {
            count = self.watching.queue.recv_many(&mut events, BATCH) => {
                if count > 0 {
                    return true;
                }
            }
            () = tokio::time::sleep(pause) => return true,
        }
        // The queue was too slow for what happened. What it missed is seen when everything is looked at.
        match watch(self.server, self.cache) {
            Some(watching) => self.watching = watching,
            None => return false,
        }
        true
    }
}

fn watch(server: &Server, cache: &ResourceCache) -> Option<Watching> {
    let everything = Arc::new(Filter::namespace(""));
    let reached = || server.feed.reached();
    let mut watching = cache.watch(everything, Start::Present, false, reached).ok()?;
    watching.initial.clear();
    Some(watching)
}
