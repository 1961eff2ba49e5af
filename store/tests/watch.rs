//! Watches, through the API.

mod common;

use std::time::Duration;

use anyhow::{Context, bail};
use common::{Member, put};
use keelson_proto::etcd::watch_client::WatchClient;
use keelson_proto::etcd::watch_create_request::FilterType;
use keelson_proto::etcd::watch_request::RequestUnion;
use keelson_proto::etcd::{
    CompactionRequest, DeleteRangeRequest, WatchCancelRequest, WatchCreateRequest, WatchProgressRequest,
    WatchRequest, WatchResponse,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

struct Stream {
    requests: mpsc::Sender<WatchRequest>,
    responses: Streaming<WatchResponse>,
}

impl Stream {
    async fn open(member: &Member) -> anyhow::Result<Self> {
        let (requests, outgoing) = mpsc::channel(16);
        let responses = WatchClient::new(member.channel().await?)
            .max_decoding_message_size(64 << 20)
            .watch(ReceiverStream::new(outgoing))
            .await?
            .into_inner();
        Ok(Self { requests, responses })
    }

    async fn ask(&self, request: RequestUnion) -> anyhow::Result<()> {
        self.requests
            .send(WatchRequest {
                request_union: Some(request),
            })
            .await
            .context("the stream is closed")
    }

    async fn next(&mut self) -> anyhow::Result<WatchResponse> {
        tokio::time::timeout(Duration::from_secs(20), self.responses.message())
            .await
            .context("no response")??
            .context("the stream ended")
    }

    async fn create(&mut self, request: WatchCreateRequest) -> anyhow::Result<i64> {
        self.ask(RequestUnion::CreateRequest(request)).await?;
        let response = self.next().await?;
        anyhow::ensure!(response.created && !response.canceled, "{response:?}");
        Ok(response.watch_id)
    }
}

fn all_from(start_revision: i64) -> WatchCreateRequest {
    WatchCreateRequest {
        key: vec![0].into(),
        range_end: vec![0].into(),
        start_revision,
        ..WatchCreateRequest::default()
    }
}

fn text(response: &WatchResponse) -> String {
    let one = |event: &keelson_proto::mvcc::Event| {
        let kv = event.kv.clone().unwrap_or_default();
        let before = event
            .prev_kv
            .as_ref()
            .map(|kv| format!("<{}", String::from_utf8_lossy(&kv.value)))
            .unwrap_or_default();
        format!(
            "{}{}@{}{before}",
            if event.r#type == 1 { "-" } else { "+" },
            String::from_utf8_lossy(&kv.key),
            kv.mod_revision
        )
    };
    response.events.iter().map(one).collect::<Vec<_>>().join(" ")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_sees_what_it_asked_for() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let member = Member::new("watch", folder.path())?.started().await?;
    let mut kv = member.kv().await?;
    let delete = |key: &'static str| DeleteRangeRequest {
        key: key.into(),
        ..DeleteRangeRequest::default()
    };
    let start = kv
        .put(put("a", "1"))
        .await?
        .into_inner()
        .header
        .context("a header")?
        .revision;
    kv.put(put("a", "2")).await?;
    kv.delete_range(delete("a")).await?;

    let mut past = Stream::open(&member).await?;
    let mut with_before = all_from(start);
    with_before.prev_kv = true;
    past.create(with_before).await?;
    let expected = format!("+a@{start} +a@{}<1 -a@{}<2", start + 1, start + 2);
    assert_eq!(text(&past.next().await?), expected);

    let mut live = Stream::open(&member).await?;
    let puts = live
        .create(WatchCreateRequest {
            key: "b".into(),
            range_end: "d".into(),
            filters: vec![FilterType::Nodelete as i32],
            ..WatchCreateRequest::default()
        })
        .await?;
    let one = live
        .create(WatchCreateRequest {
            key: "c".into(),
            watch_id: 77,
            ..WatchCreateRequest::default()
        })
        .await?;
    assert_eq!((puts, one), (0, 77));
    kv.put(put("b", "1")).await?;
    assert_eq!((live.next().await?.watch_id, ()), (puts, ()));
    kv.delete_range(delete("b")).await?;
    kv.put(put("d", "outside")).await?;
    let last = kv
        .put(put("c", "1"))
        .await?
        .into_inner()
        .header
        .context("a header")?
        .revision;
    let mut ids = Vec::new();
    for _ in 0..2 {
        let response = live.next().await?;
        assert_eq!(text(&response), format!("+c@{last}"));
        ids.push(response.watch_id);
    }
    ids.sort_unstable();
    assert_eq!(ids, [puts, one]);

    live.ask(RequestUnion::ProgressRequest(WatchProgressRequest {}))
        .await?;
    let progress = live.next().await?;
    assert_eq!(progress.watch_id, -1);
    assert_eq!(progress.header.context("a header")?.revision, last);
    live.ask(RequestUnion::CancelRequest(WatchCancelRequest { watch_id: one }))
        .await?;
    let cancelled = live.next().await?;
    assert!(cancelled.canceled && cancelled.watch_id == one);

    kv.compact(CompactionRequest {
        revision: last,
        physical: true,
    })
    .await?;
    let mut late = Stream::open(&member).await?;
    late.create(all_from(start)).await?;
    let refused = late.next().await?;
    assert!(refused.canceled);
    assert_eq!(refused.compact_revision, last);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_watcher_misses_nothing() -> anyhow::Result<()> {
    const CHANGES: usize = 3000;
    let folder = tempfile::tempdir()?;
    let member = Member::new("slow", folder.path())?.started().await?;
    let mut stream = Stream::open(&member).await?;
    let mut request = all_from(0);
    request.fragment = true;
    stream.create(request).await?;
    // Far more than what waits in memory for one client, while the client reads nothing.
    let mut writers = Vec::new();
    for writer in 0..8 {
        let mut kv = member.kv().await?;
        writers.push(tokio::spawn(async move {
            for number in 0..CHANGES / 8 {
                kv.put(put(&format!("k{writer}/{number}"), vec![b'x'; 10_000]))
                    .await?;
            }
            anyhow::Ok(())
        }));
    }
    for writer in writers {
        writer.await??;
    }
    let mut seen = Vec::new();
    while seen.len() < CHANGES {
        for event in stream.next().await?.events {
            let Some(kv) = event.kv else {
                bail!("an event without a record");
            };
            if kv.key.starts_with(b"k") {
                assert_eq!(kv.value.len(), 10_000);
                seen.push(kv.mod_revision);
            }
        }
    }
    assert!(seen.windows(2).all(|pair| pair[0] < pair[1]));
    Ok(())
}
