//! Cluster roles made of other cluster roles: the rules of all that their selectors choose.

use std::sync::Arc;

use k8s_openapi::api::rbac::v1::{ClusterRole, PolicyRule};
use keelson_api::object::Object as _;
use keelson_api::selector::LabelSelector;
use keelson_client::{Event, Informer, ReconcileError, ResourceClient, WorkQueue, run_workers};

use crate::common::answers::unless_gone;
use crate::context::Context;

/// Runs the controller until shutdown.
pub async fn run(context: Context) {
    let controller = Arc::new(Controller {
        roles: context.cluster_roles(),
        client: context.client().resource(),
    });
    // Any role may be part of any other: all are looked at again, however many have changed.
    let queue: WorkQueue<()> = WorkQueue::new("clusterroleaggregation");
    let to = queue.clone();
    controller.roles.subscribe(move |event| {
        let concerned = match event {
            Event::Updated { old, new } => {
                old.rules != new.rules
                    || old.metadata.labels != new.metadata.labels
                    || old.aggregation_rule != new.aggregation_rule
            }
            Event::Added(_) | Event::Deleted(_) => true,
        };
        if concerned {
            to.add(());
        }
    });
    controller.roles.synced().await;
    run_workers(queue, 1, context.shutdown().clone(), move |()| {
        let controller = controller.clone();
        async move { controller.sync().await }
    })
    .await;
}

struct Controller {
    roles: Informer<ClusterRole>,
    client: ResourceClient<ClusterRole>,
}

impl Controller {
    async fn sync(&self) -> Result<(), ReconcileError> {
        let mut all = self.roles.store().list();
        all.sort_by(|a, b| a.name().cmp(b.name()));
        for role in &all {
            let Some(rules) = aggregated(role, all.iter().map(AsRef::as_ref)) else {
                continue;
            };
            if same(role.rules.as_deref().unwrap_or(&[]), &rules) {
                continue;
            }
            let mut changed = (**role).clone();
            changed.rules = Some(rules);
            unless_gone(self.client.update(&changed).await)?;
        }
        Ok(())
    }
}

/// The rules of every role that the selectors of `role` choose, each once; `None` for a role that aggregates nothing.
fn aggregated<'a>(
    role: &ClusterRole,
    all: impl Iterator<Item = &'a ClusterRole> + Clone,
) -> Option<Vec<PolicyRule>> {
    let selectors = role
        .aggregation_rule
        .as_ref()?
        .cluster_role_selectors
        .as_deref()
        .unwrap_or(&[]);
    let mut rules: Vec<PolicyRule> = Vec::new();
    for selector in selectors {
        let Ok(selector) = LabelSelector::from_meta(Some(selector)) else {
            // The apiserver refuses such roles.
            continue;
        };
        for part in all.clone() {
            if part.name() == role.name() || !selector.matches(part.labels()) {
                continue;
            }
            for rule in part.rules.iter().flatten() {
                if !rules.contains(rule) {
                    rules.push(rule.clone());
                }
            }
        }
    }
    Some(rules)
}

/// Whether both lists say the same, in whatever order.
fn same(a: &[PolicyRule], b: &[PolicyRule]) -> bool {
    a.len() == b.len() && b.iter().all(|rule| a.contains(rule))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn role(name: &str, label: &str, verbs: &[&str]) -> ClusterRole {
        serde_json::from_value(json!({
            "metadata": {"name": name, "labels": {label: "true"}},
            "rules": [{"verbs": verbs, "apiGroups": [""], "resources": ["pods"]}],
        }))
        .expect("a role")
    }

    #[test]
    fn rules_of_the_chosen_are_gathered_once() {
        let whole: ClusterRole = serde_json::from_value(json!({
            "metadata": {"name": "whole", "labels": {"part": "true"}},
            "aggregationRule": {"clusterRoleSelectors": [{"matchLabels": {"part": "true"}}, {"matchLabels": {"x": "true"}}]},
        }))
        .expect("a role");
        let all = [
            whole.clone(),
            role("a", "part", &["get"]),
            role("b", "part", &["get"]),
            role("c", "x", &["list"]),
            role("d", "other", &["delete"]),
        ];
        let rules = aggregated(&whole, all.iter()).expect("it aggregates");
        let verbs: Vec<&str> = rules.iter().map(|rule| rule.verbs[0].as_str()).collect();
        assert_eq!(verbs, ["get", "list"]);
        assert!(aggregated(&all[1], all.iter()).is_none());
        let turned: Vec<PolicyRule> = rules.iter().rev().cloned().collect();
        assert!(same(&rules, &turned) && !same(&rules, &turned[..1]));
    }
}
