//! `pods/binding`: the scheduler gives a pod its node.

use async_trait::async_trait;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Binding, Pod, PodCondition};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use keelson_api::field::Errors;
use keelson_api::names::{GroupKind, GroupResource};
use keelson_api::status::{ApiError, ApiResult};
use keelson_api::{conditions, time};

use crate::admission::Operation;
use crate::registry::common::loc::Loc;
use crate::registry::common::scale::{decode, success};
use crate::registry::strategy::{Answer, RequestContext, Subresource, SubresourceCall};

use super::preconditions;

/// The subresource.
pub struct PodBinding;

#[async_trait]
impl Subresource for PodBinding {
    async fn create(&self, call: SubresourceCall<'_>) -> ApiResult<Answer> {
        let ctx = &call.ctx;
        let binding: Binding = decode(&call.body)?;
        let given = binding.metadata.name.as_deref().unwrap_or("");
        let name = ctx.name;
        if given != name {
            return Err(ApiError::bad_request(
                "name in URL does not match name in Binding object",
            ));
        }
        let errors = validate(&binding);
        if !errors.is_empty() {
            return Err(ApiError::invalid(&GroupKind::new("", "Binding"), name, &errors));
        }
        ctx.server.admit(ctx, Operation::Create, &call.body).await?;
        bind(ctx, name, &binding).await?;
        success(201)
    }
}

/// Does as a binding says to the pod of that name.
pub async fn bind(ctx: &RequestContext<'_>, name: &str, binding: &Binding) -> ApiResult<()> {
    let now = ctx.now;
    if ctx.dry_run {
        let mut pod: Pod = ctx.server.fresh(ctx.namespace, name).await?;
        return assign(&mut pod, binding, now);
    }
    let key = (ctx.namespace, name, "binding");
    let bound = ctx
        .server
        .update::<Pod>(ctx.user, key, |pod| assign(pod, binding, now));
    bound.await.map(drop)
}

/// What a binding has to say.
pub fn validate(binding: &Binding) -> Errors {
    let mut errors = Errors::new();
    let at = Loc::new("target");
    let kind = binding.target.kind.as_deref().unwrap_or("");
    if !matches!(kind, "" | "Node") {
        errors.push(at.child("kind").not_supported(kind, &["Node", "<empty>"]));
    }
    if binding.target.name.as_deref().unwrap_or("").is_empty() {
        errors.push(at.child("name").required(""));
    }
    errors
}

/// Puts the pod on its node. It must not be on one, be about to go, or be another pod than the one meant.
pub fn assign(pod: &mut Pod, binding: &Binding, now: Timestamp) -> ApiResult<()> {
    let name = pod.metadata.name.clone().unwrap_or_default();
    let refuse = |why: String| {
        Err(ApiError::conflict(
            &GroupResource::core("pods/binding"),
            &name,
            why,
        ))
    };
    preconditions::check(pod, &binding.metadata.uid, &binding.metadata.resource_version)?;
    if pod.metadata.deletion_timestamp.is_some() {
        return refuse(format!(
            "pod {name} is being deleted, cannot be assigned to a host"
        ));
    }
    let spec = pod.spec.get_or_insert_default();
    if let Some(node) = spec.node_name.as_deref()
        && !node.is_empty()
    {
        return refuse(format!("pod {name} is already assigned to node {node:?}"));
    }
    if spec
        .scheduling_gates
        .as_ref()
        .is_some_and(|gates| !gates.is_empty())
    {
        return refuse(format!("pod {name} has non-empty .spec.schedulingGates"));
    }
    spec.node_name.clone_from(&binding.target.name);
    if let Some(annotations) = &binding.metadata.annotations {
        let own = pod.metadata.annotations.get_or_insert_default();
        own.extend(
            annotations
                .iter()
                .map(|(key, value)| (key.clone(), value.clone())),
        );
    }
    if let Some(labels) = &binding.metadata.labels {
        let own = pod.metadata.labels.get_or_insert_default();
        own.extend(labels.iter().map(|(key, value)| (key.clone(), value.clone())));
    }
    let scheduled = PodCondition {
        type_: "PodScheduled".to_owned(),
        status: "True".to_owned(),
        last_transition_time: Some(Time(time::to_seconds(now))),
        ..PodCondition::default()
    };
    let status = pod.status.get_or_insert_default();
    conditions::set(&mut status.conditions, scheduled);
    // It has its node: the one it was to get says nothing any more.
    status.nominated_node_name = None;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn binding() -> Binding {
        serde_json::from_value(json!({"metadata": {"name": "p"}, "target": {"kind": "Node", "name": "n1"}}))
            .expect("a binding")
    }

    #[test]
    fn a_pod_is_bound_once() {
        let mut pod: Pod =
            serde_json::from_value(json!({"metadata": {"name": "p"}, "spec": {"containers": []}}))
                .expect("a pod");
        assign(&mut pod, &binding(), Timestamp::UNIX_EPOCH).expect("a free pod");
        assert_eq!(pod.spec.as_ref().and_then(|s| s.node_name.as_deref()), Some("n1"));
        let error = assign(&mut pod, &binding(), Timestamp::UNIX_EPOCH).expect_err("a bound pod");
        assert_eq!(error.code(), 409);
        assert_eq!(
            error.message(),
            "Operation cannot be fulfilled on pods/binding \"p\": pod p is already assigned to node \"n1\""
        );
    }

    #[test]
    fn a_binding_means_one_state_of_one_pod() {
        let pod: Pod = serde_json::from_value(
            json!({"metadata": {"name": "p", "uid": "u", "resourceVersion": "7"},
            "spec": {"containers": []}, "status": {"nominatedNodeName": "n2"}}),
        )
        .expect("a pod");
        for (metadata, refused) in [
            (json!({"uid": "u", "resourceVersion": "7"}), ""),
            (
                json!({"uid": "v"}),
                "UID in precondition: v, UID in object meta: u",
            ),
            (
                json!({"resourceVersion": "6"}),
                "ResourceVersion in precondition: 6, ResourceVersion in object meta: 7",
            ),
        ] {
            let mut pod = pod.clone();
            let binding = Binding {
                metadata: serde_json::from_value(metadata).expect("metadata"),
                ..binding()
            };
            let error = assign(&mut pod, &binding, Timestamp::UNIX_EPOCH).err();
            let message = error.map(|error| error.message().to_owned()).unwrap_or_default();
            let wanted = match refused {
                "" => String::new(),
                why => format!("Operation cannot be fulfilled on pods \"p\": Precondition failed: {why}"),
            };
            assert_eq!(message, wanted);
            let nominated = pod.status.and_then(|status| status.nominated_node_name);
            assert_eq!(nominated.is_none(), refused.is_empty());
        }
    }

    #[test]
    fn bindings_are_checked() {
        let mut binding = binding();
        assert!(validate(&binding).is_empty());
        binding.target.kind = Some("Pod".to_owned());
        binding.target.name = None;
        let texts: Vec<String> = validate(&binding).iter().map(ToString::to_string).collect();
        assert_eq!(
            texts,
            [
                "target.kind: Unsupported value: \"Pod\": supported values: \"Node\", \"<empty>\"",
                "target.name: Required value"
            ]
        );
    }
}
