//! Who may do what: the authorizers of `--authorization-mode`, asked one after the other until one has an opinion.
//!
//! | module | authorizer |
//! | --- | --- |
//! | [`rbac`] | roles and bindings, compiled into an index by subject |
//! | [`node`] | what kubelets may do, which is to touch what belongs to their node |
//! | [`webhook`], [`conditions`] | what a webhook says, where its conditions hold |
//!
//! Which of them are asked, and in which order, is in [`config`].
//!
//! Members of `system:masters` may do everything, whatever the authorizers say.
//!
//! <https://kubernetes.io/docs/reference/access-authn-authz/authorization/>

pub mod attributes;
pub mod conditions;
pub mod config;
pub mod node;
pub mod rbac;
pub mod webhook;

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use clap::ValueEnum as _;
use keelson_api::names::GroupResource;
use keelson_api::status::ApiError;
use tokio::sync::watch;

use crate::reload;
pub use attributes::{Attributes, Selectors, Target};
pub use config::AuthorizationMode;
use config::Step;
use node::NodeAuthorizer;
use rbac::Rbac;
use rbac::index::Grant;

use crate::authentication::{MASTERS, User};

/// How long a request waits for roles to be loaded after the start of the server.
const PATIENCE: Duration = Duration::from_secs(10);

/// What an authorizer thinks of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Opinion {
    /// It is allowed; nobody else is asked.
    Allow,
    /// It is refused; nobody else is asked.
    Deny,
    /// Somebody else decides.
    None,
}

/// Why an authorizer thinks so; written out only where somebody reads it.
#[derive(Debug, Clone, Default)]
pub enum Reason {
    /// Nothing to say.
    #[default]
    None,
    /// In words.
    Text(String),
    /// Somebody gave the caller a role.
    Grant(Grant),
}

impl std::fmt::Display for Reason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Reason::None => Ok(()),
            Reason::Text(text) => f.write_str(text),
            Reason::Grant(grant) => write!(f, "RBAC: allowed by {grant}"),
        }
    }
}

/// What was decided.
#[derive(Debug, Clone)]
pub struct Verdict {
    /// Allowed, refused, or nobody had an opinion.
    pub opinion: Opinion,
    /// Why.
    pub reason: Reason,
}

impl Verdict {
    fn new(opinion: Opinion, reason: impl Into<String>) -> Self {
        let text = reason.into();
        let reason = if text.is_empty() {
            Reason::None
        } else {
            Reason::Text(text)
        };
        Self { opinion, reason }
    }

    /// An authorizer without an opinion.
    pub fn no_opinion(reason: impl Into<String>) -> Self {
        Self::new(Opinion::None, reason)
    }

    /// Allowed without a word.
    pub fn allow() -> Self {
        Self::new(Opinion::Allow, "")
    }

    /// Whether the request goes on.
    pub fn allowed(&self) -> bool {
        self.opinion == Opinion::Allow
    }
}

/// The authorizers, in order.
pub struct Authorizer {
    steps: ArcSwap<Vec<Step>>,
    /// Roles and bindings.
    pub rbac: Rbac,
    /// Kubelets.
    pub node: NodeAuthorizer,
    ready: watch::Sender<bool>,
}

impl Authorizer {
    /// These authorizers, knowing nothing yet.
    pub fn new(steps: Vec<Step>) -> Self {
        let ready = !steps.iter().any(|step| matches!(step, Step::Rbac));
        Self {
            steps: ArcSwap::from_pointee(steps),
            rbac: Rbac::default(),
            node: NodeAuthorizer::default(),
            ready: watch::Sender::new(ready),
        }
    }

    /// Whether `mode` is switched on.
    pub fn runs(&self, mode: AuthorizationMode) -> bool {
        self.steps.load().iter().any(|step| step.mode() == mode)
    }

    /// Asks other authorizers from now on. Only webhooks may come and go: what the others know is gathered from the start.
    ///
    /// # Errors
    /// When others would, too.
    pub fn replace(&self, steps: Vec<Step>) -> Result<(), String> {
        for mode in AuthorizationMode::value_variants() {
            let runs = steps.iter().any(|step| step.mode() == *mode);
            if *mode != AuthorizationMode::Webhook && runs != self.runs(*mode) {
                let what = if runs { "added" } else { "removed" };
                return Err(format!("authorizers: type {mode:?} cannot be {what} by a reload"));
            }
        }
        self.steps.store(Arc::new(steps));
        Ok(())
    }

    /// The authorizers know what is in the store, and what has to be there is there.
    pub fn set_ready(&self) {
        self.ready.send_replace(true);
    }

    /// Whether [`Authorizer::set_ready`] has been called.
    pub fn ready(&self) -> bool {
        *self.ready.borrow()
    }

    /// What is decided about a request. Waits, but not for long, for roles to be loaded.
    pub async fn authorize(&self, user: &User, attributes: &Attributes<'_>) -> Verdict {
        if user.in_group(MASTERS) {
            return Verdict::allow();
        }
        if !self.ready() {
            let mut ready = self.ready.subscribe();
            // Whoever still finds no roles then is refused.
            let _ = tokio::time::timeout(PATIENCE, ready.wait_for(|ready| *ready)).await;
        }
        let mut reasons = Vec::new();
        let steps = self.steps.load_full();
        for step in steps.iter() {
            let verdict = match step {
                Step::Node => self.node.decide(user, attributes).await,
                Step::Rbac => self.rbac.decide(user, attributes),
                // Boxed: the future of a call over the network is large, and most clusters make none.
                Step::Webhook(webhook) => Box::pin(webhook.decide(user, attributes)).await,
                Step::AlwaysAllow => Verdict::allow(),
                Step::AlwaysDeny => Verdict::no_opinion("Everything is forbidden."),
            };
            match verdict.opinion {
                Opinion::None => reasons.extend(match verdict.reason {
                    Reason::None => None,
                    reason => Some(reason.to_string()),
                }),
                _ => return verdict,
            }
        }
        Verdict::no_opinion(reasons.join("\n"))
    }

