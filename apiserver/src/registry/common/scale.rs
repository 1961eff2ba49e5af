//! The `scale` subresource: one number of a kind that has replicas, as an autoscaling/v1 Scale.

use std::collections::BTreeMap;
use std::marker::PhantomData;

use async_trait::async_trait;
use bytes::Bytes;
use k8s_openapi::api::autoscaling::v1::{Scale, ScaleSpec, ScaleStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use keelson_api::names::GroupKind;
use keelson_api::object::Kind;
use keelson_api::status::{ApiError, ApiResult};
use serde::Serialize;

pub mod managers;

use super::loc::Loc;
use super::rules;
use crate::admission::Operation;
use crate::registry::strategy::{
    Answer, GET_PATCH_UPDATE, Subresource, SubresourceCall, SubresourceForm, SubresourceInfo,
};

/// How kinds declare the subresource.
pub const INFO: SubresourceInfo = SubresourceInfo {
    name: "scale",
    kind: "Scale",
    group: "autoscaling",
    version: "v1",
    verbs: GET_PATCH_UPDATE,
    form: SubresourceForm::Handler,
};

/// A kind that runs some number of pods.
pub trait Scalable: Kind {
    /// How many there should be.
    fn replicas(&self) -> i32;
    /// Changes how many there should be.
    fn set_replicas(&mut self, replicas: i32);
    /// How many there are.
    fn current_replicas(&self) -> i32;
    /// Which pods they are, as a label selector is written.
    fn selector(&self) -> String;
}

/// The subresource of one kind.
pub struct ScaleSubresource<K>(PhantomData<fn() -> K>);

impl<K> Default for ScaleSubresource<K> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

#[async_trait]
impl<K: Scalable> Subresource for ScaleSubresource<K> {
    async fn get(&self, call: SubresourceCall<'_>) -> ApiResult<Answer> {
        let object: K = call.ctx.server.fresh(call.ctx.namespace, call.ctx.name).await?;
        answer(200, &scale_of(&object))
    }

    async fn update(&self, call: SubresourceCall<'_>) -> ApiResult<Answer> {
        let ctx = &call.ctx;
        let now = ctx.now;
        let scale: Scale = decode(&call.body)?;
        check(&scale, ctx.name)?;
        ctx.server.admit(ctx, Operation::Update, &call.body).await?;
        let wanted = scale.spec.as_ref().and_then(|s| s.replicas).unwrap_or(0);
        let version = scale.metadata.resource_version.clone().filter(|v| !v.is_empty());
        let gr = K::group_resource();
        let manager = ctx.manager;
        let change = |object: &mut K| {
            if version.as_ref().is_some_and(|v| v != object.resource_version()) {
                return Err(ApiError::conflict(
                    &gr,
                    object.name(),
                    keelson_api::status::MODIFIED,
                ));
            }
            let before = object.clone();
            object.set_replicas(wanted);
            managers::scaled(&before, object, manager, now)
        };
        let object: K = if ctx.dry_run {
            let mut object: K = ctx.server.fresh(ctx.namespace, ctx.name).await?;
            change(&mut object)?;
            object
        } else {
            ctx.server
                .update(ctx.user, (ctx.namespace, ctx.name, ""), change)
                .await?
        };
        answer(200, &scale_of(&object))
    }

    async fn apply(&self, call: SubresourceCall<'_>) -> ApiResult<Answer> {
        let ctx = &call.ctx;
        let (config, wish) = (&call.body, managers::Wish::of(ctx));
        crate::handlers::apply::check("autoscaling/v1".to_owned(), "Scale", config)?;
        let change = |object: &mut K| {
            let place = managers::Place::of::<K>();
            let (scale, entries) =
                managers::apply(object.metadata(), &place, &scale_of(object), config, &wish)?;
            check(&scale, object.name())?;
            let version = scale.metadata.resource_version.as_deref().unwrap_or_default();
            if !version.is_empty() && version != object.resource_version() {
                return Err(ApiError::conflict(
                    &K::group_resource(),
                    object.name(),
                    keelson_api::status::MODIFIED,
                ));
            }
            object.set_replicas(scale.spec.and_then(|spec| spec.replicas).unwrap_or(0));
            object.metadata_mut().managed_fields = entries;
            Ok(())
        };
        let mut preview: K = ctx.server.fresh(ctx.namespace, ctx.name).await?;
        change(&mut preview)?;
        let admitted = serde_json::to_value(scale_of(&preview)).map_err(ApiError::internal)?;
        ctx.server.admit(ctx, Operation::Update, &admitted).await?;
        if ctx.dry_run {
            return answer(200, &scale_of(&preview));
        }
        let object: K = ctx
            .server
            .update(ctx.user, (ctx.namespace, ctx.name, ""), change)
            .await?;
        answer(200, &scale_of(&object))
    }
}

fn check(scale: &Scale, name: &str) -> ApiResult<()> {
    let given = scale.metadata.name.as_deref().unwrap_or("");
    if !given.is_empty() && given != name {
        return Err(ApiError::bad_request(format!(
            "the name of the object ({given}) does not match the name on the URL ({name})"
        )));
    }
    let mut errors = keelson_api::field::Errors::new();
    let replicas = scale.spec.as_ref().and_then(|s| s.replicas);
    rules::not_negative(&mut errors, &Loc::new("spec.replicas"), replicas);
    if errors.is_empty() {
        return Ok(());
    }
    Err(ApiError::invalid(
        &GroupKind::new("autoscaling", "Scale"),
        name,
        &errors,
    ))
}

fn scale_of<K: Scalable>(object: &K) -> Scale {
    let meta = object.metadata();
    let selector = object.selector();
    Scale {
        metadata: ObjectMeta {
            name: meta.name.clone(),
            namespace: meta.namespace.clone(),
            uid: meta.uid.clone(),
            resource_version: meta.resource_version.clone(),
            creation_timestamp: meta.creation_timestamp.clone(),
            ..ObjectMeta::default()
        },
        spec: Some(ScaleSpec {
            replicas: Some(object.replicas()),
        }),
        status: Some(ScaleStatus {
            replicas: object.current_replicas(),
            selector: Some(selector).filter(|s| !s.is_empty()),
        }),
    }
}

/// Reads the body of a subresource.
pub fn decode<T: serde::de::DeserializeOwned>(body: &serde_json::Value) -> ApiResult<T> {
    T::deserialize(body).map_err(|error| ApiError::bad_request(format!("the body cannot be read: {error}")))
}

/// An answer of a subresource.
pub fn answer<T: Serialize>(code: u16, object: &T) -> ApiResult<Answer> {
    let json = serde_json::to_vec(object).map_err(ApiError::internal)?;
    Ok(Answer {
        code,
        json: Bytes::from(json),
    })
}

/// The answer of a subresource that creates nothing one could get: a Status of success.
pub fn success(code: u16) -> ApiResult<Answer> {
    let mut status = BTreeMap::new();
    status.insert("kind", serde_json::Value::from("Status"));
    status.insert("apiVersion", "v1".into());
    status.insert("metadata", serde_json::json!({}));
    status.insert("status", "Success".into());
    status.insert("code", code.into());
    answer(code, &status)
}
