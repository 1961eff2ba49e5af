//! ServiceAccounts and their tokens.

use std::sync::Arc;

use async_trait::async_trait;
use jiff::Timestamp;
use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec, TokenRequestStatus};
use k8s_openapi::api::core::v1::{Node, Pod, Secret, ServiceAccount};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use keelson_api::field::Errors;
use keelson_api::names::{GroupKind, GroupResource};
use keelson_api::object::{Kind, Object};
use keelson_api::status::{ApiError, ApiResult};
use serde_json::Value;

use crate::admission::Operation;
use crate::authentication::service_account::{KubernetesClaims, Reference};
use crate::registry::common::cells;
use crate::registry::common::loc::Loc;
use crate::registry::common::scale::{answer, decode};
use crate::registry::strategy::{
    Answer, Column, RequestContext, ResourceInfo, Strategy, Subresource, SubresourceCall, SubresourceForm,
    SubresourceInfo, Verb,
};

/// Seconds a token lasts when nothing is asked for.
const DEFAULT_SECONDS: i64 = 60 * 60;
/// Shorter ones are refused.
const MIN_SECONDS: i64 = 10 * 60;
/// Longer ones are refused.
const MAX_SECONDS: i64 = 1 << 32;
/// What the kubelet's projected volumes ask for: one hour and seven seconds. Such tokens live for a year, so that
/// programs which never read their token again keep working; a warning is due after the hour.
const COMPATIBILITY_SECONDS: i64 = 60 * 60 + 7;
const EXTENDED_SECONDS: i64 = 365 * 24 * 60 * 60;

/// The kind's strategy.
pub struct ServiceAccountStrategy;

static INFO: ResourceInfo = ResourceInfo {
    kind: "ServiceAccount",
    plural: "serviceaccounts",
    singular: "serviceaccount",
    short_names: &["sa"],
    storage_prefix: "serviceaccounts",
    subresources: &[SubresourceInfo {
        name: "token",
        kind: "TokenRequest",
        group: "authentication.k8s.io",
        version: "v1",
        verbs: &[Verb::Create],
        form: SubresourceForm::Handler,
    }],
    ..ResourceInfo::base()
};

impl Strategy for ServiceAccountStrategy {
    type Object = ServiceAccount;

    fn info(&self) -> &'static ResourceInfo {
        &INFO
    }

    fn prepare_create(&self, _ctx: &RequestContext<'_>, account: &mut ServiceAccount) {
        // References to secrets keep nothing but the name.
        for secret in account.secrets.iter_mut().flatten() {
            *secret = k8s_openapi::api::core::v1::ObjectReference {
                name: secret.name.take(),
                ..Default::default()
            };
        }
    }

    fn validate_create(&self, _ctx: &RequestContext<'_>, _account: &ServiceAccount) -> Errors {
        Errors::new()
    }

    fn validate_update(
        &self,
        _ctx: &RequestContext<'_>,
        _new: &ServiceAccount,
        _old: &ServiceAccount,
    ) -> Errors {
        Errors::new()
    }

    fn columns(&self) -> &'static [Column] {
        const COLUMNS: &[Column] = &[
            Column::name(),
            Column::new("Secrets", "The number of secrets pods of the account may mount."),
            Column::new("Age", "Time since the object was created."),
        ];
        COLUMNS
    }

    fn cells(&self, account: &ServiceAccount, now: Timestamp) -> Vec<Value> {
        vec![
            cells::name(&account.metadata),
            account.secrets.as_ref().map_or(0, Vec::len).into(),
            cells::age(&account.metadata, now),
        ]
    }

    fn handler(&self, subresource: &str) -> Option<Arc<dyn Subresource>> {
        (subresource == "token").then(|| Arc::new(TokenSubresource) as _)
    }
}

/// `serviceaccounts/token`: issues a token.
struct TokenSubresource;

