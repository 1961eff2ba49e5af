//! Objects of custom resources whose versions a webhook converts: from the version they were stored in to the one a call
//! asks for, and back. For every other resource there is nothing to do here.

use std::sync::Arc;

use bytes::Bytes;
use keelson_api::status::{ApiError, ApiResult};
use parking_lot::Mutex;
use serde_json::Value;

use super::Call;
use crate::custom::conversion::version_of;
use crate::registry::catalog::Served;
use crate::state::Server;
use crate::storage::cache::{Entries, Event, Signal, Watching, select};
use crate::storage::entry::{Entry, EventType};
use crate::storage::filter::Filter;
use crate::storage::queue::{Queue, Room, Teller, queue};

/// Objects in one question to a webhook, at most.
const CHUNK: usize = 500;
/// Bytes of objects in one question, about.
const CHUNK_BYTES: usize = 1 << 20;
/// Signals converted together.
const SIGNALS: usize = 64;
/// What may wait in its converted form.
const ROOM: Room = Room {
    signals: SIGNALS,
    bytes: 4 << 20,
};

/// What an entry looks like in other versions, kept beside it for as long as it is.
#[derive(Default)]
struct Forms(Mutex<Vec<(&'static str, Arc<Entry>)>>);

impl Forms {
    fn of(entry: &Entry, version: &str) -> Option<Arc<Entry>> {
        let forms = entry.beside::<Self>()?;
        let known = forms.0.lock();
        known
            .iter()
            .find(|(of, _)| *of == version)
            .map(|(_, form)| form.clone())
    }

    fn keep(entry: &Entry, version: &'static str, form: &Arc<Entry>) {
        if let Some(forms) = entry.beside::<Self>() {
            let mut known = forms.0.lock();
            known.retain(|(of, _)| *of != version);
            known.push((version, form.clone()));
        }
    }
}

/// The entries in the version served.
pub async fn entries(
    server: &Arc<Server>,
    served: &Served,
    mut entries: Vec<Arc<Entry>>,
) -> ApiResult<Vec<Arc<Entry>>> {
    if served.converter().is_none() {
        return Ok(entries);
    }
    let wanted = served.api_version();
    let (mut open, mut bytes) = (Vec::new(), 0);
    for index in 0..entries.len() {
        let object = entries[index].object();
        if served.shows(&object) || version_of(&object).is_some_and(|version| version == wanted) {
            continue;
        }
        if let Some(known) = Forms::of(&entries[index], served.version()) {
            entries[index] = known;
            continue;
        }
        bytes += object.len();
        open.push(index);
        if open.len() >= CHUNK || bytes >= CHUNK_BYTES {
            chunk(server, served, &mut entries, &open).await?;
            (open, bytes) = (Vec::new(), 0);
        }
    }
    chunk(server, served, &mut entries, &open).await?;
    Ok(entries)
}

/// One entry in the version served.
pub async fn entry(server: &Arc<Server>, served: &Served, one: Arc<Entry>) -> ApiResult<Arc<Entry>> {
    if served.converter().is_none() {
        return Ok(one);
    }
    let converted = entries(server, served, vec![one]).await?;
    converted
        .into_iter()
        .next()
        .ok_or_else(|| ApiError::internal("an object got lost while it was converted"))
}

/// Converts the entries at these places.
async fn chunk(
    server: &Arc<Server>,
    served: &Served,
    entries: &mut [Arc<Entry>],
    open: &[usize],
) -> ApiResult<()> {
    let Some(converter) = served.converter().filter(|_| !open.is_empty()) else {
        return Ok(());
    };
    let objects: Vec<Value> = open
        .iter()
        .map(|index| value(entries[*index].json()))
        .collect::<ApiResult<_>>()?;
    let converted = converter.convert(server, objects, &served.api_version()).await?;
    for (index, object) in open.iter().zip(converted) {
        let entry = &entries[*index];
        let form = Entry::new(
            served.strategy(),
            entry.key.clone(),
            entry.revision,
            object.to_string().as_bytes(),
            EventType::Added,
        );
        let form = Arc::new(form.map_err(ApiError::internal)?);
        Forms::keep(entry, served.version(), &form);
        entries[*index] = form;
    }
    Ok(())
}

/// An object without the version the store counts: what is stored has none.
fn value(object: &[u8]) -> ApiResult<Value> {
    let mut value: Value = serde_json::from_slice(object).map_err(ApiError::internal)?;
    if let Some(metadata) = value.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.remove("resourceVersion");
    }
    Ok(value)
}

/// What the store has, in the version the call asks for.
pub async fn from_store(call: &Call<'_>, stored: &[u8]) -> ApiResult<Bytes> {
    let wanted = call.served.api_version();
    let Some(converter) = call.served.converter() else {
        return Ok(Bytes::copy_from_slice(stored));
    };
    if version_of(stored).is_some_and(|version| version == wanted) {
        return Ok(Bytes::copy_from_slice(stored));
    }
    let objects = vec![value(stored)?];
    let converted = converter.convert(call.server, objects, &wanted).await?;
    Ok(converted.first().map(Value::to_string).unwrap_or_default().into())
}

/// What the call has, in the version that is stored. What is not going to be stored stays as it is.
pub async fn to_store(call: &Call<'_>, shown: &Bytes) -> ApiResult<Bytes> {
    let storage = &call.served.cache;
    let Some(converter) = call
        .served
        .converter()
        .filter(|_| call.served.version() != storage.info().version && !call.options.dry_run)
    else {
        return Ok(shown.clone());
    };
    let objects = vec![value(shown)?];
    let converted = converter
        .convert(call.server, objects, &storage.info().api_version())
        .await?;
    let json: Bytes = converted.first().map(Value::to_string).unwrap_or_default().into();
    Ok(storage.strategy().stored(&json).map_or(json, Bytes::from))
}

/// The first `count` entries that the filter wants, in key order after `after`: what it looks at is the version served.
pub async fn select_converted(
    call: &Call<'_>,
    all: &Entries,
    filter: &Filter,
    after: Option<&str>,
    count: usize,
) -> ApiResult<Vec<Arc<Entry>>> {
    let coarse = filter.without_selectors();
    let mut candidates = select(all, &coarse, after).cloned();
    let mut found = Vec::new();
    loop {
        let some: Vec<_> = candidates.by_ref().take(CHUNK.min(count)).collect();
        if some.is_empty() || found.len() >= count {
            found.truncate(count);
            return Ok(found);
        }
        let converted = entries(call.server, call.served, some).await?;
        found.extend(converted.into_iter().filter(|entry| filter.matches(entry)));
    }
}

/// A watch over everything in the filter's scope as a watch over what the filter wants of it in the version served.
pub async fn watching(
    server: &Arc<Server>,
    served: &Served,
    filter: Arc<Filter>,
    watching: Watching,
) -> ApiResult<Watching> {
    let mut initial = entries(server, served, watching.initial).await?;
    initial.retain(|entry| filter.matches(entry));
    let backlog = signals(server, served, &filter, watching.backlog).await?;
    let (teller, queue) = queue(ROOM);
    let (server, served, from) = (server.clone(), served.clone(), watching.queue);
    tokio::spawn(async move {
        tokio::select! {
            () = teller.left() => {}
            () = forward(&server, &served, &filter, from, &teller) => {}
        }
    });
    Ok(Watching {
        initial,
        backlog,
        revision: watching.revision,
        queue,
    })
}

/// Converts what comes and hands it on until somebody stops.
async fn forward(server: &Arc<Server>, served: &Served, filter: &Filter, mut from: Queue, to: &Teller) {
    loop {
        let mut batch = Vec::new();
        if from.recv_many(&mut batch, SIGNALS).await == 0 {
            return;
        }
        match signals(server, served, filter, batch).await {
            Ok(signals) => {
                for signal in signals {
                    if !to.tell(signal).await {
                        return;
                    }
                }
            }
            Err(error) => {
                // Nobody to tell is as good as told.
                let _told = to.tell(Signal::Failed(Arc::new(error))).await;
                return;
            }
        }
    }
}

/// Signals about objects in the version served, as seen through the filter.
async fn signals(
    server: &Arc<Server>,
    served: &Served,
    filter: &Filter,
    signals: Vec<Signal>,
) -> ApiResult<Vec<Signal>> {
    // A deleted object is the one before it, at another revision.
    let states = |event: &Event| -> Vec<Arc<Entry>> {
        let entry =
            (event.kind != EventType::Deleted || event.previous.is_none()).then(|| event.entry.clone());
        event.previous.iter().cloned().chain(entry).collect()
    };
    let mut open = Vec::new();
    for signal in &signals {
        if let Signal::Event(_, event) = signal {
            open.extend(states(event));
        }
    }
    let mut converted = entries(server, served, open).await?.into_iter();
    let mut told = Vec::with_capacity(signals.len());
    for signal in signals {
        let Signal::Event(_, event) = signal else {
            told.push(signal);
            continue;
        };
        let previous = event.previous.as_ref().and_then(|_| converted.next());
        let entry = match &previous {
            Some(previous) if event.kind == EventType::Deleted => {
                Some(Arc::new(previous.buried(event.entry.revision)))
            }
            _ => converted.next(),
        };
        let Some(entry) = entry else { continue };
        let event = event.about(entry, previous);
        if let Some(kind) = event.seen_through(filter) {
            told.push(Signal::Event(kind, Arc::new(event)));
        }
    }
    Ok(told)
}
