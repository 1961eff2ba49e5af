//! GET of one object.

use std::sync::Arc;

use keelson_api::status::ApiResult;

use super::options::resource_version;
use super::{Call, Outcome, convert, list};
use crate::registry::info::Lifetime;
use crate::storage::entry::Entry;

/// One object. An empty `version` is everything written before the call, `0` whatever is at hand.
pub async fn get(call: &Call<'_>, version: &str) -> ApiResult<Outcome> {
    Ok(Outcome::object(200, entry(call, version).await?.object()))
}

/// One object as the cache keeps it.
pub async fn entry(call: &Call<'_>, version: &str) -> ApiResult<Arc<Entry>> {
    if call.info().lifetime == Lifetime::Observed {
        let observed = list::observed(call).await?;
        return observed.get(call.name).cloned().ok_or_else(|| call.not_found());
    }
    match resource_version(version)? {
        None => drop(call.server.catch_up().await?),
        Some(0) => {}
        Some(revision) => call.server.feed.wait_for_named(revision).await?,
    }
    call.served.cache.readable()?;
    let stored = call.served.cache.get(&call.cache_key());
    convert::entry(call.server, call.served, stored.ok_or_else(|| call.not_found())?).await
}
