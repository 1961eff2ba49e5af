//! The wall clock of every daemon is set forward and back while a cluster works.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use keelson_tests::clock::{NOTICED, Offset};
use keelson_tests::cluster::TOOLBOX;
use keelson_tests::process::{eventually, run};

use crate::Stage;
use crate::kills::Application;
use crate::load::{Load, admin, all_present};

const HOUR: Duration = Duration::from_secs(3600);

/// How far a daemon's clock may be from where it was set to: noticing takes a moment, and times are rounded.
const CLOSE: i64 = 30;

/// A token that is over before the clock is an hour ahead.
const SHORT_TOKEN: &str = "10m";

/// Seconds that a lease of the store is granted for; nothing renews it.
const STORE_LEASE: u64 = 600;

/// A worker of the kubelet looks at its pod's token about once a minute, and at the latest after a minute and a half.
const TOKEN_REPLACED: Duration = Duration::from_secs(120);

/// Everything that a set clock must not change.
#[derive(Debug, PartialEq, Eq)]
struct Constants {
    /// When the node last turned ready or not.
    node: String,
    /// Who leads, and how often that has changed.
    leaders: String,
    /// The processes, and how often they were started again.
    processes: Vec<String>,
}

impl Constants {
    fn of(stage: &Stage) -> Result<Self> {
        let ready = "{.items[*].status.conditions[?(@.type==\"Ready\")]['status','lastTransitionTime']}";
        let leaders =
            "{range.items[*]}{.metadata.name}={.spec.holderIdentity}/{.spec.leaseTransitions},{end}";
        let status = keelson_tests::process::succeed(stage.cluster.keeladm(&["status"]), None)?;
        let processes = status
            .lines()
            .skip(1)
            .filter_map(|line| {
                let words: Vec<_> = line.split_whitespace().collect();
                Some(format!("{} {}", words.first()?, words.get(3)?))
            })
            .collect();
        Ok(Self {
            node: stage.kubectl.path("get nodes", ready)?,
            leaders: stage.kubectl.path("get leases -n kube-system", leaders)?,
            processes,
        })
    }
}

pub fn the_wall_clock_is_set_forward_and_back(stage: &Stage) -> Result<()> {
    let kubectl = &stage.kubectl;
    let clock = stage.clock.as_ref().context("a cluster with a clock")?;
    let started = Instant::now();
    let application = Application::start(stage, "timeless")?;
    start_pod(stage, "caller")?;
    kubectl.args(&[
        "create",
        "cronjob",
        "tick",
        "--schedule=* * * * *",
        &format!("--image={TOOLBOX}"),
        "--",
        "true",
    ])?;
    let short = kubectl.run(&format!("create token default --duration={SHORT_TOKEN}"))?;
    ensure!(code_with(stage, &short)? == "403", "the short token is not known");
    let store_lease = StoreLease::grant(stage)?;
    kubectl.run("wait --for=condition=Ready nodes --all --timeout=120s")?;
    let constants = Constants::of(stage)?;
    let events = kubectl.run("get events -o name")?;

    kubectl.run("create namespace load")?;
    let runtime = tokio::runtime::Runtime::new()?;
    let client = runtime.block_on(async { admin(&stage.cluster.kubeconfig()) })?;
    let load = runtime.block_on(async { Load::start(&client, "load", 2) });

    let settings = [
        ("forward", Offset::Ahead(HOUR), "401"),
        ("back", Offset::Behind(HOUR), "401"),
        ("right", Offset::None, "403"),
    ];
    for (number, (name, offset, short_token)) in settings.into_iter().enumerate() {
        clock.set(offset)?;
        std::thread::sleep(NOTICED);
        let done = (|| {
            leases_are_renewed(stage, offset)?;
            start_pod(stage, name)?;
            kubectl.run(&format!("scale deployment timeless --replicas={}", number + 3))?;
            kubectl.run("rollout status deployment/timeless --timeout=120s")?;
            let fresh = kubectl.run("create token default")?;
            ensure!(code_with(stage, &fresh)? == "403", "a fresh token is refused");
            // By the time it ends it may well be over in the real world.
            if started.elapsed() < Duration::from_secs(500) {
                let code = code_with(stage, &short)?;
                ensure!(code == short_token, "the short token: {code}");
            }
            eventually("the pod's token", TOKEN_REPLACED, || {
                pod_is_known(stage, "caller")
            })?;
            store_lease.is_alive()?;
            let now = Constants::of(stage)?;
            ensure!(now == constants, "{constants:#?} became {now:#?}");
            application.still_the_same_among("timeless")
        })();
        done.with_context(|| format!("clock: {name}"))?;
    }

    let acknowledged = runtime.block_on(load.stop())?;
    ensure!(
        acknowledged.len() > 100,
        "only {} writes were acknowledged",
        acknowledged.len()
    );
    runtime.block_on(all_present(&client, "load", &acknowledged))?;
    let events_now = kubectl.run("get events -o name")?;
    for event in events.lines() {
        ensure!(events_now.contains(event), "{event} is gone");
    }
    for pod in ["caller", "forward", "back", "right"] {
        let path = "{.status.containerStatuses[0].restartCount}{.status.phase}";
        let life = kubectl.path(&format!("get pod {pod}"), path)?;
        ensure!(life == "0Running", "{pod}: {life}");
    }
    // One at each minute, and at most one for all those that the clock jumped over.
    let jobs = kubectl.run("get jobs -o name")?.lines().count() as u64;
    let most = started.elapsed().as_secs() / 60 + 3;
    ensure!(jobs <= most, "{jobs} jobs, but at most {most} were due");

    kubectl.run("delete cronjob tick")?;
    kubectl.run("delete deployment,service timeless")?;
    kubectl.run("delete pod caller forward back right --grace-period=1")?;
    kubectl.run("delete namespace load --timeout=120s")?;
    Ok(())
}

