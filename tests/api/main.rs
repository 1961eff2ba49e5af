//! What clients see of the API that stock ones do not show: answers under load, moments of the past and to come, the
//! bytes of watches, media types, and what is behind `proxy`.
//!
//! Each story has a store and an apiserver of its own on free ports of the loopback address.

mod conformity;
mod fairness;
mod media;
mod moments;
mod proxying;
