//! The Kubernetes object model shared by servers and clients: no I/O, no runtime.
//!
//! | module | what lives there |
//! | --- | --- |
//! | [`names`] | group, version, kind and resource names ([`Gvk`], [`Gvr`], [`GroupKind`], [`GroupResource`]) |
//! | [`object`] | typed and untyped objects behind one trait ([`Object`], [`Kind`], [`Unstructured`]) |
//! | [`status`] | what the API answers when it refuses ([`ApiError`]) |
//! | [`field`] | paths into an object and the errors found there |
//! | [`validation`] | the rules for names, labels, ports, addresses |
//! | [`quantity`] | amounts of CPU, memory and everything else that is counted |
//! | [`selector`] | label and field selectors |
//! | [`schema`] | the one table of types, fields, defaults, merge rules and wire numbers |
//! | [`strict`] | request bodies read strictly: unknown, duplicate and mistyped fields |
//! | [`jsonpath`] | paths into JSON: printer columns, scale paths, selectable fields |
//! | [`openapi`] | the documents that describe the API to clients |
//! | [`numbers`] | numbers in JSON as the Go components write them |
//! | [`protobuf`] | objects as the Go components send and want them |
//! | [`packed`] | objects whose managed fields stay text |
//! | [`scan`] | reading past what nobody asks for |
//! | [`apply`] | server-side apply: managed fields, conflicts, merging by schema |
//! | [`patch`] | JSON patch, merge patch, strategic merge patch |
//! | [`owners`], [`conditions`], [`pods`], [`deletion`], [`labels`] | what controllers keep asking of objects |
//! | [`quota`] | what objects take of a resource quota |
//! | [`time`] | the wire's two kinds of timestamps |
//!
//! The types themselves come from `k8s-openapi`, re-exported as [`k8s`].
#![forbid(unsafe_code)]

pub use k8s_openapi as k8s;

pub mod apply;
pub mod conditions;
pub mod deletion;
pub mod field;
pub mod jsonpath;
pub mod labels;
pub mod names;
pub mod numbers;
pub mod object;
pub mod openapi;
pub mod owners;
pub mod packed;
pub mod patch;
pub mod pods;
pub mod protobuf;
pub mod quantity;
pub mod quota;
pub mod scan;
pub mod schema;
pub mod selector;
pub mod status;
pub mod strict;
pub mod text;
pub mod time;
pub mod validation;

pub use names::{GroupKind, GroupResource, Gvk, Gvr};
pub use object::{Kind, Object, ObjectKey, Unstructured};
pub use quantity::Amount;
pub use status::ApiError;
