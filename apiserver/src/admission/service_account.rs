//! ServiceAccount: every pod acts as some account, and its containers find the account's token where they look for it.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use k8s_openapi::api::core::v1::{
    ConfigMapProjection, Container, DownwardAPIProjection, DownwardAPIVolumeFile, KeyToPath,
    ObjectFieldSelector, Pod, PodSpec, ProjectedVolumeSource, ServiceAccount as Account,
    ServiceAccountTokenProjection, Volume, VolumeMount, VolumeProjection,
};
use keelson_api::pods;
use keelson_api::status::ApiResult;
use rand::Rng;

use super::refusal::forbidden;
use super::{Admission, Attributes, Operation};
use crate::registry::info::ResourceInfo;
use crate::registry::strategy::RequestContext;

const DEFAULT_ACCOUNT: &str = "default";
/// Where programs look for the token, the authority and the namespace.
const MOUNT_PATH: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
const VOLUME_PREFIX: &str = "kube-api-access-";
/// One hour, and seven seconds by which such tokens are known.
const TOKEN_SECONDS: i64 = 60 * 60 + 7;
const ROOT_CA: &str = "kube-root-ca.crt";
const FILE_MODE: i32 = 0o644;
/// A new namespace gets its default account a moment later: pods wait for it, so often and so long.
const PATIENCE: (u32, Duration) = (10, Duration::from_millis(100));
/// Characters of generated names.
const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";

/// The plugin.
pub struct ServiceAccount;

#[async_trait]
impl Admission for ServiceAccount {
    fn name(&self) -> &'static str {
        "ServiceAccount"
    }

    fn handles(&self, operation: Operation, info: &ResourceInfo, subresource: &str) -> bool {
        operation == Operation::Create
            && info.group.is_empty()
            && info.plural == "pods"
            && subresource.is_empty()
    }

    async fn mutate(&self, attributes: &mut Attributes<'_>) -> ApiResult<()> {
        let ctx = attributes.ctx;
        let Some(pod) = attributes.object_mut::<Pod>() else {
            return Ok(());
        };
        // The copy of a static pod has no account: its kubelet runs it whatever the API says.
        if pods::is_mirror(pod) {
            return Ok(());
        }
        let spec = pod.spec.get_or_insert_default();
        let name = match spec.service_account_name.as_deref() {
            Some(name) if !name.is_empty() => name.to_owned(),
            _ => DEFAULT_ACCOUNT.to_owned(),
        };
        spec.service_account_name = Some(name.clone());
        spec.service_account = Some(name.clone());
        let Some(account) = find(ctx, &name).await else {
            let why = format!(
                "error looking up service account {}/{name}: serviceaccount \"{name}\" not found",
                ctx.namespace
            );
            return Err(forbidden(attributes, why));
        };
        let Some(spec) = attributes.object_mut::<Pod>().and_then(|pod| pod.spec.as_mut()) else {
            return Ok(());
        };
        let wanted = spec
            .automount_service_account_token
            .or(account.automount_service_account_token);
        if wanted.unwrap_or(true) {
            mount(spec);
        }
        if spec.image_pull_secrets.as_ref().is_none_or(Vec::is_empty) {
            spec.image_pull_secrets = account
                .image_pull_secrets
                .clone()
                .filter(|secrets| !secrets.is_empty());
        }
        Ok(())
    }

    async fn validate(&self, attributes: &Attributes<'_>) -> ApiResult<()> {
        let Some(pod) = attributes.object::<Pod>() else {
            return Ok(());
        };
        let Some(spec) = pod.spec.as_ref().filter(|_| pods::is_mirror(pod)) else {
            return Ok(());
        };
        if spec
            .service_account_name
            .as_ref()
            .is_some_and(|name| !name.is_empty())
        {
            return Err(forbidden(
                attributes,
                "a mirror pod may not reference service accounts",
            ));
        }
        let volumes = spec.volumes.as_deref().unwrap_or(&[]);
        for volume in volumes {
            if volume.secret.is_some() {
                return Err(forbidden(attributes, "a mirror pod may not reference secrets"));
            }
            let sources = volume.projected.iter().flat_map(|p| p.sources.iter().flatten());
            if sources
                .into_iter()
                .any(|source| source.service_account_token.is_some())
            {
                return Err(forbidden(
                    attributes,
                    "a mirror pod may not use ServiceAccountToken volume projections",
                ));
            }
        }
        Ok(())
    }
}

