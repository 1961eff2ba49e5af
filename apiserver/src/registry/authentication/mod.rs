//! The `authentication.k8s.io` group: who somebody is, answered and never stored.
//!
//! <https://kubernetes.io/docs/reference/access-authn-authz/authentication/>

pub mod self_subject_review;
pub mod token_review;

use k8s_openapi::api::authentication::v1::UserInfo;

use crate::authentication::User;

const GROUP: &str = "authentication.k8s.io";

fn user_info(user: User) -> UserInfo {
    UserInfo {
        username: Some(user.name),
        uid: Some(user.uid).filter(|uid| !uid.is_empty()),
        groups: Some(user.groups).filter(|groups| !groups.is_empty()),
        extra: Some(user.extra).filter(|extra| !extra.is_empty()),
    }
}
