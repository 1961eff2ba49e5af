//! DELETE of one object and of a collection.
//!
//! A deletion is done at once unless something asks for time: grace (pods), finalizers, dependents to be orphaned or
//! removed first, or the kind itself (namespaces). Then the object is marked and stays until the last of these is gone.

use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt as _;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{DeleteOptions, Time};
use keelson_api::deletion::{FOREGROUND_FINALIZER, ORPHAN_FINALIZER};
use keelson_api::names::GroupResource;
use keelson_api::object::Object;
use keelson_api::status::{ApiError, ApiResult};
use serde_json::json;

use super::list::{ListAnswer, list};
use super::options::ListOptions;
use super::{Call, Current, Outcome, convert, encode};
use crate::admission::{Attributes, Operation};
use crate::storage::entry::with_version;
use crate::storage::store::{Stored, Written};

/// How often a deletion is tried anew because somebody else changed the object.
const ATTEMPTS: usize = 10;
/// Deletions of a collection under way at the same time.
const CONCURRENCY: usize = 16;
/// Resources whose deletion answers the object instead of a Status, by group.
const ANSWER_THE_OBJECT: &[(&str, &[&str])] = &[
    (
        "",
        &[
            "pods",
            "services",
            "serviceaccounts",
            "podtemplates",
            "resourcequotas",
            "persistentvolumes",
            "persistentvolumeclaims",
        ],
    ),
    (
        "resource.k8s.io",
        &[
            "deviceclasses",
            "resourceclaims",
            "resourceclaimtemplates",
            "resourceslices",
        ],
    ),
    (
        "storage.k8s.io",
        &[
            "csidrivers",
            "csinodes",
            "storageclasses",
            "volumeattachments",
            "volumeattributesclasses",
        ],
    ),
];

/// Deletes an object, or begins to.
pub async fn delete(call: &Call<'_>, options: DeleteOptions) -> ApiResult<Outcome> {
    let dry_run = call.options.dry_run || options.dry_run.as_ref().is_some_and(|d| !d.is_empty());
    let mut current = call.current().await?;
    for _ in 0..ATTEMPTS {
        match attempt(call, &options, dry_run, &current).await {
            Ok(Step::Done(outcome)) => return Ok(outcome),
            Ok(Step::Overtaken(Some(newer))) => current = newer,
            Ok(Step::Overtaken(None)) => return Err(call.not_found()),
            Err(error) if !current.verified => {
                let newer = call.current_in_store().await?.ok_or_else(|| call.not_found())?;
                if newer.revision == current.revision {
                    return Err(error);
                }
                current = newer;
            }
            Err(error) => return Err(error),
        }
    }
    Err(ApiError::conflict(
        &call.group_resource(),
        call.name,
        keelson_api::status::MODIFIED,
    ))
}

enum Step {
    Done(Outcome),
    Overtaken(Option<Current>),
}

/// What is to be done with the object.
enum Verdict {
    /// It goes at once.
    Remove,
    /// It stays, marked like this.
    Mark(Box<dyn Object>),
    /// It is being deleted already and nothing changes.
    Pending,
}

async fn attempt(
    call: &Call<'_>,
    options: &DeleteOptions,
    dry_run: bool,
    current: &Current,
) -> ApiResult<Step> {
    let object = current.object.as_ref();
    preconditions(call, options, current)?;
    let ctx = call.context(call.name);
    if call
        .server
        .admission
        .handles(Operation::Delete, ctx.info, ctx.subresource)
    {
        let mut attributes = Attributes {
            ctx: &ctx,
            operation: Operation::Delete,
            object: None,
            old: Some(object),
            body: None,
            turns: Default::default(),
        };
        call.server.admission.mutate(&mut attributes).await?;
        call.server.admission.validate(&attributes).await?;
    }
    let key = call.store_key(call.name);
    match judge(call, options, object)? {
        Verdict::Pending => Ok(Step::Done(Outcome::object(code(options), current.json.clone()))),
        Verdict::Mark(mut marked) => {
            let shown = encode(marked.as_mut())?;
            if dry_run {
                return Ok(Step::Done(Outcome::object(
                    code(options),
                    with_version(&shown, current.revision),
                )));
            }
            let stored = convert::to_store(call, &shown).await?;
            let lease = call.lease().await?;
            match call
                .server
                .store
                .update(&key, current.revision, stored, lease)
                .await?
            {
                Written::Done(revision) => Ok(Step::Done(Outcome::object(
                    code(options),
                    with_version(&shown, revision),
                ))),
                Written::Conflict(found) => overtaken(call, found).await,
            }
        }
        Verdict::Remove => {
            if !dry_run {
                match call.server.store.delete(&key, current.revision).await? {
                    Written::Done(_) => call.strategy().after_delete(&ctx, object).await,
                    Written::Conflict(found) => return overtaken(call, found).await,
                }
            }
            Ok(Step::Done(removed(call, current)))
        }
    }
}

