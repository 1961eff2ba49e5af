//! TaintNodesByCondition: a node that has just been made takes no pods until it has said that it is ready.

use async_trait::async_trait;
use k8s_openapi::api::core::v1::{Node, Taint};
use keelson_api::status::ApiResult;

use super::{Admission, Attributes, Operation};
use crate::registry::info::ResourceInfo;

const NOT_READY: &str = "node.kubernetes.io/not-ready";
const NO_SCHEDULE: &str = "NoSchedule";

/// The plugin.
pub struct TaintNodesByCondition;

#[async_trait]
impl Admission for TaintNodesByCondition {
    fn name(&self) -> &'static str {
        "TaintNodesByCondition"
    }

    fn handles(&self, operation: Operation, info: &ResourceInfo, subresource: &str) -> bool {
        operation == Operation::Create
            && info.group.is_empty()
            && info.plural == "nodes"
            && subresource.is_empty()
    }

    async fn mutate(&self, attributes: &mut Attributes<'_>) -> ApiResult<()> {
        let Some(node) = attributes.object_mut::<Node>() else {
            return Ok(());
        };
        let taints = node.spec.get_or_insert_default().taints.get_or_insert_default();
        if !taints
            .iter()
            .any(|taint| taint.key == NOT_READY && taint.effect == NO_SCHEDULE)
        {
            taints.push(Taint {
                key: NOT_READY.to_owned(),
                effect: NO_SCHEDULE.to_owned(),
                ..Taint::default()
            });
        }
        Ok(())
    }
}
