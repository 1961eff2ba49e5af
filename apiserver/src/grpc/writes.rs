//! Writes, one by one or as items of a batch.

use bytes::Bytes;
use futures::FutureExt as _;
use keelson_api::status::{ApiError, ApiResult};
use keelson_api::strict::FieldValidation;
use keelson_proto::resources as proto;
use tonic::{Response, Status};

use super::entering::Entered;
use super::{Door, status};
use crate::authentication::User;
use crate::flow_control::Pool;
use crate::handlers::managers::Tracking;
use crate::handlers::options::{Query, WriteOptions};
use crate::handlers::patch::PatchType;
use crate::handlers::{self, Call, Outcome};
use crate::registry::info::{SubresourceForm, Verb};

impl Door {
    async fn write(&self, user: &User, write: proto::batch_item::Write) -> ApiResult<(u16, Bytes)> {
        use proto::batch_item::Write;
        let answer = |entered: &Entered, outcome: Outcome| (outcome.code, entered.object(outcome).json);
        match write {
            Write::Create(request) => {
                let mut target = request.target;
                let entered = self
                    .enter(user, target.take(), Verb::Create, Pool::Writing)
                    .await?;
                // POST to a collection: the name is in the object.
                let name_in_path = !entered.target.subresource.is_empty();
                let target = &entered.target;
                let name = if name_in_path { target.name.as_str() } else { "" };
                let call = Call::new(
                    &entered.server,
                    &entered.served,
                    user,
                    &target.namespace,
                    name,
                    &target.subresource,
                )
                .with_options(options(request.options)?);
                entered.brings(&request.json);
                let outcome = match entered.subresource()? {
                    None => {
                        entered
                            .noted(handlers::create::create(&call, &request.json))
                            .await?
                    }
                    Some(_) => {
                        entered
                            .noted(handlers::subresource::serve(
                                &call,
                                Verb::Create,
                                &request.json,
                                &[],
                            ))
                            .await?
                    }
                };
                Ok(answer(&entered, outcome))
            }
            Write::Update(request) => {
                let entered = self
                    .enter(user, request.target, Verb::Update, Pool::Writing)
                    .await?;
                let call = entered.call().with_options(options(request.options)?);
                entered.brings(&request.json);
                let outcome = match entered.subresource()? {
                    Some(SubresourceForm::Handler) => {
                        entered
                            .noted(handlers::subresource::serve(
                                &call,
                                Verb::Update,
                                &request.json,
                                &[],
                            ))
                            .await?
                    }
                    _ => {
                        entered
                            .noted(handlers::update::update(&call, &request.json))
                            .await?
                    }
                };
                Ok(answer(&entered, outcome))
            }
            Write::Patch(request) => {
                let entered = self
                    .enter(user, request.target, Verb::Patch, Pool::Writing)
                    .await?;
                let kind = PatchType::parse(&request.content_type)?;
                let options = WriteOptions {
                    tracking: kind.tracking(),
                    ..options(request.options)?
                };
                if kind == PatchType::Apply && options.field_manager.is_empty() {
                    return Err(ApiError::bad_request("fieldManager is required for apply patch"));
                }
                let call = entered.call().with_options(options);
                entered.brings(&request.body);
                let outcome = match entered.subresource()? {
                    Some(SubresourceForm::Handler) => {
                        entered
                            .noted(handlers::subresource::patch(&call, kind, &request.body, &[]))
                            .await?
                    }
                    _ => {
                        entered
                            .noted(handlers::patch::patch(&call, kind, &request.body))
                            .await?
                    }
                };
                Ok(answer(&entered, outcome))
            }
            Write::Delete(request) => {
                let entered = self
                    .enter(user, request.target, Verb::Delete, Pool::Writing)
                    .await?;
                let options = Query(&[]).delete_options(&request.options)?;
                let outcome = entered
                    .noted(handlers::delete::delete(&entered.call(), options))
                    .await?;
                Ok(answer(&entered, outcome))
            }
        }
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
