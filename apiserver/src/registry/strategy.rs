//! The contract between the generic handlers and what is known about one kind.
//!
//! A kind implements [`Strategy`] over its own type; the handlers see [`ErasedStrategy`], which every `Strategy` is.
//! Order of calls: `default` → mutating admission → `prepare_*` → `begin_*` → `validate_*` → validating admission → write
//! → (`undo` of what `begin_*` reserved when the write failed) or `after_*`.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::DeleteOptions;
use keelson_api::apply::Schema;
use keelson_api::field::Errors;
use keelson_api::object::{Kind, Object};
use keelson_api::packed;
use keelson_api::status::{ApiError, ApiResult};
use parking_lot::Mutex;
use serde_json::Value;

pub use super::info::{
    Alias, GET_PATCH_UPDATE, Lifetime, NameRule, OtherFields, ResourceInfo, Scope, SubresourceForm,
    SubresourceInfo, Verb,
};
use super::selected::{self, Selected};
use crate::authentication::User;
use crate::state::Server;

/// Who asks, for what, when, and of which server.
pub struct RequestContext<'a> {
    /// The authenticated caller.
    pub user: &'a User,
    /// The resource asked for.
    pub info: &'static ResourceInfo,
    /// The group and version it was asked for in, if not its own.
    pub alias: Option<&'static Alias>,
    /// Namespace of the request, empty for cluster scope.
    pub namespace: &'a str,
    /// Name in the request, empty while a name is still to be generated.
    pub name: &'a str,
    /// Subresource of the request, empty for the object itself.
    pub subresource: &'a str,
    /// Nothing may be written or reserved when set.
    pub dry_run: bool,
    /// Who manages the fields written.
    pub manager: &'a str,
    /// Whether an application takes over what others manage.
    pub force: bool,
    /// Time of the request.
    pub now: Timestamp,
    /// The server: caches, store, configuration.
    pub server: &'a Arc<Server>,
    /// What the caller is told besides the answer.
    pub warnings: &'a Warnings,
}

impl RequestContext<'_> {
    /// Tells the caller something besides the answer.
    pub fn warn(&self, text: String) {
        self.warnings.add(text);
    }
}

/// What a caller is told in `Warning` headers, nothing twice.
#[derive(Debug, Default)]
pub struct Warnings(Mutex<Vec<String>>);

impl Warnings {
    /// Adds a text.
    pub fn add(&self, text: String) {
        let mut warnings = self.0.lock();
        if !warnings.contains(&text) {
            warnings.push(text);
        }
    }

    /// Everything so far.
    pub fn all(&self) -> Vec<String> {
        self.0.lock().clone()
    }
}

