//! Watches: who wants to know of which changes.
//!
//! - [`hub`]: where the applying thread leaves its news, once for all watchers
//! - [`mailbox`]: what is waiting for one client's stream
//! - [`catch_up`]: changes from before a watch was in step, from memory or from the engine
//! - [`watches`]: the watches of one client's stream, from requests to responses
//! - [`session`]: carrying both over the wire
//! - [`follow`]: a watch from within the process

pub mod catch_up;
pub mod follow;
pub mod hub;
pub mod mailbox;
pub mod session;
pub mod watches;
