//! The store and what the server remembers of it.
//!
//! | module | what lives there |
//! | --- | --- |
//! | [`store`] | the etcd v3 client: transactions, ranges, leases |
//! | [`transactions`] | many writes over one stream |
//! | [`encryption`] | what the store sees instead of objects that are to be encrypted |
//! | [`connect`] | channels to the store: several endpoints, mutual TLS |
//! | [`feed`] | the one task that follows the store and fills every cache |
//! | [`freshness`] | learns the store's current revision, one question for everybody who waits |
//! | [`cache`] | one resource: ordered snapshot, recent events, watchers |
//! | [`changes`] | waiting until something of a kind has changed |
//! | [`entry`] | one object as it is served: bytes, labels, selectable fields |
//! | [`delivery`] | what a watcher gets, and how much of it at a time |
//! | [`filter`] | which entries a caller wants |
//! | [`paging`] | continue tokens |
//! | [`queue`] | what waits for a watcher, in bounds |

pub mod cache;
pub mod changes;
pub mod connect;
pub mod delivery;
pub mod encryption;
pub mod entry;
pub mod feed;
pub mod filter;
pub mod freshness;
pub mod paging;
pub mod queue;
mod selectable;
pub mod store;
pub mod transactions;
