//! What is mounted into a container: volumes, `/etc/hosts`, and the file for its last words.

use std::collections::HashMap;
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Component, Path, PathBuf};

use k8s_openapi::api::core::v1::{Container, Pod, VolumeMount};
use keelson_proto::cri;

use crate::containers::dns;
use crate::containers::expansion::expand;
use crate::cri::labels::DEFAULT_TERMINATION_PATH;
use crate::objects::PodExt;
use crate::paths::Paths;

/// Why a container's mounts cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum MountError {
    /// The pod has no such volume, or it is not set up.
    #[error("mount of volume {0:?}: the volume is not there")]
    NoVolume(String),
    /// The path leads out of the volume.
    #[error("failed to prepare subPath for volumeMount {volume:?}: {path:?} leads out of the volume")]
    Escapes {
        /// The volume.
        volume: String,
        /// The path.
        path: String,
    },
    /// `subPathExpr` names a variable that is not set.
    #[error("subPathExpr {0:?} cannot be expanded: a variable is missing")]
    Unexpanded(String),
    /// A file cannot be made.
    #[error("preparing {path}: {source}")]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

fn failed(path: &Path) -> impl FnOnce(io::Error) -> MountError {
    move |source| MountError::Io {
        path: path.into(),
        source,
    }
}

/// Prepares a container's mounts. `volumes` are the folders of the pod's volumes, by name.
///
/// # Errors
/// See [`MountError`].
pub fn prepare(
    pod: &Pod,
    container: &Container,
    volumes: &HashMap<String, PathBuf>,
    env: &[cri::KeyValue],
    paths: &Paths,
    attempt: u32,
) -> Result<Vec<cri::Mount>, MountError> {
    let mut mounts = Vec::new();
    for mount in container.volume_mounts.iter().flatten() {
        mounts.push(of_volume(mount, volumes, env)?);
    }
    let hosts = paths.etc_hosts(pod.uid());
    if !dns::mounts_hosts(container) && hosts.exists() {
        mounts.push(cri::Mount {
            container_path: "/etc/hosts".into(),
            host_path: text(&hosts),
            ..Default::default()
        });
    }
    let path = container
        .termination_message_path
        .as_deref()
        .unwrap_or(DEFAULT_TERMINATION_PATH);
    if !path.is_empty() {
        let folder = paths.container(pod.uid(), &container.name);
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o750)
            .create(&folder)
            .map_err(failed(&folder))?;
        let file = folder.join(format!("{attempt:08x}"));
        std::fs::write(&file, "").map_err(failed(&file))?;
        // Whatever user the container runs as must be able to write.
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o666)).map_err(failed(&file))?;
        mounts.push(cri::Mount {
            container_path: path.into(),
            host_path: text(&file),
            ..Default::default()
        });
    }
    Ok(mounts)
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

fn of_volume(
    mount: &VolumeMount,
    volumes: &HashMap<String, PathBuf>,
    env: &[cri::KeyValue],
) -> Result<cri::Mount, MountError> {
    let folder = volumes
        .get(&mount.name)
        .ok_or_else(|| MountError::NoVolume(mount.name.clone()))?;
    let sub_path = match mount
        .sub_path_expr
        .as_deref()
        .filter(|expression| !expression.is_empty())
    {
        Some(expression) => {
            let variables: HashMap<String, String> = env
                .iter()
                .map(|pair| (pair.key.clone(), pair.value.clone()))
                .collect();
            let path = expand(expression, &variables);
            if path.contains("$(") {
                return Err(MountError::Unexpanded(expression.into()));
            }
            path
        }
        None => mount.sub_path.clone().unwrap_or_default(),
    };
    let host_path = if sub_path.is_empty() {
        folder.clone()
    } else {
        within(folder, &sub_path, &mount.name)?
    };
    let propagation = match mount.mount_propagation.as_deref() {
        Some("HostToContainer") => cri::MountPropagation::PropagationHostToContainer,
        Some("Bidirectional") => cri::MountPropagation::PropagationBidirectional,
        _ => cri::MountPropagation::PropagationPrivate,
    };
    let container_path = if mount.mount_path.starts_with('/') {
        mount.mount_path.clone()
    } else {
        format!("/{}", mount.mount_path)
    };
    Ok(cri::Mount {
        container_path,
        host_path: text(&host_path),
        readonly: mount.read_only.unwrap_or(false),
        propagation: propagation.into(),
        ..Default::default()
    })
}

/// A path in a volume, made if it is not there, and with links resolved: none may lead out.
fn within(volume: &Path, sub_path: &str, name: &str) -> Result<PathBuf, MountError> {
    let escapes = || MountError::Escapes {
        volume: name.into(),
        path: sub_path.into(),
    };
    let relative = Path::new(sub_path);
    if relative
        .components()
        .any(|part| !matches!(part, Component::Normal(_) | Component::CurDir))
    {
        return Err(escapes());
    }
    let root = volume.canonicalize().map_err(failed(volume))?;
    let mut path = root.clone();
    for part in relative.components() {
        path.push(part);
        match path.canonicalize() {
            Ok(resolved) => path = resolved,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                std::fs::DirBuilder::new()
                    .mode(0o750)
                    .create(&path)
                    .map_err(failed(&path))?;
                // What the volume allows, its folders allow.
                if let Ok(metadata) = std::fs::metadata(&root) {
                    let _ = std::fs::set_permissions(&path, metadata.permissions());
                }
            }
            Err(error) => return Err(failed(&path)(error)),
        }
        if !path.starts_with(&root) {
            return Err(escapes());
        }
    }
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sub_paths_stay_inside() {
        let dir = tempfile::tempdir().expect("a folder");
        let volume = dir.path().join("v");
        std::fs::create_dir(&volume).expect("a folder");
        std::os::unix::fs::symlink("/etc", volume.join("out")).expect("a link");
        std::os::unix::fs::symlink("a", volume.join("in")).expect("a link");
        assert!(within(&volume, "a/b", "v").expect("made").is_dir());
        assert!(within(&volume, "in/b", "v").expect("followed").ends_with("a/b"));
        assert!(matches!(
            within(&volume, "out/x", "v"),
            Err(MountError::Escapes { .. })
        ));
        assert!(matches!(
            within(&volume, "../x", "v"),
            Err(MountError::Escapes { .. })
        ));
    }
}
