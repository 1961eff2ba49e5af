//! GET of a collection or an object with `watch=true`.

use std::sync::Arc;
use std::time::Duration;

use keelson_api::status::{ApiError, ApiResult};
use rand::Rng as _;

use super::options::{ListOptions, resource_version};
use super::{Call, convert};
use crate::storage::cache::{Start, Watching};
use crate::storage::filter::Filter;

/// A watch that has begun.
pub struct Watch {
    /// What to send; or why the history asked for cannot be had, which is told inside of the stream.
    pub watching: Result<Watching, ApiError>,
    /// Revision to tell in a bookmark after the initial objects.
    pub initial_end: Option<i64>,
    /// Whether bookmarks may be sent.
    pub bookmarks: bool,
    /// When the server ends it.
    pub timeout: Duration,
}

/// Begins a watch.
pub async fn watch(call: &Call<'_>, options: &ListOptions) -> ApiResult<Watch> {
    let name = (!call.name.is_empty()).then_some(call.name);
    let filter = Filter::parse(
        call.info(),
        call.served.alias,
        call.namespace,
        name,
        &options.label_selector,
        &options.field_selector,
    )?;
    options.validate(true)?;
    let version = resource_version(&options.resource_version)?;
    let server = call.server;
    let initial = options.send_initial_events;
    let there = match version {
        None => {
            server.catch_up().await?;
            Ok(())
        }
        // The objects of a moment to come are waited for; what will happen after it is not.
        Some(revision) if revision > 0 && initial == Some(true) => server.feed.wait_for_named(revision).await,
        Some(_) => Ok(()),
    };
    call.served.cache.readable()?;
    let start = match (version, initial) {
        (_, Some(true)) | (None | Some(0), None) => Start::Present,
        (None | Some(0), Some(false)) => Start::After(server.feed.reached()),
        (Some(revision), _) => Start::After(revision),
    };
    let filter = Arc::new(filter);
    let seen = match call.served.converter() {
        Some(_) => Arc::new(filter.without_selectors()),
        None => filter.clone(),
    };
    let bookmarks = options.allow_bookmarks;
    let watching = there.and_then(|()| {
        let reached = || server.feed.reached();
        let watching = call.served.cache.watch(seen, start, bookmarks, reached);
        watching.map_err(|too_old| {
            let wanted = version.unwrap_or_default();
            ApiError::expired(format!("too old resource version: {wanted} ({})", too_old.oldest))
        })
    });
    let watching = match watching {
        Ok(watching) if call.served.converter().is_some() => {
            Ok(convert::watching(server, call.served, filter, watching).await?)
        }
        watching => watching,
    };
    let initial_end = match (&watching, initial) {
        (Ok(watching), Some(true)) if bookmarks => Some(watching.revision),
        _ => None,
    };
    let timeout = match options.timeout_seconds {
        Some(seconds) if seconds > 0 => Duration::from_secs(seconds.unsigned_abs()),
        // Spread out, so that clients that came together do not come back together.
        _ => Duration::from_secs(server.config.min_request_timeout)
            .mul_f64(1.0 + rand::rng().random_range(0.0..1.0)),
    };
    Ok(Watch {
        watching,
        initial_end,
        bookmarks,
        timeout,
    })
}
