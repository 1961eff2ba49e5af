//! The `scale` subresource of a custom resource: one number somewhere in its spec, as an autoscaling/v1 Scale.

use std::borrow::Cow;

use async_trait::async_trait;
use k8s_openapi::api::autoscaling::v1::{Scale, ScaleSpec, ScaleStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use keelson_api::field::{Error, Path};
use keelson_api::names::GroupKind;
use keelson_api::object::{Object, Unstructured};
use keelson_api::status::{ApiError, ApiResult};
use serde_json::{Map, Value};

use super::names::{Form, ScalePaths};
use crate::admission::Operation;
use crate::handlers::managers::Tracking;
use crate::handlers::options::WriteOptions;
use crate::handlers::update::{Base, Extent, update_with};
use crate::handlers::{self, Call};
use crate::registry::catalog::Served;
use crate::registry::common::scale::{answer, decode, managers};
use crate::registry::strategy::{Answer, RequestContext, Subresource, SubresourceCall};

/// The subresource of one version.
pub struct CustomScale {
    /// What the version says about it.
    pub form: &'static Form,
}

#[async_trait]
impl Subresource for CustomScale {
    async fn get(&self, call: SubresourceCall<'_>) -> ApiResult<Answer> {
        let served = self.served(&call.ctx).await?;
        let parent = parent(&call.ctx, &served, Tracking::AsGiven);
        let outcome = handlers::get::get(&parent, "").await?;
        self.scale_of(&outcome.json, true)
    }

    async fn update(&self, call: SubresourceCall<'_>) -> ApiResult<Answer> {
        let ctx = &call.ctx;
        let scale: Scale = decode(&call.body)?;
        let wanted = wanted(&scale, ctx.name)?;
        ctx.server.admit(ctx, Operation::Update, &call.body).await?;
        let version = scale
            .metadata
            .resource_version
            .filter(|version| !version.is_empty());
        let served = self.served(ctx).await?;
        let parent = parent(ctx, &served, Tracking::Through("scale"));
        let paths = self.paths()?;
        let outcome = update_with(&parent, Base::Present, Extent::Whole, |old: &dyn Object| {
            let mut new = old.clone_box();
            let object = untyped_mut(new.as_mut())?;
            if version.is_some() {
                object.metadata.resource_version.clone_from(&version);
            }
            set(&mut object.fields, &paths.spec, wanted);
            Ok(new)
        })
        .await?;
        self.scale_of(&outcome.json, false)
    }

    async fn apply(&self, call: SubresourceCall<'_>) -> ApiResult<Answer> {
        let ctx = &call.ctx;
        let (config, wish) = (&call.body, managers::Wish::of(ctx));
        handlers::apply::check("autoscaling/v1".to_owned(), "Scale", config)?;
        let served = self.served(ctx).await?;
        let parent = parent(ctx, &served, Tracking::AsGiven);
        let (paths, version) = (self.paths()?, self.form.info.api_version());
        let place = managers::Place {
            version: &version,
            path: paths.spec.iter().map(String::as_str).collect(),
        };
        ctx.server.admit(ctx, Operation::Update, config).await?;
        let outcome = update_with(&parent, Base::Present, Extent::Whole, |old: &dyn Object| {
            let mut new = old.clone_box();
            let before = self.scale(untyped(old)?, false)?;
            let (scale, entries) = managers::apply(old.meta(), &place, &before, config, &wish)?;
            let object = untyped_mut(new.as_mut())?;
            set(&mut object.fields, &paths.spec, wanted(&scale, ctx.name)?);
            object.metadata.resource_version = scale.metadata.resource_version;
            object.metadata.managed_fields = entries;
            Ok(new)
        })
        .await?;
        self.scale_of(&outcome.json, false)
    }
}

fn untyped(object: &dyn Object) -> ApiResult<&Unstructured> {
    object
        .as_any()
        .downcast_ref()
        .ok_or_else(|| ApiError::internal("an object of a custom resource is not untyped"))
}

fn untyped_mut(object: &mut dyn Object) -> ApiResult<&mut Unstructured> {
    object
        .as_any_mut()
        .downcast_mut()
        .ok_or_else(|| ApiError::internal("an object of a custom resource is not untyped"))
}

/// The number a Scale asks for.
fn wanted(scale: &Scale, name: &str) -> ApiResult<i32> {
    let given = scale.metadata.name.as_deref().unwrap_or_default();
    if !given.is_empty() && given != name {
        return Err(ApiError::bad_request(format!(
            "the name of the object ({given}) does not match the name on the URL ({name})"
        )));
    }
    let wanted = scale.spec.as_ref().and_then(|spec| spec.replicas);
    let wanted = wanted.unwrap_or_default();
    if wanted < 0 {
        let path = Path::new("spec").child("replicas");
        let error = Error::invalid(&path, wanted, "must be greater than or equal to 0");
        return Err(ApiError::invalid(
            &GroupKind::new("autoscaling", "Scale"),
            name,
            &[error],
        ));
    }
    Ok(wanted)
}

/// The resource itself as the subresource's caller would ask for it.
fn parent<'a>(ctx: &'a RequestContext<'_>, served: &'a Served, tracking: Tracking) -> Call<'a> {
    let call = Call::new(ctx.server, served, ctx.user, ctx.namespace, ctx.name, "");
    call.with_options(WriteOptions {
        dry_run: ctx.dry_run,
        field_manager: ctx.manager.to_owned(),
        tracking,
        ..WriteOptions::default()
    })
}

