//! DefaultTolerationSeconds: pods stay for a while on a node that has gone silent, unless they say for how long.

use async_trait::async_trait;
use k8s_openapi::api::core::v1::{Pod, Toleration};
use keelson_api::status::ApiResult;

use super::{Admission, Attributes, Operation};
use crate::registry::info::ResourceInfo;

/// How long.
const SECONDS: i64 = 300;
const TAINTS: &[&str] = &["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"];

/// The plugin.
pub struct DefaultTolerationSeconds;

#[async_trait]
impl Admission for DefaultTolerationSeconds {
    fn name(&self) -> &'static str {
        "DefaultTolerationSeconds"
    }

    fn handles(&self, operation: Operation, info: &ResourceInfo, subresource: &str) -> bool {
        matches!(operation, Operation::Create | Operation::Update)
            && info.group.is_empty()
            && info.plural == "pods"
            && subresource.is_empty()
    }

    async fn mutate(&self, attributes: &mut Attributes<'_>) -> ApiResult<()> {
        if let Some(pod) = attributes.object_mut::<Pod>() {
            tolerate(pod);
        }
        Ok(())
    }
}

fn tolerate(pod: &mut Pod) {
    let tolerations = &mut pod.spec.get_or_insert_default().tolerations;
    for taint in TAINTS {
        let is = |field: &Option<String>, wanted: &str| {
            matches!(field.as_deref(), None | Some("")) || field.as_deref() == Some(wanted)
        };
        if tolerations
            .iter()
            .flatten()
            .any(|t| is(&t.key, taint) && is(&t.effect, "NoExecute"))
        {
            continue;
        }
        tolerations.get_or_insert_default().push(Toleration {
            key: Some((*taint).to_owned()),
            operator: Some("Exists".to_owned()),
            effect: Some("NoExecute".to_owned()),
            toleration_seconds: Some(SECONDS),
            value: None,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn only_what_is_missing_is_added() {
        let mut pod: Pod = serde_json::from_value(json!({"spec": {"containers": [], "tolerations": [
            {"key": "node.kubernetes.io/unreachable", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 5}]}}))
        .expect("a pod");
        tolerate(&mut pod);
        tolerate(&mut pod);
        let tolerations = pod.spec.and_then(|s| s.tolerations).expect("tolerations");
        let seconds: Vec<Option<i64>> = tolerations.iter().map(|t| t.toleration_seconds).collect();
        assert_eq!(seconds, [Some(5), Some(300)]);
    }
}
