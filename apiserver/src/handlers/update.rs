//! PUT, and the common end of everything that changes an object.

use bytes::Bytes;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use keelson_api::field::{self, ErrorType, Path};
use keelson_api::names::GroupKind;
use keelson_api::object::Object;
use keelson_api::status::{ApiError, ApiResult};
use keelson_api::validation;

use super::{Call, Current, Outcome, body, convert, create, encode, managers};
use crate::admission::{Attributes, Operation};
use crate::registry::common::meta::omit_empty;
use crate::registry::strategy::RequestContext;
use crate::storage::entry::with_version;
use crate::storage::store::{Stored, Written};

/// How often a change is computed anew because somebody else was faster. Of writers of the same object one succeeds in
/// every round, so this is also how many may come at once without one of them being turned away.
const ATTEMPTS: usize = 200;

/// Replaces an object by what the body says.
pub async fn update(call: &Call<'_>, json: &[u8]) -> ApiResult<Outcome> {
    let object = body::decode_object(call, json)?;
    let name = object.name();
    if name.is_empty() {
        return Err(ApiError::bad_request(format!(
            "the name of the object ({name}) does not match the name on the URL ({})",
            call.name
        )));
    }
    let may_create = call.subresource.is_empty() && call.strategy().allow_create_on_update();
    if may_create && object.resource_version().is_empty() && object.uid().is_empty() {
        match update_with(call, Base::Callers, Extent::Whole, |_| Ok(object.clone_box())).await {
            Err(error) if error.is_not_found() => {
                let created = create::create_object(call, object.clone_box()).await;
                match created {
                    // Somebody else created it in between.
                    Err(error) if error.is_already_exists() => {}
                    other => return other,
                }
            }
            other => return other,
        }
    }
    update_with(call, Base::Callers, Extent::Whole, |_| Ok(object.clone_box())).await
}

/// What a changed object goes back to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Base {
    /// What the caller has seen: if somebody changed it since, that is a conflict.
    Callers,
    /// What the object is now: if somebody is faster, the change is made again. A version other than the present one is
    /// still a conflict, since then it is the change that asks for it.
    Present,
}

/// How far a change reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extent {
    /// Anywhere.
    Whole,
    /// No further than the metadata: the rest is what was stored, and has its defaults.
    Metadata,
}

