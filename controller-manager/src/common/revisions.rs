//! Revisions of a pod template, kept as ControllerRevision objects.

use std::sync::Arc;

use k8s_openapi::api::apps::v1::ControllerRevision;
use k8s_openapi::api::core::v1::PodTemplateSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::apimachinery::pkg::runtime::RawExtension;
use keelson_api::labels::CONTROLLER_REVISION_HASH;
use keelson_api::object::{Kind, Object as _};
use keelson_api::owners::{is_controlled_by, new_controller_ref};
use keelson_client::{Informer, ReconcileError, ResourceClient};
use serde_json::{Value, json};

use super::answers::{only, unless_gone};
use super::template;
use crate::context::BY_CONTROLLER;

/// What a revision remembers: the patch that brings its template back.
#[must_use]
pub fn data(template: &PodTemplateSpec) -> Value {
    let mut template = serde_json::to_value(template).unwrap_or_default();
    if let Value::Object(fields) = &mut template {
        fields.insert("$patch".into(), "replace".into());
    }
    json!({"spec": {"template": template}})
}

/// The template that a revision remembers.
#[must_use]
pub fn template_of(revision: &ControllerRevision) -> Option<PodTemplateSpec> {
    let mut template = revision.data.as_ref()?.0.get("spec")?.get("template")?.clone();
    template.as_object_mut()?.remove("$patch");
    serde_json::from_value(template).ok()
}

/// The revisions of one controller, oldest first, the one of its template last.
#[derive(Debug, Clone)]
pub struct History {
    /// All of them, in order of revision.
    pub all: Vec<Arc<ControllerRevision>>,
    /// The one of the template.
    pub update: Arc<ControllerRevision>,
}

/// Keeps the history of controllers of any kind.
pub struct Historian {
    /// Every revision.
    pub informer: Informer<ControllerRevision>,
    /// To write them.
    pub client: ResourceClient<ControllerRevision>,
}

/// A name for a template was taken by another: count it and come again.
pub enum Kept {
    /// The history, with the template in it.
    History(History),
    /// The hash is taken.
    Collision,
}

impl Historian {
    /// The history of a controller, with the revision of its template created or moved to the end.
    ///
    /// # Errors
    /// What the apiserver refuses.
    pub async fn keep<K: Kind>(
        &self,
        owner: &K,
        template: &PodTemplateSpec,
        collisions: Option<i32>,
    ) -> Result<Kept, ReconcileError> {
        let mut all = self.informer.store().by_index(BY_CONTROLLER, owner.uid());
        all.sort_by(|a, b| a.revision.cmp(&b.revision).then_with(|| a.name().cmp(b.name())));
        let data = data(template);
        let next = all.last().map_or(1, |last| last.revision + 1);
        let same = all
            .iter()
            .rposition(|revision| revision.data.as_ref().is_some_and(|own| own.0 == data));
        let update = match same {
            Some(index) if index + 1 == all.len() => all[index].clone(),
            Some(index) => {
                // Going back: what was is the latest again.
                let mut moved = (*all.remove(index)).clone();
                moved.revision = next;
                let moved = Arc::new(self.client.update(&moved).await?);
                all.push(moved.clone());
                moved
            }
            None => {
                let revision = new(owner, template, data, next, collisions);
                match self.client.create(&revision).await {
                    Ok(created) => {
                        let created = Arc::new(created);
                        all.push(created.clone());
                        created
                    }
                    Err(error) if error.is_already_exists() => {
                        let existing = self.client.get(owner.namespace(), revision.name()).await?;
                        let same = existing.data.as_ref().map(|data| &data.0)
                            == revision.data.as_ref().map(|data| &data.0);
                        if !same || !is_controlled_by(&existing.metadata, owner.uid()) {
                            return Ok(Kept::Collision);
                        }
                        let existing = Arc::new(existing);
                        all.push(existing.clone());
                        existing
                    }
                    Err(error) => return Err(error.into()),
                }
            }
        };
        Ok(Kept::History(History { all, update }))
    }

    /// Deletes revisions beyond the limit that no pod is of, oldest first.
    ///
    /// # Errors
    /// What the apiserver refuses.
    pub async fn forget(
        &self,
        history: &History,
        limit: i32,
        in_use: impl Fn(&ControllerRevision) -> bool,
    ) -> Result<(), ReconcileError> {
        let unused: Vec<_> = history
            .all
            .iter()
            .filter(|one| one.uid() != history.update.uid() && !in_use(one))
            .collect();
        let excess = unused
            .len()
            .saturating_sub(usize::try_from(limit).unwrap_or_default());
        for revision in unused.into_iter().take(excess) {
            unless_gone(self.client.delete(&revision.key(), &only(revision.uid())).await)?;
        }
        Ok(())
    }
}

fn new<K: Kind>(
    owner: &K,
    template: &PodTemplateSpec,
    data: Value,
    revision: i64,
    collisions: Option<i32>,
) -> ControllerRevision {
    let hash = template::hash(template, collisions);
    let mut labels = template
        .metadata
        .as_ref()
        .and_then(|meta| meta.labels.clone())
        .unwrap_or_default();
    labels.insert(CONTROLLER_REVISION_HASH.into(), hash.clone());
    let prefix: String = owner.name().chars().take(252 - hash.len()).collect();
    ControllerRevision {
        metadata: ObjectMeta {
            name: Some(format!("{prefix}-{hash}")),
            namespace: owner.meta().namespace.clone(),
            labels: Some(labels),
            annotations: owner.meta().annotations.clone(),
            owner_references: Some(vec![new_controller_ref(owner)]),
            ..ObjectMeta::default()
        },
        data: Some(RawExtension(data)),
        revision,
    }
}

/// The hash in a revision's labels.
#[must_use]
pub fn hash_of(revision: &ControllerRevision) -> &str {
    revision
        .labels()
        .get(CONTROLLER_REVISION_HASH)
        .map(String::as_str)
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::PodSpec;

    #[test]
    fn a_template_comes_back_as_it_was() {
        let template = PodTemplateSpec {
            metadata: None,
            spec: Some(PodSpec {
                hostname: Some("h".into()),
                ..PodSpec::default()
            }),
        };
        let data = data(&template);
        assert_eq!(data["spec"]["template"]["$patch"], "replace");
        let revision = ControllerRevision {
            data: Some(RawExtension(data)),
            ..ControllerRevision::default()
        };
        assert_eq!(template_of(&revision), Some(template));
    }
}
