//! PodSecurity: the labels of a namespace say how much of the node its pods may see (KEP-2579).
//!
//! | module | what lives there |
//! | --- | --- |
//! | [`config`] | what holds by default, and who is exempt |
//! | [`policy`] | levels, versions, and the labels that name them |
//! | [`checks`] | what each level forbids, and in which words |
//! | [`containers`] | the parts of checks that look at each container |
//!
//! Pods that violate what is enforced are refused; kinds that make pods, and what is only to be warned of, get a warning.

pub mod checks;
pub mod config;
pub mod containers;
pub mod policy;

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::batch::v1::{CronJob, Job};
use k8s_openapi::api::core::v1::{
    Container, Namespace, Pod, PodSpec, PodTemplate, PodTemplateSpec, ReplicationController,
};
use keelson_api::names::GroupKind;
use keelson_api::object::Object;
use keelson_api::status::{ApiError, ApiResult};

use super::refusal::forbidden;
use super::{Admission, Attributes, Operation};
use crate::audit;
use crate::registry::info::ResourceInfo;
use checks::{Subject, Violations};
use config::PodSecurityConfiguration;
use policy::{Bar, Level, Policy};

/// Pods looked at when a namespace is to be held to a stricter level.
const PODS_CHECKED: usize = 3000;

/// The plugin.
#[derive(Default)]
pub struct PodSecurity {
    config: PodSecurityConfiguration,
}

impl From<PodSecurityConfiguration> for PodSecurity {
    fn from(config: PodSecurityConfiguration) -> Self {
        Self { config }
    }
}

#[async_trait]
impl Admission for PodSecurity {
    fn name(&self) -> &'static str {
        "PodSecurity"
    }

    fn handles(&self, operation: Operation, info: &ResourceInfo, subresource: &str) -> bool {
        if !matches!(operation, Operation::Create | Operation::Update) {
            return false;
        }
        match (info.group, info.plural) {
            ("", "pods") => matches!(subresource, "" | "ephemeralcontainers" | "resize"),
            ("", "namespaces" | "replicationcontrollers" | "podtemplates")
            | ("apps", "deployments" | "replicasets" | "daemonsets" | "statefulsets")
            | ("batch", "jobs" | "cronjobs") => subresource.is_empty(),
            _ => false,
        }
    }

    async fn validate(&self, attributes: &Attributes<'_>) -> ApiResult<()> {
        if let Some(namespace) = attributes.object::<Namespace>() {
            return self.changed_namespace(attributes, namespace).await;
        }
        let ctx = attributes.ctx;
        let PodSecurityConfiguration { defaults, exemptions } = &self.config;
        if let Some(why) = exemptions.of(ctx.namespace, &ctx.user.name) {
            note_exemption(why);
            return Ok(());
        }
        let namespace = match ctx.server.cached::<Namespace>("", ctx.namespace) {
            Some(namespace) => namespace,
            None => Arc::new(ctx.server.fresh::<Namespace>("", ctx.namespace).await?),
        };
        let (Ok(policy) | Err((policy, _))) = Policy::of(namespace.metadata.labels.as_ref(), *defaults);
        let exempt = |spec: &PodSpec| exemptions.runtime_class(spec.runtime_class_name.as_deref());
        if let Some(pod) = attributes.object::<Pod>() {
            let unchanged = attributes.old::<Pod>().is_some_and(|old| !matters(pod, old));
            if !unchanged && pod.spec.as_ref().is_some_and(exempt) {
                note_exemption("runtimeClass");
                return Ok(());
            }
            audit::annotate("pod-security.kubernetes.io/enforce-policy", || {
                policy.enforce.to_string()
            });
            if policy.asks_nothing() || unchanged {
                return Ok(());
            }
            let Some(subject) = Subject::of(&pod.metadata, pod.spec.as_ref()) else {
                return Ok(());
            };
            note_violations(policy, &subject);
            let violations = checks::evaluate(policy.enforce, &subject);
            if !violations.is_empty() {
                return Err(forbidden(attributes, violates(policy.enforce, &violations)));
            }
            warn(attributes, policy.warn, &subject);
        } else if (policy.warn.level != Level::Privileged || audit::recording())
            && let Some(template) = template(attributes)
        {
            if template.spec.as_ref().is_some_and(exempt) {
                note_exemption("runtimeClass");
                return Ok(());
            }
            let metadata = template.metadata.clone().unwrap_or_default();
            if let Some(subject) = Subject::of(&metadata, template.spec.as_ref()) {
                note_violations(policy, &subject);
                warn(attributes, policy.warn, &subject);
            }
        }
        Ok(())
    }
}

impl PodSecurity {
    /// The labels of a namespace have to make sense; pods that are there already and violate them are told of.
    async fn changed_namespace(&self, attributes: &Attributes<'_>, namespace: &Namespace) -> ApiResult<()> {
        let new = Policy::of(namespace.metadata.labels.as_ref(), self.config.defaults);
        let old = attributes
            .old::<Namespace>()
            .map(|old| Policy::of(old.metadata.labels.as_ref(), self.config.defaults));
        if let Err((_, errors)) = &new {
            let known = matches!(&old, Some(Err((_, before))) if before == errors);
            if !known {
                return Err(ApiError::invalid(
                    &GroupKind::new("", "Namespace"),
                    namespace.name(),
                    errors,
                ));
            }
        }
        let (Some(Ok(old) | Err((old, _))), Ok(new) | Err((new, _))) = (old, new) else {
            return Ok(());
        };
        let (now, before) = (new.enforce, old.enforce);
        let relaxed = now.version == before.version && now.level <= before.level;
        if self.config.exemptions.namespace(namespace.name()) {
            return Ok(());
        }
        if now == before || now.level == Level::Privileged || relaxed {
            return Ok(());
        }
        let pods = attributes.ctx.server.fresh_list::<Pod>(namespace.name()).await?;
        for warning in warnings_of(namespace.name(), now, &pods) {
            attributes.ctx.warn(warning);
        }
        Ok(())
    }
}

