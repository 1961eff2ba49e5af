//! What every request shares: the resources served, their caches, the store, admission and configuration.
//!
//! Kinds and admission plugins use [`Server`] to look at other objects and, rarely, to change them. Reads come in two sorts:
//! `cached*` answers from the watch cache at once and may lag behind by a moment, `fresh*` first makes sure that the cache
//! has seen everything written before the call.
