//! Flags for one issuer, and `AuthenticationConfiguration` for any number of them.
//!
//! <https://kubernetes.io/docs/reference/config-api/apiserver-config.v1/>

use std::path::PathBuf;

use anyhow::{Context as _, bail};
use clap::Args;
use keelson_api::field::{Error, Path, aggregate};
use keelson_daemon::tls::PemSource;
use keelson_daemon::yaml;
use serde::Deserialize;
use serde_json::json;

use super::expressions::{Expression, Subject, Wanted};
use super::keys::Algorithm;
use crate::files;
use crate::outbound::HttpClient;

/// Issuers at most.
const MOST: usize = 64;

/// Flags about tokens of issuers.
#[derive(Debug, Clone, Default, Args)]
pub struct OidcArgs {
    /// An AuthenticationConfiguration, YAML; instead of the --oidc flags.
    #[arg(long)]
    pub authentication_config: Option<PathBuf>,
    /// URL of the issuer of ID tokens, https.
    #[arg(long)]
    pub oidc_issuer_url: Option<String>,
    /// Audience its tokens have to be for.
    #[arg(long)]
    pub oidc_client_id: Option<String>,
    /// Authorities the issuer's certificate may come from, PEM; by default the machine's.
    #[arg(long)]
    pub oidc_ca_file: Option<PathBuf>,
    /// Claim that is the user's name.
    #[arg(long, default_value = "sub")]
    pub oidc_username_claim: String,
    /// What users' names begin with; by default the issuer and a #, for emails nothing; - is nothing.
    #[arg(long)]
    pub oidc_username_prefix: Option<String>,
    /// Claim that is the user's groups.
    #[arg(long, default_value = "")]
    pub oidc_groups_claim: String,
    /// What groups' names begin with.
    #[arg(long, default_value = "")]
    pub oidc_groups_prefix: String,
    /// Claims tokens have to have, and their values: key=value.
    #[arg(long, value_delimiter = ',')]
    pub oidc_required_claim: Vec<String>,
    /// Algorithms tokens may be signed with.
    #[arg(long, value_delimiter = ',', default_value = "RS256")]
    pub oidc_signing_algs: Vec<String>,
}

/// The file.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AuthenticationConfiguration {
    #[serde(default)]
    api_version: String,
    #[serde(default)]
    kind: String,
    /// Issuers.
    #[serde(default)]
    pub jwt: Vec<JwtAuthenticator>,
    /// Who shows nothing.
    pub anonymous: Option<Anonymous>,
}

/// Callers without credentials.
#[derive(Debug, Default, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Anonymous {
    /// Whether they are served.
    #[serde(default)]
    pub enabled: bool,
    /// Where; empty is everywhere.
    #[serde(default)]
    pub conditions: Vec<Condition>,
}

/// A place.
#[derive(Debug, Default, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Condition {
    /// The whole path.
    #[serde(default)]
    pub path: String,
}

/// An issuer, and whom its tokens make.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct JwtAuthenticator {
    /// Where tokens come from.
    #[serde(default)]
    pub issuer: IssuerConfig,
    /// What claims have to be.
    #[serde(default)]
    pub claim_validation_rules: Vec<ClaimRule>,
    /// What claims become.
    #[serde(default)]
    pub claim_mappings: ClaimMappings,
    /// What users have to be.
    #[serde(default)]
    pub user_validation_rules: Vec<UserRule>,
}

/// `issuer`
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct IssuerConfig {
    /// The claim `iss`.
    #[serde(default)]
    pub url: String,
    /// Where the issuer describes itself, if not below its URL.
    #[serde(default, rename = "discoveryURL")]
    pub discovery_url: Option<String>,
    /// PEM; empty is the machine's.
    #[serde(default)]
    pub certificate_authority: String,
    /// One of them is in the claim `aud`.
    #[serde(default)]
    pub audiences: Vec<String>,
    #[serde(default)]
    audience_match_policy: String,
    /// Which way out is taken to the issuer. There is one here, so that both kinds mean the same.
    #[serde(default)]
    egress_selector_type: String,
}

