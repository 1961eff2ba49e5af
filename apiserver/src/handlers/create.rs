//! POST to a collection.

use bytes::Bytes;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use keelson_api::field::Path;
use keelson_api::object::Object;
use keelson_api::status::{ApiError, ApiResult};
use keelson_api::validation;
use rand::Rng as _;

use super::{Call, Outcome, body, convert, encode, managers};
use crate::admission::{Attributes, Operation};
use crate::registry::common::meta::omit_empty;
use crate::registry::common::scale::success;
use crate::registry::info::{Lifetime, NameRule};
use crate::storage::entry::with_version;
use crate::storage::store::Written;

/// Characters of generated names: no vowels, so no words; nothing that looks like something else.
const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
/// Random characters of a generated name.
const SUFFIX: usize = 5;
/// Bytes of a generated name at most.
const GENERATED_MAX: usize = 63;
/// A generated name that is taken is generated again this many times.
const NAME_ATTEMPTS: usize = 8;

/// Creates what the body says.
pub async fn create(call: &Call<'_>, json: &[u8]) -> ApiResult<Outcome> {
    let object = body::decode_object(call, json)?;
    create_object(call, object).await
}

/// Creates an object.
pub async fn create_object(call: &Call<'_>, mut object: Box<dyn Object>) -> ApiResult<Outcome> {
    let strategy = call.strategy();
    let object = object.as_mut();
    place(call, object.meta_mut())?;
    if object
        .meta()
        .resource_version
        .as_deref()
        .is_some_and(|v| !v.is_empty())
    {
        return Err(ApiError::bad_request(
            "resourceVersion should not be set on objects to be created",
        ));
    }
    strategy.default(object)?;
    if matches!(call.info().lifetime, Lifetime::Answered | Lifetime::CarriedOut) {
        return answer(call, object).await;
    }
    managers::created(call, object)?;

    let mut name = object.name().to_owned();
    {
        let ctx = call.context(&name);
        if call
            .server
            .admission
            .handles(Operation::Create, ctx.info, ctx.subresource)
        {
            let mut attributes = Attributes {
                ctx: &ctx,
                operation: Operation::Create,
                object: Some(&mut *object),
                old: None,
                body: None,
                turns: Default::default(),
            };
            call.server.admission.mutate(&mut attributes).await?;
        }
    }

    let generate = object
        .meta()
        .generate_name
        .clone()
        .filter(|prefix| name.is_empty() && !prefix.is_empty());
    if let Some(prefix) = &generate {
        name = generated(prefix);
        object.meta_mut().name = Some(name.clone());
    }
    born(call, object.meta_mut());

    let ctx = call.context(&name);
    strategy.prepare_create(&ctx, object)?;
    let reservation = strategy.begin_create(&ctx, object).await?;
    let written = async {
        check(call, &ctx, object).await?;
        write(call, object, generate.as_deref()).await
    }
    .await;
    match written {
        Ok(json) => {
            if call.options.dry_run {
                reservation.undo();
            }
            Ok(Outcome::object(201, json))
        }
        Err(error) => {
            reservation.undo();
            Err(error)
        }
    }
}

/// Answers a question, or carries out an order. Nothing is written here.
async fn answer(call: &Call<'_>, question: &mut dyn Object) -> ApiResult<Outcome> {
    let (strategy, ctx) = (call.strategy(), call.context(""));
    let errors = strategy.validate_create(&ctx, question)?;
    if !errors.is_empty() {
        return Err(ApiError::invalid(
            &call.info().group_kind(),
            question.name(),
            &errors,
        ));
    }
    strategy.answer(&ctx, question).await?;
    if call.info().lifetime == Lifetime::CarriedOut {
        let done = success(201)?;
        return Ok(Outcome::other(done.code, done.json));
    }
    Ok(Outcome::object(201, Bytes::from(question.encode()?)))
}

