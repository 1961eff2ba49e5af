//! DefaultIngressClass: an ingress that names no class gets the default one.

use async_trait::async_trait;
use k8s_openapi::api::networking::v1::{Ingress, IngressClass};
use keelson_api::object::Object;
use keelson_api::status::ApiResult;

use super::{Admission, Attributes, Operation};
use crate::registry::info::ResourceInfo;

const DEFAULT: &str = "ingressclass.kubernetes.io/is-default-class";
const CLASS: &str = "kubernetes.io/ingress.class";

/// The plugin.
pub struct DefaultIngressClass;

#[async_trait]
impl Admission for DefaultIngressClass {
    fn name(&self) -> &'static str {
        "DefaultIngressClass"
    }

    fn handles(&self, operation: Operation, info: &ResourceInfo, subresource: &str) -> bool {
        let ingresses = info.group == "networking.k8s.io" && info.plural == "ingresses";
        operation == Operation::Create && ingresses && subresource.is_empty()
    }

    async fn mutate(&self, attributes: &mut Attributes<'_>) -> ApiResult<()> {
        let server = attributes.ctx.server;
        let Some(ingress) = attributes.object_mut::<Ingress>() else {
            return Ok(());
        };
        let annotated = ingress
            .metadata
            .annotations
            .as_ref()
            .is_some_and(|a| a.contains_key(CLASS));
        let spec = ingress.spec.get_or_insert_default();
        if annotated || spec.ingress_class_name.is_some() {
            return Ok(());
        }
        // Of several defaults the newest counts, then the first by name.
        let mut defaults = server.cached_list::<IngressClass>("");
        defaults.retain(|class| {
            class
                .metadata
                .annotations
                .as_ref()
                .is_some_and(|a| a.get(DEFAULT).is_some_and(|v| v == "true"))
        });
        defaults.sort_by(|a, b| {
            let born = |class: &IngressClass| class.metadata.creation_timestamp.as_ref().map(|t| t.0);
            born(b).cmp(&born(a)).then_with(|| a.name().cmp(b.name()))
        });
        spec.ingress_class_name = defaults.first().map(|class| class.name().to_owned());
        Ok(())
    }
}
