//! Acting as somebody else: the `Impersonate-*` headers, each of which needs a role that allows it.
//!
//! <https://kubernetes.io/docs/reference/access-authn-authz/user-impersonation/>

use std::collections::BTreeMap;

use http::HeaderMap;
use http::header::HeaderName;
use keelson_api::status::{ApiError, ApiResult};

use super::{ANONYMOUS, AUTHENTICATED, UNAUTHENTICATED, User};
use crate::authorization::Authorizer;
use crate::authorization::attributes::{Attributes, Resource};
use crate::request_info::percent_decode;

const USER: HeaderName = HeaderName::from_static("impersonate-user");
const GROUP: HeaderName = HeaderName::from_static("impersonate-group");
const UID: HeaderName = HeaderName::from_static("impersonate-uid");
const EXTRA: &str = "impersonate-extra-";
/// The group users' uids and extras belong to, as far as permissions go.
const AUTHENTICATION: &str = "authentication.k8s.io";

/// Whom the headers name.
#[derive(Debug, Default, PartialEq, Eq)]
struct Wanted {
    user: String,
    uid: String,
    groups: Vec<String>,
    extra: BTreeMap<String, Vec<String>>,
}

impl Wanted {
    /// `None` when the headers name nobody.
    fn of(headers: &HeaderMap) -> ApiResult<Option<Self>> {
        let text = |name: &HeaderName| {
            let value = headers.get(name).and_then(|value| value.to_str().ok());
            value.unwrap_or_default().to_owned()
        };
        let groups = headers
            .get_all(GROUP)
            .iter()
            .filter_map(|value| value.to_str().ok());
        let mut wanted = Wanted {
            user: text(&USER),
            uid: text(&UID),
            groups: groups
                .filter(|group| !group.is_empty())
                .map(str::to_owned)
                .collect(),
            extra: BTreeMap::new(),
        };
        for (name, value) in headers {
            if let (Some(key), Ok(value)) = (name.as_str().strip_prefix(EXTRA), value.to_str()) {
                let values = wanted.extra.entry(percent_decode(key)).or_default();
                values.push(value.to_owned());
            }
        }
        if wanted.user.is_empty() {
            if wanted == Wanted::default() {
                return Ok(None);
            }
            return Err(ApiError::internal(format_args!(
                "requested {wanted:?} without impersonating a user"
            )));
        }
        Ok(Some(wanted))
    }

    /// The user's name taken apart, if it is that of a service account.
    fn account(&self) -> Option<(&str, &str)> {
        let (namespace, name) = self
            .user
            .strip_prefix("system:serviceaccount:")?
            .split_once(':')?;
        (!namespace.is_empty() && !name.is_empty() && !name.contains(':')).then_some((namespace, name))
    }

    async fn check(&self, authorizer: &Authorizer, user: &User) -> ApiResult<()> {
        let core = |resource, namespace, name| Resource {
            resource,
            namespace,
            name,
            version: "v1",
            ..Resource::default()
        };
        let about = |resource, subresource, name| Resource {
            group: AUTHENTICATION,
            version: "v1",
            resource,
            subresource,
            name,
            ..Resource::default()
        };
        let mut needed = vec![match self.account() {
            Some((namespace, name)) => core("serviceaccounts", namespace, name),
            None => core("users", "", &self.user),
        }];
        needed.extend(self.groups.iter().map(|group| core("groups", "", group)));
        for (key, values) in &self.extra {
            needed.extend(values.iter().map(|value| about("userextras", key, value)));
        }
        if !self.uid.is_empty() {
            needed.push(about("uids", "", &self.uid));
        }
        for resource in needed {
            let attributes = Attributes::resource("impersonate", resource);
            authorizer.check(user, &attributes).await?;
        }
        Ok(())
    }

    fn user(self) -> User {
        let mut groups = self.groups.clone();
        if let Some((namespace, _)) = self.account()
            && groups.is_empty()
        {
            groups.push("system:serviceaccounts".to_owned());
            groups.push(format!("system:serviceaccounts:{namespace}"));
        }
        if !groups
            .iter()
            .any(|group| group == AUTHENTICATED || group == UNAUTHENTICATED)
        {
            let everybody = if self.user == ANONYMOUS {
                UNAUTHENTICATED
            } else {
                AUTHENTICATED
            };
            groups.push(everybody.to_owned());
        }
        User {
            name: self.user,
            uid: self.uid,
            groups,
            extra: self.extra,
        }
    }
}

/// Whom the caller acts as: itself, unless headers name somebody else and the caller may act as them.
///
/// # Errors
/// The 403 for whom the caller may not act as.
pub async fn act_as(authorizer: &Authorizer, headers: &HeaderMap, user: &User) -> ApiResult<Option<User>> {
    let Some(wanted) = Wanted::of(headers)? else {
        return Ok(None);
    };
    wanted.check(authorizer, user).await?;
    let acting = wanted.user();
    tracing::debug!(user = user.name, acting = acting.name, "impersonation");
    Ok(Some(acting))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::authentication::MASTERS;
    use crate::authorization::config::Step;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, http::HeaderValue::from_static(value));
        }
        headers
    }

    async fn as_admin(pairs: &[(&'static str, &'static str)]) -> ApiResult<Option<User>> {
        let authorizer = Authorizer::new(vec![Step::Node]);
        let admin = User::named("admin", [MASTERS.to_owned()]);
        act_as(&authorizer, &headers(pairs), &admin).await
    }

    #[tokio::test]
    async fn users_groups_and_extras() {
        assert_eq!(as_admin(&[]).await.expect("nobody"), None);
        let jane = as_admin(&[
            ("Impersonate-User", "jane"),
            ("Impersonate-Group", "dev"),
            ("Impersonate-Group", "ops"),
            ("Impersonate-Uid", "7"),
            ("Impersonate-Extra-example.com%2Fscopes", "view"),
        ])
        .await
        .expect("allowed")
        .expect("somebody");
        assert_eq!((jane.name.as_str(), jane.uid.as_str()), ("jane", "7"));
        assert_eq!(jane.groups, ["dev", "ops", AUTHENTICATED]);
        assert_eq!(jane.extra["example.com/scopes"], ["view"]);
        let account = as_admin(&[("Impersonate-User", "system:serviceaccount:a:b")])
            .await
            .expect("allowed")
            .expect("somebody");
        assert_eq!(
            account.groups,
            [
                "system:serviceaccounts",
                "system:serviceaccounts:a",
                AUTHENTICATED
            ]
        );
        let nobody = as_admin(&[("Impersonate-User", "system:anonymous")])
            .await
            .expect("allowed")
            .expect("somebody");
        assert_eq!(nobody.groups, [UNAUTHENTICATED]);
        let error = as_admin(&[("Impersonate-Group", "dev")])
            .await
            .expect_err("no user");
        assert_eq!(error.code(), 500);
    }

    #[tokio::test]
    async fn those_who_may_not_are_told() {
        let authorizer = Authorizer::new(vec![Step::Node]);
        let jane = User::named("jane", []);
        let error = act_as(&authorizer, &headers(&[("Impersonate-User", "bob")]), &jane)
            .await
            .expect_err("refused");
        assert_eq!(
            error.message(),
            "users \"bob\" is forbidden: User \"jane\" cannot impersonate resource \"users\" in API group \"\" at the cluster scope"
        );
    }
}
