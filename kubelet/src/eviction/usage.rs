//! What pods use: memory as the runtime counts it, disk as it is found.

use std::collections::HashMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;

use super::pressure::Resource;
use super::rank::{Usage, Used};
use crate::context::Context;
use crate::cri::labels;
use crate::objects::PodExt;

/// A pod's scratch volumes, or one of them.
pub fn scratch(context: &Context, pod: &Pod, name: &str) -> PathBuf {
    context.paths.volume(pod.uid(), "empty-dir", name)
}

/// What a folder takes on disk.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Folder {
    /// Bytes, in whole blocks.
    pub bytes: u64,
    /// Files and folders.
    pub inodes: u64,
}

/// Measures a folder, without crossing into other file systems. What cannot be read counts for nothing.
pub fn measure(folder: &Path) -> Folder {
    let mut total = Folder::default();
    let Ok(root) = std::fs::symlink_metadata(folder) else {
        return total;
    };
    let mut waiting = vec![folder.to_path_buf()];
    while let Some(path) = waiting.pop() {
        let Ok(metadata) = std::fs::symlink_metadata(&path) else {
            continue;
        };
        if metadata.dev() != root.dev() {
            continue;
        }
        total.bytes += metadata.blocks() * 512;
        total.inodes += 1;
        if metadata.is_dir() {
            let entries = std::fs::read_dir(&path).into_iter().flatten().flatten();
            waiting.extend(entries.map(|entry| entry.path()));
        }
    }
    total
}

/// Measures folders where it does not hold up others.
pub async fn measure_all(folders: Vec<PathBuf>) -> Vec<Folder> {
    tokio::task::spawn_blocking(move || folders.iter().map(|folder| measure(folder)).collect())
        .await
        .unwrap_or_default()
}

/// Writable layers of containers, by pod and name.
pub async fn layers(context: &Context) -> HashMap<(String, String), Folder> {
    let stats = context.runtime.list_container_stats().await.unwrap_or_default();
    let each = stats.into_iter().filter_map(|stats| {
        let attributes = stats.attributes?;
        let layer = stats.writable_layer?;
        let key = (
            attributes.labels.get(labels::POD_UID)?.clone(),
            attributes.labels.get(labels::CONTAINER_NAME)?.clone(),
        );
        let folder = Folder {
            bytes: layer.used_bytes.map_or(0, |value| value.value),
            inodes: layer.inodes_used.map_or(0, |value| value.value),
        };
        Some((key, folder))
    });
    each.collect()
}

/// What pods use of one resource.
pub async fn of_pods(context: &Arc<Context>, pods: &[Pod], resource: Resource) -> Usage {
    if resource == Resource::Memory {
        return memory(context).await;
    }
    let of = |folder: &Folder| match resource {
        Resource::Inodes => folder.inodes,
        _ => folder.bytes,
    };
    let mut usage = Usage::new();
    for ((uid, container), layer) in layers(context).await {
        let used = usage.entry(uid).or_default();
        used.total += of(&layer);
        used.containers.insert(container, of(&layer));
    }
    let folders = pods
        .iter()
        .flat_map(|pod| [scratch(context, pod, ""), context.paths.pod_logs(pod)]);
    let measured = measure_all(folders.collect()).await;
    for (pod, folders) in pods.iter().zip(measured.chunks(2)) {
        let used: &mut Used = usage.entry(pod.uid().to_owned()).or_default();
        used.total += folders.iter().map(of).sum::<u64>();
    }
    usage
}

async fn memory(context: &Context) -> Usage {
    let mut usage = Usage::new();
    for stats in context.runtime.list_container_stats().await.unwrap_or_default() {
        let Some(attributes) = stats.attributes else {
            continue;
        };
        let label = |key: &str| attributes.labels.get(key).cloned().unwrap_or_default();
        let bytes = stats
            .memory
            .and_then(|memory| memory.working_set_bytes)
            .map_or(0, |value| value.value);
        let used = usage.entry(label(labels::POD_UID)).or_default();
        used.total += bytes;
        used.containers.insert(label(labels::CONTAINER_NAME), bytes);
    }
    usage
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_are_measured_in_blocks() {
        let folder = tempfile::tempdir().expect("a folder");
        let empty = measure(folder.path());
        std::fs::create_dir(folder.path().join("sub")).expect("a folder");
        std::fs::write(folder.path().join("sub/file"), vec![1; 100_000]).expect("written");
        std::os::unix::fs::symlink("/", folder.path().join("everything")).expect("a link");
        let full = measure(folder.path());
        assert_eq!(full.inodes - empty.inodes, 3);
        assert!(
            (100_000..200_000).contains(&(full.bytes - empty.bytes)),
            "{full:?}"
        );
        assert_eq!(measure(Path::new("/no/such/folder")), Folder::default());
    }
}