    /// Refuses what is not allowed.
    ///
    /// # Errors
    /// The 403 for it.
    pub async fn check(&self, user: &User, attributes: &Attributes<'_>) -> Result<(), ApiError> {
        let verdict = self.authorize(user, attributes).await;
        if crate::audit::recording() {
            let decision = if verdict.allowed() { "allow" } else { "forbid" };
            crate::audit::annotate("authorization.k8s.io/decision", || decision.to_owned());
            crate::audit::annotate("authorization.k8s.io/reason", || verdict.reason.to_string());
        }
        if verdict.allowed() {
            Ok(())
        } else {
            Err(forbidden(user, attributes, &verdict.reason))
        }
    }
}

/// Starts what keeps the authorizers' knowledge fresh.
pub fn start(server: &Arc<crate::state::Server>) {
    if server.authorizer.runs(AuthorizationMode::Rbac) {
        rbac::follow::start(server);
    }
    if server.authorizer.runs(AuthorizationMode::Node) {
        node::follow::start(server);
    }
    if let Some(path) = &server.config.authorization.authorization_config {
        let this = server.clone();
        reload::follow_for(
            server,
            ("--authorization-config", "authorization"),
            path,
            move |text| {
                let steps = config::steps_of(text).map_err(|error| format!("{error:#}"))?;
                this.authorizer.replace(steps)
            },
        );
    }
}

/// The refusal, in upstream's words.
pub fn forbidden(user: &User, attributes: &Attributes<'_>, reason: &Reason) -> ApiError {
    let who = &user.name;
    let verb = attributes.verb;
    let why = match reason {
        Reason::None => String::new(),
        reason => format!(": {reason}"),
    };
    match attributes.target {
        Target::Path(path) => ApiError::forbidden(
            &GroupResource::default(),
            "",
            format_args!("User \"{who}\" cannot {verb} path \"{path}\"{why}"),
        ),
        Target::Resource {
            group,
            resource,
            subresource,
            namespace,
            name,
            ..
        } => {
            let what = if subresource.is_empty() {
                resource.to_owned()
            } else {
                format!("{resource}/{subresource}")
            };
            let place = match namespace {
                "" => "at the cluster scope".to_owned(),
                namespace => format!("in the namespace \"{namespace}\""),
            };
            ApiError::forbidden(
                &GroupResource::new(group.to_owned(), resource.to_owned()),
                name,
                format_args!(
                    "User \"{who}\" cannot {verb} resource \"{what}\" in API group \"{group}\" {place}{why}"
                ),
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pods<'a>(verb: &'a str) -> Attributes<'a> {
        Attributes::resource(
            verb,
            attributes::Resource {
                version: "v1",
                resource: "pods",
                namespace: "default",
                ..Default::default()
            },
        )
    }

    #[tokio::test]
    async fn masters_may_do_everything_and_others_nothing_without_a_role() {
        let authorizer = Authorizer::new(vec![Step::Node, Step::Rbac]);
        authorizer.set_ready();
        let admin = User::named("x", [MASTERS.to_owned()]);
        assert!(
            authorizer
                .authorize(&admin, &pods("deletecollection"))
                .await
                .allowed()
        );
        let other = User::named("system:kube-scheduler", []);
        assert!(!authorizer.authorize(&other, &pods("list")).await.allowed());
    }

    #[tokio::test]
    async fn webhooks_come_and_go_and_the_order_changes_but_others_stay() {
        let authorizer = Authorizer::new(vec![Step::AlwaysDeny, Step::Rbac]);
        authorizer.set_ready();
        let somebody = User::named("x", []);
        assert_eq!(authorizer.replace(vec![Step::Rbac, Step::AlwaysDeny]), Ok(()));
        let refused = authorizer.replace(vec![Step::Rbac, Step::AlwaysDeny, Step::AlwaysAllow]);
        assert!(refused.is_err_and(|why| why.contains("AlwaysAllow cannot be added")));
        assert!(authorizer.replace(vec![Step::Rbac]).is_err());
        assert!(!authorizer.authorize(&somebody, &pods("list")).await.allowed());
    }

    #[test]
    fn refusals_read_like_upstream() {
        let error = forbidden(&User::named("x", []), &pods("list"), &Reason::None);
        assert_eq!(
            error.message(),
            "pods is forbidden: User \"x\" cannot list resource \"pods\" in API group \"\" in the namespace \"default\""
        );
        let reason = Reason::Text("RBAC: role.rbac.authorization.k8s.io \"r\" not found".into());
        let error = forbidden(&User::anonymous(), &Attributes::path("get", "/"), &reason);
        assert_eq!(
            error.message(),
            "forbidden: User \"system:anonymous\" cannot get path \"/\": RBAC: role.rbac.authorization.k8s.io \"r\" not found"
        );
    }
}
