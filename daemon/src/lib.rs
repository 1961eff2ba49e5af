//! What every Keelson daemon starts with. It knows nothing of Kubernetes' objects or of the store.
//!
//! - [`config`]: flags, and a `--config` file of the same names, into one `clap` struct
//! - [`duration`]: durations as Go writes them
//! - [`kubeconfig`]: where a server is, and who we are to it
//! - [`yaml`]: bounded reading of YAML
//! - [`logging`]: `tracing` as text or JSON
//! - [`signals`], [`notify`]: clean stop on SIGTERM, readiness told to systemd
//! - [`tls`]: server and client TLS with certificates that are read again when their files change
//! - [`jwt`]: tokens signed and verified with the keys TLS uses
//! - [`health`], [`metrics`]: `/healthz`, `/livez`, `/readyz`, `/metrics`
//! - [`backoff`]: the one exponential back-off with jitter
#![forbid(unsafe_code)]

pub mod backoff;
pub mod config;
pub mod duration;
pub mod health;
pub mod jwt;
pub mod kubeconfig;
pub mod logging;
pub mod metrics;
pub mod notify;
pub mod signals;
pub mod tls;
pub mod yaml;
