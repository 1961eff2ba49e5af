//! Watches: who wants to know of which changes.
//!
//! - [`hub`]: where the applying thread leaves its news, once for all watchers
//! - [`mailbox`]: what is waiting for one client's stream
//! - [`catch_up`]: changes from before a watch was in step, from memory or from the engine
//! - [`session`]: one client's stream, from requests to responses

pub mod catch_up;
pub mod hub;
pub mod mailbox;
pub mod session;
