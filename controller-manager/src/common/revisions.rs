//! Revisions of a pod template, kept as ControllerRevision objects.

use std::sync::Arc;

use k8s_openapi::api::apps::v1::ControllerRevision;
use k8s_openapi::api::core::v1::PodTemplateSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::apimachinery::pkg::runtime::RawExtension;
use keelson_api::labels::CONTROLLER_REVISION_HASH;
use keelson_api::object::{Kind, Object as _};
use keelson_api::owners::{controller_ref, is_controlled_by, new_controller_ref};
use keelson_api::selector::LabelSelector;
use keelson_client::{Informer, Patch, ReconcileError, ResourceClient};
use serde_json::{Value, json};

use super::answers::{only, unless_gone};
use super::owners::{self, Claim};
use super::template;
use crate::context::{BY_CONTROLLER, ORPHANS};

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

impl History {
    /// Revisions of other templates, oldest first.
    pub fn older(&self) -> impl Iterator<Item = &Arc<ControllerRevision>> {
        let update = &self.update;
        self.all.iter().filter(move |one| !same_template(one, update))
    }

    /// Other revisions of the same template. Controllers make none, but others may.
    pub fn duplicates(&self) -> impl Iterator<Item = &Arc<ControllerRevision>> {
        let update = &self.update;
        self.all
            .iter()
            .filter(move |one| one.uid() != update.uid() && same_template(one, update))
    }
}

/// Whose history is kept.
pub struct Subject<'a, K> {
    /// The controller.
    pub object: &'a K,
    /// What selects its pods and, as they carry the labels of its template, its revisions.
    pub selector: &'a LabelSelector,
    /// Its template.
    pub template: &'a PodTemplateSpec,
    /// How many names of revisions were taken before.
    pub collisions: Option<i32>,
    /// To ask whether it is still there.
    pub client: &'a ResourceClient<K>,
}

/// Keeps the history of controllers of any kind.
pub struct Historian {
    /// Every revision.
    pub informer: Informer<ControllerRevision>,
    /// To write them.
    pub client: ResourceClient<ControllerRevision>,
    /// The label of revisions that has the hash of their template.
    pub hash_label: &'static str,
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
    pub async fn keep<K: Kind>(&self, subject: &Subject<'_, K>) -> Result<Kept, ReconcileError> {
        let Subject {
            object: owner,
            template,
            ..
        } = *subject;
        let mut all = self.informer.store().by_index(BY_CONTROLLER, owner.uid());
        all.extend(self.adopt(subject).await?);
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
                let revision = self.new_revision(subject, data, next);
                match self.client.create(&revision).await {
                    Ok(created) => {
                        let created = Arc::new(created);
                        all.push(created.clone());
                        created
                    }
                    Err(error) if error.is_already_exists() => {
                        let existing = self.client.get(owner.namespace(), revision.name()).await?;
                        // One that is nobody's is what a controller leaves that goes without its pods.
                        let own = is_controlled_by(&existing.metadata, owner.uid())
                            || controller_ref(&existing.metadata).is_none();
                        if !own || !same_template(&existing, &revision) {
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

    /// Takes revisions over that a controller of the same labels has left.
    async fn adopt<K: Kind>(
        &self,
        subject: &Subject<'_, K>,
    ) -> Result<Vec<Arc<ControllerRevision>>, ReconcileError> {
        let owner = subject.object;
        let mut adopted = Vec::new();
        for orphan in self.informer.store().by_index(ORPHANS, owner.namespace()) {
            let fits = subject.selector.matches(orphan.labels());
            if owners::claim(owner.meta(), &orphan.metadata, fits) != Claim::Adopt {
                continue;
            }
            let fresh = subject.client.get(owner.namespace(), owner.name()).await?;
            if fresh.uid() != owner.uid() || fresh.meta().deletion_timestamp.is_some() {
                return Err(ReconcileError::other(format!(
                    "the owner of revisions {} has been deleted",
                    owner.key()
                )));
            }
            let patch = owners::adoption(&orphan.metadata, new_controller_ref(owner));
            let taken = self.client.patch(&orphan.key(), Patch::Merge(patch)).await;
            adopted.extend(unless_gone(taken)?.map(Arc::new));
        }
        Ok(adopted)
    }

    /// Deletes a revision, if it is still there.
    ///
    /// # Errors
    /// What the apiserver refuses.
    pub async fn delete(&self, revision: &ControllerRevision) -> Result<(), ReconcileError> {
        unless_gone(self.client.delete(&revision.key(), &only(revision.uid())).await)?;
        Ok(())
    }

    /// Deletes revisions beyond the limit that no pod is of, oldest first.
    ///
    /// # Errors
    /// What the apiserver refuses.
    pub async fn forget(
        &self,
        history: &History,
        limit: usize,
        in_use: impl Fn(&ControllerRevision) -> bool,
    ) -> Result<(), ReconcileError> {
        let unused: Vec<_> = history
            .all
            .iter()
            .filter(|one| one.uid() != history.update.uid() && !in_use(one))
            .collect();
        let excess = unused.len().saturating_sub(limit);
        for revision in unused.into_iter().take(excess) {
            self.delete(revision).await?;
        }
        Ok(())
    }

    fn new_revision<K: Kind>(
        &self,
        subject: &Subject<'_, K>,
        data: Value,
        revision: i64,
    ) -> ControllerRevision {
        let Subject {
            object: owner,
            template,
            ..
        } = *subject;
        let hash = template::hash(template, subject.collisions);
        let mut labels = template
            .metadata
            .as_ref()
            .and_then(|meta| meta.labels.clone())
            .unwrap_or_default();
        labels.insert(self.hash_label.into(), hash.clone());
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
}

fn same_template(a: &ControllerRevision, b: &ControllerRevision) -> bool {
    a.data.as_ref().map(|data| &data.0) == b.data.as_ref().map(|data| &data.0)
}

/// The hash in the labels of a revision of a daemon set.
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
