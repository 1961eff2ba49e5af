//! Who gets in, who may do what, what is written down about it, and what the store gets to see.
//!
//! Each story has a control plane of its own on free ports of the loopback address: a store and an apiserver with the
//! flags the story is about, certificates made on the spot, and stock clients.

mod admission;
mod audit;
mod authentication;
mod authorization;
mod controllers;
mod encryption;
mod issuer;
mod kms;
mod nobody;
mod servers;