/// Somebody else wrote the object first.
async fn overtaken(call: &Call<'_>, found: Option<Stored>) -> ApiResult<Step> {
    Ok(Step::Overtaken(match found {
        Some(found) => Some(call.stored_as_current(found).await?),
        None => None,
    }))
}

/// The object's identity as the caller insists on it.
fn preconditions(call: &Call<'_>, options: &DeleteOptions, current: &Current) -> ApiResult<()> {
    let Some(wanted) = &options.preconditions else {
        return Ok(());
    };
    // Upstream has the kind stand in for the resource here.
    let kind = GroupResource::new(call.info().group, call.info().kind);
    let conflict = |what: &str, wanted: &str, found: &str, why: &str| {
        let text = format!(
            "the {what} in the precondition ({wanted}) does not match the {what} in record ({found}). The object might \
             have been {why}"
        );
        Err(ApiError::conflict(&kind, call.name, text))
    };
    if let Some(uid) = wanted.uid.as_deref()
        && uid != current.object.uid()
    {
        return conflict("UID", uid, current.object.uid(), "deleted and then recreated");
    }
    if let Some(version) = wanted.resource_version.as_deref()
        && version != current.revision.to_string()
    {
        return conflict(
            "ResourceVersion",
            version,
            &current.revision.to_string(),
            "modified",
        );
    }
    Ok(())
}

fn judge(call: &Call<'_>, options: &DeleteOptions, object: &dyn Object) -> ApiResult<Verdict> {
    let strategy = call.strategy();
    let mut marked = object.clone_box();
    let finalizers = finalizers_wanted(call, options, object);
    let held = !finalizers.is_empty() || strategy.finalizing(object);

    if let Some(deleted_at) = object.meta().deletion_timestamp.as_ref() {
        // What is being deleted may only be hurried.
        let pending = object.meta().deletion_grace_period_seconds.unwrap_or_default();
        let hurry = options
            .grace_period_seconds
            .map(|s| s.max(0))
            .filter(|asked| *asked < pending);
        return Ok(match hurry {
            None if !held && pending == 0 => Verdict::Remove,
            None => Verdict::Pending,
            Some(0) if !held => Verdict::Remove,
            Some(seconds) => {
                let moment = hurried(deleted_at.0, pending, seconds, call.now);
                let meta = marked.meta_mut();
                meta.deletion_timestamp = Some(Time(moment));
                meta.deletion_grace_period_seconds = Some(seconds);
                Verdict::Mark(marked)
            }
        });
    }

    let grace = strategy.delete_grace(object, options);
    if !held && grace.unwrap_or_default() == 0 {
        return Ok(Verdict::Remove);
    }
    let seconds = grace.unwrap_or_default();
    let meta = marked.meta_mut();
    meta.finalizers = (!finalizers.is_empty()).then_some(finalizers);
    let moment = call
        .now
        .checked_add(Duration::from_secs(seconds.unsigned_abs()))
        .unwrap_or(call.now);
    meta.deletion_timestamp = Some(Time(moment));
    meta.deletion_grace_period_seconds = Some(seconds);
    if let Some(generation) = meta.generation.filter(|g| *g > 0) {
        meta.generation = Some(generation + 1);
    }
    strategy.begin_delete(&call.context(call.name), marked.as_mut())?;
    Ok(Verdict::Mark(marked))
}

/// When an object is to be gone that was to be gone at `deleted_at` after `pending` seconds, and now after fewer. Graces
/// beyond the end of time began counting at no moment that is known: they begin now.
fn hurried(deleted_at: Timestamp, pending: i64, seconds: i64, now: Timestamp) -> Timestamp {
    let earlier = pending.saturating_sub(seconds).unsigned_abs();
    deleted_at
        .checked_sub(Duration::from_secs(earlier))
        .or_else(|_| now.checked_add(Duration::from_secs(seconds.unsigned_abs())))
        .unwrap_or(now)
}