/// `claimValidationRules`
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ClaimRule {
    /// A claim that has to be there.
    #[serde(default)]
    pub claim: String,
    /// Its value.
    #[serde(default)]
    pub required_value: String,
    /// Or an expression that has to hold.
    #[serde(default)]
    pub expression: String,
    /// Said when it does not.
    #[serde(default)]
    pub message: String,
}

/// `userValidationRules`
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UserRule {
    /// Has to hold.
    #[serde(default)]
    pub expression: String,
    /// Said when it does not.
    #[serde(default)]
    pub message: String,
}

/// `claimMappings`
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClaimMappings {
    /// The name.
    #[serde(default)]
    pub username: PrefixedClaimOrExpression,
    /// The groups.
    #[serde(default)]
    pub groups: PrefixedClaimOrExpression,
    /// The uid.
    #[serde(default)]
    pub uid: ClaimOrExpression,
    /// Anything else.
    #[serde(default)]
    pub extra: Vec<ExtraMapping>,
}

/// A claim with something before it, or an expression.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PrefixedClaimOrExpression {
    /// The claim.
    #[serde(default)]
    pub claim: String,
    /// What is put before it.
    pub prefix: Option<String>,
    /// Or an expression.
    #[serde(default)]
    pub expression: String,
}

/// A claim or an expression.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClaimOrExpression {
    /// The claim.
    #[serde(default)]
    pub claim: String,
    /// Or an expression.
    #[serde(default)]
    pub expression: String,
}

/// One extra.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ExtraMapping {
    /// `example.com/scopes`
    #[serde(default)]
    pub key: String,
    /// Its values.
    #[serde(default)]
    pub value_expression: String,
}

/// Issuers, the algorithms they may use, and who is served without credentials, if that is said.
pub type Configured = (Vec<JwtAuthenticator>, Vec<Algorithm>, Option<Anonymous>);

impl OidcArgs {
    /// What the flags say, or the file they name.
    ///
    /// # Errors
    /// Everything that is wrong.
    pub fn configured(&self) -> anyhow::Result<Configured> {
        if let Some(path) = &self.authentication_config {
            if self.oidc_issuer_url.is_some() || self.oidc_client_id.is_some() {
                bail!("authentication-config file and oidc-* flags are mutually exclusive");
            }
            let text = std::fs::read_to_string(path)
                .with_context(|| format!("--authentication-config: cannot read {}", path.display()))?;
            let config = AuthenticationConfiguration::parse(&text)
                .with_context(|| format!("--authentication-config: {}", path.display()))?;
            return Ok((config.jwt, Algorithm::ALL.to_vec(), config.anonymous));
        }
        let Some(url) = &self.oidc_issuer_url else {
            if self.oidc_client_id.is_some() {
                bail!(
                    "oidc-issuer-url and oidc-client-id must be specified together when any oidc-* flags are set"
                );
            }
            return Ok(Default::default());
        };
        let Some(client) = &self.oidc_client_id else {
            bail!(
                "oidc-issuer-url and oidc-client-id must be specified together when any oidc-* flags are set"
            );
        };
        let mut algorithms = Vec::new();
        for name in &self.oidc_signing_algs {
            match Algorithm::parse(name) {
                Some(algorithm) => algorithms.push(algorithm),
                None => bail!("--oidc-signing-algs: unsupported signing alg: {name:?}"),
            }
        }
        let certificate_authority = match &self.oidc_ca_file {
            Some(path) => std::fs::read_to_string(path)
                .with_context(|| format!("--oidc-ca-file: cannot read {}", path.display()))?,
            None => String::new(),
        };
        let prefix = match self.oidc_username_prefix.as_deref() {
            Some("-") => String::new(),
            Some(prefix) if !prefix.is_empty() => prefix.to_owned(),
            _ if self.oidc_username_claim == "email" => String::new(),
            _ => format!("{url}#"),
        };
        let mut claim_validation_rules = Vec::new();
        for pair in &self.oidc_required_claim {
            let Some((claim, value)) = pair.split_once('=') else {
                bail!("--oidc-required-claim: {pair:?} is not key=value");
            };
            claim_validation_rules.push(ClaimRule {
                claim: claim.to_owned(),
                required_value: value.to_owned(),
                ..ClaimRule::default()
            });
        }
        let one = JwtAuthenticator {
            issuer: IssuerConfig {
                url: url.clone(),
                certificate_authority,
                audiences: vec![client.clone()],
                ..IssuerConfig::default()
            },
            claim_validation_rules,
            claim_mappings: ClaimMappings {
                username: PrefixedClaimOrExpression {
                    claim: self.oidc_username_claim.clone(),
                    prefix: Some(prefix),
                    expression: String::new(),
                },
                groups: PrefixedClaimOrExpression {
                    claim: self.oidc_groups_claim.clone(),
                    prefix: (!self.oidc_groups_claim.is_empty()).then(|| self.oidc_groups_prefix.clone()),
                    expression: String::new(),
                },
                ..ClaimMappings::default()
            },
            user_validation_rules: Vec::new(),
        };
        let errors = validate(std::slice::from_ref(&one));
        if !errors.is_empty() {
            bail!("{}", aggregate(&errors));
        }
        Ok((vec![one], algorithms, None))
    }
}

