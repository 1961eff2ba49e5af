//! Rotation: a log that has grown is renamed, the runtime opens it anew, older ones are compressed away or removed.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use keelson_proto::cri;
use tokio_util::sync::CancellationToken;

use crate::cri::Runtime;

/// How often logs are measured.
const PERIOD: Duration = Duration::from_secs(10);

/// When a log is rotated, and what is kept.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Bytes.
    pub size: u64,
    /// Files, the one in use included.
    pub files: usize,
}

/// Rotates the logs of running containers until `shutdown`.
pub async fn run(runtime: Arc<dyn Runtime>, limits: Limits, shutdown: CancellationToken) {
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(PERIOD) => {}
        }
        let Ok(containers) = runtime.list_containers(None).await else {
            continue;
        };
        for container in containers
            .iter()
            .filter(|container| container.state == cri::ContainerState::ContainerRunning as i32)
        {
            if let Err(error) = rotate_one(runtime.as_ref(), &container.id, limits).await {
                tracing::warn!(container = container.id, %error, "rotating a log");
            }
        }
    }
}

async fn rotate_one(runtime: &dyn Runtime, id: &str, limits: Limits) -> anyhow::Result<()> {
    let path = PathBuf::from(runtime.container_status(id).await?.log_path);
    let Ok(metadata) = tokio::fs::metadata(&path).await else {
        return Ok(());
    };
    if metadata.len() < limits.size {
        return Ok(());
    }
    let rotated = PathBuf::from(format!(
        "{}.{}",
        path.display(),
        Timestamp::now().strftime("%Y%m%d-%H%M%S")
    ));
    tokio::fs::rename(&path, &rotated).await?;
    if let Err(error) = runtime.reopen_container_log(id).await {
        // Without a new file the container would write into the renamed one for ever.
        tokio::fs::rename(&rotated, &path).await?;
        return Err(error.into());
    }
    remove_oldest(&path, limits.files).await?;
    Ok(())
}

async fn remove_oldest(path: &Path, keep: usize) -> io::Result<()> {
    let mut rotated = rotated_files(path)?;
    rotated.sort();
    let excess = (rotated.len() + 1).saturating_sub(keep.max(2));
    for old in rotated.into_iter().take(excess) {
        tokio::fs::remove_file(old).await?;
    }
    Ok(())
}

/// Files that were once this log.
pub fn rotated_files(path: &Path) -> io::Result<Vec<PathBuf>> {
    let (Some(folder), Some(name)) = (path.parent(), path.file_name().and_then(|name| name.to_str())) else {
        return Ok(Vec::new());
    };
    let prefix = format!("{name}.");
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with(&prefix) {
            found.push(entry.path());
        }
    }
    Ok(found)
}

/// Removes a log and everything that was rotated away from it.
pub fn remove(path: &Path) {
    for file in rotated_files(path).unwrap_or_default() {
        let _ = std::fs::remove_file(file);
    }
    let _ = std::fs::remove_file(path);
}
