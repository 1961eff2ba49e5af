//! GET of a collection.

use std::sync::Arc;

use keelson_api::status::{ApiError, ApiResult};

use super::options::{ListOptions, Moment};
use super::{Call, convert, encode};
use crate::registry::info::Lifetime;
use crate::storage::cache::{Entries, count_after, select};
use crate::storage::entry::{Entry, EventType};
use crate::storage::filter::Filter;
use crate::storage::paging::{INCONSISTENT, Position};
use crate::storage::store::StoreError;

/// Keys read at once when a moment of the past has to come from the store.
const PAGE: i64 = 2000;

/// One page of a list, or all of it.
pub struct ListAnswer {
    /// The items, in key order.
    pub items: Vec<Arc<Entry>>,
    /// The moment the list shows.
    pub revision: i64,
    /// Where the next page begins.
    pub continue_token: Option<String>,
    /// How many items follow, where that is known.
    pub remaining: Option<i64>,
}

/// The items the options ask for.
pub async fn list(call: &Call<'_>, options: &ListOptions) -> ApiResult<ListAnswer> {
    let name = (!call.name.is_empty()).then_some(call.name);
    let filter = Filter::parse(
        call.info(),
        call.served.alias,
        call.namespace,
        name,
        &options.label_selector,
        &options.field_selector,
    )?;
    options.validate(false)?;
    let (entries, revision, after, limit) = entries(call, options).await?;
    // One more than a page shows whether there is a next one.
    let count = if limit == 0 {
        usize::MAX
    } else {
        limit.saturating_add(1)
    };
    let after = after.as_deref();
    let mut items: Vec<_> = match call.served.converter() {
        None => select(&entries, &filter, after).take(count).cloned().collect(),
        Some(_) => convert::select_converted(call, &entries, &filter, after, count).await?,
    };
    if limit == 0 || items.len() <= limit {
        return Ok(ListAnswer {
            items,
            revision,
            continue_token: None,
            remaining: None,
        });
    }
    items.truncate(limit);
    let after = items.last().map_or_else(String::new, |last| last.key.to_string());
    // A count is cheap to give only where nothing has to be looked at.
    let remaining = filter.only_scope().then(|| {
        let count = count_after(&entries, filter.scope(), &after);
        i64::try_from(count).unwrap_or(i64::MAX)
    });
    let continue_token = Some(Position { revision, after }.encode());
    call.served.cache.keep_snapshot(revision, entries.clone());
    Ok(ListAnswer {
        items,
        revision,
        continue_token,
        remaining,
    })
}

/// The objects of the moment asked for, that moment, where to begin and how many to take.
async fn entries(call: &Call<'_>, options: &ListOptions) -> ApiResult<(Entries, i64, Option<String>, usize)> {
    let chosen = moment(call, options).await?;
    call.served.cache.readable()?;
    Ok(chosen)
}

async fn moment(call: &Call<'_>, options: &ListOptions) -> ApiResult<(Entries, i64, Option<String>, usize)> {
    let server = call.server;
    let cache = &call.served.cache;
    let limit = usize::try_from(options.limit).unwrap_or_default();
    if call.info().lifetime == Lifetime::Observed {
        return Ok((observed(call).await?, server.feed.reached(), None, limit));
    }
    let present = || cache.snapshot(|| server.feed.reached());
    if !options.continue_token.is_empty() {
        if !matches!(options.resource_version.as_str(), "" | "0") {
            return Err(ApiError::bad_request(
                "specifying resource version is not allowed when using continue",
            ));
        }
        let position = Position::decode(&options.continue_token)?;
        if position.revision == INCONSISTENT {
            server.catch_up().await?;
            let (entries, revision) = present();
            return Ok((entries, revision, Some(position.after), limit));
        }
        let entries = at(call, position.revision).await.map_err(|error| match error {
            Past::Gone => expired_continue(&position.after),
            Past::Other(error) => error,
        })?;
        return Ok((entries, position.revision, Some(position.after), limit));
    }
    let moment = options.moment()?;
    Ok(match moment {
        Moment::Latest => {
            server.catch_up().await?;
            let (entries, revision) = present();
            (entries, revision, None, limit)
        }
        // A list of whatever is at hand is not cut into pages.
        Moment::Any => {
            let (entries, revision) = present();
            (entries, revision, None, 0)
        }
        Moment::NotOlderThan(revision) => {
            server.feed.wait_for_named(revision).await?;
            let (entries, revision) = present();
            (entries, revision, None, limit)
        }
        Moment::Exact(revision) => {
            server.feed.wait_for_named(revision).await?;
            let entries = at(call, revision).await.map_err(|error| match error {
                Past::Gone => ApiError::expired("The resourceVersion for the provided list is too old."),
                Past::Other(error) => error,
            })?;
            (entries, revision, None, limit)
        }
    })
}