impl AuthenticationConfiguration {
    /// Reads the file.
    ///
    /// # Errors
    /// Everything that is wrong.
    pub fn parse(text: &str) -> anyhow::Result<Self> {
        let config: Self = yaml::from_str(text).context("cannot be decoded")?;
        let known = ["apiserver.config.k8s.io/v1", "apiserver.config.k8s.io/v1beta1"];
        files::expect(
            (&config.api_version, &config.kind),
            "AuthenticationConfiguration",
            &known,
        )
        .map_err(anyhow::Error::msg)?;
        let mut errors = validate(&config.jwt);
        if let Some(anonymous) = &config.anonymous
            && !anonymous.enabled
            && !anonymous.conditions.is_empty()
        {
            let path = Path::new("anonymous").child("conditions");
            errors.push(Error::invalid(
                &path,
                json!(anonymous.conditions.iter().map(|c| &c.path).collect::<Vec<_>>()),
                "enabled should be set to true when conditions are defined",
            ));
        }
        if errors.is_empty() {
            Ok(config)
        } else {
            bail!("{}", aggregate(&errors))
        }
    }
}

fn validate(issuers: &[JwtAuthenticator]) -> Vec<Error> {
    let (mut errors, mut seen, mut discovered) = (Vec::new(), Vec::new(), Vec::new());
    if issuers.len() > MOST {
        errors.push(Error::too_many(&Path::new("jwt"), issuers.len(), MOST));
        return errors;
    }
    for (i, one) in issuers.iter().enumerate() {
        let path = Path::new("jwt").index(i);
        one.issuer.validate(&path.child("issuer"), &mut errors);
        if seen.contains(&one.issuer.url.as_str()) {
            errors.push(Error::duplicate(
                &path.child("issuer").child("url"),
                one.issuer.url.clone(),
            ));
        }
        seen.push(&one.issuer.url);
        if let Some(url) = one.issuer.discovery_url.as_deref().filter(|url| !url.is_empty()) {
            if discovered.contains(&url) {
                let at = path.child("issuer").child("discoveryURL");
                errors.push(Error::duplicate(&at, url));
            }
            discovered.push(url);
        }
        one.validate(&path, &mut errors);
    }
    errors
}

fn https(url: &str) -> Result<(), String> {
    let parsed: http::Uri = url.parse().map_err(|error| format!("{error}"))?;
    if parsed.scheme_str() != Some("https") {
        return Err("URL scheme must be https".into());
    }
    if parsed
        .authority()
        .is_some_and(|authority| authority.as_str().contains('@'))
    {
        return Err("URL must not contain a username or password".into());
    }
    if url.contains('?') {
        return Err("URL must not contain a query".into());
    }
    if url.contains('#') {
        return Err("URL must not contain a fragment".into());
    }
    Ok(())
}

