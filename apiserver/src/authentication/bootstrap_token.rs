//! Bootstrap tokens: secrets of `kube-system` that let a machine that knows nothing else ask for a certificate.
//!
//! <https://kubernetes.io/docs/reference/access-authn-authz/bootstrap-tokens/>

use std::collections::BTreeMap;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;

use super::User;
use crate::state::Server;

/// The type of the secrets.
const TYPE: &str = "bootstrap.kubernetes.io/token";
const NAMESPACE: &str = "kube-system";
/// The group of everybody with such a token.
const BOOTSTRAPPERS: &str = "system:bootstrappers";
/// Characters of the public and of the secret part.
const ID: usize = 6;
const SECRET: usize = 16;
/// Characters a further group may have behind `system:bootstrappers:`.
const GROUP_MAX: usize = 256;

/// The parts of a token that looks like one: `abcdef.0123456789abcdef`.
fn parts(token: &str) -> Option<(&str, &str)> {
    let (id, secret) = token.split_once('.')?;
    let right = |part: &str, length| {
        part.len() == length && part.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
    };
    (right(id, ID) && right(secret, SECRET)).then_some((id, secret))
}

/// Whose bootstrap token it is; `None` when it does not look like one.
///
/// # Errors
/// Why it is nobody's.
pub fn authenticate(server: &Server, token: &str) -> Option<Result<User, String>> {
    owner(
        token,
        |name| server.cached::<Secret>(NAMESPACE, name),
        jiff::Timestamp::now(),
    )
}

/// The same, at a moment, with secrets of `kube-system` found by their names.
///
/// # Errors
/// Why it is nobody's.
pub fn owner<S: AsRef<Secret>>(
    token: &str,
    find: impl FnOnce(&str) -> Option<S>,
    now: jiff::Timestamp,
) -> Option<Result<User, String>> {
    let (id, secret) = parts(token)?;
    let name = format!("bootstrap-token-{id}");
    Some(match find(&name) {
        Some(found) => judge(found.as_ref(), id, secret, now),
        None => Err(format!("there is no secret {NAMESPACE}/{name}")),
    })
}

fn judge(found: &Secret, id: &str, secret: &str, now: jiff::Timestamp) -> Result<User, String> {
    let empty = BTreeMap::new();
    let data = found.data.as_ref().unwrap_or(&empty);
    let text = |key: &str| text(data, key);
    if found.metadata.deletion_timestamp.is_some() {
        return Err("the token is being deleted".into());
    }
    if found.type_.as_deref() != Some(TYPE) {
        return Err("the secret is of another type".into());
    }
    if !same(text("token-secret").as_bytes(), secret.as_bytes()) || text("token-id") != id {
        return Err("the token is not that of its secret".into());
    }
    let expiration = text("expiration");
    if !expiration.is_empty() {
        match expiration.parse::<jiff::Timestamp>() {
            Ok(end) if now < end => {}
            Ok(_) => return Err("the token has expired".into()),
            Err(error) => return Err(format!("the token's expiration makes no sense: {error}")),
        }
    }
    if text("usage-bootstrap-authentication") != "true" {
        return Err("the token is not for authentication".into());
    }
    let mut groups = vec![BOOTSTRAPPERS.to_owned()];
    for group in text("auth-extra-groups")
        .split(',')
        .filter(|group| !group.is_empty())
    {
        if !extra_group(group) {
            return Err(format!(
                "the token's group {group:?} is not below {BOOTSTRAPPERS}"
            ));
        }
        if !groups.iter().any(|known| known == group) {
            groups.push(group.to_owned());
        }
    }
    Ok(User::named(format!("system:bootstrap:{id}"), groups))
}

fn text<'d>(data: &'d BTreeMap<String, ByteString>, key: &str) -> &'d str {
    data.get(key)
        .and_then(|value| std::str::from_utf8(&value.0).ok())
        .unwrap_or_default()
}

/// `system:bootstrappers:[a-z0-9:-]{0,255}[a-z0-9]`
fn extra_group(group: &str) -> bool {
    let Some(rest) = group.strip_prefix("system:bootstrappers:") else {
        return false;
    };
    let word = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    rest.len() <= GROUP_MAX
        && rest.bytes().all(|b| word(b) || b == b':' || b == b'-')
        && rest.bytes().last().is_some_and(word)
}

/// Whether two texts are the same, in a time that does not say where they differ.
fn same(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |differ, (a, b)| differ | (a ^ b)) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(pairs: &[(&str, &str)]) -> Secret {
        let data = pairs
            .iter()
            .map(|(key, value)| ((*key).to_owned(), ByteString(value.as_bytes().to_vec())));
        Secret {
            type_: Some(TYPE.into()),
            data: Some(data.collect()),
            ..Secret::default()
        }
    }

    const GOOD: [(&str, &str); 3] = [
        ("token-id", "abcdef"),
        ("token-secret", "0123456789abcdef"),
        ("usage-bootstrap-authentication", "true"),
    ];

    fn judged(more: &[(&str, &str)]) -> Result<User, String> {
        let now = "2026-01-01T00:00:00Z".parse().expect("a time");
        let pairs: Vec<_> = GOOD.iter().chain(more).copied().collect();
        judge(&secret(&pairs), "abcdef", "0123456789abcdef", now)
    }

    #[test]
    fn tokens_are_what_their_secrets_say() {
        let user = judged(&[(
            "auth-extra-groups",
            "system:bootstrappers:kubeadm:default-node-token",
        )]);
        let user = user.expect("somebody");
        assert_eq!(user.name, "system:bootstrap:abcdef");
        assert_eq!(
            user.groups,
            [
                "system:bootstrappers",
                "system:bootstrappers:kubeadm:default-node-token",
                "system:authenticated"
            ]
        );
        assert!(judged(&[("expiration", "2026-01-01T00:00:01Z")]).is_ok());
        assert!(judged(&[("expiration", "2025-12-31T23:59:59Z")]).is_err());
        assert!(judged(&[("expiration", "soon")]).is_err());
        assert!(judged(&[("usage-bootstrap-authentication", "false")]).is_err());
        assert!(judged(&[("auth-extra-groups", "system:masters")]).is_err());
        assert!(judged(&[("token-secret", "0123456789abcdeX")]).is_err());
    }

    #[test]
    fn tokens_have_a_form() {
        assert_eq!(
            parts("abcdef.0123456789abcdef"),
            Some(("abcdef", "0123456789abcdef"))
        );
        for wrong in [
            "abcdef",
            "abcde.0123456789abcdef",
            "ABCDEF.0123456789abcdef",
            "abcdef.0123456789abcde",
            "a.b.c",
        ] {
            assert_eq!(parts(wrong), None, "{wrong}");
        }
    }
}
