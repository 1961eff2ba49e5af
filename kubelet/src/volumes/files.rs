//! What goes into volumes that are made of objects: config maps, secrets, the pod itself, tokens.

use std::collections::BTreeMap;
use std::path::PathBuf;

use k8s_openapi::api::core::v1::{
    ConfigMap, ConfigMapVolumeSource, DownwardAPIVolumeFile, KeyToPath, Pod, ProjectedVolumeSource, Secret,
    SecretVolumeSource, ServiceAccountTokenProjection,
};

use crate::api::Api;
use crate::containers::downward::{self, Facts};
use crate::objects::PodExt;
use crate::volumes::VolumeError;
use crate::volumes::atomic_writer::{File, Payload};
use crate::volumes::ownership;

const DEFAULT_MODE: i32 = 0o644;

/// Where a volume's contents come from.
pub struct Sources<'a> {
    /// The apiserver.
    pub api: &'a Api,
    /// The pod.
    pub pod: &'a Pod,
    /// What the pod may know of itself.
    pub facts: &'a Facts,
}

type Data = BTreeMap<String, Vec<u8>>;

fn file(data: Vec<u8>, mode: i32) -> File {
    File {
        data,
        mode: u32::try_from(mode).unwrap_or(0o644),
        owner: None,
    }
}

/// Chooses and places the keys of an object; without `items`, all of them under their own names.
fn place(
    data: &Data,
    items: Option<&Vec<KeyToPath>>,
    mode: i32,
    optional: bool,
    into: &mut Payload,
) -> Result<(), VolumeError> {
    let Some(items) = items.filter(|items| !items.is_empty()) else {
        into.extend(
            data.iter()
                .map(|(key, value)| (PathBuf::from(key), file(value.clone(), mode))),
        );
        return Ok(());
    };
    for item in items {
        match data.get(&item.key) {
            Some(value) => {
                into.insert(
                    PathBuf::from(&item.path),
                    file(value.clone(), item.mode.unwrap_or(mode)),
                );
            }
            None if optional => {}
            None => return Err(VolumeError::NoKey(item.key.clone())),
        }
    }
    Ok(())
}

fn of_config_map(map: &ConfigMap) -> Data {
    let text = map
        .data
        .iter()
        .flatten()
        .map(|(key, value)| (key.clone(), value.clone().into_bytes()));
    let binary = map
        .binary_data
        .iter()
        .flatten()
        .map(|(key, value)| (key.clone(), value.0.clone()));
    text.chain(binary).collect()
}

fn of_secret(secret: &Secret) -> Data {
    secret
        .data
        .iter()
        .flatten()
        .map(|(key, value)| (key.clone(), value.0.clone()))
        .collect()
}

impl Sources<'_> {
    async fn config_map_data(&self, name: &str, optional: bool) -> Result<Data, VolumeError> {
        match self.api.config_map(self.pod, name).await? {
            Some(map) => Ok(of_config_map(&map)),
            None if optional => Ok(Data::new()),
            None => Err(VolumeError::NoObject {
                kind: "configmap",
                name: name.into(),
            }),
        }
    }

    async fn secret_data(&self, name: &str, optional: bool) -> Result<Data, VolumeError> {
        match self.api.secret(self.pod, name).await? {
            Some(secret) => Ok(of_secret(&secret)),
            None if optional => Ok(Data::new()),
            None => Err(VolumeError::NoObject {
                kind: "secret",
                name: name.into(),
            }),
        }
    }

    /// Files of a config map.
    pub async fn config_map(&self, source: &ConfigMapVolumeSource) -> Result<Payload, VolumeError> {
        let optional = source.optional == Some(true);
        let data = self.config_map_data(&source.name, optional).await?;
        let mut payload = Payload::new();
        place(
            &data,
            source.items.as_ref(),
            source.default_mode.unwrap_or(DEFAULT_MODE),
            optional,
            &mut payload,
        )?;
        Ok(payload)
    }

    /// Files of a secret.
    pub async fn secret(&self, source: &SecretVolumeSource) -> Result<Payload, VolumeError> {
        let optional = source.optional == Some(true);
        let data = self
            .secret_data(source.secret_name.as_deref().unwrap_or_default(), optional)
            .await?;
        let mut payload = Payload::new();
        place(
            &data,
            source.items.as_ref(),
            source.default_mode.unwrap_or(DEFAULT_MODE),
            optional,
            &mut payload,
        )?;
        Ok(payload)
    }

    /// Files that tell of the pod itself.
    pub fn downward(
        &self,
        items: &[DownwardAPIVolumeFile],
        mode: Option<i32>,
        into: &mut Payload,
    ) -> Result<(), VolumeError> {
        for item in items {
            let text = match (&item.field_ref, &item.resource_field_ref) {
                (Some(field), _) => downward::field(self.pod, field, self.facts)?,
                (None, Some(resource)) => downward::resource(self.pod, None, resource, self.facts)?,
                (None, None) => continue,
            };
            into.insert(
                PathBuf::from(&item.path),
                file(text.into_bytes(), item.mode.or(mode).unwrap_or(DEFAULT_MODE)),
            );
        }
        Ok(())
    }

    /// Files from several sources in one volume.
    pub async fn projected(&self, source: &ProjectedVolumeSource) -> Result<Payload, VolumeError> {
        let mode = source.default_mode.unwrap_or(DEFAULT_MODE);
        let mut payload = Payload::new();
        for part in source.sources.iter().flatten() {
            if let Some(projection) = &part.config_map {
                let optional = projection.optional == Some(true);
                let data = self.config_map_data(&projection.name, optional).await?;
                place(&data, projection.items.as_ref(), mode, optional, &mut payload)?;
            } else if let Some(projection) = &part.secret {
                let optional = projection.optional == Some(true);
                let data = self.secret_data(&projection.name, optional).await?;
                place(&data, projection.items.as_ref(), mode, optional, &mut payload)?;
            } else if let Some(projection) = &part.downward_api {
                self.downward(
                    projection.items.as_deref().unwrap_or_default(),
                    Some(mode),
                    &mut payload,
                )?;
            } else if let Some(projection) = &part.service_account_token {
                let (path, token) = self.token(projection, mode).await?;
                payload.insert(path, token);
            } else {
                return Err(VolumeError::Unsupported("projected source".into()));
            }
        }
        Ok(payload)
    }

    async fn token(
        &self,
        projection: &ServiceAccountTokenProjection,
        mode: i32,
    ) -> Result<(PathBuf, File), VolumeError> {
        let audience = projection.audience.as_deref().unwrap_or_default();
        let token = self
            .api
            .token(self.pod, audience, projection.expiration_seconds)
            .await?;
        let mut made = file(token.into_bytes(), mode);
        let group = ownership::fs_group(self.pod);
        let user = ownership::only_user(self.pod);
        // A token that has an owner is nobody else's to read.
        if group.is_some() || user.is_some() {
            made.mode = 0o600;
        }
        made.owner = user;
        Ok((PathBuf::from(&projection.path), made))
    }
}

/// Names of the config maps and secrets that pods' volumes come from are found when they are set up; this only
/// says whether a volume's contents can change while its pod runs.
pub fn follows_objects(pod: &Pod) -> bool {
    pod.spec().volumes.iter().flatten().any(|volume| {
        volume.config_map.is_some()
            || volume.secret.is_some()
            || volume.projected.is_some()
            || volume.downward_api.is_some()
    })
}
