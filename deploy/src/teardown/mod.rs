//! What `down` undoes, one file each. Every step does what it can and fails only when something stays behind.

pub(crate) mod cgroups;
pub(crate) mod files;
mod hostports;
pub(crate) mod mounts;
pub(crate) mod network;
pub(crate) mod pods;
pub(crate) mod processes;

use crate::cluster::Paths;

/// Stops every process after a failed start, leaving all files.
pub(crate) async fn stop(paths: &Paths) {
    for result in [
        processes::stop_daemons(paths).await,
        pods::remove(paths).await,
        processes::stop_supervisor(paths).await,
        processes::kill_leftovers(paths).await,
        network::remove(paths).await,
    ] {
        if let Err(error) = result {
            eprintln!("keeladm: {error:#}");
        }
    }
}
