//! Secrets.

use jiff::Timestamp;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use keelson_api::field::Errors;
use keelson_api::validation;
use serde_json::Value;

use super::config_map::{IMMUTABLE, SIZE_MAX};
use crate::registry::common::defaults::fill;
use crate::registry::common::loc::Loc;
use crate::registry::common::{NONE, cells, rules};
use crate::registry::strategy::{Column, Fields, OtherFields, RequestContext, ResourceInfo, Strategy};

const REDACTED: &str = "<secret contents redacted>";
const ACCOUNT_NAME: &str = "kubernetes.io/service-account.name";

/// The kind's strategy.
pub struct SecretStrategy;

static INFO: ResourceInfo = ResourceInfo {
    kind: "Secret",
    plural: "secrets",
    singular: "secret",
    storage_prefix: "secrets",
    selectable_fields: &["type"],
    other_fields: OtherFields::NotSupported,
    ..ResourceInfo::base()
};

impl Strategy for SecretStrategy {
    type Object = Secret;

    fn info(&self) -> &'static ResourceInfo {
        &INFO
    }

    fn default(&self, secret: &mut Secret) {
        // What is given as text is written over what is given in base64, and never stored as text.
        if let Some(texts) = secret.string_data.take()
            && !texts.is_empty()
        {
            let data = secret.data.get_or_insert_default();
            data.extend(
                texts
                    .into_iter()
                    .map(|(key, text)| (key, ByteString(text.into_bytes()))),
            );
        }
        fill(&mut secret.type_, "Opaque");
    }

    fn prepare_update(&self, _ctx: &RequestContext<'_>, new: &mut Secret, old: &Secret) {
        if new.type_.as_deref().unwrap_or("").is_empty() {
            new.type_.clone_from(&old.type_);
        }
    }

    fn validate_create(&self, _ctx: &RequestContext<'_>, secret: &Secret) -> Errors {
        validate(secret)
    }

    fn validate_update(&self, _ctx: &RequestContext<'_>, new: &Secret, old: &Secret) -> Errors {
        let mut errors = Errors::new();
        rules::immutable(&mut errors, &Loc::new("type"), &new.type_, &old.type_);
        if old.immutable == Some(true) {
            if new.immutable != Some(true) {
                errors.push(Loc::new("immutable").forbidden(IMMUTABLE));
            }
            if new.data != old.data {
                errors.push(Loc::new("data").forbidden(IMMUTABLE));
            }
        }
        errors.extend(validate(new));
        errors
    }

    fn selectable_fields(&self, secret: &Secret) -> Fields {
        vec![("type", secret.type_.clone().unwrap_or_default())]
    }

    fn columns(&self) -> &'static [Column] {
        const COLUMNS: &[Column] = &[
            Column::name(),
            Column::new("Type", "What the secret's data is for."),
            Column::new("Data", "The number of keys in data."),
            Column::new("Age", "Time since the object was created."),
        ];
        COLUMNS
    }

    fn cells(&self, secret: &Secret, now: Timestamp) -> Vec<Value> {
        vec![
            cells::name(&secret.metadata),
            secret.type_.as_deref().unwrap_or("").into(),
            secret.data.as_ref().map_or(0, |d| d.len()).into(),
            cells::age(&secret.metadata, now),
        ]
    }
}

fn validate(secret: &Secret) -> Errors {
    let mut errors = Errors::new();
    let at = Loc::new("data");
    let mut size = 0;
    for (key, value) in secret.data.iter().flatten() {
        rules::complain(&mut errors, &at.key(key), key, validation::config_map_key(key));
        size += value.0.len();
    }
    if size > SIZE_MAX {
        errors.push(at.too_long(SIZE_MAX));
    }
    let value = |key: &str| {
        secret
            .data
            .as_ref()
            .and_then(|d| d.get(key))
            .map(|v| v.0.as_slice())
    };
    let mut json = |key: &str| match value(key) {
        None => errors.push(at.key(key).required("")),
        Some(bytes) => {
            if let Err(error) = serde_json::from_slice::<serde::de::IgnoredAny>(bytes) {
                errors.push(at.key(key).invalid(REDACTED, error.to_string()));
            }
        }
    };
    match secret.type_.as_deref().unwrap_or("") {
        "kubernetes.io/service-account-token" => {
            let annotations = secret.metadata.annotations.as_ref().unwrap_or(&NONE);
            if annotations.get(ACCOUNT_NAME).is_none_or(|name| name.is_empty()) {
                errors.push(Loc::new("metadata.annotations").key(ACCOUNT_NAME).required(""));
            }
        }
        "kubernetes.io/dockercfg" => json(".dockercfg"),
        "kubernetes.io/dockerconfigjson" => json(".dockerconfigjson"),
        "kubernetes.io/basic-auth" if value("username").is_none() && value("password").is_none() => {
            errors.push(at.key("username").required(""));
            errors.push(at.key("password").required(""));
        }
        "kubernetes.io/ssh-auth" if value("ssh-privatekey").is_none_or(<[u8]>::is_empty) => {
            errors.push(at.key("ssh-privatekey").required(""));
        }
        "kubernetes.io/tls" => {
            for key in ["tls.crt", "tls.key"] {
                if value(key).is_none() {
                    errors.push(at.key(key).required(""));
                }
            }
        }
        _ => {}
    }
    errors
}
