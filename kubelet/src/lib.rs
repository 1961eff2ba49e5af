//! kubelet: runs the pods that are bound to one node, on a CRI runtime.
//!
//! | module | what lives there |
//! | --- | --- |
//! | [`config`], [`paths`], [`context`] | flags, folders, what all parts share |
//! | [`pods`] | a worker per pod around a pure core: decide, act, report |
//! | [`containers`] | from a pod's spec to what CRI is told |
//! | [`cri`] | the runtime, behind a trait |
//! | [`eviction`] | taking room back from pods when the node is short of it |
//! | [`images`], [`volumes`], [`probes`], [`logs`], [`cgroups`] | what pods need besides |
//! | [`node`] | the Node object, its status and lease |
//! | [`server`] | the HTTPS API: logs, exec, attach, port-forward, stats |
//! | [`api`], [`events`], [`objects`], [`quantity`] | the apiserver and its objects as the kubelet uses them |
//!
//! Pods are not the kubelet's children. It can be killed at any time; a new one finds in the runtime's labels what
//! the old one made, and goes on.
#![forbid(unsafe_code)]

pub mod api;
pub mod cgroups;
pub mod config;
pub mod containers;
pub mod context;
pub mod cri;
pub mod events;
pub mod eviction;
pub mod images;
pub mod logs;
pub mod node;
pub mod objects;
pub mod paths;
pub mod pods;
pub mod probes;
pub mod quantity;
mod run;
pub mod server;
pub mod volumes;

pub use config::Config;
pub use run::run;
