//! What clients see of the API that stock ones do not show: answers under load, moments of the past and to come, the
//! bytes of watches, media types, what is wrong with requests, what is behind `proxy`, and other API servers behind this
//! one.
//!
//! Each story has a store and an apiserver of its own on free ports of the loopback address.

mod aggregation;
mod answers;
mod conformity;
mod connections;
mod crowds;
mod events;
mod fairness;
mod media;
mod moments;
mod proxying;
mod requests;
