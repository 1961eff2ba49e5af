//! Pods.
//!
//! | module | what lives there |
//! | --- | --- |
//! | [`defaults`] | what a pod or template becomes when its author leaves things out |
//! | [`validation`] | what is refused |
//! | [`selected`] | what selectors look at |
//! | [`table`] | what `kubectl get pods` shows |
//! | [`binding`] | `pods/binding`: a pod gets its node |
//! | [`eviction`] | `pods/eviction`: a deletion that asks the disruption budgets first |

pub mod binding;
pub mod defaults;
pub mod eviction;
mod preconditions;
mod selected;
pub mod table;
pub mod validation;

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodCondition, PodSpec, PodStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{DeleteOptions, Time};
use keelson_api::field::Errors;
use keelson_api::pods::qos_class;
use keelson_api::time;
use serde_json::Value;

use crate::registry::common::meta::{self, Spec};
use crate::registry::selected::Selected;
use crate::registry::strategy::{
    Column, GET_PATCH_UPDATE, OtherFields, RequestContext, ResourceInfo, Strategy, Subresource,
    SubresourceForm, SubresourceInfo, Verb,
};

/// The kind's strategy.
pub struct PodStrategy;

const fn connect(name: &'static str, kind: &'static str, verbs: &'static [Verb]) -> SubresourceInfo {
    SubresourceInfo {
        name,
        kind,
        group: "",
        version: "v1",
        verbs,
        form: SubresourceForm::Connect,
    }
}

const fn object(name: &'static str) -> SubresourceInfo {
    SubresourceInfo {
        name,
        kind: "Pod",
        group: "",
        version: "v1",
        verbs: GET_PATCH_UPDATE,
        form: SubresourceForm::Object,
    }
}

/// Verbs of connections that may be opened with either method.
const GET_POST: &[Verb] = &[Verb::Create, Verb::Get];
/// Verbs of proxies: every method is passed on.
pub const PROXY: &[Verb] = &[Verb::Create, Verb::Delete, Verb::Get, Verb::Patch, Verb::Update];

static INFO: ResourceInfo = ResourceInfo {
    kind: "Pod",
    plural: "pods",
    singular: "pod",
    short_names: &["po"],
    categories: &["all"],
    storage_prefix: "pods",
    selectable_fields: &[
        "spec.nodeName",
        "spec.restartPolicy",
        "spec.schedulerName",
        "spec.serviceAccountName",
        "spec.hostNetwork",
        "status.phase",
        "status.podIP",
        "status.nominatedNodeName",
    ],
    other_fields: OtherFields::NotSupported,
    subresources: &[
        connect("attach", "PodAttachOptions", GET_POST),
        SubresourceInfo {
            name: "binding",
            kind: "Binding",
            group: "",
            version: "v1",
            verbs: &[Verb::Create],
            form: SubresourceForm::Handler,
        },
        object("ephemeralcontainers"),
        SubresourceInfo {
            name: "eviction",
            kind: "Eviction",
            group: "policy",
            version: "v1",
            verbs: &[Verb::Create],
            form: SubresourceForm::Handler,
        },
        connect("exec", "PodExecOptions", GET_POST),
        connect("log", "Pod", &[Verb::Get]),
        connect("portforward", "PodPortForwardOptions", GET_POST),
        connect("proxy", "PodProxyOptions", PROXY),
        object("resize"),
        object("status"),
    ],
    ..ResourceInfo::base()
};

impl Strategy for PodStrategy {
    type Object = Pod;

