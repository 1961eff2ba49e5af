//! Pods.
//!
//! The core is pure: [`plan`] decides what to do from a pod's spec and what the runtime has, [`status`] says how it
//! stands. Around it, [`worker`] is one task per pod that asks, decides and acts, and [`manager`] has the workers.
//!
//! - [`runtime`]: what the runtime has of a pod, as plain data
//! - [`start`], [`kill`], [`hooks`]: acting
//! - [`backoff`], [`qos`], [`conditions`], [`admission`]: rules
//! - [`static_pods`]: pods from a folder of manifests, without the apiserver
//! - [`host_processes`]: processes beside the pods, shown as pods
//! - [`pleg`]: notices what happens in the runtime
//! - [`status_writer`]: statuses on their way to the apiserver

pub mod admission;
pub mod backoff;
pub mod conditions;
pub mod hooks;
pub mod host_processes;
pub mod kill;
pub mod manager;
pub mod plan;
pub mod pleg;
pub mod qos;
pub mod runtime;
pub mod start;
pub mod static_pods;
pub mod status;
pub mod status_writer;
pub mod worker;
