//! The strategy of both kinds of webhook configurations.

use std::marker::PhantomData;

use jiff::Timestamp;
use keelson_api::field::Errors;
use keelson_api::object::Kind;
use serde_json::Value;

use super::webhooks::{self, Defaults, Webhook};
use crate::registry::common::meta::{self, Spec};
use crate::registry::strategy::{Column, RequestContext, ResourceInfo, Strategy};

/// A kind that holds webhooks.
pub trait Configuration: Kind {
    /// Names and scope.
    const INFO: &'static ResourceInfo;

    /// Fills in what is of this kind alone.
    fn default_own(&mut self) {}

    /// What its webhooks leave out.
    fn defaults(&mut self) -> Vec<Defaults<'_>>;

    /// The webhooks, in their order.
    fn views(&self) -> Vec<Webhook<'_>>;

    /// Whether the webhooks are others than those of `old`.
    fn compare(&self, old: &Self) -> Spec;
}

/// The strategy of a kind of configurations.
pub struct ConfigurationKind<K>(PhantomData<fn() -> K>);

impl<K> ConfigurationKind<K> {
    /// The strategy.
    pub const fn strategy() -> Self {
        Self(PhantomData)
    }
}

impl<K: Configuration> Strategy for ConfigurationKind<K> {
    type Object = K;

    fn info(&self) -> &'static ResourceInfo {
        K::INFO
    }

    fn default(&self, configuration: &mut K) {
        configuration.default_own();
        configuration.defaults().into_iter().for_each(webhooks::default);
    }

    fn prepare_create(&self, _ctx: &RequestContext<'_>, configuration: &mut K) {
        meta::first_generation(configuration.meta_mut());
    }

    fn prepare_update(&self, _ctx: &RequestContext<'_>, new: &mut K, old: &K) {
        let webhooks = new.compare(old);
        meta::next_generation(new.meta_mut(), old.meta(), webhooks);
    }

    fn validate_create(&self, _ctx: &RequestContext<'_>, configuration: &K) -> Errors {
        webhooks::validate(&configuration.views())
    }

    fn validate_update(&self, _ctx: &RequestContext<'_>, new: &K, _old: &K) -> Errors {
        webhooks::validate(&new.views())
    }

    fn allow_unconditional_update(&self) -> bool {
        false
    }

    fn columns(&self) -> &'static [Column] {
        webhooks::COLUMNS
    }

    fn cells(&self, configuration: &K, now: Timestamp) -> Vec<Value> {
        webhooks::cells(configuration.meta(), configuration.views().len(), now)
    }
}