impl CustomScale {
    async fn served(&self, ctx: &RequestContext<'_>) -> ApiResult<Served> {
        let info = &self.form.info;
        ctx.server
            .find(info.group, info.version, info.plural)
            .await
            .map(Cow::into_owned)
    }

    fn paths(&self) -> ApiResult<&'static ScalePaths> {
        self.form.scale.as_ref().ok_or_else(ApiError::no_such_resource)
    }

    fn scale_of(&self, json: &[u8], reading: bool) -> ApiResult<Answer> {
        let object: Unstructured = serde_json::from_slice(json).map_err(ApiError::internal)?;
        answer(200, &self.scale(&object, reading)?)
    }

    fn scale(&self, object: &Unstructured, reading: bool) -> ApiResult<Scale> {
        let paths = self.paths()?;
        let number = |path: &[String]| {
            find(&object.fields, path)
                .and_then(Value::as_i64)
                .map(|n| i32::try_from(n).unwrap_or(i32::MAX))
        };
        let replicas = number(&paths.spec);
        if reading && replicas.is_none() {
            return Err(ApiError::internal(format_args!(
                "the spec replicas field \".{}\" does not exist",
                paths.spec.join(".")
            )));
        }
        let selector = paths
            .selector
            .as_deref()
            .and_then(|path| find(&object.fields, path))
            .and_then(Value::as_str)
            .filter(|selector| !selector.is_empty());
        let meta = &object.metadata;
        Ok(Scale {
            metadata: ObjectMeta {
                name: meta.name.clone(),
                namespace: meta.namespace.clone(),
                uid: meta.uid.clone(),
                resource_version: meta.resource_version.clone(),
                creation_timestamp: meta.creation_timestamp.clone(),
                ..ObjectMeta::default()
            },
            spec: Some(ScaleSpec { replicas }),
            status: Some(ScaleStatus {
                replicas: number(&paths.status).unwrap_or_default(),
                selector: selector.map(str::to_owned),
            }),
        })
    }
}

fn find<'v>(fields: &'v Map<String, Value>, path: &[String]) -> Option<&'v Value> {
    let (first, rest) = path.split_first()?;
    rest.iter()
        .try_fold(fields.get(first)?, |value, name| value.get(name))
}

fn set(fields: &mut Map<String, Value>, path: &[String], replicas: i32) {
    match path {
        [] => {}
        [last] => drop(fields.insert(last.clone(), replicas.into())),
        [first, rest @ ..] => {
            let inner = fields
                .entry(first.clone())
                .or_insert_with(|| Value::Object(Map::new()));
            if let Value::Object(inner) = inner {
                set(inner, rest, replicas);
            }
        }
    }
}
