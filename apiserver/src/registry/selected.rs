//! What selectors look at, read out of an object's JSON without reading the object.

use std::collections::BTreeMap;

use keelson_api::scan::Scan;
use serde::de::Error as _;
use serde_json::Result;

use super::strategy::Fields;

/// What label and field selectors look at.
#[derive(Debug, Default, PartialEq)]
pub struct Selected {
    /// The labels.
    pub labels: BTreeMap<String, String>,
    /// The selectable fields.
    pub fields: Fields,
}

/// The labels of an object of any kind.
pub fn labels(json: &[u8]) -> Result<BTreeMap<String, String>> {
    let mut labels = &b""[..];
    read(json, |name, value| match name {
        b"metadata" => labels_in(value, &mut labels),
        _ => Some(()),
    })?;
    texts(labels)
}

/// Goes through the fields of a stored object, to its end.
pub fn read<'j>(json: &'j [u8], field: impl FnMut(&'j [u8], &mut Scan<'j>) -> Option<()>) -> Result<()> {
    let mut scan = Scan::new(json);
    let whole = scan.members(field).and_then(|()| scan.end());
    whole.ok_or_else(|| serde_json::Error::custom("the text is not a JSON object"))
}

/// Notes where the labels stand in an object's metadata.
pub fn labels_in<'j>(metadata: &mut Scan<'j>, labels: &mut &'j [u8]) -> Option<()> {
    metadata.members(|name, value| {
        if name == b"labels" {
            *labels = value.text()?;
        }
        Some(())
    })
}

/// A map of strings; empty where there is none.
pub fn texts(json: &[u8]) -> Result<BTreeMap<String, String>> {
    if json.is_empty() {
        return Ok(BTreeMap::new());
    }
    let texts: Option<_> = serde_json::from_slice(json)?;
    Ok(texts.unwrap_or_default())
}

/// A string; empty where there is none.
pub fn text(json: &[u8]) -> Result<String> {
    if json.is_empty() {
        return Ok(String::new());
    }
    let quoted = json.strip_prefix(b"\"").and_then(|rest| rest.strip_suffix(b"\""));
    if let Some(verbatim) = quoted.filter(|text| !text.contains(&b'\\')) {
        return String::from_utf8(verbatim.to_vec()).map_err(serde_json::Error::custom);
    }
    let text: Option<String> = serde_json::from_slice(json)?;
    Ok(text.unwrap_or_default())
}
