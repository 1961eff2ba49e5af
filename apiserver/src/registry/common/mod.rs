//! What the kinds share: paths and errors, rules for fields that many kinds have, defaults, table cells.
//!
//! | module | what lives there |
//! | --- | --- |
//! | [`conditions`] | the conditions that many kinds have |
//! | [`loc`] | places in an object, spelled out only when something is wrong there |
//! | [`meta`] | generations |
//! | [`replicas`] | what replica sets and replication controllers share |
//! | [`rules`] | names, labels, ports, numbers, paths, addresses |
//! | [`selectors`] | label selectors |
//! | [`defaults`] | small steps of defaulting |
//! | [`cells`] | texts in tables: ages, lists, selectors |
//! | [`scale`] | the `scale` subresource |

pub mod cells;
pub mod conditions;
pub mod defaults;
pub mod loc;
pub mod meta;
pub mod replicas;
pub mod rules;
pub mod scale;
pub mod selectors;

/// The empty map, for metadata without labels or annotations.
pub static NONE: std::collections::BTreeMap<String, String> = std::collections::BTreeMap::new();