#[async_trait]
impl Subresource for TokenSubresource {
    async fn create(&self, call: SubresourceCall<'_>) -> ApiResult<Answer> {
        let ctx = &call.ctx;
        let mut request: TokenRequest = decode(&call.body)?;
        let named = |given: Option<&str>, own: &str, what: &str| match given {
            Some(given) if !given.is_empty() && given != own => Err(ApiError::bad_request(format!(
                "the {what} of the object ({given}) does not match the {what} on the URL ({own})"
            ))),
            _ => Ok(()),
        };
        named(request.metadata.name.as_deref(), ctx.name, "name")?;
        named(request.metadata.namespace.as_deref(), ctx.namespace, "namespace")?;
        request.metadata.name = Some(ctx.name.to_owned());
        request.metadata.namespace = Some(ctx.namespace.to_owned());

        let mut spec = request.spec.take().unwrap_or_default();
        let account: ServiceAccount = ctx.server.fresh(ctx.namespace, ctx.name).await?;
        let seconds = spec.expiration_seconds.unwrap_or(DEFAULT_SECONDS);
        let errors = validate_seconds(seconds);
        if !errors.is_empty() {
            let kind = GroupKind::new("authentication.k8s.io", "TokenRequest");
            return Err(ApiError::invalid(&kind, "", &errors));
        }
        ctx.server.admit(ctx, Operation::Create, &call.body).await?;

        let max =
            i64::try_from(ctx.server.config.service_account_max_token_expiration.as_secs()).unwrap_or(0);
        let seconds = if max > 0 { seconds.min(max) } else { seconds };
        let mut claims = KubernetesClaims {
            namespace: ctx.namespace.to_owned(),
            serviceaccount: Some(reference(&account)),
            pod: None,
            secret: None,
            node: None,
            warnafter: None,
        };
        bind(ctx, &spec, &mut claims).await?;
        let mut lifetime = seconds;
        if claims.pod.is_some()
            && seconds == COMPATIBILITY_SECONDS
            && spec.audiences.as_ref().is_none_or(Vec::is_empty)
        {
            claims.warnafter = Some(ctx.now.as_second() + seconds);
            lifetime = EXTENDED_SECONDS;
        }
        let tokens = ctx
            .server
            .authenticator
            .service_accounts
            .as_ref()
            .ok_or_else(no_signer)?;
        let issued = tokens.issue(&claims, spec.audiences.as_deref().unwrap_or(&[]), lifetime)?;
        let expires = if lifetime == seconds {
            issued.expires
        } else {
            ctx.now.as_second() + seconds
        };
        if spec.audiences.as_ref().is_none_or(Vec::is_empty) {
            spec.audiences = Some(ctx.server.config.audiences().to_vec());
        }
        spec.expiration_seconds = Some(seconds);
        request.spec = Some(spec);
        request.status = Some(TokenRequestStatus {
            token: Some(issued.token),
            expiration_timestamp: Some(Time(Timestamp::from_second(expires).map_err(ApiError::internal)?)),
        });
        answer(201, &request)
    }
}

fn no_signer() -> ApiError {
    ApiError::internal(
        "this server has no key for service account tokens: see --service-account-signing-key-file",
    )
}

fn validate_seconds(seconds: i64) -> Errors {
    let at = Loc::new("spec.expirationSeconds");
    if seconds < MIN_SECONDS {
        vec![at.invalid(seconds, "may not specify a duration less than 10 minutes")]
    } else if seconds > MAX_SECONDS {
        vec![at.invalid(seconds, "may not specify a duration larger than 2^32 seconds")]
    } else {
        Errors::new()
    }
}

fn reference(object: &impl Object) -> Reference {
    Reference {
        name: object.name().to_owned(),
        uid: object.uid().to_owned(),
    }
}

/// Binds the token to the object it is asked for: it ends with it.
async fn bind(
    ctx: &RequestContext<'_>,
    spec: &TokenRequestSpec,
    claims: &mut KubernetesClaims,
) -> ApiResult<()> {
    let Some(bound) = &spec.bound_object_ref else {
        return Ok(());
    };
    let name = bound.name.as_deref().unwrap_or("");
    let uid = bound.uid.as_deref().unwrap_or("");
    match (
        bound.api_version.as_deref().unwrap_or(""),
        bound.kind.as_deref().unwrap_or(""),
    ) {
        ("v1", "Pod") => {
            let pod: Pod = fetch(ctx, ctx.namespace, name, uid).await?;
            let own = pod
                .spec
                .as_ref()
                .and_then(|s| s.service_account_name.as_deref())
                .unwrap_or("");
            if own != ctx.name {
                let gr = GroupResource::core("serviceaccounts");
                let why = format!(
                    "cannot bind token for serviceaccount {:?} to pod running with different serviceaccount name.",
                    ctx.name
                );
                return Err(ApiError::forbidden(&gr, ctx.name, why));
            }
            if let Some(node) = pod.spec.as_ref().and_then(|s| s.node_name.as_deref())
                && let Some(node) = ctx.server.cached::<Node>("", node)
            {
                claims.node = Some(reference(node.as_ref()));
            }
            claims.pod = Some(reference(&pod));
        }
        ("v1", "Secret") => {
            claims.secret = Some(reference(&fetch::<Secret>(ctx, ctx.namespace, name, uid).await?));
        }
        ("v1", "Node") => claims.node = Some(reference(&fetch::<Node>(ctx, "", name, uid).await?)),
        (version, kind) => {
            let gvk = keelson_api::Gvk::from_api_version(version, kind);
            return Err(ApiError::bad_request(format!(
                "cannot bind token to object of type {gvk}"
            )));
        }
    }
    Ok(())
}

async fn fetch<K: Kind>(ctx: &RequestContext<'_>, namespace: &str, name: &str, uid: &str) -> ApiResult<K> {
    let object: K = ctx.server.fresh(namespace, name).await?;
    if !uid.is_empty() && object.uid() != uid {
        let why = format!(
            "the UID in the bound object reference ({uid}) does not match the UID in record. The object might have been deleted and then recreated"
        );
        return Err(ApiError::conflict(&K::group_resource(), name, why));
    }
    Ok(object)
}