    fn info(&self) -> &'static ResourceInfo {
        &INFO
    }

    fn default(&self, pod: &mut Pod) {
        defaults::pod(pod);
    }

    fn prepare_create(&self, ctx: &RequestContext<'_>, pod: &mut Pod) {
        meta::first_generation(&mut pod.metadata);
        let qos = qos_class(pod).as_str().to_owned();
        let gated = pod
            .spec
            .as_ref()
            .is_some_and(|s| s.scheduling_gates.as_ref().is_some_and(|g| !g.is_empty()));
        let conditions = gated.then(|| vec![gated_condition(ctx.now)]);
        pod.status = Some(PodStatus {
            phase: Some("Pending".to_owned()),
            qos_class: Some(qos),
            conditions,
            ..PodStatus::default()
        });
        if let Some(spec) = &mut pod.spec {
            match_label_keys(spec, pod.metadata.labels.as_ref());
        }
    }

    fn prepare_update(&self, _ctx: &RequestContext<'_>, new: &mut Pod, old: &Pod) {
        new.status.clone_from(&old.status);
        meta::next_generation(
            &mut new.metadata,
            &old.metadata,
            Spec::compare(&new.spec, &old.spec),
        );
    }

    fn prepare_subresource_update(&self, ctx: &RequestContext<'_>, new: &mut Pod, old: &Pod) {
        match ctx.subresource {
            "status" => {
                new.spec.clone_from(&old.spec);
                new.metadata.generation = old.metadata.generation;
                new.metadata
                    .deletion_timestamp
                    .clone_from(&old.metadata.deletion_timestamp);
                new.metadata.deletion_grace_period_seconds = old.metadata.deletion_grace_period_seconds;
                // Kubelets of old versions would damage the references.
                new.metadata
                    .owner_references
                    .clone_from(&old.metadata.owner_references);
                if let Some(status) = &mut new.status
                    && status.qos_class.is_none()
                {
                    status.qos_class = old.status.as_ref().and_then(|s| s.qos_class.clone());
                }
            }
            // The handler of bindings changes only what it may.
            "binding" => {}
            "ephemeralcontainers" => {
                let added = new.spec.take().and_then(|s| s.ephemeral_containers);
                keep_all_but(new, old, |spec| spec.ephemeral_containers = added);
            }
            _ => {
                let wanted = new.spec.take();
                keep_all_but(new, old, |spec| take_resources(spec, wanted.unwrap_or_default()));
            }
        }
    }

    fn validate_create(&self, _ctx: &RequestContext<'_>, pod: &Pod) -> Errors {
        validation::pod(pod)
    }

    fn validate_update(&self, _ctx: &RequestContext<'_>, new: &Pod, old: &Pod) -> Errors {
        validation::update::pod(new, old)
    }

    fn validate_subresource_update(&self, ctx: &RequestContext<'_>, new: &Pod, old: &Pod) -> Errors {
        match ctx.subresource {
            "status" => validation::update::status(new, old),
            "binding" => Errors::new(),
            "ephemeralcontainers" => validation::update::ephemeral_containers(new, old),
            _ => validation::resize::pod(new, old),
        }
    }

    fn warnings(&self, pod: &Pod, old: Option<&Pod>) -> Vec<String> {
        // Repeating a warning at each status update would drown it.
        if old.is_some() {
            return Vec::new();
        }
        pod.spec
            .as_ref()
            .map(|spec| spec_warnings("spec", spec))
            .unwrap_or_default()
    }

    fn selected(&self, json: &[u8]) -> Result<Selected, serde_json::Error> {
        selected::pod(json)
    }

    fn columns(&self) -> &'static [Column] {
        table::COLUMNS
    }

    fn row_conditions(&self, pod: &Pod) -> Vec<Value> {
        table::row_conditions(pod)
    }

    fn cells(&self, pod: &Pod, now: Timestamp) -> Vec<Value> {
        table::cells(pod, now)
    }

    fn delete_grace(&self, pod: &Pod, options: &DeleteOptions) -> Option<i64> {
        let spec = pod.spec.as_ref();
        let scheduled = spec
            .and_then(|s| s.node_name.as_deref())
            .is_some_and(|n| !n.is_empty());
        let ended = keelson_api::pods::is_terminal(pod);
        // Nobody runs it: there is nothing to wait for.
        if !scheduled || ended {
            return Some(0);
        }
        let own = spec.and_then(|s| s.termination_grace_period_seconds);
        let seconds = options.grace_period_seconds.or(own).unwrap_or(0);
        Some(if seconds < 0 { 1 } else { seconds })
    }

    fn reset_fields(&self, subresource: &str) -> &'static [&'static [&'static str]] {
        match subresource {
            "status" => &[
                &["spec"],
                &["metadata", "deletionTimestamp"],
                &["metadata", "ownerReferences"],
            ],
            _ => &[&["status"]],
        }
    }

    fn handler(&self, subresource: &str) -> Option<Arc<dyn Subresource>> {
        match subresource {
            "binding" => Some(Arc::new(binding::PodBinding)),
            "eviction" => Some(Arc::new(eviction::PodEviction)),
            _ => None,
        }
    }
}

