//! What five thousand services cost: time to put all of them into a kernel, and one more change after that.
//! Prints what it measured. Needs root and nft; without root it says so and passes.

use std::io::{Error, Result, Write};
use std::net::{IpAddr, SocketAddr};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use keelson_kube_proxy::rules::services::{Policy, Protocol};
use keelson_kube_proxy::rules::{Endpoint, Family, Options, ServicePort, Table, build, difference, whole};

const SERVICES: u16 = 5000;
const ENDPOINTS: u8 = 3;
/// Generous: a busy two-core machine, an unoptimised build.
const LIMIT_WHOLE: Duration = Duration::from_secs(30);
const LIMIT_CHANGE: Duration = Duration::from_secs(2);

fn service(number: u16, endpoints: u8) -> ServicePort {
    let [high, low] = number.to_be_bytes();
    ServicePort {
        namespace: format!("ns-{high}"),
        name: format!("service-{number}"),
        protocol: Protocol::Tcp,
        port: 80,
        cluster_ips: vec![IpAddr::from([10, 100, high, low])],
        node_port: None,
        external_ips: vec![],
        load_balancer_ips: vec![],
        source_ranges: vec![],
        affinity: None,
        internal: Policy::Cluster,
        external: Policy::Cluster,
        endpoints: (0..endpoints)
            .map(|index| Endpoint {
                address: SocketAddr::from(([10, 128 + index, high, low], 8080)),
                local: false,
                ready: true,
                draining: false,
            })
            .collect(),
    }
}

fn table(services: &[ServicePort]) -> Table {
    let options = Options {
        table: "keelson".into(),
        cluster_cidrs: vec![],
        nodeport_addresses: vec![],
        masquerade_all: false,
        masquerade_mark: 0x4000,
    };
    build(&options, Family::V4, services)
}

/// Applies both texts in one new network namespace and returns how long each took.
fn apply(first: &str, second: &str) -> Result<(Duration, Duration)> {
    let name = format!("kps{}", std::process::id());
    let run = |text: &str| -> Result<Duration> {
        let started = Instant::now();
        let mut child = Command::new("nsenter")
            .arg(format!("--net=/run/netns/{name}"))
            .args(["nft", "-f", "-"])
            .stdin(Stdio::piped())
            .spawn()?;
        if let Some(mut stdin) = child.stdin.take() {
            stdin.write_all(text.as_bytes())?;
        }
        if !child.wait()?.success() {
            return Err(Error::other("nft refused the rules"));
        }
        Ok(started.elapsed())
    };
    let ip = |verb: &str| Command::new("ip").args(["netns", verb, &name]).status();
    ip("add")?;
    let result = run(first).and_then(|whole| Ok((whole, run(second)?)));
    ip("delete")?;
    result
}

#[test]
fn thousands_of_services_and_one_change() -> Result<()> {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("skipped: network namespaces need root");
        return Ok(());
    }
    let mut services: Vec<ServicePort> = (0..SERVICES).map(|number| service(number, ENDPOINTS)).collect();
    let before = table(&services);
    let computing = Instant::now();
    services[77] = service(77, ENDPOINTS - 1);
    let after = table(&services);
    let change = difference(&before, &after).unwrap_or_default();
    let computed = computing.elapsed();
    assert_eq!(change.lines().count(), 2, "one chain is written anew:\n{change}");
    let (first, second) = apply(&whole(&before), &change)?;
    println!(
        "{SERVICES} services of {ENDPOINTS} endpoints: {first:?} into the kernel; one change: {computed:?} to compute, {second:?} to apply"
    );
    assert!(
        first < LIMIT_WHOLE && second < LIMIT_CHANGE,
        "{first:?}, {second:?}"
    );
    Ok(())
}