/// Changes an object to what `change` makes of it, again and again until nobody else changed it in between.
///
/// The result of `change` is held against the object's version if it carries one: another version is a conflict.
pub async fn update_with(
    call: &Call<'_>,
    base: Base,
    extent: Extent,
    mut change: impl FnMut(&dyn Object) -> ApiResult<Box<dyn Object>> + Send,
) -> ApiResult<Outcome> {
    let mut current = call.current().await?;
    for _ in 0..ATTEMPTS {
        // Computed in one go: `change` is not shared between threads.
        let new = change(current.object.as_ref());
        let step = match new {
            Ok(new) => attempt(call, base, extent, new, &current).await,
            Err(error) => Err(error),
        };
        match step {
            Ok(Step::Done(outcome)) => return Ok(outcome),
            Ok(Step::Overtaken(Some(newer))) => current = newer,
            Ok(Step::Overtaken(None)) => return Err(call.not_found()),
            // What looked wrong may have been right: the cache was behind.
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
    Err(modified(call))
}

enum Step {
    Done(Outcome),
    /// Somebody else was faster; this is what they left.
    Overtaken(Option<Current>),
}

async fn attempt(
    call: &Call<'_>,
    base: Base,
    extent: Extent,
    mut new: Box<dyn Object>,
    current: &Current,
) -> ApiResult<Step> {
    let (info, strategy) = (call.info(), call.strategy());
    let old = current.object.as_ref();
    let new = new.as_mut();
    let ctx = call.context(call.name);
    inherit(call, new.meta_mut(), old.meta())?;
    let pinned = held_to_version(call, new.meta_mut(), current)? && base == Base::Callers;
    if extent == Extent::Whole {
        strategy.default(new)?;
    }
    new.meta_mut().generation = old.meta().generation;
    managers::changed(call, new, old, extent);

    let admitted = call
        .server
        .admission
        .handles(Operation::Update, info, call.subresource);
    if admitted {
        let mut attributes = Attributes {
            ctx: &ctx,
            operation: Operation::Update,
            object: Some(&mut *new),
            old: Some(old),
            body: None,
            turns: Default::default(),
        };
        call.server.admission.mutate(&mut attributes).await?;
    }
    strategy.prepare_update(&ctx, new, old)?;
    let reservation = if call.subresource.is_empty() {
        strategy.begin_update(&ctx, new, old).await?
    } else {
        Default::default()
    };
    let result = async {
        check(call, &ctx, new, old, admitted).await?;
        write(call, new, current, pinned).await
    }
    .await;
    match result {
        Ok(Step::Done(outcome)) if !call.options.dry_run => {
            if call.subresource.is_empty() {
                strategy.after_update(&ctx, new, old).await;
            }
            Ok(Step::Done(outcome))
        }
        other => {
            reservation.undo();
            other
        }
    }
}

/// Fills in what a caller may leave out and the server alone decides.
fn inherit(call: &Call<'_>, new: &mut ObjectMeta, old: &ObjectMeta) -> ApiResult<()> {
    let name = new.name.get_or_insert_with(|| call.name.to_owned());
    if name != call.name {
        return Err(ApiError::bad_request(format!(
            "the name of the object ({name}) does not match the name on the URL ({})",
            call.name
        )));
    }
    if call.info().namespaced() {
        let namespace = new.namespace.get_or_insert_with(|| call.namespace.to_owned());
        if namespace != call.namespace {
            return Err(ApiError::bad_request(
                "the namespace of the provided object does not match the namespace sent on the request",
            ));
        }
    }
    match new.uid.as_deref().unwrap_or_default() {
        "" => new.uid.clone_from(&old.uid),
        uid if Some(uid) != old.uid.as_deref() => {
            return Err(ApiError::conflict(
                &call.group_resource(),
                call.name,
                format_args!(
                    "Precondition failed: UID in precondition: {uid}, UID in object meta: {}",
                    old.uid.as_deref().unwrap_or_default()
                ),
            ));
        }
        _ => {}
    }
    if new.creation_timestamp.is_none() {
        new.creation_timestamp.clone_from(&old.creation_timestamp);
    }
    // A deletion that has begun is neither taken back nor changed by an update.
    new.deletion_timestamp.clone_from(&old.deletion_timestamp);
    new.deletion_grace_period_seconds = old.deletion_grace_period_seconds;
    new.self_link = None;
    omit_empty(new);
    Ok(())
}

/// Whether the caller insists on the version it has seen. Another one than the current is a conflict.
fn held_to_version(call: &Call<'_>, new: &mut ObjectMeta, current: &Current) -> ApiResult<bool> {
    let version = current.revision.to_string();
    match new.resource_version.as_deref().unwrap_or_default() {
        "" | "0" => {
            let whole = matches!(call.subresource, "" | "status");
            if whole && !call.strategy().allow_unconditional_update() {
                return Err(unversioned(call));
            }
            new.resource_version = Some(version);
            Ok(false)
        }
        given if given == version => Ok(true),
        given if given.bytes().all(|b| b.is_ascii_digit()) => Err(modified(call)),
        given => Err(ApiError::bad_request(format!(
            "invalid resource version {given:?}"
        ))),
    }
}

/// Of some kinds nobody writes over what they have not read.
fn unversioned(call: &Call<'_>) -> ApiError {
    let resource = call.group_resource();
    let missing = field::Error {
        kind: ErrorType::Invalid,
        field: "metadata.resourceVersion".to_owned(),
        value: None,
        // The version that is missing, as Go shows numbers without a sign.
        detail: "0x0: must be specified for an update".into(),
    };
    ApiError::invalid(
        &GroupKind::new(resource.group, resource.resource),
        call.name,
        &[missing],
    )
}

fn modified(call: &Call<'_>) -> ApiError {
    ApiError::conflict(&call.group_resource(), call.name, keelson_api::status::MODIFIED)
}

async fn check(
    call: &Call<'_>,
    ctx: &RequestContext<'_>,
    new: &mut dyn Object,
    old: &dyn Object,
    admitted: bool,
) -> ApiResult<()> {
    let (info, strategy) = (call.info(), call.strategy());
    let mut errors = validation::object_meta_update(new.meta(), old.meta(), &Path::new("metadata"));
    errors.extend(strategy.validate_update(ctx, new, old)?);
    if !errors.is_empty() {
        return Err(ApiError::invalid(&info.group_kind(), call.name, &errors));
    }
    strategy
        .warnings(new, Some(old))
        .into_iter()
        .for_each(|text| call.warn(text));
    if admitted {
        let attributes = Attributes {
            ctx,
            operation: Operation::Update,
            object: Some(new),
            old: Some(old),
            body: None,
            turns: Default::default(),
        };
        call.server.admission.validate(&attributes).await?;
    }
    Ok(())
}

/// Somebody else wrote the object first.
async fn overtaken(call: &Call<'_>, found: Option<Stored>, pinned: bool) -> ApiResult<Step> {
    match found {
        _ if pinned => Err(modified(call)),
        Some(found) => Ok(Step::Overtaken(Some(call.stored_as_current(found).await?))),
        None => Ok(Step::Overtaken(None)),
    }
}

async fn write(call: &Call<'_>, new: &mut dyn Object, current: &Current, pinned: bool) -> ApiResult<Step> {
    let mut shown = encode(new)?;
    let key = call.store_key(call.name);
    if deletion_completed(call, new) && !call.options.dry_run {
        return match call.server.store.delete(&key, current.revision).await? {
            Written::Done(revision) => {
                let ctx = call.context(call.name);
                call.strategy().after_delete(&ctx, new).await;
                Ok(Step::Done(Outcome::object(200, with_version(&shown, revision))))
            }
            Written::Conflict(found) => overtaken(call, found, pinned).await,
        };
    }
    let mut stored = convert::to_store(call, &shown).await?;
    let versioned = with_version(&stored, current.revision);
    let known = current.stored.as_ref();
    let mut unchanged = known == Some(&versioned);
    // Times are all equally long: what has another length is another object.
    if !unchanged
        && known.is_some_and(|known| known.len() == versioned.len())
        && let Some(before) = unless_it_is_the_time(call, new, current).await?
    {
        (shown, stored) = before;
        unchanged = true;
    }
    if unchanged || call.options.dry_run {
        let mut stale = current.stale;
        // Only the store can say that nothing has happened in between.
        if !current.verified {
            let newest = call.current_in_store().await?;
            if newest
                .as_ref()
                .is_none_or(|newest| newest.revision != current.revision)
            {
                return match newest {
                    Some(_) if pinned => Err(modified(call)),
                    newest => Ok(Step::Overtaken(newest)),
                };
            }
            stale = newest.is_some_and(|newest| newest.stale);
        }
        if !stale || call.options.dry_run {
            return Ok(Step::Done(Outcome::object(
                200,
                with_version(&shown, current.revision),
            )));
        }
    }
    match call
        .server
        .store
        .update(&key, current.revision, stored, call.lease().await?)
        .await?
    {
        Written::Done(revision) => Ok(Step::Done(Outcome::object(200, with_version(&shown, revision)))),
        Written::Conflict(found) => overtaken(call, found, pinned).await,
    }
}

/// The object as shown and as stored with the times its fields were managed at before, if it differs in nothing else.
/// Writing the same again is not a change.
async fn unless_it_is_the_time(
    call: &Call<'_>,
    new: &mut dyn Object,
    current: &Current,
) -> ApiResult<Option<(Bytes, Bytes)>> {
    let before = &current.object.meta().managed_fields;
    let (Some(ours), Some(theirs), Some(known)) = (&new.meta().managed_fields, before, &current.stored)
    else {
        return Ok(None);
    };
    if !managers::differ_in_time_alone(ours, theirs) {
        return Ok(None);
    }
    let ours = std::mem::replace(&mut new.meta_mut().managed_fields, before.clone());
    let shown = encode(new)?;
    let stored = convert::to_store(call, &shown).await?;
    if with_version(&stored, current.revision) == *known {
        return Ok(Some((shown, stored)));
    }
    new.meta_mut().managed_fields = ours;
    Ok(None)
}

/// Whether the last thing that kept a deleted object has gone with this update.
fn deletion_completed(call: &Call<'_>, new: &dyn Object) -> bool {
    let meta = new.meta();
    meta.deletion_timestamp.is_some()
        && meta.finalizers.as_ref().is_none_or(Vec::is_empty)
        && meta.deletion_grace_period_seconds.unwrap_or_default() == 0
        && !call.strategy().finalizing(new)
}
