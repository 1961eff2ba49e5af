//! What clients see of the API that stock ones do not show: answers under load, moments of the past and to come, and
//! the bytes of watches.
//!
//! Each story has a store and an apiserver of its own on free ports of the loopback address.

mod fairness;
mod moments;
