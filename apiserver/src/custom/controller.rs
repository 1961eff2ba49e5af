//! Looks after definitions: accepts their names, establishes them, and empties those that are to go.
//!
//! Every server does. They write the same and nothing twice: what is as it should be is not written.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, CustomResourceDefinitionCondition, CustomResourceDefinitionNames,
    CustomResourceDefinitionStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::DeleteOptions;
use keelson_api::object::Object as _;
use keelson_api::status::ApiResult;
use tokio_util::sync::CancellationToken;

use super::definition::CLEANUP;
use crate::authentication::User;
use crate::handlers::options::ListOptions;
use crate::handlers::{self, Call};
use crate::state::Server;
use crate::storage::cache::select;
use crate::storage::changes::Changes;
use crate::storage::filter::Filter;

/// How soon a definition is looked at again whose instances have not all gone.
const WAITING: Duration = Duration::from_millis(500);
/// How soon after something went wrong.
const TROUBLE: Duration = Duration::from_secs(2);
/// Everything is looked at this often, whatever happens.
const PERIOD: Duration = Duration::from_secs(60);

/// Looks after definitions until `shutdown`.
pub async fn run(server: Arc<Server>, shutdown: CancellationToken) {
    shutdown.run_until_cancelled(follow(&server)).await;
}

async fn follow(server: &Arc<Server>) {
    let Some(mut changes) = Changes::of::<CustomResourceDefinition>(server).await else {
        return;
    };
    while changes.wait(look_at_all(server).await).await {}
}

/// Looks at every definition; how long the next look may wait.
async fn look_at_all(server: &Arc<Server>) -> Duration {
    let Some(cache) = server.catalog.of::<CustomResourceDefinition>() else {
        return PERIOD;
    };
    let filter = Filter::namespace("");
    let (entries, _) = cache.snapshot(|| server.feed.reached());
    let mut wait = PERIOD;
    for entry in select(&entries, &filter, None) {
        let head: Result<Head, _> = serde_json::from_slice(entry.json());
        if head.is_ok_and(|head| head.settled()) {
            continue;
        }
        let Some(definition) = server.cached::<CustomResourceDefinition>("", entry.name()) else {
            continue;
        };
        match look_at(server, &definition).await {
            Ok(true) => {}
            Ok(false) => wait = wait.min(WAITING),
            Err(error) if error.is_conflict() || error.is_not_found() => wait = wait.min(WAITING),
            Err(error) => {
                tracing::warn!(definition = entry.name(), %error, "cannot look after a definition");
                wait = wait.min(TROUBLE);
            }
        }
    }
    wait
}

/// The little of a definition that says whether there is anything to do.
#[derive(serde::Deserialize)]
struct Head {
    metadata: HeadMeta,
    spec: HeadSpec,
    #[serde(default)]
    status: HeadStatus,
}

#[derive(serde::Deserialize)]
#[serde(rename_all = "camelCase")]
struct HeadMeta {
    #[serde(default)]
    deletion_timestamp: Option<String>,
}

#[derive(serde::Deserialize)]
struct HeadSpec {
    names: super::definition::Names,
}

#[derive(serde::Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct HeadStatus {
    accepted_names: Option<super::definition::Names>,
    conditions: Option<Vec<HeadCondition>>,
}

#[derive(serde::Deserialize)]
struct HeadCondition {
    #[serde(rename = "type")]
    kind: String,
    status: String,
}

impl Head {
    fn settled(&self) -> bool {
        let holds = |kind: &str| {
            let conditions = self.status.conditions.as_deref().unwrap_or_default();
            conditions.iter().any(|c| c.kind == kind && c.status == "True")
        };
        self.metadata.deletion_timestamp.is_none()
            && holds("NamesAccepted")
            && holds("Established")
            && self.status.accepted_names.as_ref() == Some(&self.spec.names)
    }
}

/// Does what a definition needs; whether nothing is left to wait for.
async fn look_at(server: &Arc<Server>, definition: &CustomResourceDefinition) -> ApiResult<bool> {
    let name = definition.name();
    let wanted = status(server, definition);
    if Some(&wanted) != definition.status.as_ref() {
        let change = |fresh: &mut CustomResourceDefinition| {
            fresh.status = Some(status(server, fresh));
            Ok(())
        };
        server
            .update(&User::loopback(), ("", name, "status"), change)
            .await?;
    }
    if definition.metadata.deletion_timestamp.is_none() {
        return Ok(true);
    }
    let finalizers = definition.metadata.finalizers.as_deref().unwrap_or_default();
    if !finalizers.iter().any(|finalizer| finalizer == CLEANUP) {
        return Ok(true);
    }
    match empty(server, name).await {
        Ok(0) => {
            let change = |fresh: &mut CustomResourceDefinition| {
                terminating(
                    fresh,
                    "False",
                    "InstanceDeletionCompleted",
                    "removed all instances",
                );
                Ok(())
            };
            server
                .update(&User::loopback(), ("", name, "status"), change)
                .await?;
            let change = |fresh: &mut CustomResourceDefinition| {
                if let Some(finalizers) = &mut fresh.metadata.finalizers {
                    finalizers.retain(|finalizer| finalizer != CLEANUP);
                }
                Ok(())
            };
            server.update(&User::loopback(), ("", name, ""), change).await?;
            tracing::info!(definition = name, "emptied");
            Ok(true)
        }
        outcome => {
            let (reason, message) = match &outcome {
                Ok(_) => (
                    "InstanceDeletionInProgress",
                    "CustomResource deletion is in progress".to_owned(),
                ),
                Err(error) => (
                    "InstanceDeletionFailed",
                    format!("could not delete all instances: {error}"),
                ),
            };
            let change = |fresh: &mut CustomResourceDefinition| {
                terminating(fresh, "True", reason, &message);
                Ok(())
            };
            server
                .update(&User::loopback(), ("", name, "status"), change)
                .await?;
            outcome.map(|_| false)
        }
    }
}