/// Has the audit log know that nothing was looked at, and why.
fn note_exemption(why: &'static str) {
    audit::annotate("pod-security.kubernetes.io/exempt", || why.to_owned());
}

fn violates(bar: Bar, violations: &Violations) -> String {
    format!("violates PodSecurity \"{bar}\": {}", violations.details())
}

/// Has the audit log know what is violated.
fn note_violations(policy: Policy, subject: &Subject<'_>) {
    if policy.audit.level == Level::Privileged || !audit::recording() {
        return;
    }
    let violations = checks::evaluate(policy.audit, subject);
    if !violations.is_empty() {
        audit::annotate("pod-security.kubernetes.io/audit-violations", || {
            format!(
                "would {}",
                violates(policy.audit, &violations).replacen("violates", "violate", 1)
            )
        });
    }
}

fn warn(attributes: &Attributes<'_>, bar: Bar, subject: &Subject<'_>) {
    let violations = checks::evaluate(bar, subject);
    if !violations.is_empty() {
        attributes.ctx.warn(format!(
            "would {}",
            violates(bar, &violations).replacen("violates", "violate", 1)
        ));
    }
}

/// The template of a kind that makes pods.
fn template<'a>(attributes: &'a Attributes<'_>) -> Option<&'a PodTemplateSpec> {
    let object = attributes.object.as_deref()?;
    if let Some(one) = object.downcast_ref::<Deployment>() {
        return one.spec.as_ref().map(|spec| &spec.template);
    }
    if let Some(one) = object.downcast_ref::<ReplicaSet>() {
        return one.spec.as_ref()?.template.as_ref();
    }
    if let Some(one) = object.downcast_ref::<DaemonSet>() {
        return one.spec.as_ref().map(|spec| &spec.template);
    }
    if let Some(one) = object.downcast_ref::<StatefulSet>() {
        return one.spec.as_ref().map(|spec| &spec.template);
    }
    if let Some(one) = object.downcast_ref::<Job>() {
        return one.spec.as_ref().map(|spec| &spec.template);
    }
    if let Some(one) = object.downcast_ref::<CronJob>() {
        let job = one.spec.job_template.spec.as_ref()?;
        return Some(&job.template);
    }
    if let Some(one) = object.downcast_ref::<ReplicationController>() {
        return one.spec.as_ref()?.template.as_ref();
    }
    if let Some(one) = object.downcast_ref::<PodTemplate>() {
        return one.template.as_ref();
    }
    None
}

/// Whether an update of a pod changes anything the checks look at.
fn matters(new: &Pod, old: &Pod) -> bool {
    let (Some(new), Some(old)) = (&new.spec, &old.spec) else {
        return true;
    };
    let differ = |new: &[Container], old: &[Container]| {
        new.len() != old.len()
            || new.iter().zip(old).any(|(new, old)| {
                new.image != old.image || new.security_context != old.security_context || new.name != old.name
            })
    };
    let init = |list: &Option<Vec<Container>>| list.clone().unwrap_or_default();
    differ(&new.containers, &old.containers)
        || differ(&init(&new.init_containers), &init(&old.init_containers))
        || new.ephemeral_containers != old.ephemeral_containers
}

fn warnings_of(namespace: &str, bar: Bar, pods: &[Pod]) -> Vec<String> {
    let mut warnings = Vec::new();
    if pods.len() > PODS_CHECKED {
        warnings.push(format!(
            "new PodSecurity enforce level only checked against the first {PODS_CHECKED} of {} existing pods",
            pods.len()
        ));
    }
    // What is wrong, with the first of the pods it is wrong with, and how many there are.
    let mut found: BTreeMap<String, (&str, usize)> = BTreeMap::new();
    for pod in pods.iter().take(PODS_CHECKED) {
        let Some(subject) = Subject::of(&pod.metadata, pod.spec.as_ref()) else {
            continue;
        };
        let violations = checks::evaluate(bar, &subject);
        if !violations.is_empty() {
            let (first, count) = found.entry(violations.reasons()).or_insert((pod.name(), 0));
            *first = (*first).min(pod.name());
            *count += 1;
        }
    }
    if found.is_empty() {
        return warnings;
    }
    warnings.push(format!(
        "existing pods in namespace {namespace:?} violate the new PodSecurity enforce level \"{bar}\""
    ));
    let mut lines: Vec<String> = found
        .into_iter()
        .map(|(reasons, (first, count))| match count {
            1 => format!("{first}: {reasons}"),
            2 => format!("{first} (and 1 other pod): {reasons}"),
            more => format!("{first} (and {} other pods): {reasons}", more - 1),
        })
        .collect();
    lines.sort();
    warnings.extend(lines);
    warnings
}

#[cfg(test)]
mod tests;