fn gated_condition(now: Timestamp) -> PodCondition {
    PodCondition {
        type_: "PodScheduled".to_owned(),
        status: "False".to_owned(),
        reason: Some("SchedulingGated".to_owned()),
        message: Some("Scheduling is blocked due to non-empty scheduling gates".to_owned()),
        last_transition_time: Some(Time(time::to_seconds(now))),
        ..PodCondition::default()
    }
}

/// Takes everything from `old`, then lets `change` put the part in that may differ.
fn keep_all_but(new: &mut Pod, old: &Pod, change: impl FnOnce(&mut PodSpec)) {
    let resource_version = new.metadata.resource_version.take();
    let mut kept = old.clone();
    kept.metadata.resource_version = resource_version;
    kept.metadata.managed_fields = new.metadata.managed_fields.take();
    change(kept.spec.get_or_insert_with(PodSpec::default));
    meta::next_generation(
        &mut kept.metadata,
        &old.metadata,
        Spec::compare(&kept.spec, &old.spec),
    );
    *new = kept;
}

/// What a resize may change: resources and resize policies, container by container.
fn take_resources(spec: &mut PodSpec, wanted: PodSpec) {
    spec.resources = wanted.resources;
    let lists = [
        (&mut spec.containers, wanted.containers),
        (
            spec.init_containers.get_or_insert_default(),
            wanted.init_containers.unwrap_or_default(),
        ),
    ];
    for (kept, wanted) in lists {
        let same_names = kept
            .iter()
            .map(|one| &one.name)
            .eq(wanted.iter().map(|one| &one.name));
        if !same_names {
            // Validation refuses that.
            *kept = wanted;
            continue;
        }
        for (kept, wanted) in kept.iter_mut().zip(wanted) {
            kept.resources = wanted.resources;
            kept.resize_policy = wanted.resize_policy;
        }
    }
    if spec.init_containers.as_ref().is_some_and(Vec::is_empty) {
        spec.init_containers = None;
    }
}

/// Adds the pod's own values of `matchLabelKeys` to the selectors they belong to.
fn match_label_keys(spec: &mut PodSpec, labels: Option<&std::collections::BTreeMap<String, String>>) {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement};
    let Some(labels) = labels else { return };
    let add = |selector: &mut Option<LabelSelector>, keys: Option<&Vec<String>>, operator: &str| {
        let Some(selector) = selector else { return };
        for key in keys.into_iter().flatten() {
            if let Some(value) = labels.get(key) {
                selector
                    .match_expressions
                    .get_or_insert_default()
                    .push(LabelSelectorRequirement {
                        key: key.clone(),
                        operator: operator.to_owned(),
                        values: Some(vec![value.clone()]),
                    });
            }
        }
    };
    if let Some(affinity) = &mut spec.affinity {
        let mut terms = Vec::new();
        if let Some(pods) = &mut affinity.pod_affinity {
            terms.extend(
                pods.required_during_scheduling_ignored_during_execution
                    .iter_mut()
                    .flatten(),
            );
            let weighted = pods
                .preferred_during_scheduling_ignored_during_execution
                .iter_mut()
                .flatten();
            terms.extend(weighted.map(|w| &mut w.pod_affinity_term));
        }
        if let Some(pods) = &mut affinity.pod_anti_affinity {
            terms.extend(
                pods.required_during_scheduling_ignored_during_execution
                    .iter_mut()
                    .flatten(),
            );
            let weighted = pods
                .preferred_during_scheduling_ignored_during_execution
                .iter_mut()
                .flatten();
            terms.extend(weighted.map(|w| &mut w.pod_affinity_term));
        }
        for term in terms {
            add(&mut term.label_selector, term.match_label_keys.as_ref(), "In");
            add(
                &mut term.label_selector,
                term.mismatch_label_keys.as_ref(),
                "NotIn",
            );
        }
    }
    for constraint in spec.topology_spread_constraints.iter_mut().flatten() {
        add(
            &mut constraint.label_selector,
            constraint.match_label_keys.as_ref(),
            "In",
        );
    }
}

