//! Transactions over one stream: what becomes of each, and of the stream.

mod common;

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, ensure};
use bytes::Bytes;
use common::{Member, get, put, range};
use keelson_proto::etcd::compare::{CompareResult, CompareTarget, TargetUnion};
use keelson_proto::etcd::request_op::Request as Op;
use keelson_proto::etcd::{Compare, RequestOp, TxnRequest};
use keelson_proto::transactions::outcome::Result as Come;
use keelson_proto::transactions::transactions_client::TransactionsClient;
use keelson_proto::transactions::{Outcomes, Request, Requests};
use tokio::sync::mpsc;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::{Code, Streaming};

/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(30);

/// A client's end of a stream.
struct Line {
    requests: mpsc::UnboundedSender<Requests>,
    outcomes: Streaming<Outcomes>,
}

impl Line {
    async fn open(member: &Member) -> anyhow::Result<Self> {
        let (requests, inbox) = mpsc::unbounded_channel();
        let mut client = TransactionsClient::new(member.channel().await?);
        let outcomes = client.run(UnboundedReceiverStream::new(inbox)).await?;
        Ok(Self {
            requests,
            outcomes: outcomes.into_inner(),
        })
    }

    fn send(&self, transactions: impl IntoIterator<Item = (u64, TxnRequest)>) -> anyhow::Result<()> {
        let request = |(id, txn)| Request { id, txn: Some(txn) };
        let requests = transactions.into_iter().map(request).collect();
        self.requests.send(Requests { requests })?;
        Ok(())
    }

    /// The next message; `None` when the member has ended the stream.
    async fn message(&mut self) -> anyhow::Result<Option<Outcomes>> {
        let message = tokio::time::timeout(PATIENCE, self.outcomes.message());
        Ok(message.await.context("the stream is silent")??)
    }

    /// So many outcomes, by number.
    async fn outcomes(&mut self, count: usize) -> anyhow::Result<BTreeMap<u64, Come>> {
        let mut outcomes = BTreeMap::new();
        while outcomes.len() < count {
            let message = self.message().await?.context("the stream has ended")?;
            for outcome in message.outcomes {
                let result = outcome.result.context("an outcome without a result")?;
                ensure!(outcomes.insert(outcome.id, result).is_none(), "answered twice");
            }
        }
        Ok(outcomes)
    }
}

/// Puts a key that is not there; reads it if it is.
fn create(key: &str) -> TxnRequest {
    let op = |request| RequestOp {
        request: Some(request),
    };
    TxnRequest {
        compare: vec![Compare {
            result: CompareResult::Equal as i32,
            target: CompareTarget::Mod as i32,
            key: Bytes::copy_from_slice(key.as_bytes()),
            target_union: Some(TargetUnion::ModRevision(0)),
            ..Compare::default()
        }],
        success: vec![op(Op::RequestPut(put(key, key.to_owned())))],
        failure: vec![op(Op::RequestRange(range(key, "")))],
    }
}

fn refused(outcome: Option<&Come>) -> Option<(Code, &str)> {
    match outcome {
        Some(Come::Refused(refusal)) => Some((Code::from_i32(refusal.code), &refusal.message)),
        _ => None,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_has_its_own_outcome() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let member = Member::new("outcomes", folder.path())?.started().await?;
    let mut kv = member.kv().await?;
    kv.put(put("there", "before")).await?;

    let mut line = Line::open(&member).await?;
    line.send((0..100).map(|number| (number, create(&format!("k{number:02}")))))?;
    let many_ops = TxnRequest {
        success: (0..200).flat_map(|n| create(&format!("m{n}")).success).collect(),
        ..TxnRequest::default()
    };
    let nothing = Request { id: 103, txn: None };
    line.send([(100, create("there")), (101, create("")), (102, many_ops)])?;
    line.requests.send(Requests {
        requests: vec![nothing],
    })?;
    let outcomes = line.outcomes(104).await?;

    let mut revisions: Vec<i64> = Vec::new();
    for number in 0..100 {
        let Some(Come::Done(done)) = outcomes.get(&number) else {
            anyhow::bail!("{number}: {:?}", outcomes.get(&number));
        };
        let header = done.header.context("a header")?;
        ensure!(
            done.succeeded && header.cluster_id != 0 && header.member_id != 0,
            "{done:?}"
        );
        revisions.push(header.revision);
        let key = format!("k{number:02}");
        ensure!(get(&mut kv, &key).await? == Some(key), "{number} is not there");
    }
    revisions.sort_unstable();
    revisions.dedup();
    ensure!(revisions.len() == 100, "two transactions at one revision");
    let Some(Come::Done(conflict)) = outcomes.get(&100) else {
        anyhow::bail!("{:?}", outcomes.get(&100));
    };
    ensure!(!conflict.succeeded && get(&mut kv, "there").await? == Some("before".into()));
    let empty = Some((Code::InvalidArgument, "etcdserver: key is not provided"));
    ensure!(refused(outcomes.get(&101)) == empty, "{:?}", outcomes.get(&101));
    let many = Some((
        Code::InvalidArgument,
        "etcdserver: too many operations in txn request",
    ));
    ensure!(refused(outcomes.get(&102)) == many, "{:?}", outcomes.get(&102));
    ensure!(
        matches!(outcomes.get(&103), Some(Come::Done(_))),
        "{:?}",
        outcomes.get(&103)
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_has_said_all_gets_every_outcome() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let member = Member::new("said", folder.path())?.started().await?;
    let Line {
        requests,
        mut outcomes,
    } = {
        let line = Line::open(&member).await?;
        line.send((0..500).map(|number| (number, create(&format!("k{number}")))))?;
        line
    };
    drop(requests);
    let mut count = 0;
    while let Some(message) = tokio::time::timeout(PATIENCE, outcomes.message()).await?? {
        ensure!(!message.outcomes.is_empty(), "a message that says nothing");
        count += message.outcomes.len();
    }
    ensure!(count == 500, "{count}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_stops_answers_what_it_has_read() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let mut member = Member::new("stops", folder.path())?.started().await?;
    let mut line = Line::open(&member).await?;
    line.send([(7, create("k"))])?;
    let outcomes = line.outcomes(1).await?;
    ensure!(
        matches!(outcomes.get(&7), Some(Come::Done(done)) if done.succeeded),
        "{outcomes:?}"
    );
    let stopped = tokio::task::spawn_blocking(move || member.stop());
    ensure!(line.message().await?.is_none(), "the stream goes on");
    stopped.await?
}
