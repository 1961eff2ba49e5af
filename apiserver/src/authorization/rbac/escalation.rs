//! Nobody gives away what they do not have: rules of roles that are written, and of roles that are bound.
//!
//! <https://kubernetes.io/docs/reference/access-authn-authz/rbac/#privilege-escalation-prevention-and-bootstrapping>

use std::collections::BTreeMap;

use k8s_openapi::api::rbac::v1::{PolicyRule, RoleRef};
use keelson_api::names::GroupResource;
use keelson_api::status::{ApiError, ApiResult};

use super::follow::catch_up;
use super::index::RoleKind;
use super::rule::Rule;
use crate::authentication::{MASTERS, User};
use crate::authorization::AuthorizationMode;
use crate::authorization::attributes::{Attributes, Resource};
use crate::registry::strategy::RequestContext;

const GROUP: &str = "rbac.authorization.k8s.io";

/// A role as somebody wants it to be.
pub struct NewRole<'a> {
    /// Its name.
    pub name: &'a str,
    /// The name in the path of the request: none while the role does not exist.
    pub existing: &'a str,
    /// What it allows.
    pub rules: &'a [PolicyRule],
    /// Whether it gathers, or gathered, the rules of other roles.
    pub aggregates: bool,
}

/// Refuses a role whose rules its author does not have, unless the author may `escalate`.
///
/// # Errors
/// The 403 for it.
pub async fn check_role(ctx: &RequestContext<'_>, role: NewRole<'_>) -> ApiResult<()> {
    let NewRole {
        name,
        existing,
        rules,
        aggregates,
    } = role;
    if exempt(ctx) || may(ctx, "escalate", ctx.info.plural, ctx.namespace, existing).await {
        return Ok(());
    }
    catch_up(ctx.server).await?;
    let resource = ctx.info.group_resource();
    if aggregates && missing(ctx, &full_authority()).is_some() {
        let why = "must have cluster-admin privileges to use an aggregationRule";
        return Err(ApiError::forbidden(&resource, name, why));
    }
    let rules: Vec<Rule> = rules.iter().map(Rule::new).collect();
    match missing(ctx, &rules) {
        Some(why) => Err(ApiError::forbidden(&resource, name, why)),
        None => Ok(()),
    }
}

/// Refuses a binding to a role whose rules its author does not have, unless the author may `bind` the role.
///
/// # Errors
/// The 403 for it, or the 404 for a role that does not exist.
pub async fn check_binding(ctx: &RequestContext<'_>, name: &str, role: &RoleRef) -> ApiResult<()> {
    let (kind, plural) = match role.kind.as_str() {
        "ClusterRole" => (RoleKind::ClusterRole, "clusterroles"),
        "Role" => (RoleKind::Role, "roles"),
        // Validation says what is wrong with it.
        _ => return Ok(()),
    };
    if exempt(ctx) || may(ctx, "bind", plural, ctx.namespace, &role.name).await {
        return Ok(());
    }
    catch_up(ctx.server).await?;
    let rbac = &ctx.server.authorizer.rbac;
    let Some(rules) = rbac.role(kind, ctx.namespace, &role.name) else {
        return Err(ApiError::not_found(
            &GroupResource::new(GROUP, plural),
            &role.name,
        ));
    };
    match missing(ctx, &rules) {
        Some(why) => Err(ApiError::forbidden(&ctx.info.group_resource(), name, why)),
        None => Ok(()),
    }
}

/// Without RBAC there is nothing to escalate, and masters have everything.
fn exempt(ctx: &RequestContext<'_>) -> bool {
    ctx.user.in_group(MASTERS) || !ctx.server.authorizer.runs(AuthorizationMode::Rbac)
}

async fn may(ctx: &RequestContext<'_>, verb: &str, resource: &str, namespace: &str, name: &str) -> bool {
    let attributes = Attributes::resource(
        verb,
        Resource {
            group: GROUP,
            version: "*",
            resource,
            subresource: "",
            namespace,
            name,
        },
    );
    ctx.server
        .authorizer
        .authorize(ctx.user, &attributes)
        .await
        .allowed()
}

