//! What writes and memory cost. Run it by hand, in a release build:
//! `cargo test --release -p keelson-store --test cost -- --ignored --nocapture`

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context;
use bytes::Bytes;
use common::{Member, put, range};
use keelson_proto::etcd::compare::{CompareResult, CompareTarget, TargetUnion};
use keelson_proto::etcd::request_op::Request;
use keelson_proto::etcd::{Compare, RequestOp, TxnRequest};

const PODS: u64 = 10_000;
const POD_BYTES: usize = 5 << 10;
const CLIENTS: u64 = 64;

/// CPU seconds a process has used: user and system.
fn cpu(pid: u32) -> anyhow::Result<(f64, f64)> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let after = stat.rsplit_once(')').context("the end of the name")?.1;
    let fields: Vec<&str> = after.split_whitespace().collect();
    let seconds = |field: usize| anyhow::Ok(fields[field].parse::<f64>()? / 100.0);
    Ok((seconds(11)?, seconds(12)?))
}

fn cpu_seconds(pid: u32) -> anyhow::Result<f64> {
    let (user, system) = cpu(pid)?;
    Ok(user + system)
}

fn memory(pid: u32) -> anyhow::Result<String> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let fields = status
        .lines()
        .filter(|line| line.starts_with("VmRSS") || line.starts_with("RssAnon"))
        .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "));
    Ok(fields.collect::<Vec<_>>().join(", "))
}

fn create(key: String, value: Bytes) -> TxnRequest {
    TxnRequest {
        compare: vec![Compare {
            result: CompareResult::Equal as i32,
            target: CompareTarget::Mod as i32,
            key: key.clone().into(),
            target_union: Some(TargetUnion::ModRevision(0)),
            ..Compare::default()
        }],
        success: vec![RequestOp {
            request: Some(Request::RequestPut(put(&key, value))),
        }],
        ..TxnRequest::default()
    }
}

/// A pod is mostly text that repeats and a little that does not.
fn pod(number: u64) -> Bytes {
    let mut text = format!("{{\"kind\":\"Pod\",\"metadata\":{{\"name\":\"p{number}\"}},\"spec\":[");
    let mut word = number;
    while text.len() < POD_BYTES {
        word = word.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        text.push_str(&format!(
            "{{\"name\":\"VARIABLE\",\"value\":\"{:x}\"}},",
            word >> 40
        ));
    }
    text.truncate(POD_BYTES);
    text.into()
}

#[ignore = "a measurement, not a test"]
#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_pods() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let member = Member::new("cost", folder.path())?.started().await?;
    let pid = member.pid().context("a process")?;
    println!("idle: {}", memory(pid)?);
    for (what, prefix) in [
        ("created", "/registry/pods/a/"),
        ("created more", "/registry/pods/b/"),
    ] {
        let before = cpu(pid)?;
        let start = Instant::now();
        let next = Arc::new(AtomicU64::new(0));
        let mut clients = Vec::new();
        let kv = member.kv().await?;
        for _ in 0..CLIENTS {
            let (mut kv, next) = (kv.clone(), next.clone());
            clients.push(tokio::spawn(async move {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= PODS {
                        return anyhow::Ok(());
                    }
                    let key = format!("{prefix}pod-{number:06}");
                    anyhow::ensure!(kv.txn(create(key, pod(number))).await?.into_inner().succeeded);
                }
            }));
        }
        for client in clients {
            client.await??;
        }
        let (after, time) = (cpu(pid)?, start.elapsed());
        let each = |seconds: f64| seconds * 1e6 / PODS as f64;
        println!(
            "{what} {PODS} pods of {POD_BYTES} bytes: {:.0} µs user and {:.0} µs system CPU each, {:.0}/s; {}",
            each(after.0 - before.0),
            each(after.1 - before.1),
            PODS as f64 / time.as_secs_f64(),
            memory(pid)?
        );
    }
    tokio::time::sleep(Duration::from_secs(13)).await;
    println!("stored: {}", memory(pid)?);
    let mut kv = member.kv().await?;
    for what in ["listed", "listed again"] {
        let before = cpu_seconds(pid)?;
        let start = Instant::now();
        let response = kv
            .range(range("/registry/pods/a/", "/registry/pods/a0"))
            .await?
            .into_inner();
        assert_eq!(response.kvs.len() as u64, PODS);
        println!(
            "{what} {PODS}: {:.0} ms, {:.0} ms CPU; {}",
            start.elapsed().as_secs_f64() * 1e3,
            (cpu_seconds(pid)? - before) * 1e3,
            memory(pid)?
        );
    }
    let before = cpu_seconds(pid)?;
    let start = Instant::now();
    for number in 0..2000 {
        let key = format!("/registry/pods/a/pod-{:06}", number * 5);
        anyhow::ensure!(!kv.range(range(&key, "")).await?.into_inner().kvs.is_empty());
    }
    println!(
        "got one, one after the other: {:.0} µs, {:.0} µs CPU",
        start.elapsed().as_secs_f64() * 1e6 / 2000.0,
        (cpu_seconds(pid)? - before) * 1e6 / 2000.0
    );
    let before = cpu_seconds(pid)?;
    tokio::time::sleep(Duration::from_secs(10)).await;
    println!(
        "idle: {:.2} ms CPU a second; {}",
        (cpu_seconds(pid)? - before) * 100.0,
        memory(pid)?
    );
    Ok(())
}
