//! The ConfigMap extension API servers read to know whom to believe: `kube-system/extension-apiserver-authentication`.

use std::sync::Arc;

use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use keelson_api::status::{ApiError, ApiResult};

use super::created;
use crate::authentication::User;
use crate::state::Server;

const NAMESPACE: &str = "kube-system";
const NAME: &str = "extension-apiserver-authentication";

/// Creates it, or makes it say what the server was started with. What others put there stays.
pub(super) async fn ensure(server: &Arc<Server>) -> ApiResult<()> {
    let config = &server.config;
    let wanted = config
        .aggregator
        .published(config.client_ca_file.as_ref())
        .map_err(|error| ApiError::internal(format_args!("cannot read an authority: {error}")))?;
    if wanted.is_empty() {
        return Ok(());
    }
    let says = |map: &ConfigMap| {
        let data = map.data.as_ref();
        wanted
            .iter()
            .all(|(key, value)| data.and_then(|data| data.get(*key)) == Some(value))
    };
    match server.cached::<ConfigMap>(NAMESPACE, NAME) {
        Some(found) if says(&found) => Ok(()),
        Some(_) => {
            let change = |map: &mut ConfigMap| {
                let data = map.data.get_or_insert_default();
                data.extend(
                    wanted
                        .iter()
                        .map(|(key, value)| ((*key).to_owned(), value.clone())),
                );
                Ok(())
            };
            server
                .update(&User::loopback(), (NAMESPACE, NAME, ""), change)
                .await
                .map(drop)
        }
        None => {
            let data = wanted
                .iter()
                .map(|(key, value)| ((*key).to_owned(), value.clone()));
            let map = ConfigMap {
                metadata: ObjectMeta {
                    name: Some(NAME.to_owned()),
                    namespace: Some(NAMESPACE.to_owned()),
                    ..ObjectMeta::default()
                },
                data: Some(data.collect()),
                ..ConfigMap::default()
            };
            created(server.create(&map).await)
        }
    }
}