impl IssuerConfig {
    fn validate(&self, path: &Path, errors: &mut Vec<Error>) {
        let url = path.child("url");
        if self.url.is_empty() {
            errors.push(Error::required(&url, "URL is required"));
        } else if let Err(detail) = https(&self.url) {
            errors.push(Error::invalid(&url, self.url.clone(), detail));
        }
        if let Some(discovery) = self.discovery_url.as_deref().filter(|url| !url.is_empty()) {
            let at = path.child("discoveryURL");
            if discovery.trim_end_matches('/') == self.url.trim_end_matches('/') {
                errors.push(Error::invalid(
                    &at,
                    discovery,
                    "discoveryURL must be different from URL",
                ));
            } else if let Err(detail) = https(discovery) {
                errors.push(Error::invalid(&at, discovery, detail));
            }
        }
        let audiences = path.child("audiences");
        if self.audiences.is_empty() {
            errors.push(Error::required(
                &audiences,
                "at least one jwt.issuer.audiences is required",
            ));
        }
        for (i, audience) in self.audiences.iter().enumerate() {
            if audience.is_empty() {
                errors.push(Error::required(&audiences.index(i), "audience can't be empty"));
            }
            if self.audiences[..i].contains(audience) {
                errors.push(Error::duplicate(&audiences.index(i), audience.clone()));
            }
        }
        let policy = path.child("audienceMatchPolicy");
        match self.audience_match_policy.as_str() {
            "MatchAny" => {}
            "" if self.audiences.len() <= 1 => {}
            other if self.audiences.len() > 1 => errors.push(Error::invalid(
                &policy,
                other,
                "audienceMatchPolicy must be MatchAny for multiple audiences",
            )),
            other => errors.push(Error::invalid(
                &policy,
                other,
                "audienceMatchPolicy must be empty or MatchAny for single audience",
            )),
        }
        if !self.certificate_authority.is_empty() {
            let authority = PemSource::Inline(self.certificate_authority.as_bytes().to_vec());
            if let Err(error) = HttpClient::new(Some(authority), None) {
                errors.push(Error::invalid(
                    &path.child("certificateAuthority"),
                    "<omitted>",
                    error,
                ));
            }
        }
        if !["", "controlplane", "cluster"].contains(&self.egress_selector_type.as_str()) {
            errors.push(Error::invalid(
                &path.child("egressSelectorType"),
                self.egress_selector_type.clone(),
                "egress selector must be either controlplane or cluster",
            ));
        }
    }
}

