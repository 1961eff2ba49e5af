//! What `up` does, one file a step. Each returns one line that says what came of it.

pub(crate) mod containerd;
pub(crate) mod daemons;
pub(crate) mod images;
pub(crate) mod kubeconfigs;
pub(crate) mod pki;
pub(crate) mod preflight;
pub(crate) mod ready;
