//! Pods' volumes.
//!
//! - [`files`] and [`atomic_writer`]: volumes made of objects, which follow them
//! - [`empty_dir`], [`host_path`]: folders
//! - [`ownership`]: whose they are

pub mod atomic_writer;
pub mod empty_dir;
pub mod files;
pub mod host_path;
pub mod ownership;

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use k8s_openapi::api::core::v1::{EmptyDirVolumeSource, Pod, Volume};
use keelson_api::ApiError;

use crate::api::Api;
use crate::containers::downward::{DownwardError, Facts};
use crate::objects::PodExt;
use crate::paths::Paths;
use crate::pods::qos;
use crate::quantity;
use atomic_writer::Payload;
use files::Sources;

/// Why a volume is not there.
#[derive(Debug, thiserror::Error)]
pub enum VolumeError {
    /// What it is made of does not exist.
    #[error("{kind} \"{name}\" not found")]
    NoObject {
        /// `configmap` or `secret`.
        kind: &'static str,
        /// Its name.
        name: String,
    },
    /// The object has no such key.
    #[error("references non-existent config key: {0}")]
    NoKey(String),
    /// The node's path is not what it should be.
    #[error("{0}")]
    HostPath(String),
    /// The downward API does not have it.
    #[error(transparent)]
    Downward(#[from] DownwardError),
    /// The apiserver did not give what is needed.
    #[error("{}", .0.message())]
    Api(ApiError),
    /// The file system refused.
    #[error("{path}: {source}")]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// There is no code for this kind of volume.
    #[error("no volume plugin matched: {0}")]
    Unsupported(String),
}

impl From<ApiError> for VolumeError {
    fn from(error: ApiError) -> Self {
        Self::Api(error)
    }
}

/// Sets up and takes away pods' volumes.
pub struct Volumes {
    api: Arc<Api>,
    paths: Paths,
    /// Would the runtime see what is mounted here?
    can_mount: bool,
}

impl Volumes {
    /// Volumes under the kubelet's folder. Without `can_mount`, volumes in memory are made on disk.
    pub fn new(api: Arc<Api>, paths: Paths, can_mount: bool) -> Self {
        Self {
            api,
            paths,
            can_mount,
        }
    }

    /// Makes all volumes of a pod, or brings them up to date; returns their folders by name.
    ///
    /// # Errors
    /// The first volume that cannot be had, with its name.
    pub async fn setup(
        &self,
        pod: &Pod,
        facts: &Facts,
    ) -> Result<HashMap<String, PathBuf>, (String, VolumeError)> {
        let mut folders = HashMap::new();
        for volume in pod.spec().volumes.iter().flatten() {
            let folder = self
                .one(pod, volume, facts)
                .await
                .map_err(|error| (volume.name.clone(), error))?;
            folders.insert(volume.name.clone(), folder);
        }
        Ok(folders)
    }

    async fn one(&self, pod: &Pod, volume: &Volume, facts: &Facts) -> Result<PathBuf, VolumeError> {
        let sources = Sources {
            api: &self.api,
            pod,
            facts,
        };
        if let Some(source) = &volume.empty_dir {
            return self.empty_dir(pod, &volume.name, source);
        }
        if let Some(source) = &volume.host_path {
            return host_path::setup(source);
        }
        if let Some(source) = &volume.config_map {
            let payload = sources.config_map(source).await?;
            return self.files(pod, "configmap", &volume.name, &payload, Medium::Disk);
        }
        if let Some(source) = &volume.secret {
            let payload = sources.secret(source).await?;
            return self.files(pod, "secret", &volume.name, &payload, Medium::Memory);
        }
        if let Some(source) = &volume.projected {
            let payload = sources.projected(source).await?;
            return self.files(pod, "projected", &volume.name, &payload, Medium::Memory);
        }
        if let Some(source) = &volume.downward_api {
            let mut payload = Payload::new();
            sources.downward(
                source.items.as_deref().unwrap_or_default(),
                source.default_mode,
                &mut payload,
            )?;
            return self.files(pod, "downward-api", &volume.name, &payload, Medium::Memory);
        }
        Err(VolumeError::Unsupported(volume.name.clone()))
    }

    fn empty_dir(
        &self,
        pod: &Pod,
        name: &str,
        source: &EmptyDirVolumeSource,
    ) -> Result<PathBuf, VolumeError> {
        let path = self.paths.volume(pod.uid(), "empty-dir", name);
        match source.medium.as_deref() {
            None | Some("") => empty_dir::on_disk(&path).map_err(at(&path))?,
            Some("Memory") => {
                let size = [
                    source.size_limit.as_ref().map(quantity::value),
                    qos::pod_limit(pod, "memory"),
                ];
                self.in_memory(&path, size.into_iter().flatten().filter(|size| *size > 0).min())?;
            }
            Some(other) => return Err(VolumeError::Unsupported(format!("emptyDir medium {other}"))),
        }
        if let Some(group) = ownership::fs_group(pod) {
            ownership::give_to_group(&path, group).map_err(at(&path))?;
        }
        Ok(path)
    }

    fn in_memory(&self, path: &Path, size: Option<i64>) -> Result<(), VolumeError> {
        if self.can_mount {
            match empty_dir::in_memory(path, size) {
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                    tracing::warn!(path = %path.display(), "cannot mount a tmpfs: using the disk");
                }
                result => return result.map_err(at(path)),
            }
        }
        empty_dir::on_disk(path).map_err(at(path))
    }

    fn files(
        &self,
        pod: &Pod,
        plugin: &str,
        name: &str,
        payload: &Payload,
        medium: Medium,
    ) -> Result<PathBuf, VolumeError> {
        let path = self.paths.volume(pod.uid(), plugin, name);
        match medium {
            Medium::Disk => empty_dir::on_disk(&path).map_err(at(&path))?,
            Medium::Memory => self.in_memory(&path, None)?,
        }
        atomic_writer::write(&path, payload, ownership::fs_group(pod)).map_err(at(&path))?;
        Ok(path)
    }

    /// Takes away all files of a pod.
    ///
    /// # Errors
    /// Those of the file system.
    pub async fn teardown(&self, uid: &str) -> io::Result<()> {
        let folder = self.paths.pod(uid);
        tokio::task::spawn_blocking(move || empty_dir::remove(&folder))
            .await
            .unwrap_or_else(|error| Err(io::Error::other(error)))
    }
}

enum Medium {
    Disk,
    /// What is secret does not touch the disk.
    Memory,
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> VolumeError {
    move |source| VolumeError::Io {
        path: path.into(),
        source,
    }
}