/// The objects of a kind that is found out when somebody asks.
pub async fn observed(call: &Call<'_>) -> ApiResult<Entries> {
    let revision = call.server.feed.reached();
    let mut entries = Entries::new();
    for mut object in call.strategy().observe(call.server).await {
        let key: Arc<str> = object.name().into();
        let json = encode(object.as_mut())?;
        let entry = Entry::new(call.strategy(), key.clone(), revision, &json, EventType::Added);
        entries.insert(key, Arc::new(entry.map_err(ApiError::internal)?));
    }
    Ok(entries)
}

enum Past {
    /// Compacted away.
    Gone,
    Other(ApiError),
}

/// The objects as they were at a revision: from memory if that is still known, else from the store.
async fn at(call: &Call<'_>, revision: i64) -> Result<Entries, Past> {
    let cache = &call.served.cache;
    if let Some(entries) = cache.snapshot_at(revision) {
        return Ok(entries);
    }
    let store = &call.server.store;
    let root = store.key(call.info().storage_prefix, "");
    let scope = if call.namespace.is_empty() {
        root.clone()
    } else {
        format!("{root}{}/", call.namespace)
    };
    let (mut entries, mut start) = (Entries::new(), scope.clone());
    loop {
        let page = store
            .page(&scope, &start, revision, PAGE)
            .await
            .map_err(|error| match error {
                StoreError::Compacted => Past::Gone,
                other => Past::Other(other.into()),
            })?;
        for kv in &page.kvs {
            let full = String::from_utf8_lossy(&kv.key);
            start = format!("{full}\0");
            let Some(key) = full.strip_prefix(&root) else {
                continue;
            };
            let opened = store.open(&kv.key, kv.value.clone()).await;
            let value = opened.map_err(|error| Past::Other(error.into()))?.value;
            let key: Arc<str> = key.into();
            match Entry::new(
                cache.strategy().as_ref(),
                key.clone(),
                kv.mod_revision,
                &value,
                EventType::Added,
            ) {
                Ok(entry) => drop(entries.insert(key, Arc::new(entry))),
                Err(error) => tracing::error!(key = %full, error, "stored object cannot be read"),
            }
        }
        if !page.more {
            break;
        }
    }
    // The next page of the same list will want it too; a namespace's part is not the whole.
    if call.namespace.is_empty() {
        cache.keep_snapshot(revision, entries.clone());
    }
    Ok(entries)
}

fn expired_continue(after: &str) -> ApiError {
    let token = Position {
        revision: INCONSISTENT,
        after: after.to_owned(),
    }
    .encode();
    let error = ApiError::expired(
        "The provided continue parameter is too old to display a consistent list result. You can start a new list \
         without the continue parameter, or use the continue token in this response to retrieve the remainder of the \
         results. Continuing with the provided token results in an inconsistent list - objects that were created, \
         modified, or deleted between the time the first chunk was returned and now may show up in the list.",
    );
    let mut status = error.into_status();
    status.metadata.continue_ = Some(token);
    ApiError::from(status)
}