async fn find(ctx: &RequestContext<'_>, name: &str) -> Option<Arc<Account>> {
    if let Some(account) = ctx.server.cached::<Account>(ctx.namespace, name) {
        return Some(account);
    }
    let (attempts, pause) = PATIENCE;
    for _ in 0..if name == DEFAULT_ACCOUNT { attempts } else { 1 } {
        if let Ok(account) = ctx.server.fresh::<Account>(ctx.namespace, name).await {
            return Some(Arc::new(account));
        }
        if name == DEFAULT_ACCOUNT {
            tokio::time::sleep(pause).await;
        }
    }
    None
}

/// Mounts the token into every container that does not mount something of its own there.
fn mount(spec: &mut PodSpec) {
    let existing = spec
        .volumes
        .iter()
        .flatten()
        .find(|v| v.name.starts_with(VOLUME_PREFIX))
        .map(|v| v.name.clone());
    let is_new = existing.is_none();
    let name = existing.unwrap_or_else(volume_name);
    let mut used = false;
    let mut add = |container: &mut Container| {
        let mounts = container.volume_mounts.get_or_insert_default();
        if mounts.iter().any(|mount| mount.mount_path == MOUNT_PATH) {
            return;
        }
        mounts.push(VolumeMount {
            name: name.clone(),
            mount_path: MOUNT_PATH.to_owned(),
            read_only: Some(true),
            ..VolumeMount::default()
        });
        used = true;
    };
    spec.init_containers.iter_mut().flatten().for_each(&mut add);
    spec.containers.iter_mut().for_each(&mut add);
    if used && is_new {
        spec.volumes.get_or_insert_default().push(volume(name));
    }
}

fn volume_name() -> String {
    let mut rng = rand::rng();
    let mut name = String::from(VOLUME_PREFIX);
    name.extend((0..5).map(|_| char::from(ALPHABET[rng.random_range(0..ALPHABET.len())])));
    name
}

/// The account's token, the cluster's authority and the namespace's name.
fn volume(name: String) -> Volume {
    let token = VolumeProjection {
        service_account_token: Some(ServiceAccountTokenProjection {
            path: "token".to_owned(),
            expiration_seconds: Some(TOKEN_SECONDS),
            audience: None,
        }),
        ..VolumeProjection::default()
    };
    let authority = VolumeProjection {
        config_map: Some(ConfigMapProjection {
            name: ROOT_CA.to_owned(),
            items: Some(vec![KeyToPath {
                key: "ca.crt".to_owned(),
                path: "ca.crt".to_owned(),
                mode: None,
            }]),
            optional: None,
        }),
        ..VolumeProjection::default()
    };
    let namespace = VolumeProjection {
        downward_api: Some(DownwardAPIProjection {
            items: Some(vec![DownwardAPIVolumeFile {
                path: "namespace".to_owned(),
                field_ref: Some(ObjectFieldSelector {
                    api_version: Some("v1".to_owned()),
                    field_path: "metadata.namespace".to_owned(),
                }),
                ..DownwardAPIVolumeFile::default()
            }]),
        }),
        ..VolumeProjection::default()
    };
    Volume {
        name,
        projected: Some(ProjectedVolumeSource {
            default_mode: Some(FILE_MODE),
            sources: Some(vec![token, authority, namespace]),
        }),
        ..Volume::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn tokens_are_mounted_once() {
        let mut spec: PodSpec = serde_json::from_value(json!({
            "initContainers": [{"name": "i"}],
            "containers": [{"name": "a"}, {"name": "b", "volumeMounts": [{"name": "own", "mountPath": MOUNT_PATH}]}]
        }))
        .expect("a spec");
        mount(&mut spec);
        let volumes = spec.volumes.clone().expect("a volume");
        assert_eq!(volumes.len(), 1);
        let name = &volumes[0].name;
        assert_eq!(name.len(), VOLUME_PREFIX.len() + 5);
        let mounts = |c: &Container| c.volume_mounts.as_ref().map(|m| m[0].name.clone());
        assert_eq!(mounts(&spec.containers[0]).as_ref(), Some(name));
        assert_eq!(mounts(&spec.containers[1]).as_deref(), Some("own"));
        assert_eq!(
            serde_json::to_value(&volumes[0].projected).expect("json"),
            json!({"defaultMode": 420, "sources": [
                {"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}},
                {"configMap": {"items": [{"key": "ca.crt", "path": "ca.crt"}], "name": "kube-root-ca.crt"}},
                {"downwardAPI": {"items": [{"fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}, "path": "namespace"}]}}
            ]})
        );
        mount(&mut spec);
        assert_eq!(spec.volumes.map(|v| v.len()), Some(1));
    }
}
