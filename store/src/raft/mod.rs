//! Consensus: the Raft library driven by one thread.
//!
//! - [`log`]: the log's tail in memory, as the library wants to read it
//! - [`core`]: one member's consensus, as the steps of a loop
//! - [`start`]: from a log and a state, as they were found, to a core
//! - [`driver`]: the thread around it, with its clock
//! - [`handle`]: how the rest of the process talks to that thread
//! - [`reads`]: confirming, for many readers at once, that the leader still leads
//! - [`logger`]: the library's log lines, through `tracing`

pub mod core;
pub mod driver;
pub mod handle;
pub mod log;
pub mod logger;
pub mod reads;
pub mod start;