/// Deletes the instances of a definition; how many are left.
async fn empty(server: &Arc<Server>, definition: &str) -> ApiResult<usize> {
    server.catch_up().await?;
    let Some(served) = server.catalog.custom().of_definition(definition) else {
        return Ok(0);
    };
    let user = User::loopback();
    let call = Call::new(server, &served, &user, "", "", "");
    handlers::delete::delete_collection(&call, &ListOptions::default(), DeleteOptions::default()).await?;
    server.catch_up().await?;
    Ok(served.cache.sizes().0)
}

fn terminating(definition: &mut CustomResourceDefinition, status: &str, reason: &str, message: &str) {
    let conditions = definition
        .status
        .get_or_insert_default()
        .conditions
        .get_or_insert_default();
    set(conditions, "Terminating", status, reason, message);
}

fn set(
    conditions: &mut Vec<CustomResourceDefinitionCondition>,
    kind: &str,
    status: &str,
    reason: &str,
    message: &str,
) {
    let found = conditions.iter_mut().find(|condition| condition.type_ == kind);
    let now = keelson_api::time::now();
    match found {
        Some(condition) => {
            if condition.status != status {
                condition.last_transition_time = Some(now);
            }
            condition.status = status.to_owned();
            condition.reason = Some(reason.to_owned());
            condition.message = Some(message.to_owned());
        }
        None => conditions.push(CustomResourceDefinitionCondition {
            type_: kind.to_owned(),
            status: status.to_owned(),
            reason: Some(reason.to_owned()),
            message: Some(message.to_owned()),
            last_transition_time: Some(now),
            observed_generation: None,
        }),
    }
}

/// Names that other definitions of the same group have.
#[derive(Default)]
struct Taken {
    resources: BTreeSet<String>,
    kinds: BTreeSet<String>,
}

impl Taken {
    fn by_others(server: &Server, definition: &CustomResourceDefinition) -> Self {
        let suffix = format!(".{}", definition.spec.group);
        let mut taken = Self::default();
        let Some(cache) = server.catalog.of::<CustomResourceDefinition>() else {
            return taken;
        };
        let (entries, _) = cache.snapshot(|| server.feed.reached());
        let filter = Filter::namespace("");
        let others = select(&entries, &filter, None)
            .filter(|entry| entry.name().ends_with(&suffix) && entry.name() != definition.name());
        for entry in others {
            let Some(other) = serde_json::from_slice::<Head>(entry.json())
                .ok()
                .and_then(|head| head.status.accepted_names)
            else {
                continue;
            };
            taken.resources.extend([other.plural, other.singular]);
            taken.resources.extend(other.short_names);
            taken.kinds.extend([other.kind, other.list_kind]);
        }
        taken
    }
}

/// What a definition's status should say about its names.
fn status(server: &Server, definition: &CustomResourceDefinition) -> CustomResourceDefinitionStatus {
    names_status(definition, &Taken::by_others(server, definition))
}

