//! How a call comes in: taken apart, given its seats, authorized, and counted.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use keelson_api::status::{ApiError, ApiResult};
use keelson_proto::resources as proto;

use super::Door;
use crate::audit::{self, Record};
use crate::authentication::User;
use crate::authorization::attributes::{Attributes, Resource, Selectors};
use crate::flow_control::{self, Place, Pool, Sending, cost};
use crate::handlers::{Call, Outcome};
use crate::http::resources::present;
use crate::metrics::Running;
use crate::registry::catalog::Served;
use crate::registry::info::{SubresourceForm, Verb};
use crate::state::Server;

/// How soon a write of a batch that found no room is tried again.
const COME_AGAIN: Duration = Duration::from_secs(1);

/// What becomes of a call for which there is no room.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum WhenFull {
    /// Its caller is told to come again.
    Refuse,
    /// It is tried again here.
    ComeAgain,
}

/// A call that has its seats, is allowed, and is counted.
pub(super) struct Admitted {
    pub(super) server: Arc<Server>,
    pub(super) user: User,
    pub(super) target: proto::Target,
    place: Place,
    _running: Option<Running>,
    audit: Option<Arc<Record>>,
}

impl Admitted {
    /// Serves the call, and has whoever records it know what came of it.
    pub(super) async fn noted<T>(&self, serving: impl Future<Output = ApiResult<T>>) -> ApiResult<T> {
        let Some(record) = &self.audit else {
            return serving.await;
        };
        let result = audit::scope(Some(record.clone()), serving).await;
        if let Err(error) = &result {
            record.failed(error.code(), error.to_json().into());
        }
        result
    }

    /// What the call brings.
    pub(super) fn brings(&self, json: &Bytes) {
        if let Some(record) = &self.audit {
            record.request_body(json);
        }
    }

    /// What the call is answered with.
    pub(super) fn gives(&self, code: u16, json: &Bytes) {
        if let Some(record) = &self.audit {
            record.answered(code);
            record.response_body(json);
        }
    }

    /// Somebody else may have its seats.
    pub(super) fn give_up_seats(&mut self) {
        self.place = Place::free();
    }

    /// Keeps its place until what it answers is sent.
    pub(super) fn sending(&mut self) -> Sending {
        std::mem::replace(&mut self.place, Place::free()).while_sending()
    }
}

/// A call about what this server serves.
pub(super) struct Entered {
    pub(super) admitted: Admitted,
    pub(super) served: Served,
}

impl Entered {
    pub(super) fn call(&self) -> Call<'_> {
        let Admitted {
            server, user, target, ..
        } = &self.admitted;
        Call::new(
            server,
            &self.served,
            user,
            &target.namespace,
            &target.name,
            &target.subresource,
        )
    }

    pub(super) fn object(&self, outcome: Outcome) -> proto::Object {
        self.admitted.gives(outcome.code, &outcome.json);
        let json = if outcome.own_kind {
            present(&self.served, outcome.json)
        } else {
            outcome.json
        };
        proto::Object { json }
    }

    pub(super) fn subresource(&self) -> ApiResult<Option<SubresourceForm>> {
        match self.admitted.target.subresource.as_str() {
            "" => Ok(None),
            name => match self.served.info().subresource(name).map(|s| s.form) {
                None | Some(SubresourceForm::Connect) => Err(ApiError::no_such_resource()),
                form => Ok(form),
            },
        }
    }
}

impl Door {
    pub(super) async fn enter(
        &self,
        user: &User,
        target: Option<proto::Target>,
        verb: Verb,
        pool: Pool,
    ) -> ApiResult<Entered> {
        self.enter_selecting(user, target, verb, pool, (Selectors::default(), 0))
            .await
    }

    /// The same for a call that selects objects, and wants at most so many of them; 0 is all.
    pub(super) async fn enter_selecting(
        &self,
        user: &User,
        target: Option<proto::Target>,
        verb: Verb,
        pool: Pool,
        selecting: (Selectors<'_>, usize),
    ) -> ApiResult<Entered> {
        let admitted = self.admit(user, target, verb, pool, selecting).await?;
        let target = &admitted.target;
        let served = self
            .server
            .find(&target.group, &target.version, &target.resource)
            .await?
            .into_owned();
        let info = served.info();
        if !info.namespaced() && !target.namespace.is_empty() {
            return Err(ApiError::bad_request(format!(
                "{} do not live in namespaces",
                info.plural
            )));
        }
        let in_all = target.namespace.is_empty() && (verb == Verb::Create || !target.name.is_empty());
        if info.namespaced() && in_all {
            return Err(ApiError::bad_request(format!(
                "{} live in namespaces: name one",
                info.plural
            )));
        }
        Ok(Entered { admitted, served })
    }

    /// Gives a call its seats and asks whether it is allowed.
    pub(super) async fn admit(
        &self,
        user: &User,
        target: Option<proto::Target>,
        verb: Verb,
        pool: Pool,
        (selectors, limit): (Selectors<'_>, usize),
    ) -> ApiResult<Admitted> {
        let target = target.ok_or_else(|| ApiError::bad_request("the request names no target"))?;
        let attributes = Attributes::resource(
            verb.as_str(),
            Resource {
                group: &target.group,
                version: &target.version,
                resource: &target.resource,
                subresource: &target.subresource,
                namespace: &target.namespace,
                // POST to a collection: the name is in the object.
                name: match verb {
                    Verb::Create if target.subresource.is_empty() => "",
                    _ => &target.name,
                },
            },
        )
        .selecting(selectors);
        let place = self.place(user, &attributes, pool, limit).await?;
        let audit = match audit::origin() {
            Some(origin) => self.server.audit.begin(&origin, user, &attributes)?,
            None => None,
        };
        let checked = audit::scope(audit.clone(), self.server.authorizer.check(user, &attributes)).await;
        if let (Some(record), Err(error)) = (&audit, &checked) {
            record.failed(error.code(), error.to_json().into());
        }
        checked?;
        let running = self.server.metrics.enter(pool);
        Ok(Admitted {
            server: self.server.clone(),
            user: user.clone(),
            target,
            place,
            _running: running,
            audit,
        })
    }

    /// Takes seats for a call, of which a list wants `limit` objects.
    async fn place(
        &self,
        user: &User,
        attributes: &Attributes<'_>,
        pool: Pool,
        limit: usize,
    ) -> ApiResult<Place> {
        let server = &self.server;
        let flow = server.flow.flow(user, attributes);
        let seats = match attributes.verb {
            "list" | "deletecollection" => cost::of_list(server, attributes, limit),
            _ => 1,
        };
        loop {
            match server.flow.enter(&flow, (user, attributes), pool, seats).await {
                Err(error) if self.when_full == WhenFull::ComeAgain && flow_control::is_refusal(&error) => {
                    tokio::time::sleep(COME_AGAIN).await;
                }
                done => return done,
            }
        }
    }
}
