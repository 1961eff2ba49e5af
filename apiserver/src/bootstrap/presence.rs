//! Which servers of the cluster are alive. Each keeps a key of its own under a lease in the store, as upstream's servers
//! do: a server that is killed is forgotten when its lease ends, one that stops ends the lease itself.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;

use crate::config::Config;
use crate::storage::store::{Store, StoreError, Written};

/// How long a server that no longer renews its lease counts as alive: longer than the time between two looks.
const TTL: Duration = Duration::from_secs(15);
/// Where the keys are, below the store's prefix.
const PLACE: &str = "masterleases";

/// This server among all.
pub(super) struct Presence {
    address: IpAddr,
    lease: Mutex<Option<i64>>,
}

impl Presence {
    pub(super) fn of(config: &Config) -> Self {
        Self {
            address: config.advertised(),
            lease: Mutex::new(None),
        }
    }

    /// Says that this server is alive, and returns the addresses of all that are.
    pub(super) async fn renew(&self, store: &Store) -> Result<BTreeSet<IpAddr>, StoreError> {
        let lease = *self.lease.lock();
        let renewed = match lease {
            Some(id) => store.renew(id).await?,
            None => false,
        };
        if !renewed {
            self.begin(store).await?;
        }
        let mut living = self.living(store).await?;
        // Somebody may have removed the key, or another server with this address has ended.
        if living.insert(self.address) {
            self.begin(store).await?;
        }
        Ok(living)
    }

    async fn begin(&self, store: &Store) -> Result<(), StoreError> {
        let lease = store.grant(TTL).await?;
        *self.lease.lock() = Some(lease);
        let address = self.address.to_string();
        let key = store.key(PLACE, &address);
        let value = serde_json::json!({"kind": "Endpoints", "apiVersion": "v1", "metadata": {},
            "subsets": [{"addresses": [{"ip": address}]}]});
        let value = Bytes::from(value.to_string());
        let mut expected = 0;
        // A server that ran here before may have left its key, and writes it no more.
        while let Written::Conflict(found) = store.update(&key, expected, value.clone(), lease).await? {
            expected = found.map_or(0, |found| found.revision);
        }
        Ok(())
    }

    /// The addresses of all servers that are alive.
    pub(super) async fn living(&self, store: &Store) -> Result<BTreeSet<IpAddr>, StoreError> {
        let place = store.key(PLACE, "");
        let answer = store.page(&place, &place, 0, 0).await?;
        Ok(answer
            .kvs
            .iter()
            .filter_map(|kv| {
                std::str::from_utf8(&kv.key)
                    .ok()?
                    .strip_prefix(&place)?
                    .parse()
                    .ok()
            })
            .collect())
    }

    /// Says that this server goes.
    pub(super) async fn end(&self, store: &Store) -> Result<(), StoreError> {
        let lease = self.lease.lock().take();
        match lease {
            Some(id) => store.revoke(id).await,
            None => Ok(()),
        }
    }
}
