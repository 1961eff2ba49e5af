//! DefaultBinder: bindings, many in one round trip.

use futures::FutureExt;
use futures::future::BoxFuture;
use k8s_openapi::api::core::v1::Pod;
use keelson_api::ApiError;
use keelson_client::{Client, ResourceClient, Write};
use serde_json::json;

use crate::framework::{Bind, Binding, Plugin};

/// The plugin.
pub struct DefaultBinder {
    pods: ResourceClient<Pod>,
}

impl DefaultBinder {
    /// Binds through the apiserver.
    pub fn new(client: &Client) -> Self {
        DefaultBinder {
            pods: client.resource(),
        }
    }
}

impl Plugin for DefaultBinder {
    fn name(&self) -> &'static str {
        "DefaultBinder"
    }
}

fn write(binding: &Binding) -> Write<Pod> {
    let key = binding.pod.key.clone();
    let body = json!({
        "apiVersion": "v1",
        "kind": "Binding",
        // With the uid, so that a new pod of the same name is not bound in its predecessor's place.
        "metadata": {"namespace": key.namespace, "name": key.name, "uid": &*binding.pod.id},
        "target": {"kind": "Node", "name": &*binding.node},
    });
    Write::Subresource {
        key,
        name: "binding".into(),
        body,
    }
}

impl Bind for DefaultBinder {
    fn bind<'a>(&'a self, bindings: &'a [Binding]) -> BoxFuture<'a, Vec<Result<(), ApiError>>> {
        async move {
            let writes = bindings.iter().map(write).collect();
            match self.pods.batch_discard(writes).await {
                Ok(results) => results,
                Err(error) => vec![Err(error); bindings.len()],
            }
        }
        .boxed()
    }
}
