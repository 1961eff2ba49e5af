//! The plugins in the order they run.

use keelson_api::status::ApiResult;

use super::{Admission, Attributes, Operation};
use crate::registry::info::ResourceInfo;

/// Every plugin there is, in upstream's order, with whether it runs unless told otherwise.
pub fn default_plugins() -> Vec<Box<dyn Admission>> {
    Vec::new()
}

/// The enabled plugins.
pub struct Chain {
    plugins: Vec<Box<dyn Admission>>,
}

impl Chain {
    /// A chain of these plugins.
    pub fn new(plugins: Vec<Box<dyn Admission>>) -> Self {
        Self { plugins }
    }

    /// Names of the plugins, in order.
    pub fn names(&self) -> Vec<&'static str> {
        self.plugins.iter().map(|p| p.name()).collect()
    }

    /// Whether any plugin wants to see such requests.
    pub fn handles(&self, operation: Operation, info: &ResourceInfo, subresource: &str) -> bool {
        self.plugins.iter().any(|p| p.handles(operation, info, subresource))
    }

    /// Runs the mutating step of every plugin concerned.
    pub async fn mutate(&self, attributes: &mut Attributes<'_>) -> ApiResult<()> {
        for plugin in &self.plugins {
            if plugin.handles(attributes.operation, attributes.ctx.info, attributes.ctx.subresource) {
                plugin.mutate(attributes).await?;
            }
        }
        Ok(())
    }

    /// Runs the validating step of every plugin concerned.
    pub async fn validate(&self, attributes: &Attributes<'_>) -> ApiResult<()> {
        for plugin in &self.plugins {
            if plugin.handles(attributes.operation, attributes.ctx.info, attributes.ctx.subresource) {
                plugin.validate(attributes).await?;
            }
        }
        Ok(())
    }
}
