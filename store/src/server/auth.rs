//! The Auth service. Clients are identified by certificate only; everything else is said to be off.

use std::sync::Arc;

use keelson_proto::etcd;
use keelson_proto::etcd::auth_server::Auth;
use tonic::{Request, Response, Status};

use super::Api;
use crate::error::StoreError;

/// The Auth service.
#[derive(Clone)]
pub struct AuthService(pub Arc<Api>);

/// Methods that have nothing to work on here.
macro_rules! refused {
    ($($method:ident($request:ident) -> $response:ident: $error:ident;)*) => {
        #[tonic::async_trait]
        impl Auth for AuthService {
            $(
                async fn $method(
                    &self,
                    _: Request<etcd::$request>,
                ) -> Result<Response<etcd::$response>, Status> {
                    Err(StoreError::$error.into())
                }
            )*

            async fn auth_status(
                &self,
                _: Request<etcd::AuthStatusRequest>,
            ) -> Result<Response<etcd::AuthStatusResponse>, Status> {
                Ok(Response::new(etcd::AuthStatusResponse {
                    header: Some(self.0.headers.at(self.0.state.revision())),
                    enabled: false,
                    auth_revision: 1,
                }))
            }
        }
    };
}

refused! {
    auth_enable(AuthEnableRequest) -> AuthEnableResponse: AuthUnsupported;
    auth_disable(AuthDisableRequest) -> AuthDisableResponse: AuthNotEnabled;
    authenticate(AuthenticateRequest) -> AuthenticateResponse: AuthNotEnabled;
    user_add(AuthUserAddRequest) -> AuthUserAddResponse: AuthUnsupported;
    user_get(AuthUserGetRequest) -> AuthUserGetResponse: AuthUnsupported;
    user_list(AuthUserListRequest) -> AuthUserListResponse: AuthUnsupported;
    user_delete(AuthUserDeleteRequest) -> AuthUserDeleteResponse: AuthUnsupported;
    user_change_password(AuthUserChangePasswordRequest) -> AuthUserChangePasswordResponse: AuthUnsupported;
    user_grant_role(AuthUserGrantRoleRequest) -> AuthUserGrantRoleResponse: AuthUnsupported;
    user_revoke_role(AuthUserRevokeRoleRequest) -> AuthUserRevokeRoleResponse: AuthUnsupported;
    role_add(AuthRoleAddRequest) -> AuthRoleAddResponse: AuthUnsupported;
    role_get(AuthRoleGetRequest) -> AuthRoleGetResponse: AuthUnsupported;
    role_list(AuthRoleListRequest) -> AuthRoleListResponse: AuthUnsupported;
    role_delete(AuthRoleDeleteRequest) -> AuthRoleDeleteResponse: AuthUnsupported;
    role_grant_permission(AuthRoleGrantPermissionRequest) -> AuthRoleGrantPermissionResponse: AuthUnsupported;
    role_revoke_permission(AuthRoleRevokePermissionRequest) -> AuthRoleRevokePermissionResponse: AuthUnsupported;
}