impl JwtAuthenticator {
    fn validate(&self, path: &Path, errors: &mut Vec<Error>) {
        let rules = path.child("claimValidationRules");
        for (i, rule) in self.claim_validation_rules.iter().enumerate() {
            let at = rules.index(i);
            let before = &self.claim_validation_rules[..i];
            match (rule.claim.is_empty(), rule.expression.is_empty()) {
                (true, true) => errors.push(Error::required(&at, "claim or expression is required")),
                (false, false) => errors.push(Error::invalid(
                    &at,
                    rule.claim.clone(),
                    "claim and expression can't both be set",
                )),
                (false, true) => {
                    if !rule.message.is_empty() {
                        errors.push(Error::invalid(
                            &at.child("message"),
                            rule.message.clone(),
                            "may not be specified when claim is set",
                        ));
                    }
                    if before.iter().any(|other| other.claim == rule.claim) {
                        errors.push(Error::duplicate(&at.child("claim"), rule.claim.clone()));
                    }
                }
                (true, false) => {
                    if !rule.required_value.is_empty() {
                        errors.push(Error::invalid(
                            &at.child("requiredValue"),
                            rule.required_value.clone(),
                            "may not be specified when expression is set",
                        ));
                    }
                    let at = at.child("expression");
                    if before.iter().any(|other| other.expression == rule.expression) {
                        errors.push(Error::duplicate(&at, rule.expression.clone()));
                    } else {
                        compiles(&rule.expression, Subject::Claims, Wanted::Bool, &at, errors);
                    }
                }
            }
        }
        let mappings = path.child("claimMappings");
        let at = mappings.child("username");
        let username = &self.claim_mappings.username;
        username.validate(&at, Wanted::Text, errors);
        if username.claim.is_empty() && username.expression.is_empty() {
            errors.push(Error::required(&at, "claim or expression is required"));
        }
        let expression = &username.expression;
        if expression.contains("claims.email") && !self.looks_at_verification() {
            errors.push(Error::invalid(
                &at.child("expression"),
                expression.clone(),
                "claims.email_verified must be used in claimMappings.username.expression or \
                 claimMappings.extra[*].valueExpression or claimValidationRules[*].expression when claims.email is used \
                 in claimMappings.username.expression",
            ));
        }
        self.claim_mappings
            .groups
            .validate(&mappings.child("groups"), Wanted::Texts, errors);
        let uid = &self.claim_mappings.uid;
        let at = mappings.child("uid");
        if !uid.claim.is_empty() && !uid.expression.is_empty() {
            errors.push(Error::invalid(&at, "", "claim and expression can't both be set"));
        } else if !uid.expression.is_empty() {
            compiles(
                &uid.expression,
                Subject::Claims,
                Wanted::Text,
                &at.child("expression"),
                errors,
            );
        }
        let mut keys = Vec::new();
        for (i, extra) in self.claim_mappings.extra.iter().enumerate() {
            let at = mappings.child("extra").index(i);
            let key = at.child("key");
            let domain = extra.key.split_once('/').map_or("", |(domain, _)| domain);
            if extra.key.is_empty() {
                errors.push(Error::required(&key, "key is required"));
            } else if extra.key.to_lowercase() != extra.key {
                errors.push(Error::invalid(&key, extra.key.clone(), "key must be lowercase"));
            } else if domain.is_empty() {
                errors.push(Error::invalid(
                    &key,
                    extra.key.clone(),
                    "must be a domain-prefixed path (such as \"acme.io/foo\")",
                ));
            } else if ["k8s.io", "kubernetes.io"]
                .iter()
                .any(|own| domain == *own || domain.ends_with(&format!(".{own}")))
            {
                let detail = "k8s.io, kubernetes.io and their subdomains are reserved for Kubernetes use";
                errors.push(Error::invalid(&key, extra.key.clone(), detail));
            } else if keys.contains(&extra.key.as_str()) {
                errors.push(Error::duplicate(&key, extra.key.clone()));
            }
            keys.push(&extra.key);
            let at = at.child("valueExpression");
            compiles(
                &extra.value_expression,
                Subject::Claims,
                Wanted::Texts,
                &at,
                errors,
            );
        }
        let rules = path.child("userValidationRules");
        for (i, rule) in self.user_validation_rules.iter().enumerate() {
            let at = rules.index(i).child("expression");
            let before = &self.user_validation_rules[..i];
            if before.iter().any(|other| other.expression == rule.expression) {
                errors.push(Error::duplicate(&at, rule.expression.clone()));
                continue;
            }
            compiles(&rule.expression, Subject::User, Wanted::Bool, &at, errors);
        }
    }

    fn looks_at_verification(&self) -> bool {
        let username = std::iter::once(&self.claim_mappings.username.expression);
        let extra = self
            .claim_mappings
            .extra
            .iter()
            .map(|extra| &extra.value_expression);
        let rules = self.claim_validation_rules.iter().map(|rule| &rule.expression);
        username
            .chain(extra)
            .chain(rules)
            .any(|text| text.contains("email_verified"))
    }
}

fn compiles(text: &str, subject: Subject, wanted: Wanted, path: &Path, errors: &mut Vec<Error>) {
    if text.is_empty() {
        errors.push(Error::required(path, "expression is required"));
    } else if let Err(error) = Expression::new(text, subject, wanted) {
        errors.push(Error::invalid(path, text, error));
    }
}

impl PrefixedClaimOrExpression {
    fn validate(&self, path: &Path, wanted: Wanted, errors: &mut Vec<Error>) {
        if !self.expression.is_empty() {
            if !self.claim.is_empty() {
                errors.push(Error::invalid(path, "", "claim and expression can't both be set"));
            }
            if self.prefix.is_some() {
                errors.push(Error::invalid(
                    &path.child("prefix"),
                    self.prefix.clone().unwrap_or_default(),
                    "prefix can't be set when expression is set",
                ));
            }
            compiles(
                &self.expression,
                Subject::Claims,
                wanted,
                &path.child("expression"),
                errors,
            );
        } else if !self.claim.is_empty() && self.prefix.is_none() {
            errors.push(Error::required(
                &path.child("prefix"),
                "prefix is required when claim is set. It can be set to an empty string to disable prefixing",
            ));
        } else if self.claim.is_empty() && self.prefix.is_some() {
            errors.push(Error::invalid(
                &path.child("prefix"),
                self.prefix.clone().unwrap_or_default(),
                "prefix can't be set when claim is not set",
            ));
        }
    }
}