/// Advice about a pod or template: `at` is where its spec lies.
pub fn spec_warnings(at: &str, spec: &PodSpec) -> Vec<String> {
    let mut out = Vec::new();
    for (key, replacement) in [
        ("beta.kubernetes.io/arch", "kubernetes.io/arch"),
        ("beta.kubernetes.io/os", "kubernetes.io/os"),
        (
            "failure-domain.beta.kubernetes.io/region",
            "topology.kubernetes.io/region",
        ),
        (
            "failure-domain.beta.kubernetes.io/zone",
            "topology.kubernetes.io/zone",
        ),
        (
            "beta.kubernetes.io/instance-type",
            "node.kubernetes.io/instance-type",
        ),
    ] {
        if spec.node_selector.as_ref().is_some_and(|s| s.contains_key(key)) {
            out.push(format!(
                "{at}.nodeSelector[{key}]: deprecated since v1.14; use \"{replacement}\" instead"
            ));
        }
    }
    for (i, volume) in spec.volumes.iter().flatten().enumerate() {
        for (field, set, text) in [
            ("gitRepo", volume.git_repo.is_some(), "deprecated in v1.11"),
            (
                "glusterfs",
                volume.glusterfs.is_some(),
                "deprecated in v1.25, non-functional in v1.26+",
            ),
            (
                "rbd",
                volume.rbd.is_some(),
                "deprecated in v1.28, non-functional in v1.31+",
            ),
            (
                "cephfs",
                volume.cephfs.is_some(),
                "deprecated in v1.28, non-functional in v1.31+",
            ),
        ] {
            if set {
                out.push(format!("{at}.volumes[{i}].{field}: {text}"));
            }
        }
    }
    for (i, secret) in spec.image_pull_secrets.iter().flatten().enumerate() {
        if secret.name.is_empty() {
            out.push(format!(
                "{at}.imagePullSecrets[{i}].name: invalid empty name \"\""
            ));
        }
    }
    let all = spec
        .init_containers
        .iter()
        .flatten()
        .map(|c| ("initContainers", c));
    let all = all
        .enumerate()
        .chain(spec.containers.iter().map(|c| ("containers", c)).enumerate());
    for (i, (list, container)) in all {
        let variables = container.env.as_deref().unwrap_or(&[]);
        for (j, variable) in variables.iter().enumerate() {
            if variables[..j].iter().any(|v| v.name == variable.name) {
                out.push(format!(
                    "{at}.{list}[{i}].env[{j}]: hides previous definition of \"{}\", which may be dropped when using apply",
                    variable.name
                ));
            }
        }
        let ports = container.ports.as_deref().unwrap_or(&[]);
        for (j, port) in ports.iter().enumerate() {
            let same = |p: &k8s_openapi::api::core::v1::ContainerPort| {
                p.container_port == port.container_port
                    && p.protocol == port.protocol
                    && p.host_port == port.host_port
            };
            if let Some(k) = ports[..j].iter().position(same) {
                out.push(format!(
                    "{at}.{list}[{i}].ports[{j}]: duplicate port definition with {at}.{list}[{i}].ports[{k}]"
                ));
            }
        }
    }
    out
}
