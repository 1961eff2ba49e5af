//! Which authorizers are asked, in which order: flags, or an `AuthorizationConfiguration`.
//!
//! <https://kubernetes.io/docs/reference/access-authn-authz/authorization/#using-configuration-file-for-authorization>

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::{Args, ValueEnum};
use keelson_api::field::{Error, Path, aggregate};
use keelson_daemon::yaml;
use serde::Deserialize;

use super::conditions::Conditions;
use super::webhook::{FailurePolicy, WebhookAuthorizer};
use crate::authentication::webhook::Version;
use crate::files;
use crate::outbound::kubeconfig::Webhook;

/// The longest a webhook may be waited for.
const TIMEOUT_MAX: Duration = Duration::from_secs(30);

/// Flags about authorization.
#[derive(Debug, Clone, Args)]
pub struct AuthorizationArgs {
    /// Who decides what callers may do, in the order they are asked; by default Node,RBAC.
    #[arg(long, value_enum, value_delimiter = ',')]
    pub authorization_mode: Vec<AuthorizationMode>,
    /// The same as an AuthorizationConfiguration, YAML; instead of the other --authorization flags.
    #[arg(long)]
    pub authorization_config: Option<PathBuf>,
    /// Kubeconfig of the webhook that the mode Webhook asks.
    #[arg(long)]
    pub authorization_webhook_config_file: Option<PathBuf>,
    /// Version of authorization.k8s.io it speaks.
    #[arg(long, value_enum, default_value_t = Version::V1beta1)]
    pub authorization_webhook_version: Version,
    /// How long its permissions are kept.
    #[arg(long, default_value = "5m", value_parser = keelson_daemon::duration::parse)]
    pub authorization_webhook_cache_authorized_ttl: Duration,
    /// How long its refusals are kept.
    #[arg(long, default_value = "30s", value_parser = keelson_daemon::duration::parse)]
    pub authorization_webhook_cache_unauthorized_ttl: Duration,
}

/// One authorizer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum AuthorizationMode {
    /// Kubelets, by what is bound to their node.
    #[value(name = "Node")]
    Node,
    /// Roles and bindings.
    #[value(name = "RBAC")]
    Rbac,
    /// A webhook.
    #[value(name = "Webhook")]
    Webhook,
    /// Everybody may do everything.
    #[value(name = "AlwaysAllow")]
    AlwaysAllow,
    /// Nobody may do anything.
    #[value(name = "AlwaysDeny")]
    AlwaysDeny,
}

/// An authorizer, ready to be asked.
pub enum Step {
    /// [`AuthorizationMode::Node`]
    Node,
    /// [`AuthorizationMode::Rbac`]
    Rbac,
    /// [`AuthorizationMode::Webhook`]
    Webhook(Box<WebhookAuthorizer>),
    /// [`AuthorizationMode::AlwaysAllow`]
    AlwaysAllow,
    /// [`AuthorizationMode::AlwaysDeny`]
    AlwaysDeny,
}