fn names_status(definition: &CustomResourceDefinition, taken: &Taken) -> CustomResourceDefinitionStatus {
    let mut status = definition.status.clone().unwrap_or_default();
    let asked = &definition.spec.names;
    let had = status.accepted_names.clone().unwrap_or_default();
    let mut names = had.clone();
    let mut conflict: Option<(&str, String)> = None;
    let free = |wanted: &str, had: &str, taken: &BTreeSet<String>| -> Result<(), String> {
        if wanted == had || !taken.contains(wanted) {
            Ok(())
        } else {
            Err(format!("\"{wanted}\" is already in use"))
        }
    };
    match free(&asked.plural, &had.plural, &taken.resources) {
        Ok(()) => names.plural.clone_from(&asked.plural),
        Err(text) => conflict = Some(("PluralConflict", text)),
    }
    let text = |name: &Option<String>| name.clone().unwrap_or_default();
    match free(&text(&asked.singular), &text(&had.singular), &taken.resources) {
        Ok(()) => names.singular.clone_from(&asked.singular),
        Err(text) => conflict = Some(("SingularConflict", text)),
    }
    let own: Vec<String> = had.short_names.clone().unwrap_or_default();
    let problems: Vec<String> = asked
        .short_names
        .iter()
        .flatten()
        .filter(|name| !own.contains(name))
        .filter_map(|name| free(name, "", &taken.resources).err())
        .collect();
    if problems.is_empty() {
        names.short_names.clone_from(&asked.short_names);
    } else {
        conflict = Some(("ShortNamesConflict", keelson_api::field::aggregate(&problems)));
    }
    match free(&asked.kind, &had.kind, &taken.kinds) {
        Ok(()) => names.kind.clone_from(&asked.kind),
        Err(text) => conflict = Some(("KindConflict", text)),
    }
    match free(&text(&asked.list_kind), &text(&had.list_kind), &taken.kinds) {
        Ok(()) => names.list_kind.clone_from(&asked.list_kind),
        Err(text) => conflict = Some(("ListKindConflict", text)),
    }
    names.categories.clone_from(&asked.categories);

    let conditions = status.conditions.get_or_insert_default();
    let accepted = conflict.is_none();
    match conflict {
        None => set(
            conditions,
            "NamesAccepted",
            "True",
            "NoConflicts",
            "no conflicts found",
        ),
        Some((reason, message)) => set(conditions, "NamesAccepted", "False", reason, &message),
    }
    let established = conditions
        .iter()
        .any(|condition| condition.type_ == "Established" && condition.status == "True");
    if !established {
        if accepted {
            set(
                conditions,
                "Established",
                "True",
                "InitialNamesAccepted",
                "the initial names have been accepted",
            );
        } else {
            set(
                conditions,
                "Established",
                "False",
                "NotAccepted",
                "not all names are accepted",
            );
        }
    }
    approval(definition, conditions);
    status.accepted_names = Some(CustomResourceDefinitionNames { ..names });
    status
}

/// What a definition in one of the project's own groups says about its approval.
fn approval(definition: &CustomResourceDefinition, conditions: &mut Vec<CustomResourceDefinitionCondition>) {
    const KIND: &str = "KubernetesAPIApprovalPolicyConformant";
    let group = &definition.spec.group;
    if !["k8s.io", "kubernetes.io"].iter().any(|own| group.ends_with(own)) {
        return;
    }
    let annotation = definition
        .metadata
        .annotations
        .as_ref()
        .and_then(|annotations| annotations.get("api-approved.kubernetes.io"));
    match annotation {
        Some(url) if url.starts_with("https://") => {
            set(
                conditions,
                KIND,
                "True",
                "ApprovedAnnotation",
                &format!("approved in {url}"),
            );
        }
        Some(text) => set(
            conditions,
            KIND,
            "False",
            "UnapprovedAnnotation",
            &format!("not approved: {text:?}"),
        ),
        None => set(
            conditions,
            KIND,
            "False",
            "MissingAnnotation",
            "protected groups must have approval annotation \"api-approved.kubernetes.io\", see \
             https://github.com/kubernetes/enhancements/pull/1111",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn definition(short: &str) -> CustomResourceDefinition {
        serde_json::from_value(serde_json::json!({
            "metadata": {"name": "crontabs.stable.example.com"},
            "spec": {"group": "stable.example.com", "scope": "Namespaced", "versions": [],
                     "names": {"plural": "crontabs", "singular": "crontab", "kind": "CronTab",
                               "listKind": "CronTabList", "shortNames": [short]}}
        }))
        .expect("a definition")
    }

    fn told(status: &CustomResourceDefinitionStatus) -> Vec<(String, String, String)> {
        let conditions = status.conditions.iter().flatten();
        conditions
            .map(|c| {
                (
                    c.type_.clone(),
                    c.status.clone(),
                    c.message.clone().unwrap_or_default(),
                )
            })
            .collect()
    }

    #[test]
    fn free_names_are_accepted_and_taken_ones_are_not() {
        let status = names_status(&definition("ct"), &Taken::default());
        assert_eq!(
            status.accepted_names.as_ref().map(|n| n.plural.as_str()),
            Some("crontabs")
        );
        assert!(told(&status).iter().all(|(_, status, _)| status == "True"));

        let taken = Taken {
            resources: ["ct".to_owned()].into(),
            kinds: BTreeSet::new(),
        };
        let status = names_status(&definition("ct"), &taken);
        let conditions = told(&status);
        assert_eq!(conditions[0].2, "\"ct\" is already in use");
        assert_eq!(
            (conditions[1].0.as_str(), conditions[1].1.as_str()),
            ("Established", "False")
        );
        assert_eq!(status.accepted_names.and_then(|n| n.short_names), None);
    }

    #[test]
    fn an_established_definition_stays_so() {
        let mut changed = definition("ct");
        changed.status = Some(names_status(&definition("ct"), &Taken::default()));
        changed.spec.names.short_names = Some(vec!["pods".into()]);
        let taken = Taken {
            resources: ["pods".to_owned()].into(),
            kinds: BTreeSet::new(),
        };
        let status = names_status(&changed, &taken);
        let conditions = told(&status);
        assert_eq!(conditions[0].1, "False");
        assert_eq!(conditions[1].1, "True");
        assert_eq!(
            status.accepted_names.and_then(|n| n.short_names),
            Some(vec!["ct".to_owned()])
        );
    }
}
