//! Writes, one by one or as items of a batch.

use bytes::Bytes;
use futures::FutureExt as _;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::DeleteOptions;
use keelson_api::status::{ApiError, ApiResult};
use keelson_api::strict::FieldValidation;
use keelson_proto::resources as proto;
use tonic::{Response, Status};

use super::{Door, status};
use crate::authentication::User;
use crate::flow_control::Pool;
use crate::handlers;
use crate::handlers::managers::Tracking;
use crate::handlers::options::{Query, WriteOptions};
use crate::handlers::patch::PatchType;
use crate::registry::info::{SubresourceForm, Verb};

/// What a write asks for, besides whom and what it is about.
#[derive(Debug)]
pub enum Wanted {
    /// That something is as the bytes say.
    Change(Change, Bytes, WriteOptions),
    /// That something goes.
    Delete(DeleteOptions),
}

/// How something comes to be as is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// It is new.
    Create,
    /// It takes the place of another.
    Update,
    /// Another is changed.
    Patch(PatchType),
}

impl Wanted {
    /// A write taken apart: its verb, its target, and what is wanted, or why that makes no sense. Whoever may not write is
    /// told so first.
    pub fn of(write: proto::batch_item::Write) -> (Verb, Option<proto::Target>, ApiResult<Self>) {
        use proto::batch_item::Write;
        match write {
            Write::Create(request) => {
                let wanted = Self::change(Change::Create, request.json, request.options);
                (Verb::Create, request.target, wanted)
            }
            Write::Update(request) => {
                let wanted = Self::change(Change::Update, request.json, request.options);
                (Verb::Update, request.target, wanted)
            }
            Write::Patch(request) => {
                let wanted = Self::patch(&request.content_type, request.body, request.options);
                (Verb::Patch, request.target, wanted)
            }
            Write::Delete(request) => {
                let wanted = Query(&[]).delete_options(&request.options).map(Self::Delete);
                (Verb::Delete, request.target, wanted)
            }
        }
    }

    fn change(change: Change, json: Bytes, given: Option<proto::WriteOptions>) -> ApiResult<Self> {
        Ok(Self::Change(change, json, options(given)?))
    }

    fn patch(content_type: &str, body: Bytes, given: Option<proto::WriteOptions>) -> ApiResult<Self> {
        let kind = PatchType::parse(content_type)?;
        let options = WriteOptions {
            tracking: kind.tracking(),
            ..options(given)?
        };
        if kind == PatchType::Apply && options.field_manager.is_empty() {
            return Err(ApiError::bad_request("fieldManager is required for apply patch"));
        }
        Ok(Self::Change(Change::Patch(kind), body, options))
    }
}

impl Door {
    async fn write(&self, user: &User, write: proto::batch_item::Write) -> ApiResult<(u16, Bytes)> {
        if let Some(remote) = self.elsewhere(target_of(&write)) {
            return self.write_elsewhere((user, remote), write).await;
        }
        let (verb, target, wanted) = Wanted::of(write);
        let entered = self.enter(user, target, verb, Pool::Writing).await?;
        let mut call = entered.call();
        let outcome = match wanted? {
            Wanted::Delete(options) => {
                let deleting = handlers::delete::delete(&call, options);
                entered.admitted.noted(deleting).await?
            }
            Wanted::Change(change, body, options) => {
                entered.admitted.brings(&body);
                let form = entered.subresource()?;
                let own_kind = form == Some(SubresourceForm::Handler);
                // POST to a collection: the name is in the object.
                if change == Change::Create && form.is_none() {
                    call.name = "";
                }
                let call = call.with_options(options);
                let changing = async {
                    match change {
                        Change::Patch(kind) if own_kind => {
                            handlers::subresource::patch(&call, kind, &body, &[]).await
                        }
                        Change::Patch(kind) => handlers::patch::patch(&call, kind, &body).await,
                        Change::Create if form.is_none() => handlers::create::create(&call, &body).await,
                        Change::Update if !own_kind => handlers::update::update(&call, &body).await,
                        _ => handlers::subresource::serve(&call, verb, &body, &[]).await,
                    }
                };
                entered.admitted.noted(changing).await?
            }
        };
        Ok((outcome.code, entered.object(outcome).json))
    }

    /// One write; a panic in it is an answer, too.
    pub(super) async fn caught(
        &self,
        user: &User,
        write: proto::batch_item::Write,
    ) -> ApiResult<(u16, Bytes)> {
        std::panic::AssertUnwindSafe(self.write(user, write))
            .catch_unwind()
            .await
            .unwrap_or_else(|_| {
                Err(ApiError::internal(
                    "the server panicked while serving this request",
                ))
            })
    }

    /// A call that is one write.
    pub(super) async fn one(
        &self,
        user: &User,
        write: proto::batch_item::Write,
    ) -> Result<Response<proto::Object>, Status> {
        let (_, json) = self.caught(user, write).await.map_err(|error| status(&error))?;
        Ok(Response::new(proto::Object { json }))
    }
}

fn target_of(write: &proto::batch_item::Write) -> Option<&proto::Target> {
    use proto::batch_item::Write;
    let target = match write {
        Write::Create(request) => &request.target,
        Write::Update(request) => &request.target,
        Write::Patch(request) => &request.target,
        Write::Delete(request) => &request.target,
    };
    target.as_ref()
}

fn options(options: Option<proto::WriteOptions>) -> ApiResult<WriteOptions> {
    let options = options.unwrap_or_default();
    let field_validation = FieldValidation::parse(&options.field_validation)
        .ok_or_else(|| ApiError::bad_request(format!("fieldValidation: {:?}", options.field_validation)))?;
    Ok(WriteOptions {
        dry_run: options.dry_run,
        field_manager: options.field_manager,
        field_validation,
        force: options.force,
        tracking: Tracking::Manager,
    })
}