impl Step {
    /// Which sort of authorizer it is.
    pub fn mode(&self) -> AuthorizationMode {
        match self {
            Step::Node => AuthorizationMode::Node,
            Step::Rbac => AuthorizationMode::Rbac,
            Step::Webhook(_) => AuthorizationMode::Webhook,
            Step::AlwaysAllow => AuthorizationMode::AlwaysAllow,
            Step::AlwaysDeny => AuthorizationMode::AlwaysDeny,
        }
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct AuthorizationConfiguration {
    #[serde(default)]
    api_version: String,
    #[serde(default)]
    kind: String,
    #[serde(default)]
    authorizers: Vec<Configured>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Configured {
    #[serde(default, rename = "type")]
    kind: String,
    #[serde(default)]
    name: String,
    webhook: Option<WebhookConfiguration>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct WebhookConfiguration {
    #[serde(default, rename = "authorizedTTL")]
    authorized_ttl: Option<String>,
    cache_authorized_requests: Option<bool>,
    #[serde(default, rename = "unauthorizedTTL")]
    unauthorized_ttl: Option<String>,
    cache_unauthorized_requests: Option<bool>,
    #[serde(default)]
    timeout: Option<String>,
    #[serde(default)]
    subject_access_review_version: String,
    #[serde(default)]
    match_condition_subject_access_review_version: String,
    #[serde(default)]
    failure_policy: String,
    #[serde(default)]
    connection_info: ConnectionInfo,
    #[serde(default)]
    match_conditions: Vec<MatchCondition>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ConnectionInfo {
    #[serde(default, rename = "type")]
    kind: String,
    kube_config_file: Option<PathBuf>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct MatchCondition {
    #[serde(default)]
    expression: String,
}

impl AuthorizationArgs {
    /// The authorizers, in order.
    ///
    /// # Errors
    /// Everything that is wrong.
    pub fn steps(&self) -> anyhow::Result<Vec<Step>> {
        let Some(path) = &self.authorization_config else {
            return self.by_flags();
        };
        if !self.authorization_mode.is_empty() || self.authorization_webhook_config_file.is_some() {
            bail!(
                "--authorization-config can not be specified when --authorization-mode or --authorization-webhook-* flags are defined"
            );
        }
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("--authorization-config: cannot read {}", path.display()))?;
        steps_of(&text).with_context(|| format!("--authorization-config: {}", path.display()))
    }

    fn by_flags(&self) -> anyhow::Result<Vec<Step>> {
        let modes = match self.authorization_mode.as_slice() {
            [] => &[AuthorizationMode::Node, AuthorizationMode::Rbac],
            given => given,
        };
        if self.authorization_webhook_config_file.is_some() && !modes.contains(&AuthorizationMode::Webhook) {
            bail!("cannot specify --authorization-webhook-config-file without mode Webhook");
        }
        let mut steps = Vec::new();
        for (place, mode) in modes.iter().enumerate() {
            if modes[..place].contains(mode) {
                bail!("--authorization-mode: a mode is named twice");
            }
            steps.push(match mode {
                AuthorizationMode::Node => Step::Node,
                AuthorizationMode::Rbac => Step::Rbac,
                AuthorizationMode::AlwaysAllow => Step::AlwaysAllow,
                AuthorizationMode::AlwaysDeny => Step::AlwaysDeny,
                AuthorizationMode::Webhook => {
                    let path = self.authorization_webhook_config_file.as_deref().context(
                        "authorization-mode Webhook's authorization config file not passed \
                         (--authorization-webhook-config-file)",
                    )?;
                    Step::Webhook(Box::new(WebhookAuthorizer::new(
                        Webhook::load(path)?,
                        self.authorization_webhook_version,
                        TIMEOUT_MAX,
                        self.authorization_webhook_cache_authorized_ttl,
                        self.authorization_webhook_cache_unauthorized_ttl,
                        FailurePolicy::NoOpinion,
                        Conditions::default(),
                    )))
                }
            });
        }
        Ok(steps)
    }
}

/// The authorizers of an `AuthorizationConfiguration`, in order.
///
/// # Errors
/// Everything that is wrong.
pub fn steps_of(text: &str) -> anyhow::Result<Vec<Step>> {
    AuthorizationConfiguration::parse(text).and_then(AuthorizationConfiguration::steps)
}

impl AuthorizationConfiguration {
    fn parse(text: &str) -> anyhow::Result<Self> {
        let config: Self = yaml::from_str(text).context("cannot be decoded")?;
        let known = ["apiserver.config.k8s.io/v1", "apiserver.config.k8s.io/v1beta1"];
        files::expect(
            (&config.api_version, &config.kind),
            "AuthorizationConfiguration",
            &known,
        )
        .map_err(anyhow::Error::msg)?;
        let errors = config.validate();
        if !errors.is_empty() {
            bail!("{}", aggregate(&errors));
        }
        Ok(config)
    }

    fn validate(&self) -> Vec<Error> {
        let root = Path::new("authorizers");
        if self.authorizers.is_empty() {
            return vec![Error::required(
                &root,
                "at least one authorization mode must be defined",
            )];
        }
        let mut errors = Vec::new();
        let (mut kinds, mut names) = (Vec::new(), Vec::new());
        for (i, one) in self.authorizers.iter().enumerate() {
            let path = root.index(i);
            let kind = path.child("type");
            match one.kind.as_str() {
                "" => errors.push(Error::required(&kind, "")),
                "Webhook" => {}
                "Node" | "RBAC" | "AlwaysAllow" | "AlwaysDeny" => {
                    if kinds.contains(&one.kind.as_str()) {
                        errors.push(Error::duplicate(&kind, one.kind.clone()));
                    }
                    kinds.push(&one.kind);
                    if one.webhook.is_some() {
                        errors.push(Error::invalid(
                            &path.child("webhook"),
                            "non-null",
                            "may only be specified when type=Webhook",
                        ));
                    }
                }
                other => errors.push(Error::not_supported(
                    &kind,
                    other,
                    &["AlwaysAllow", "AlwaysDeny", "Node", "RBAC", "Webhook"],
                )),
            }
            let name = path.child("name");
            if one.name.is_empty() {
                errors.push(Error::required(&name, ""));
            } else if names.contains(&one.name.as_str()) {
                errors.push(Error::duplicate(&name, one.name.clone()));
            }
            names.push(&one.name);
            if one.kind == "Webhook" {
                match &one.webhook {
                    Some(webhook) => webhook.validate(&path.child("webhook"), &mut errors),
                    None => errors.push(Error::required(
                        &path.child("webhook"),
                        "required when type=Webhook",
                    )),
                }
            }
        }
        errors
    }

    fn steps(self) -> anyhow::Result<Vec<Step>> {
        let step = |one: Configured| {
            Ok(match (one.kind.as_str(), one.webhook) {
                ("Node", _) => Step::Node,
                ("RBAC", _) => Step::Rbac,
                ("AlwaysAllow", _) => Step::AlwaysAllow,
                ("Webhook", Some(webhook)) => Step::Webhook(Box::new(webhook.authorizer()?)),
                _ => Step::AlwaysDeny,
            })
        };
        self.authorizers.into_iter().map(step).collect()
    }
}

fn parsed(text: Option<&str>, otherwise: Duration) -> Result<Duration, String> {
    text.map_or(Ok(otherwise), keelson_daemon::duration::parse)
}

/// How long permissions and refusals are kept when nothing else is said.
const AUTHORIZED: Duration = Duration::from_secs(300);
const UNAUTHORIZED: Duration = Duration::from_secs(30);

impl WebhookConfiguration {
    fn validate(&self, path: &Path, errors: &mut Vec<Error>) {
        let mut invalid = |field: &'static str, value: &str, detail: String| {
            errors.push(Error::invalid(&path.child(field), value, detail));
        };
        for (field, text) in [
            ("authorizedTTL", &self.authorized_ttl),
            ("unauthorizedTTL", &self.unauthorized_ttl),
        ] {
            if let Some(text) = text
                && keelson_daemon::duration::parse(text).map_or(true, |ttl| ttl.is_zero())
            {
                invalid(field, text, "must be > 0s".into());
            }
        }
        match self.timeout.as_deref() {
            None => {}
            Some(text) => match keelson_daemon::duration::parse(text) {
                Ok(timeout) if timeout.is_zero() => invalid("timeout", text, "must be > 0s".into()),
                Ok(timeout) if timeout > TIMEOUT_MAX => invalid("timeout", text, "must be <= 30s".into()),
                Ok(_) => {}
                Err(error) => invalid("timeout", text, error),
            },
        }
        if self.timeout.is_none() {
            errors.push(Error::required(&path.child("timeout"), ""));
        }
        for (field, version, needed) in [
            (
                "subjectAccessReviewVersion",
                &self.subject_access_review_version,
                true,
            ),
            (
                "matchConditionSubjectAccessReviewVersion",
                &self.match_condition_subject_access_review_version,
                !self.match_conditions.is_empty(),
            ),
        ] {
            match version.as_str() {
                "" if needed => errors.push(Error::required(&path.child(field), "")),
                "" | "v1" => {}
                "v1beta1" if field == "subjectAccessReviewVersion" => {}
                other => errors.push(Error::not_supported(
                    &path.child(field),
                    other,
                    &["v1", "v1beta1"],
                )),
            }
        }
        match self.failure_policy.as_str() {
            "" => errors.push(Error::required(&path.child("failurePolicy"), "")),
            "NoOpinion" | "Deny" => {}
            other => errors.push(Error::not_supported(
                &path.child("failurePolicy"),
                other,
                &["Deny", "NoOpinion"],
            )),
        }
        let connection = path.child("connectionInfo");
        match self.connection_info.kind.as_str() {
            "" => errors.push(Error::required(&connection.child("type"), "")),
            "KubeConfigFile" => match &self.connection_info.kube_config_file {
                None => errors.push(Error::required(&connection.child("kubeConfigFile"), "")),
                Some(file) if !file.is_absolute() => errors.push(Error::invalid(
                    &connection.child("kubeConfigFile"),
                    file.display().to_string(),
                    "must be an absolute path",
                )),
                Some(_) => {}
            },
            other => errors.push(Error::not_supported(
                &connection.child("type"),
                other,
                &["KubeConfigFile"],
            )),
        }
        let conditions = path.child("matchConditions");
        for (i, condition) in self.match_conditions.iter().enumerate() {
            let at = conditions.index(i).child("expression");
            if condition.expression.trim().is_empty() {
                errors.push(Error::required(&at, ""));
            } else if let Err(error) = Conditions::new([condition.expression.as_str()]) {
                errors.push(Error::invalid(&at, condition.expression.clone(), error));
            }
        }
    }

    fn authorizer(self) -> anyhow::Result<WebhookAuthorizer> {
        let path = self.connection_info.kube_config_file.as_deref();
        let webhook = Webhook::load(path.context("there is no kubeconfig")?)?;
        let kept = |cached: Option<bool>, text: Option<&str>, otherwise| match cached {
            Some(false) => Ok(Duration::ZERO),
            _ => parsed(text, otherwise).map_err(anyhow::Error::msg),
        };
        let version = match self.subject_access_review_version.as_str() {
            "v1beta1" => Version::V1beta1,
            _ => Version::V1,
        };
        let failure = match self.failure_policy.as_str() {
            "Deny" => FailurePolicy::Deny,
            _ => FailurePolicy::NoOpinion,
        };
        let conditions = self.match_conditions.iter().map(|c| c.expression.as_str());
        Ok(WebhookAuthorizer::new(
            webhook,
            version,
            parsed(self.timeout.as_deref(), TIMEOUT_MAX).map_err(anyhow::Error::msg)?,
            kept(
                self.cache_authorized_requests,
                self.authorized_ttl.as_deref(),
                AUTHORIZED,
            )?,
            kept(
                self.cache_unauthorized_requests,
                self.unauthorized_ttl.as_deref(),
                UNAUTHORIZED,
            )?,
            failure,
            Conditions::new(conditions).map_err(anyhow::Error::msg)?,
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(authorizers: &str) -> String {
        let text = format!(
            "apiVersion: apiserver.config.k8s.io/v1\nkind: AuthorizationConfiguration\nauthorizers: {authorizers}\n"
        );
        let parsed = AuthorizationConfiguration::parse(&text);
        parsed.err().map(|error| format!("{error:#}")).unwrap_or_default()
    }

    #[test]
    fn configurations_that_make_no_sense_are_refused() {
        let webhook = |more: &str| {
            format!(
                "[{{type: Webhook, name: w, webhook: {{timeout: 3s, subjectAccessReviewVersion: v1, \
                 matchConditionSubjectAccessReviewVersion: v1, failurePolicy: Deny, \
                 connectionInfo: {{type: KubeConfigFile, kubeConfigFile: /w}}{more}}}}}]"
            )
        };
        assert_eq!(error(&webhook("")), "");
        assert_eq!(error("[{type: Node, name: node}, {type: RBAC, name: rbac}]"), "");
        assert_eq!(
            error(&webhook(
                ", matchConditions: [{expression: 'request.user == \"a\"'}]"
            )),
            ""
        );
        assert!(error("[]").contains("at least one authorization mode"));
        assert!(error("[{type: RBAC, name: a}, {type: RBAC, name: b}]").contains("Duplicate value"));
        assert!(error("[{type: RBAC, name: a}, {type: Node, name: a}]").contains("authorizers[1].name"));
        assert!(error("[{type: Magic, name: a}]").contains("Unsupported value"));
        assert!(error("[{type: Webhook, name: a}]").contains("required when type=Webhook"));
        assert!(error(&webhook(", authorizedTTL: 0s")).contains("must be > 0s"));
        assert!(
            error(&webhook(
                ", matchConditions: [{expression: 'request.users == \"a\"'}]"
            ))
            .contains("undefined field")
        );
        assert!(
            error(&webhook(", matchConditions: [{expression: '1 + 1'}]")).contains("must evaluate to bool")
        );
    }

    #[test]
    fn flags_that_contradict_each_other_are_refused() {
        let args =
            |mode: Vec<AuthorizationMode>, config: Option<&str>, webhook: Option<&str>| AuthorizationArgs {
                authorization_mode: mode,
                authorization_config: config.map(Into::into),
                authorization_webhook_config_file: webhook.map(Into::into),
                authorization_webhook_version: Version::V1,
                authorization_webhook_cache_authorized_ttl: AUTHORIZED,
                authorization_webhook_cache_unauthorized_ttl: UNAUTHORIZED,
            };
        assert_eq!(
            args(Vec::new(), None, None).steps().map(|steps| steps.len()).ok(),
            Some(2)
        );
        assert!(
            args(vec![AuthorizationMode::Webhook], None, None)
                .steps()
                .is_err()
        );
        assert!(
            args(vec![AuthorizationMode::Rbac], None, Some("/w"))
                .steps()
                .is_err()
        );
        assert!(
            args(vec![AuthorizationMode::Rbac], Some("/c"), None)
                .steps()
                .is_err()
        );
        assert!(
            args(vec![AuthorizationMode::Rbac, AuthorizationMode::Rbac], None, None)
                .steps()
                .is_err()
        );
    }
}
