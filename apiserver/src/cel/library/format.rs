//! `format.dns1123Label().validate('a')`: names as Kubernetes has them.

use std::sync::Arc;

use keelson_api::validation as rules;

use super::super::value::Value;
use super::Outcome;
use crate::custom::schema::formats;

const NAMES: [&str; 12] = [
    "dns1123Label",
    "dns1123Subdomain",
    "dns1035Label",
    "qualifiedName",
    "dns1123LabelPrefix",
    "dns1123SubdomainPrefix",
    "dns1035LabelPrefix",
    "labelValue",
    "uri",
    "uuid",
    "byte",
    "date",
];

/// Functions without a receiver.
pub fn function<'v>(name: &str, args: &[Value<'v>]) -> Option<Outcome<'v>> {
    let name = name.strip_prefix("format.")?;
    let known = |name: &str| {
        let all = NAMES.iter().chain(&["datetime"]);
        all.copied().find(|known| *known == name)
    };
    Some(Ok(match (name, args) {
        ("named", [value]) => {
            let found = known(value.as_str()?);
            Value::Optional(found.map(|name| Box::new(Value::Format(name))))
        }
        (name, []) => Value::Format(known(name)?),
        _ => return None,
    }))
}

/// Methods of formats.
pub fn method<'v>(name: &str, own: &str, args: &[Value<'v>]) -> Option<Outcome<'v>> {
    let ("validate", [value]) = (name, args) else {
        return None;
    };
    let text = value.as_str()?;
    let masked = || keelson_api::validation::mask_trailing_dash(text);
    let held = |format: &str, words: &str| {
        if formats::holds(format, text) {
            Vec::new()
        } else {
            vec![words.to_owned()]
        }
    };
    let complaints = match own {
        "dns1123Label" => rules::dns1123_label(text),
        "dns1123Subdomain" => rules::dns1123_subdomain(text),
        "dns1035Label" => rules::dns1035_label(text),
        "qualifiedName" => rules::qualified_name(text),
        "dns1123LabelPrefix" => rules::dns1123_label(&masked()),
        "dns1123SubdomainPrefix" => rules::dns1123_subdomain(&masked()),
        "dns1035LabelPrefix" => rules::dns1035_label(&masked()),
        "labelValue" => rules::label_value(text),
        "uri" => held("uri", "invalid URI"),
        "uuid" => held("uuid", "does not match the UUID format"),
        "byte" => held("byte", "invalid base64"),
        "date" => held("date", "invalid date"),
        _ => held("date-time", "invalid datetime"),
    };
    let found = (!complaints.is_empty()).then(|| {
        let list = complaints.into_iter().map(Value::text).collect();
        Box::new(Value::List(Arc::new(list)))
    });
    Some(Ok(Value::Optional(found)))
}
