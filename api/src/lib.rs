//! The Kubernetes object model shared by servers and clients: no I/O, no runtime.
//!
//! | module | what lives there |
//! | --- | --- |
//! | [`names`] | group, version, kind and resource names ([`Gvk`], [`Gvr`], [`GroupKind`], [`GroupResource`]) |
//! | [`object`] | typed and untyped objects behind one trait ([`Object`], [`Kind`], [`Unstructured`]) |
//! | [`status`] | what the API answers when it refuses ([`ApiError`]) |
//! | [`field`] | paths into an object and the errors found there |
//! | [`time`] | the wire's two kinds of timestamps |
//!
//! The types themselves come from `k8s-openapi`, re-exported as [`k8s`].
#![forbid(unsafe_code)]

pub use k8s_openapi as k8s;

pub mod field;
pub mod names;
pub mod object;
pub mod status;
pub mod text;
pub mod time;

pub use names::{GroupKind, GroupResource, Gvk, Gvr};
pub use object::{Kind, Object, ObjectKey, Unstructured};
pub use status::ApiError;