/// Whether dependents stay when the caller does not say what is to become of them, as it was before anybody could say so.
fn orphans_unless_told(call: &Call<'_>) -> bool {
    match (call.served.group(), call.info().plural) {
        ("", "replicationcontrollers") | ("extensions", _) => true,
        ("batch", "jobs") => {
            call.warn(
                "child pods are preserved by default when jobs are deleted; set propagationPolicy=Background to remove \
                 them or set propagationPolicy=Orphan to suppress this warning"
                    .to_owned(),
            );
            true
        }
        _ => false,
    }
}

/// The finalizers the object gets for what is to become of its dependents.
fn finalizers_wanted(call: &Call<'_>, options: &DeleteOptions, object: &dyn Object) -> Vec<String> {
    let mut finalizers = object.meta().finalizers.clone().unwrap_or_default();
    let held = |name: &str| finalizers.iter().any(|f| f == name);
    let policy = match (options.propagation_policy.as_deref(), options.orphan_dependents) {
        (Some(policy), _) => policy,
        (None, Some(true)) => "Orphan",
        (None, Some(false)) => "Background",
        // What the object already says stands.
        (None, None) if held(ORPHAN_FINALIZER) || held(FOREGROUND_FINALIZER) => return finalizers,
        (None, None) if orphans_unless_told(call) => "Orphan",
        (None, None) => return finalizers,
    };
    finalizers.retain(|f| f != ORPHAN_FINALIZER && f != FOREGROUND_FINALIZER);
    match policy {
        "Orphan" => finalizers.push(ORPHAN_FINALIZER.to_owned()),
        "Foreground" => finalizers.push(FOREGROUND_FINALIZER.to_owned()),
        _ => {}
    }
    finalizers
}

/// 202 says that dependents go first.
fn code(options: &DeleteOptions) -> u16 {
    let foreground = options.propagation_policy.as_deref() == Some("Foreground");
    if foreground || options.orphan_dependents == Some(false) {
        202
    } else {
        200
    }
}

fn removed(call: &Call<'_>, current: &Current) -> Outcome {
    let info = call.info();
    let mut answering = ANSWER_THE_OBJECT.iter().filter(|(group, _)| *group == info.group);
    if answering.any(|(_, plurals)| plurals.contains(&info.plural)) {
        return Outcome::object(200, current.json.clone());
    }
    let mut details = json!({"name": call.name, "kind": info.plural, "uid": current.object.uid()});
    if !call.served.group().is_empty() {
        details["group"] = call.served.group().into();
    }
    let status = json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details,
    });
    Outcome::other(200, Bytes::from(status.to_string()))
}

/// Deletes everything a list with these options shows, and answers that list.
pub async fn delete_collection(
    call: &Call<'_>,
    list_options: &ListOptions,
    options: DeleteOptions,
) -> ApiResult<ListAnswer> {
    let answer = list(call, list_options).await?;
    let deletions = answer.items.iter().map(|entry| {
        let one = Call::new(
            call.server,
            call.served,
            call.user,
            entry.namespace(),
            entry.name(),
            "",
        )
        .with_options(call.options.clone());
        let options = options.clone();
        async move { delete(&one, options).await }
    });
    // Boxed: the compiler cannot see through nested borrowing closures in a stream.
    let deletions: Vec<futures::future::BoxFuture<'_, ApiResult<Outcome>>> =
        deletions.map(|d| Box::pin(d) as _).collect();
    let mut running = futures::stream::iter(deletions).buffer_unordered(CONCURRENCY);
    let mut failure = None;
    while let Some(result) = running.next().await {
        match result {
            // Somebody else was faster: that is as good.
            Err(error) if error.is_not_found() => {}
            Err(error) => failure = Some(error),
            Ok(_) => {}
        }
    }
    drop(running);
    match failure {
        Some(error) => Err(error),
        None => Ok(answer),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_hurried_goes_earlier_even_from_the_end_of_time() {
        let at = |second: i64| Timestamp::from_second(second).expect("a moment");
        assert_eq!(hurried(at(130), 30, 10, at(105)), at(110));
        assert_eq!(hurried(at(100), i64::MAX, 30, at(105)), at(135));
        assert_eq!(hurried(at(100), i64::MAX, 1 << 62, at(105)), at(105));
        assert_eq!(hurried(Timestamp::MIN, 30, 0, at(105)), at(105));
    }
}