fn start_pod(stage: &Stage, name: &str) -> Result<()> {
    stage.kubectl.run(&format!(
        "run {name} --image={TOOLBOX} --restart=Never --command -- sleep 3600"
    ))?;
    stage
        .kubectl
        .run(&format!("wait --for=condition=Ready pod/{name} --timeout=120s"))?;
    Ok(())
}

/// Every lease carries the time that was set: its holder goes on renewing it, and its clock really is another.
fn leases_are_renewed(stage: &Stage, offset: Offset) -> Result<()> {
    for lease in [
        "kube-system kube-scheduler",
        "kube-system kube-controller-manager",
        "kube-node-lease --all",
    ] {
        eventually(lease, Duration::from_secs(25), || {
            let (namespace, name) = lease.split_once(' ').context("namespace and name")?;
            let leases = match name {
                "--all" => stage.kubectl.json(&format!("get leases -n {namespace}"))?,
                name => stage.kubectl.json(&format!("get leases {name} -n {namespace}"))?,
            };
            let lease = leases.pointer("/items/0").unwrap_or(&leases);
            let renewed = lease["spec"]["renewTime"].as_str().context("renewTime")?;
            let renewed: jiff::Timestamp = renewed.parse()?;
            let off = renewed.as_second() - jiff::Timestamp::now().as_second();
            let wanted = match offset {
                Offset::None => 0,
                Offset::Ahead(by) => i64::try_from(by.as_secs())?,
                Offset::Behind(by) => -i64::try_from(by.as_secs())?,
            };
            ensure!(
                (off - wanted).abs() <= CLOSE,
                "{name} was renewed {off} s from now, not {wanted}"
            );
            Ok(())
        })?;
    }
    Ok(())
}

/// The server's answer to somebody who may do nothing: 403 to those it knows, 401 to others.
fn code_with(stage: &Stage, token: &str) -> Result<String> {
    let server = stage
        .kubectl
        .path("config view --minify", "{.clusters[0].cluster.server}")?;
    run(
        "curl",
        &[
            "-ks",
            "-o",
            "/dev/null",
            "-w",
            "%{http_code}",
            "--max-time",
            "10",
            "-H",
            &format!("Authorization: Bearer {}", token.trim()),
            &format!("{server}/api/v1/namespaces/default/secrets"),
        ],
    )
}

/// Whether the API knows the pod by the token that is mounted into it.
fn pod_is_known(stage: &Stage, pod: &str) -> Result<()> {
    let path = "/var/run/secrets/kubernetes.io/serviceaccount/token";
    let token = stage.kubectl.run(&format!("exec {pod} -- cat {path}"))?;
    let code = code_with(stage, &token)?;
    ensure!(code == "403", "its token is answered with {code}");
    Ok(())
}

/// A lease of the store that nobody renews.
struct StoreLease<'a> {
    stage: &'a Stage,
    id: String,
    granted: Instant,
}

impl<'a> StoreLease<'a> {
    fn grant(stage: &'a Stage) -> Result<Self> {
        // "lease 694d7… granted with TTL(600s)"
        let said = etcdctl(stage, &["lease", "grant", &STORE_LEASE.to_string()])?;
        let id = said
            .split_whitespace()
            .nth(1)
            .with_context(|| said.clone())?
            .to_owned();
        Ok(Self {
            stage,
            id,
            granted: Instant::now(),
        })
    }

    fn is_alive(&self) -> Result<()> {
        let elapsed = self.granted.elapsed().as_secs();
        if elapsed + 30 > STORE_LEASE {
            return Ok(());
        }
        // "lease 694d7… granted with TTL(600s), remaining(587s)"
        let said = etcdctl(self.stage, &["lease", "timetolive", &self.id])?;
        let remaining: u64 = said
            .split_once("remaining(")
            .and_then(|(_, rest)| rest.split_once("s)"))
            .and_then(|(seconds, _)| seconds.parse().ok())
            .with_context(|| said.clone())?;
        let wanted = STORE_LEASE - elapsed;
        ensure!(
            remaining.abs_diff(wanted) <= 10,
            "{said}, but {wanted} s are left"
        );
        Ok(())
    }
}

fn etcdctl(stage: &Stage, args: &[&str]) -> Result<String> {
    let pki = stage.cluster.directory().join("pki");
    let mut command = std::process::Command::new("etcdctl");
    command
        .env("ETCDCTL_API", "3")
        .arg("--endpoints=https://127.0.0.1:2379")
        .arg("--cacert")
        .arg(pki.join("store-ca.crt"))
        .arg("--cert")
        .arg(pki.join("apiserver-store-client.crt"))
        .arg("--key")
        .arg(pki.join("apiserver-store-client.key"))
        .args(args);
    keelson_tests::process::succeed(command, None)
}