/// Fills in the namespace and refuses one that is not the request's.
fn place(call: &Call<'_>, meta: &mut ObjectMeta) -> ApiResult<()> {
    let given = meta.namespace.as_deref().unwrap_or_default();
    if call.info().namespaced() {
        if given.is_empty() {
            meta.namespace = Some(call.namespace.to_owned());
        } else if given != call.namespace {
            return Err(ApiError::bad_request(
                "the namespace of the provided object does not match the namespace sent on the request",
            ));
        }
    } else if given.is_empty() {
        meta.namespace = None;
    }
    // POST names no object, but PUT that creates does.
    let name = meta.name.as_deref().unwrap_or_default();
    if !call.name.is_empty() && !name.is_empty() && name != call.name {
        return Err(ApiError::bad_request(format!(
            "the name of the object ({name}) does not match the name on the URL ({})",
            call.name
        )));
    }
    Ok(())
}

/// What the server alone decides about a new object.
fn born(call: &Call<'_>, meta: &mut ObjectMeta) {
    meta.uid = Some(uuid::Uuid::new_v4().to_string());
    meta.creation_timestamp = Some(Time(call.now));
    meta.deletion_timestamp = None;
    meta.deletion_grace_period_seconds = None;
    meta.resource_version = None;
    meta.self_link = None;
    omit_empty(meta);
}

async fn check(
    call: &Call<'_>,
    ctx: &crate::registry::strategy::RequestContext<'_>,
    object: &mut dyn Object,
) -> ApiResult<()> {
    let (info, strategy) = (call.info(), call.strategy());
    let mut errors = validation::object_meta(
        object.meta(),
        info.namespaced(),
        name_rule(info.name_rule),
        &Path::new("metadata"),
    );
    errors.extend(strategy.validate_create(ctx, object)?);
    if !errors.is_empty() {
        let name = if object.name().is_empty() {
            object.meta().generate_name.clone().unwrap_or_default()
        } else {
            object.name().to_owned()
        };
        return Err(ApiError::invalid(&info.group_kind(), &name, &errors));
    }
    strategy
        .warnings(object, None)
        .into_iter()
        .for_each(|text| call.warn(text));
    if call
        .server
        .admission
        .handles(Operation::Create, info, ctx.subresource)
    {
        let attributes = Attributes {
            ctx,
            operation: Operation::Create,
            object: Some(object),
            old: None,
            body: None,
            turns: Default::default(),
        };
        call.server.admission.validate(&attributes).await?;
    }
    Ok(())
}

async fn write(call: &Call<'_>, object: &mut dyn Object, generate: Option<&str>) -> ApiResult<Bytes> {
    let lease = if call.options.dry_run {
        0
    } else {
        call.lease().await?
    };
    let mut attempts = 0;
    loop {
        let shown = encode(object)?;
        let key = call.store_key(object.name());
        if call.options.dry_run {
            if call.server.store.get(&key).await?.is_some() {
                return Err(ApiError::already_exists(&call.group_resource(), object.name()));
            }
            return Ok(shown);
        }
        let stored = convert::to_store(call, &shown).await?;
        match call.server.store.create(&key, stored, lease).await? {
            Written::Done(revision) => return Ok(with_version(&shown, revision)),
            Written::Conflict(_) => match generate {
                None => return Err(ApiError::already_exists(&call.group_resource(), object.name())),
                Some(_) if attempts + 1 >= NAME_ATTEMPTS => {
                    return Err(ApiError::generate_name_conflict(
                        &call.group_resource(),
                        object.name(),
                    ));
                }
                Some(prefix) => {
                    attempts += 1;
                    object.meta_mut().name = Some(generated(prefix));
                }
            },
        }
    }
}

fn generated(prefix: &str) -> String {
    let mut end = prefix.len().min(GENERATED_MAX - SUFFIX);
    while !prefix.is_char_boundary(end) {
        end -= 1;
    }
    let mut rng = rand::rng();
    let suffix: String = (0..SUFFIX)
        .map(|_| char::from(ALPHABET[rng.random_range(0..ALPHABET.len())]))
        .collect();
    format!("{}{suffix}", &prefix[..end])
}

/// The check behind a rule for names.
pub fn name_rule(rule: NameRule) -> validation::NameRule {
    match rule {
        NameRule::Subdomain => validation::dns1123_subdomain,
        NameRule::Label => validation::dns1123_label,
        NameRule::ServiceLabel => validation::dns1035_label,
        NameRule::PathSegment => validation::path_segment,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generated_names_fit() {
        let name = generated("web-");
        assert!(name.starts_with("web-") && name.len() == 9, "{name}");
        assert_eq!(generated(&"x".repeat(100)).len(), GENERATED_MAX);
    }
}