fn full_authority() -> Vec<Rule> {
    let star = || vec!["*".to_owned()];
    let resources = PolicyRule {
        verbs: star(),
        api_groups: Some(star()),
        resources: Some(star()),
        ..PolicyRule::default()
    };
    let urls = PolicyRule {
        verbs: star(),
        non_resource_urls: Some(star()),
        ..PolicyRule::default()
    };
    vec![Rule::new(&resources), Rule::new(&urls)]
}

fn missing(ctx: &RequestContext<'_>, wanted: &[Rule]) -> Option<String> {
    let (owned, problems) = ctx.server.authorizer.rbac.rules_of(ctx.user, ctx.namespace);
    refusal(ctx.user, &owned, &problems, wanted)
}

/// What is to be said when `owned` does not cover `wanted`.
fn refusal(user: &User, owned: &[Rule], problems: &[String], wanted: &[Rule]) -> Option<String> {
    let lacking = missing_rules(owned, wanted);
    if lacking.is_empty() {
        return None;
    }
    let mut lines: Vec<String> = lacking.iter().map(ToString::to_string).collect();
    lines.sort();
    lines.dedup();
    let groups: Vec<String> = user
        .groups
        .iter()
        .map(|group| keelson_api::text::quote(group))
        .collect();
    let mut text = format!(
        "user {} (groups=[{}]) is attempting to grant RBAC permissions not currently held:\n{}",
        keelson_api::text::quote(&user.name),
        groups.join(" "),
        lines.join("\n")
    );
    if !problems.is_empty() {
        text.push_str(&format!("; resolution errors: [{}]", problems.join(" ")));
    }
    Some(text)
}

/// What of `wanted` the rules of `owned` do not cover.
pub fn missing_rules(owned: &[Rule], wanted: &[Rule]) -> Vec<Rule> {
    let pieces = wanted.iter().flat_map(Rule::pieces);
    compact(
        pieces
            .filter(|piece| !owned.iter().any(|rule| rule.covers(piece)))
            .collect(),
    )
}

/// One rule for all verbs on the same resource; rules on URLs stay as they are.
fn compact(pieces: Vec<Rule>) -> Vec<Rule> {
    let mut by_resource: BTreeMap<(_, _, _), Rule> = BTreeMap::new();
    let mut others = Vec::new();
    for piece in pieces {
        if !piece.urls.is_empty() {
            others.push(piece);
            continue;
        }
        let key = (piece.groups.clone(), piece.resources.clone(), piece.names.clone());
        match by_resource.remove(&key) {
            Some(known) => by_resource.insert(key, known.with_verbs_of(&piece)),
            None => by_resource.insert(key, piece),
        };
    }
    others.extend(by_resource.into_values());
    others
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn rules(json: serde_json::Value) -> Vec<Rule> {
        let policies: Vec<PolicyRule> = serde_json::from_value(json).expect("rules");
        policies.iter().map(Rule::new).collect()
    }

    #[test]
    fn what_is_missing_is_named_as_upstream_names_it() {
        let owned = rules(json!([{"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]}]));
        let wanted = rules(json!([
            {"verbs": ["get", "list", "watch"], "apiGroups": [""], "resources": ["pods", "secrets"]},
            {"verbs": ["get"], "nonResourceURLs": ["/metrics"]}
        ]));
        let user = User::named("x", ["g".to_owned()]);
        assert_eq!(
            refusal(&user, &owned, &[], &wanted).expect("a refusal"),
            "user \"x\" (groups=[\"g\" \"system:authenticated\"]) is attempting to grant RBAC permissions not currently held:\n\
             {APIGroups:[\"\"], Resources:[\"pods\"], Verbs:[\"list\" \"watch\"]}\n\
             {APIGroups:[\"\"], Resources:[\"secrets\"], Verbs:[\"get\" \"list\" \"watch\"]}\n\
             {NonResourceURLs:[\"/metrics\"], Verbs:[\"get\"]}"
        );
        assert_eq!(refusal(&user, &full_authority(), &[], &wanted), None);
    }
}
