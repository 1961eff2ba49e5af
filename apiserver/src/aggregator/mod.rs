//! Group versions that other servers serve: APIServices with a service.
//!
//! | module | what it does |
//! | --- | --- |
//! | [`flags`] | who this server is to the others |
//! | [`remote`] | one such group version: where it is, how it is reached |
//! | [`availability`] | looks after them: their `Available` condition, what they serve |
//! | [`registrations`] | registers the group versions of custom resources |
//! | [`proxy`] | carries requests to them |
//! | [`published`] | their part of discovery and of the OpenAPI documents |
//!
//! A request has been authenticated and authorized here before it is carried on; the caller's name goes with it in
//! headers, which the other server believes because of the certificate it is shown (upstream: "Configure the Aggregation
//! Layer").

pub mod availability;
pub mod flags;
pub mod proxy;
pub mod published;
pub mod registrations;
pub mod remote;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use arc_swap::ArcSwap;

use flags::AggregatorArgs;
use remote::Remote;

/// Group versions by group and version.
pub type Remotes = BTreeMap<(String, String), Arc<Remote>>;

/// The group versions other servers serve, as one moment has them.
#[derive(Default)]
pub struct Table {
    /// Raised with every change.
    pub generation: u64,
    /// The group versions.
    pub remotes: Remotes,
}

/// What is known of other servers.
#[derive(Default)]
pub struct Aggregator {
    identity: Option<(PathBuf, PathBuf)>,
    table: ArcSwap<Table>,
}

impl Aggregator {
    /// Nothing is known yet.
    pub fn new(args: &AggregatorArgs) -> Self {
        let certificate = args.proxy_client_cert_file.clone();
        Self {
            identity: certificate.zip(args.proxy_client_key_file.clone()),
            table: ArcSwap::default(),
        }
    }

    /// Who serves a group version, if it is not this server.
    pub fn find(&self, group: &str, version: &str) -> Option<Arc<Remote>> {
        let table = self.table.load();
        if table.remotes.is_empty() {
            return None;
        }
        table
            .remotes
            .get(&(group.to_owned(), version.to_owned()))
            .cloned()
    }

    /// Who answers a path that is no resource: `/apis/GROUP/VERSION` and the documents about it.
    pub fn of_path(&self, path: &str) -> Option<Arc<Remote>> {
        let rest = path.strip_prefix("/openapi/v3").unwrap_or(path);
        let (group, version) = rest
            .strip_prefix("/apis/")?
            .trim_end_matches('/')
            .split_once('/')?;
        self.find(group, version)
    }

    /// Everything known now.
    pub fn table(&self) -> Arc<Table> {
        self.table.load_full()
    }

    fn publish(&self, remotes: Remotes) {
        let generation = self.table.load().generation + 1;
        self.table.store(Arc::new(Table { generation, remotes }));
    }
}
