//! What selectors look at, read out of an object's JSON without reading the object.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::Deserialize;

use super::strategy::Fields;

/// What label and field selectors look at.
#[derive(Debug, Default, PartialEq)]
pub struct Selected {
    /// The labels.
    pub labels: BTreeMap<String, String>,
    /// The selectable fields.
    pub fields: Fields,
}

/// The metadata of an object, as far as selectors look at it.
#[derive(Deserialize, Default)]
pub struct Metadata {
    /// The labels.
    pub labels: Option<BTreeMap<String, String>>,
}

/// A string that is mostly copied from where it stands.
pub type Text<'a> = Option<Cow<'a, str>>;

/// The labels of an object of any kind.
pub fn labels(json: &[u8]) -> Result<BTreeMap<String, String>, serde_json::Error> {
    #[derive(Deserialize)]
    struct Head {
        #[serde(default)]
        metadata: Metadata,
    }
    let head: Head = serde_json::from_slice(json)?;
    Ok(head.metadata.labels.unwrap_or_default())
}
