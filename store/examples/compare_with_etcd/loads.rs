//! Loads of many callers at once, and what they cost.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use keelson_proto::etcd::compare::{CompareResult, CompareTarget, TargetUnion};
use keelson_proto::etcd::kv_client::KvClient;
use keelson_proto::etcd::request_op::Request;
use keelson_proto::etcd::watch_client::WatchClient;
use keelson_proto::etcd::watch_request::RequestUnion;
use keelson_proto::etcd::{Compare, RangeRequest, TxnRequest, WatchCreateRequest, WatchRequest};
use tonic::transport::Channel;

use crate::group::Group;
use crate::requests::{WORKING_KEYS, get, key, op, put};

/// Callers that share a connection.
const CALLERS_PER_CONNECTION: usize = 32;
/// With fewer callers than that for each member, every member has a connection all the same.
const MEMBERS_AT_MOST: usize = 3;

/// What one caller does over and over.
#[derive(Clone, Copy)]
pub enum Load {
    Put(usize),
    /// As the apigroup writes: if the revision is the one known, put, else tell what there is.
    Update(usize),
    Get {
        serializable: bool,
    },
    /// 500 keys.
    List,
}

/// What a load came to.
pub struct Measured {
    pub per_second: f64,
    pub p50: f64,
    pub p99: f64,
    /// Microseconds of the members' CPU for one operation.
    pub cpu: f64,
}

async fn call(
    kv: &mut KvClient<Channel>,
    load: Load,
    number: u64,
    revision: &mut i64,
) -> Result<(), tonic::Status> {
    match load {
        Load::Put(size) => {
            kv.put(put(number, size)).await?;
        }
        Load::Get { serializable } => {
            let request = RangeRequest {
                serializable,
                ..get(number)
            };
            kv.range(request).await?;
        }
        Load::List => {
            let request = RangeRequest {
                range_end: Bytes::from_static(b"/registry/pods0"),
                limit: 500,
                ..get(number % (WORKING_KEYS - 500))
            };
            kv.range(request).await?;
        }
        Load::Update(size) => {
            let request = TxnRequest {
                compare: vec![Compare {
                    result: CompareResult::Equal as i32,
                    target: CompareTarget::Mod as i32,
                    key: key(number),
                    target_union: Some(TargetUnion::ModRevision(*revision)),
                    ..Compare::default()
                }],
                success: vec![op(Request::RequestPut(put(number, size)))],
                failure: vec![op(Request::RequestRange(get(number)))],
            };
            let response = kv.txn(request).await?.into_inner();
            let header = response.header.map_or(0, |header| header.revision);
            *revision = if response.succeeded { header } else { 0 };
        }
    }
    Ok(())
}

/// Callers who ask one thing over and over, each waiting for its answer.
pub async fn run(group: &Group, load: Load, callers: usize, length: Duration) -> anyhow::Result<Measured> {
    let mut channels = Vec::new();
    for number in 0..callers
        .div_ceil(CALLERS_PER_CONNECTION)
        .max(MEMBERS_AT_MOST.min(callers))
    {
        channels.push(group.connect(number).await?);
    }
    let end = Instant::now() + length;
    let before = group.cpu_micros();
    let mut tasks = Vec::new();
    for caller in 0..callers {
        let mut kv =
            KvClient::new(channels[caller % channels.len()].clone()).max_decoding_message_size(64 << 20);
        tasks.push(tokio::spawn(async move {
            let mut micros = Vec::new();
            let mut number = caller as u64 * 7919;
            // An updater has keys of its own; it takes each once more after it was told the revision.
            let mut revision = 0;
            while Instant::now() < end {
                let started = Instant::now();
                let key = match load {
                    Load::Update(_) => caller as u64 % WORKING_KEYS,
                    _ => number % WORKING_KEYS,
                };
                call(&mut kv, load, key, &mut revision).await?;
                micros.push(started.elapsed().as_micros() as u64);
                number += 1;
            }
            Ok::<_, tonic::Status>(micros)
        }));
    }
    let mut micros = Vec::new();
    for task in tasks {
        micros.extend(task.await??);
    }
    let cpu = group.cpu_micros() - before;
    micros.sort_unstable();
    let at = |part: f64| micros[((micros.len() - 1) as f64 * part) as usize] as f64 / 1000.0;
    Ok(Measured {
        per_second: micros.len() as f64 / length.as_secs_f64(),
        p50: at(0.5),
        p99: at(0.99),
        cpu: cpu as f64 / micros.len() as f64,
    })
}

/// Puts while `watchers` watch all of them; the figures are of the events that arrived.
pub async fn fan_out(group: &Group, watchers: usize, length: Duration) -> anyhow::Result<Measured> {
    let arrived = Arc::new(AtomicU64::new(0));
    let mut tasks = Vec::new();
    let mut channels = Vec::new();
    for number in 0..watchers.div_ceil(100) {
        channels.push(group.connect(number).await?);
    }
    for watcher in 0..watchers {
        let mut client = WatchClient::new(channels[watcher % channels.len()].clone());
        let (requests, stream) = tokio::sync::mpsc::channel(1);
        requests
            .send(WatchRequest {
                request_union: Some(RequestUnion::CreateRequest(WatchCreateRequest {
                    key: Bytes::from_static(b"/registry/pods/"),
                    range_end: Bytes::from_static(b"/registry/pods0"),
                    ..WatchCreateRequest::default()
                })),
            })
            .await?;
        let mut responses = client
            .watch(tokio_stream::wrappers::ReceiverStream::new(stream))
            .await?
            .into_inner();
        responses.message().await?;
        let arrived = arrived.clone();
        tasks.push(tokio::spawn(async move {
            while let Ok(Some(response)) = responses.message().await {
                arrived.fetch_add(response.events.len() as u64, Ordering::Relaxed);
            }
            drop(requests);
        }));
    }
    let before = group.cpu_micros();
    let puts = run(group, Load::Put(256), 8, length).await?;
    let wanted = (puts.per_second * length.as_secs_f64()).round() as u64 * watchers as u64;
    let deadline = Instant::now() + Duration::from_secs(20);
    while arrived.load(Ordering::Relaxed) < wanted && Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let cpu = group.cpu_micros() - before;
    let events = arrived.load(Ordering::Relaxed);
    for task in tasks {
        task.abort();
    }
    Ok(Measured {
        per_second: events as f64 / length.as_secs_f64(),
        cpu: cpu as f64 / events as f64,
        ..puts
    })
}
