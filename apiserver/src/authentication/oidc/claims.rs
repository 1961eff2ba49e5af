//! From claims to a user.

use serde_json::{Map, Value, json};

use super::config::{ClaimOrExpression, JwtAuthenticator, PrefixedClaimOrExpression};
use super::expressions::{Expression, Subject, Wanted};
use crate::authentication::User;

type Claims = Map<String, Value>;

/// Where one part of a user comes from.
enum Source {
    Nowhere,
    Claim { claim: String, prefix: String },
    Expression(Expression),
}

impl Source {
    fn prefixed(from: &PrefixedClaimOrExpression, wanted: Wanted) -> Result<Self, String> {
        Ok(if !from.expression.is_empty() {
            Source::Expression(Expression::new(&from.expression, Subject::Claims, wanted)?)
        } else if !from.claim.is_empty() {
            Source::Claim {
                claim: from.claim.clone(),
                prefix: from.prefix.clone().unwrap_or_default(),
            }
        } else {
            Source::Nowhere
        })
    }

    fn plain(from: &ClaimOrExpression) -> Result<Self, String> {
        let prefixed = PrefixedClaimOrExpression {
            claim: from.claim.clone(),
            prefix: None,
            expression: from.expression.clone(),
        };
        Self::prefixed(&prefixed, Wanted::Text)
    }
}

/// A rule claims or users have to keep.
struct Rule {
    expression: Expression,
    message: String,
}

impl Rule {
    fn check(&self, of: &Value) -> Result<(), String> {
        if self.expression.holds(of)? {
            return Ok(());
        }
        let source = self.expression.source();
        Err(match self.message.as_str() {
            "" => format!("validation expression '{source}' failed"),
            message => format!("validation expression '{source}' failed: {message}"),
        })
    }
}

/// How an issuer's claims become users.
pub struct Mapping {
    username: Source,
    groups: Source,
    uid: Source,
    extra: Vec<(String, Expression)>,
    required: Vec<(String, String)>,
    claim_rules: Vec<Rule>,
    user_rules: Vec<Rule>,
}

impl Mapping {
    /// What the configuration says.
    ///
    /// # Errors
    /// When an expression cannot be used.
    pub fn new(config: &JwtAuthenticator) -> Result<Self, String> {
        let mappings = &config.claim_mappings;
        let mut required = Vec::new();
        let mut claim_rules = Vec::new();
        for rule in &config.claim_validation_rules {
            if rule.expression.is_empty() {
                required.push((rule.claim.clone(), rule.required_value.clone()));
            } else {
                claim_rules.push(Rule {
                    expression: Expression::new(&rule.expression, Subject::Claims, Wanted::Bool)?,
                    message: rule.message.clone(),
                });
            }
        }
        let user_rules: Result<Vec<Rule>, String> = config
            .user_validation_rules
            .iter()
            .map(|rule| {
                Ok(Rule {
                    expression: Expression::new(&rule.expression, Subject::User, Wanted::Bool)?,
                    message: rule.message.clone(),
                })
            })
            .collect();
        let extra: Result<Vec<_>, String> = mappings
            .extra
            .iter()
            .map(|extra| {
                let expression = Expression::new(&extra.value_expression, Subject::Claims, Wanted::Texts)?;
                Ok((extra.key.clone(), expression))
            })
            .collect();
        Ok(Self {
            username: Source::prefixed(&mappings.username, Wanted::Text)?,
            groups: Source::prefixed(&mappings.groups, Wanted::Texts)?,
            uid: Source::plain(&mappings.uid)?,
            extra: extra?,
            required,
            claim_rules,
            user_rules: user_rules?,
        })
    }

    /// Whom the claims make.
    ///
    /// # Errors
    /// When they make nobody, or somebody who is not wanted.
    pub fn user(&self, claims: Claims) -> Result<User, String> {
        self.mapped(Value::Object(claims))
            .map_err(|error| format!("oidc: {error}"))
    }

    fn mapped(&self, claims: Value) -> Result<User, String> {
        let name = self.username(&claims)?;
        if name.is_empty() {
            return Err("the username is empty".into());
        }
        let mut user = User::named(name, self.groups(&claims)?);
        user.uid = match &self.uid {
            Source::Nowhere => String::new(),
            Source::Claim { claim, .. } => text(&claims, claim)?.to_owned(),
            Source::Expression(expression) => expression.text(&claims)?,
        };
        for (key, expression) in &self.extra {
            let values = expression.texts(&claims)?;
            if !values.is_empty() {
                user.extra.insert(key.clone(), values);
            }
        }
        for (claim, wanted) in &self.required {
            let Some(found) = claims.get(claim) else {
                return Err(format!("required claim {claim} not present in ID token"));
            };
            let found = found
                .as_str()
                .ok_or_else(|| format!("parse claim {claim}: not a string"))?;
            if found != wanted {
                return Err(format!(
                    "required claim {claim} value does not match. Got = {found}, want = {wanted}"
                ));
            }
        }
        for rule in &self.claim_rules {
            rule.check(&claims)
                .map_err(|error| format!("error evaluating claim validation expression: {error}"))?;
        }
        if !self.user_rules.is_empty() {
            // As the rules know it: without what every authenticated user has.
            let groups: Vec<&String> = user
                .groups
                .iter()
                .filter(|g| *g != crate::authentication::AUTHENTICATED)
                .collect();
            let shown = json!({
                "username": user.name, "uid": user.uid, "groups": groups, "extra": user.extra,
            });
            for rule in &self.user_rules {
                rule.check(&shown)
                    .map_err(|error| format!("error evaluating user info validation rule: {error}"))?;
            }
        }
        Ok(user)
    }

    fn username(&self, claims: &Value) -> Result<String, String> {
        match &self.username {
            Source::Nowhere => Err("nothing says what the user is called".into()),
            Source::Expression(expression) => expression
                .text(claims)
                .map_err(|error| format!("error evaluating username claim expression: {error}")),
            Source::Claim { claim, prefix } => {
                let name = text(claims, claim)
                    .map_err(|error| format!("parse username claims {claim:?}: {error}"))?;
                if claim == "email"
                    && let Some(verified) = claims.get("email_verified")
                {
                    match verified {
                        Value::Bool(true) => {}
                        Value::Bool(false) => return Err("email not verified".into()),
                        _ => return Err("parse 'email_verified' claim: not a bool".into()),
                    }
                }
                Ok(format!("{prefix}{name}"))
            }
        }
    }

    fn groups(&self, claims: &Value) -> Result<Vec<String>, String> {
        match &self.groups {
            Source::Nowhere => Ok(Vec::new()),
            Source::Expression(expression) => expression
                .texts(claims)
                .map_err(|error| format!("error evaluating group claim expression: {error}")),
            Source::Claim { claim, prefix } => {
                let wrong = || format!("parse groups claim {claim:?}: neither a string nor a list of them");
                let names = match claims.get(claim) {
                    None => return Ok(Vec::new()),
                    Some(Value::String(one)) => vec![one.as_str()],
                    Some(Value::Array(many)) => {
                        let names: Option<Vec<&str>> = many.iter().map(Value::as_str).collect();
                        names.ok_or_else(wrong)?
                    }
                    Some(_) => return Err(wrong()),
                };
                Ok(names.into_iter().map(|name| format!("{prefix}{name}")).collect())
            }
        }
    }
}

fn text<'c>(claims: &'c Value, claim: &str) -> Result<&'c str, String> {
    match claims.get(claim) {
        None => Err("claim not present".into()),
        Some(value) => value
            .as_str()
            .ok_or_else(|| format!("claim {claim} is not a string")),
    }
}