/// Label for one selectable field and its value: `("spec.nodeName", "n1")`.
pub type Fields = Vec<(&'static str, String)>;

/// A column of the Table form.
#[derive(Debug, Clone, Copy)]
pub struct Column {
    /// Header.
    pub name: &'static str,
    /// `string`, `integer`, `date`, ...
    pub kind: &'static str,
    /// `name` for the column that holds the name.
    pub format: &'static str,
    /// What it shows.
    pub description: &'static str,
    /// 0 is always shown, 1 only by `-o wide`.
    pub priority: i32,
}

impl Column {
    /// A string column that is always shown.
    pub const fn new(name: &'static str, description: &'static str) -> Self {
        Self {
            name,
            kind: "string",
            format: "",
            description,
            priority: 0,
        }
    }

    /// The column of names.
    pub const fn name() -> Self {
        Self {
            name: "Name",
            kind: "string",
            format: "name",
            description: "Name must be unique within a namespace.",
            priority: 0,
        }
    }

    /// The same column, shown only by `-o wide`.
    pub const fn wide(self) -> Self {
        Self { priority: 1, ..self }
    }

    /// The same column in this OpenAPI format.
    pub const fn formatted(self, format: &'static str) -> Self {
        Self { format, ..self }
    }

    /// The same column with another type.
    pub const fn of(self, kind: &'static str) -> Self {
        Self { kind, ..self }
    }
}

/// What `begin_create` or `begin_update` reserved outside of the object (addresses, ports).
/// Dropped silently when the write succeeded; undone when it did not.
#[derive(Default)]
pub struct Reservation {
    undo: Vec<Box<dyn FnOnce() + Send>>,
}

impl Reservation {
    /// Nothing reserved.
    pub fn none() -> Self {
        Self::default()
    }

    /// Adds a step that gives something back.
    pub fn on_failure(&mut self, undo: impl FnOnce() + Send + 'static) {
        self.undo.push(Box::new(undo));
    }

    /// Gives everything back, last first.
    pub fn undo(self) {
        self.undo.into_iter().rev().for_each(|step| step());
    }
}

/// Everything the server knows about one kind: one file, one implementation, one line in [`super::all`].
#[async_trait]
pub trait Strategy: Send + Sync + 'static {
    /// The typed object.
    type Object: Kind;

    /// Names, scope, verbs, storage, subresources.
    fn info(&self) -> &'static ResourceInfo;

    /// Fills in what upstream's `SetDefaults_*` fill in. Also called on the result of a patch.
    fn default(&self, _object: &mut Self::Object) {}

    /// Before a create: status cleared, generation 1 where the kind has one.
    fn prepare_create(&self, _ctx: &RequestContext<'_>, _object: &mut Self::Object) {}

    /// Before an update: status kept, generation raised when the spec changed.
    fn prepare_update(&self, _ctx: &RequestContext<'_>, _new: &mut Self::Object, _old: &Self::Object) {}

    /// Before an update through `status` or another [`SubresourceForm::Object`] subresource (`ctx.subresource`):
    /// everything it may not change is taken from `old`.
    fn prepare_subresource_update(
        &self,
        _ctx: &RequestContext<'_>,
        _new: &mut Self::Object,
        _old: &Self::Object,
    ) {
    }

    /// The kind's own rules for a new object; names, labels, annotations and the rest of metadata are checked by the handler.
    fn validate_create(&self, ctx: &RequestContext<'_>, object: &Self::Object) -> Errors;

    /// The kind's own rules for a changed object (including those for a new one).
    fn validate_update(&self, ctx: &RequestContext<'_>, new: &Self::Object, old: &Self::Object) -> Errors;

    /// Rules for an update through a [`SubresourceForm::Object`] subresource.
    fn validate_subresource_update(
        &self,
        _ctx: &RequestContext<'_>,
        _new: &Self::Object,
        _old: &Self::Object,
    ) -> Errors {
        Errors::new()
    }

    /// Advice sent in `Warning` headers; `old` is the object before an update.
    fn warnings(&self, _object: &Self::Object, _old: Option<&Self::Object>) -> Vec<String> {
        Vec::new()
    }

    /// Values of [`ResourceInfo::selectable_fields`].
    fn selectable_fields(&self, _object: &Self::Object) -> Fields {
        Vec::new()
    }

    /// What selectors look at in an object in the store. A kind whose objects change often may read just that.
    fn selected(&self, json: &[u8]) -> Result<Selected, serde_json::Error> {
        if Strategy::info(self).selectable_fields.is_empty() {
            return Ok(Selected {
                labels: selected::labels(json)?,
                fields: Fields::new(),
            });
        }
        let object: Self::Object = serde_json::from_slice(json)?;
        Ok(Selected {
            fields: self.selectable_fields(&object),
            labels: object.labels().clone(),
        })
    }

    /// Columns of the Table form.
    fn columns(&self) -> &'static [Column];

    /// One row of the Table form: a cell for each column.
    fn cells(&self, object: &Self::Object, now: Timestamp) -> Vec<Value>;

    /// Seconds of grace a deletion gets, `None` for kinds that go at once. `options` says what the caller asked for.
    fn delete_grace(&self, _object: &Self::Object, _options: &DeleteOptions) -> Option<i64> {
        None
    }

    /// Marks an object whose deletion begins but has to wait (grace, finalizers): a namespace becomes Terminating.
    fn begin_delete(&self, _ctx: &RequestContext<'_>, _object: &mut Self::Object) {}

    /// Whether something besides `metadata.finalizers` keeps the object (a namespace's `spec.finalizers`).
    fn finalizing(&self, _object: &Self::Object) -> bool {
        false
    }

    /// What is to be known of the row of an object (`TableRowCondition`), for whoever shows it differently or not at all.
    fn row_conditions(&self, _object: &Self::Object) -> Vec<Value> {
        Vec::new()
    }

    /// Whether [`Strategy::default`] looks at the metadata or changes it.
    fn metadata_has_defaults(&self) -> bool {
        false
    }

    /// Whether PUT to a name that does not exist creates it (leases, events, endpoint slices).
    fn allow_create_on_update(&self) -> bool {
        false
    }

    /// Whether an update may come without `resourceVersion`.
    fn allow_unconditional_update(&self) -> bool {
        true
    }

    /// Reserves what the new object needs and writes it into the object (cluster IPs, node ports).
    /// With `ctx.dry_run` nothing may stay reserved.
    async fn begin_create(
        &self,
        _ctx: &RequestContext<'_>,
        _object: &mut Self::Object,
    ) -> Result<Reservation, ApiError> {
        Ok(Reservation::none())
    }

    /// As `begin_create`, for a change.
    async fn begin_update(
        &self,
        _ctx: &RequestContext<'_>,
        _new: &mut Self::Object,
        _old: &Self::Object,
    ) -> Result<Reservation, ApiError> {
        Ok(Reservation::none())
    }

    /// After the update was written: gives back what the old object held and the new one does not.
    async fn after_update(&self, _ctx: &RequestContext<'_>, _new: &Self::Object, _old: &Self::Object) {}

    /// After the object is gone from the store.
    async fn after_delete(&self, _ctx: &RequestContext<'_>, _object: &Self::Object) {}

    /// Fields a write through the object itself (`""`) or a subresource sets back: nobody becomes their manager by it.
    fn reset_fields(&self, subresource: &str) -> &'static [&'static [&'static str]] {
        usual_reset_fields(self.info(), subresource)
    }

    /// Writes the answer into the question, for kinds that are [`Lifetime::Answered`]; carries out what is
    /// [`Lifetime::CarriedOut`].
    async fn answer(&self, _ctx: &RequestContext<'_>, _question: &mut Self::Object) -> ApiResult<()> {
        Ok(())
    }

    /// What there is, for kinds that are [`Lifetime::Observed`].
    async fn observe(&self, _server: &Arc<Server>) -> Vec<Self::Object> {
        Vec::new()
    }

    /// Sent as a warning with every answer.
    fn deprecation(&self) -> Option<&'static str> {
        None
    }

    /// Whoever carries out a [`SubresourceForm::Handler`] subresource.
    fn handler(&self, _subresource: &str) -> Option<Arc<dyn Subresource>> {
        None
    }
}

/// The status, where it has a subresource of its own, is not written with the rest, nor the spec with the status.
fn usual_reset_fields(info: &ResourceInfo, subresource: &str) -> &'static [&'static [&'static str]] {
    match subresource {
        "" | "finalize" if info.subresource("status").is_some() => &[&["status"]],
        "status" => &[&["spec"]],
        _ => &[],
    }
}

/// A request to a [`SubresourceForm::Handler`] subresource.
pub struct SubresourceCall<'a> {
    /// Who, what, when; `ctx.name` is the parent's name.
    pub ctx: RequestContext<'a>,
    /// The body as JSON, already converted from YAML; null when there was none.
    pub body: Value,
    /// Query parameters.
    pub query: &'a [(String, String)],
}

/// What a subresource answers.
pub struct Answer {
    /// 200 or 201.
    pub code: u16,
    /// JSON of the object, with `apiVersion` and `kind`.
    pub json: Bytes,
}

/// A subresource with a kind of its own. Authorization and flow control have happened; admission is the handler's own
/// business through [`Server::admit`](crate::state::Server). PATCH is made of `get` and `update` by the generic handler.
#[async_trait]
pub trait Subresource: Send + Sync {
    /// GET.
    async fn get(&self, call: SubresourceCall<'_>) -> Result<Answer, ApiError> {
        Err(not_supported(&call))
    }
    /// POST.
    async fn create(&self, call: SubresourceCall<'_>) -> Result<Answer, ApiError> {
        Err(not_supported(&call))
    }
    /// PUT.
    async fn update(&self, call: SubresourceCall<'_>) -> Result<Answer, ApiError> {
        Err(not_supported(&call))
    }
    /// PATCH with a configuration to apply, which is the body.
    async fn apply(&self, call: SubresourceCall<'_>) -> Result<Answer, ApiError> {
        Err(not_supported(&call))
    }
}

fn not_supported(call: &SubresourceCall<'_>) -> ApiError {
    ApiError::method_not_supported(&call.ctx.info.group_resource(), "this operation on a subresource")
}

/// An object read from a request, and what was odd about it.
pub struct Request {
    /// The object.
    pub object: Box<dyn Object>,
    /// `unknown field "spec.typo"`, `duplicate field "spec.x"`
    pub complaints: Vec<String>,
}

/// What the generic handlers see of a [`Strategy`]: the same calls over objects whose type only the strategy knows.
/// An object of another type than the strategy's own is a bug of the server and answers 500.
#[async_trait]
pub trait ErasedStrategy: Send + Sync + 'static {
    /// See [`Strategy::info`].
    fn info(&self) -> &'static ResourceInfo;
    /// From JSON.
    fn decode(&self, json: &[u8]) -> Result<Box<dyn Object>, serde_json::Error>;
    /// From a request of which nothing has to be said: see [`packed::plain`].
    fn plain(&self, _json: &[u8]) -> Option<Box<dyn Object>> {
        None
    }
    /// An object from a value.
    fn decode_value(&self, value: Value) -> Result<Box<dyn Object>, serde_json::Error>;
    /// From a request, for kinds whose schema is not in the server's own table. The error says what is wrong.
    fn read(&self, _value: Value) -> Result<Request, String> {
        Err("the kind is read by its schema".to_owned())
    }
    /// What was stored, as it is to be read today; `None` where it is that already.
    fn stored(&self, _json: &[u8]) -> Option<Vec<u8>> {
        None
    }
    /// The kind of lists, where it is not the kind with `List` behind it.
    fn list_kind(&self) -> Option<&'static str> {
        None
    }
    /// Sent as a warning with every answer.
    fn deprecation(&self) -> Option<&'static str> {
        None
    }
    /// See [`Strategy::default`].
    fn default(&self, object: &mut dyn Object) -> ApiResult<()>;
    /// See [`Strategy::prepare_create`].
    fn prepare_create(&self, ctx: &RequestContext<'_>, object: &mut dyn Object) -> ApiResult<()>;
    /// See [`Strategy::prepare_update`] and [`Strategy::prepare_subresource_update`]: `ctx.subresource` decides.
    fn prepare_update(
        &self,
        ctx: &RequestContext<'_>,
        new: &mut dyn Object,
        old: &dyn Object,
    ) -> ApiResult<()>;
    /// See [`Strategy::validate_create`].
    fn validate_create(&self, ctx: &RequestContext<'_>, object: &dyn Object) -> ApiResult<Errors>;
    /// See [`Strategy::validate_update`] and [`Strategy::validate_subresource_update`]: `ctx.subresource` decides.
    fn validate_update(
        &self,
        ctx: &RequestContext<'_>,
        new: &dyn Object,
        old: &dyn Object,
    ) -> ApiResult<Errors>;
    /// See [`Strategy::warnings`].
    fn warnings(&self, object: &dyn Object, old: Option<&dyn Object>) -> Vec<String>;
    /// See [`Strategy::selected`].
    fn selected(&self, json: &[u8]) -> Result<Selected, serde_json::Error>;
    /// See [`Strategy::columns`].
    fn columns(&self) -> &'static [Column];
    /// See [`Strategy::cells`].
    fn cells(&self, object: &dyn Object, now: Timestamp) -> Vec<Value>;
    /// See [`Strategy::delete_grace`].
    fn delete_grace(&self, object: &dyn Object, options: &DeleteOptions) -> Option<i64>;
    /// See [`Strategy::begin_delete`].
    fn begin_delete(&self, ctx: &RequestContext<'_>, object: &mut dyn Object) -> ApiResult<()>;
    /// See [`Strategy::finalizing`].
    fn finalizing(&self, object: &dyn Object) -> bool;
    /// See [`Strategy::row_conditions`].
    fn row_conditions(&self, object: &dyn Object) -> Vec<Value>;
    /// See [`Strategy::metadata_has_defaults`].
    fn metadata_has_defaults(&self) -> bool;
    /// See [`Strategy::allow_create_on_update`].
    fn allow_create_on_update(&self) -> bool;
    /// See [`Strategy::allow_unconditional_update`].
    fn allow_unconditional_update(&self) -> bool;
    /// See [`Strategy::begin_create`].
    async fn begin_create(&self, ctx: &RequestContext<'_>, object: &mut dyn Object)
    -> ApiResult<Reservation>;
    /// See [`Strategy::begin_update`].
    async fn begin_update(
        &self,
        ctx: &RequestContext<'_>,
        new: &mut dyn Object,
        old: &dyn Object,
    ) -> ApiResult<Reservation>;
    /// See [`Strategy::after_update`].
    async fn after_update(&self, ctx: &RequestContext<'_>, new: &dyn Object, old: &dyn Object);
    /// See [`Strategy::after_delete`].
    async fn after_delete(&self, ctx: &RequestContext<'_>, object: &dyn Object);
    /// What has to be known of a version to say who manages what; `None` when the resource is not served in it.
    fn ownership(&self, version: &str) -> Option<&dyn Schema> {
        crate::handlers::managers::built_in(self.info(), version)
    }
    /// See [`Strategy::reset_fields`].
    fn reset_fields(&self, subresource: &str) -> &'static [&'static [&'static str]] {
        usual_reset_fields(self.info(), subresource)
    }
    /// See [`Strategy::observe`].
    async fn observe(&self, _server: &Arc<Server>) -> Vec<Box<dyn Object>> {
        Vec::new()
    }
    /// See [`Strategy::answer`].
    async fn answer(&self, _ctx: &RequestContext<'_>, _question: &mut dyn Object) -> ApiResult<()> {
        Ok(())
    }
    /// See [`Strategy::handler`].
    fn handler(&self, subresource: &str) -> Option<Arc<dyn Subresource>>;
}

fn typed<K: Kind>(object: &dyn Object) -> ApiResult<&K> {
    object.downcast_ref().ok_or_else(|| wrong_type::<K>())
}

fn typed_mut<K: Kind>(object: &mut dyn Object) -> ApiResult<&mut K> {
    object.downcast_mut().ok_or_else(|| wrong_type::<K>())
}

fn wrong_type<K: Kind>() -> ApiError {
    ApiError::internal(format_args!(
        "an object is not of the type {} its strategy expects",
        K::KIND
    ))
}

#[async_trait]
impl<S: Strategy> ErasedStrategy for S {
    fn info(&self) -> &'static ResourceInfo {
        Strategy::info(self)
    }

    fn decode(&self, json: &[u8]) -> Result<Box<dyn Object>, serde_json::Error> {
        Ok(Box::new(packed::decode::<S::Object>(json)?))
    }

    fn plain(&self, json: &[u8]) -> Option<Box<dyn Object>> {
        Some(Box::new(packed::plain::<S::Object>(json)?))
    }

    fn decode_value(&self, value: Value) -> Result<Box<dyn Object>, serde_json::Error> {
        Ok(Box::new(packed::from_value::<S::Object>(value)?))
    }

    fn default(&self, object: &mut dyn Object) -> ApiResult<()> {
        Strategy::default(self, typed_mut(object)?);
        Ok(())
    }

    fn prepare_create(&self, ctx: &RequestContext<'_>, object: &mut dyn Object) -> ApiResult<()> {
        Strategy::prepare_create(self, ctx, typed_mut(object)?);
        Ok(())
    }

    fn prepare_update(
        &self,
        ctx: &RequestContext<'_>,
        new: &mut dyn Object,
        old: &dyn Object,
    ) -> ApiResult<()> {
        let (new, old) = (typed_mut(new)?, typed(old)?);
        if ctx.subresource.is_empty() {
            Strategy::prepare_update(self, ctx, new, old);
        } else {
            self.prepare_subresource_update(ctx, new, old);
        }
        Ok(())
    }

    fn validate_create(&self, ctx: &RequestContext<'_>, object: &dyn Object) -> ApiResult<Errors> {
        Ok(Strategy::validate_create(self, ctx, typed(object)?))
    }

    fn validate_update(
        &self,
        ctx: &RequestContext<'_>,
        new: &dyn Object,
        old: &dyn Object,
    ) -> ApiResult<Errors> {
        let (new, old) = (typed(new)?, typed(old)?);
        Ok(if ctx.subresource.is_empty() {
            Strategy::validate_update(self, ctx, new, old)
        } else {
            self.validate_subresource_update(ctx, new, old)
        })
    }

    fn warnings(&self, object: &dyn Object, old: Option<&dyn Object>) -> Vec<String> {
        let old = old.and_then(|o| o.downcast_ref());
        object
            .downcast_ref()
            .map(|o| Strategy::warnings(self, o, old))
            .unwrap_or_default()
    }

    fn selected(&self, json: &[u8]) -> Result<Selected, serde_json::Error> {
        Strategy::selected(self, json)
    }

    fn columns(&self) -> &'static [Column] {
        Strategy::columns(self)
    }

    fn cells(&self, object: &dyn Object, now: Timestamp) -> Vec<Value> {
        object
            .downcast_ref()
            .map(|o| Strategy::cells(self, o, now))
            .unwrap_or_default()
    }

    fn delete_grace(&self, object: &dyn Object, options: &DeleteOptions) -> Option<i64> {
        object
            .downcast_ref()
            .and_then(|o| Strategy::delete_grace(self, o, options))
    }

    fn begin_delete(&self, ctx: &RequestContext<'_>, object: &mut dyn Object) -> ApiResult<()> {
        Strategy::begin_delete(self, ctx, typed_mut(object)?);
        Ok(())
    }

    fn finalizing(&self, object: &dyn Object) -> bool {
        object
            .downcast_ref()
            .is_some_and(|o| Strategy::finalizing(self, o))
    }

    fn row_conditions(&self, object: &dyn Object) -> Vec<Value> {
        let own = object.downcast_ref();
        own.map(|own| Strategy::row_conditions(self, own))
            .unwrap_or_default()
    }

    fn metadata_has_defaults(&self) -> bool {
        Strategy::metadata_has_defaults(self)
    }

    fn allow_create_on_update(&self) -> bool {
        Strategy::allow_create_on_update(self)
    }

    fn allow_unconditional_update(&self) -> bool {
        Strategy::allow_unconditional_update(self)
    }

    async fn begin_create(
        &self,
        ctx: &RequestContext<'_>,
        object: &mut dyn Object,
    ) -> ApiResult<Reservation> {
        Strategy::begin_create(self, ctx, typed_mut(object)?).await
    }

    async fn begin_update(
        &self,
        ctx: &RequestContext<'_>,
        new: &mut dyn Object,
        old: &dyn Object,
    ) -> ApiResult<Reservation> {
        Strategy::begin_update(self, ctx, typed_mut(new)?, typed(old)?).await
    }

    async fn after_update(&self, ctx: &RequestContext<'_>, new: &dyn Object, old: &dyn Object) {
        if let (Some(new), Some(old)) = (new.downcast_ref(), old.downcast_ref()) {
            Strategy::after_update(self, ctx, new, old).await;
        }
    }

    async fn after_delete(&self, ctx: &RequestContext<'_>, object: &dyn Object) {
        if let Some(object) = object.downcast_ref() {
            Strategy::after_delete(self, ctx, object).await;
        }
    }

    fn reset_fields(&self, subresource: &str) -> &'static [&'static [&'static str]] {
        Strategy::reset_fields(self, subresource)
    }

    async fn answer(&self, ctx: &RequestContext<'_>, question: &mut dyn Object) -> ApiResult<()> {
        Strategy::answer(self, ctx, typed_mut(question)?).await
    }

    async fn observe(&self, server: &Arc<Server>) -> Vec<Box<dyn Object>> {
        let observed = Strategy::observe(self, server).await;
        observed.into_iter().map(|object| Box::new(object) as _).collect()
    }

    fn deprecation(&self) -> Option<&'static str> {
        Strategy::deprecation(self)
    }

    fn handler(&self, subresource: &str) -> Option<Arc<dyn Subresource>> {
        Strategy::handler(self, subresource)
    }
}
