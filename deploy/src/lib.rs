//! keeladm: makes clusters, shows them, and takes them away again.
//!
//! ```text
//! cli.rs         the commands and their flags
//! cluster.rs     one cluster's parameters and where each of its files lives
//! commands/      up, down, status, images: each a list of steps
//! steps/         what `up` does, one file a step: preflight, pki, kubeconfigs, containerd, images, daemons, ready
//! teardown/      what `down` undoes: pods, processes, mounts, cgroups, network, files
//! units.rs       every daemon's flags, and how it is started
//! supervisor/    the process that keeps the daemons running, and how the other commands talk to it
//! pki/           authorities, certificates, keys
//! kubeconfig.rs  kubeconfig files
//! images/        OCI archives of our own images
//! system.rs      what the machine offers: programs, addresses, capabilities
//! kernel.rs      kernel settings, remembered before and put back after
//! https.rs       one HTTPS question to a daemon
//! progress.rs    steps as they are shown
//! ```
#![forbid(unsafe_code)]

pub mod cli;
pub mod cluster;
mod commands;
mod https;
pub mod images;
mod kernel;
pub mod kubeconfig;
pub mod pki;
mod progress;
mod steps;
mod supervisor;
mod system;
mod teardown;
pub mod units;
