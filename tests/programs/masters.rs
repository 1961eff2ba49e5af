//! Several apiservers on one store: where the `kubernetes` service leads as they come, stop and are killed, and what
//! numbers they give to services.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use keelson_tests::daemons::{Daemon, store_flags};
use keelson_tests::process::{eventually, run};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

const TOKEN: &str = "administrators-token";
/// How long a server may take to come up on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);
const SERVICES: &str = "/api/v1/namespaces/default/services";

struct Masters {
    folder: tempfile::TempDir,
    store: String,
    port: u16,
    _store: Daemon,
}

impl Masters {
    /// A store, and no apiserver yet.
    fn up() -> Result<Self> {
        Self::on(|folder, port| {
            let flags = store_flags(&folder.join("store"), port)?;
            Daemon::start("kube-store", &flags, &folder.join("store.log"))
        })
    }

    /// The same with a store that is started in this folder and listens on this port.
    fn on(store: impl FnOnce(&Path, u16) -> Result<Daemon>) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        certificate(folder.path())?;
        std::fs::write(
            folder.path().join("tokens.csv"),
            format!("{TOKEN},admin,1,\"system:masters\"\n"),
        )?;
        let (store_port, port) = (keelson_ports::free()?, keelson_ports::free()?);
        let store = store(folder.path(), store_port)?;
        Ok(Self {
            folder,
            store: format!("http://127.0.0.1:{store_port}"),
            port,
            _store: store,
        })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The number is its address's last part, of the loopback to listen on and of a network that leads nowhere.
    fn start(&self, number: u8) -> Result<Daemon> {
        self.start_with(number, &[])
    }

    fn start_with(&self, number: u8, flags: &[&str]) -> Result<Daemon> {
        let file = |flag: &str, name: &str| format!("--{flag}={}", self.path(name).display());
        let mut args = vec![
            format!("--bind-address=127.0.0.{number}"),
            format!("--advertise-address=192.0.2.{number}"),
            format!("--secure-port={}", self.port),
            format!("--etcd-servers={}", self.store),
            file("tls-cert-file", "tls.crt"),
            file("tls-private-key-file", "tls.key"),
            file("service-account-key-file", "tls.key"),
            file("service-account-signing-key-file", "tls.key"),
            file("token-auth-file", "tokens.csv"),
        ];
        args.extend(flags.iter().map(|flag| (*flag).to_owned()));
        let log = self.path(&format!("apiserver-{number}.log"));
        Daemon::start("kube-apiserver", &args, &log)
    }

    /// What a request gives, and its code.
    fn ask(&self, number: u8, method: &str, path: &str, body: Option<&Value>) -> Result<(u16, Value)> {
        let url = format!("https://127.0.0.{number}:{}{path}", self.port);
        let header = format!("Authorization: Bearer {TOKEN}");
        let text = body.map(Value::to_string).unwrap_or_default();
        let mut args = vec![
            "-ksS",
            "--max-time",
            "20",
            "-w",
            "\n%{http_code}",
            "-X",
            method,
            "-H",
            &header,
            &url,
        ];
        if body.is_some() {
            args.extend(["-H", "Content-Type: application/json", "--data-binary", &text]);
        }
        let said = run("curl", &args)?;
        let (answer, code) = said.trim_end().rsplit_once('\n').context("a code")?;
        Ok((
            code.parse()?,
            serde_json::from_str(answer).with_context(|| said.clone())?,
        ))
    }

    fn get(&self, number: u8, path: &str) -> Result<Value> {
        let url = format!("https://127.0.0.{number}:{}{path}", self.port);
        let header = format!("Authorization: Bearer {TOKEN}");
        let said = run(
            "curl",
            &["-ksS", "--fail", "--max-time", "5", "-H", &header, &url],
        )?;
        serde_json::from_str(&said).context(said)
    }

    /// Waits until the service leads to these, asking one of them.
    fn lead_to(&self, asked: u8, wanted: &[u8], limit: Duration) -> Result<()> {
        let wanted: Vec<Value> = wanted
            .iter()
            .map(|number| format!("192.0.2.{number}").into())
            .collect();
        eventually(&format!("endpoints {wanted:?}"), limit, || {
            let endpoints = self.get(asked, "/api/v1/namespaces/default/endpoints/kubernetes")?;
            let subsets = endpoints["subsets"].as_array().context("subsets")?;
            let addresses: Vec<Value> = subsets
                .iter()
                .flat_map(|subset| subset["addresses"].as_array().into_iter().flatten())
                .map(|address| address["ip"].clone())
                .collect();
            ensure!(addresses == wanted, "{endpoints}");
            let slices = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices/kubernetes";
            let slice = self.get(asked, slices)?;
            let endpoints = slice["endpoints"].as_array().context("endpoints")?;
            let addresses: Vec<Value> = endpoints
                .iter()
                .map(|endpoint| endpoint["addresses"][0].clone())
                .collect();
            ensure!(
                addresses == wanted && slice["ports"][0]["port"] == self.port,
                "{slice}"
            );
            Ok(())
        })
    }
}

fn certificate(folder: &Path) -> Result<()> {
    let key = rcgen::KeyPair::generate()?;
    let certificate = rcgen::CertificateParams::new(vec!["localhost".to_owned()])?.self_signed(&key)?;
    std::fs::write(folder.join("tls.crt"), certificate.pem())?;
    std::fs::write(folder.join("tls.key"), key.serialize_pem())?;
    Ok(())
}

#[test]
fn the_service_leads_to_all_that_live() -> Result<()> {
    const SOON: Duration = Duration::from_secs(30);
    let masters = Masters::up()?;
    let first = masters.start(1)?;
    masters.lead_to(1, &[1], SOON)?;
    let second = masters.start(2)?;
    masters.lead_to(1, &[1, 2], SOON)?;
    let third = masters.start(3)?;
    masters.lead_to(2, &[1, 2, 3], SOON)?;

    // One that stops says so itself, long before its lease ends.
    second.end(Signal::SIGTERM)?;
    masters.lead_to(1, &[1, 3], Duration::from_secs(5))?;
    // One that is killed is missed when its lease ends.
    first.end(Signal::SIGKILL)?;
    masters.lead_to(3, &[3], Duration::from_secs(60))?;
    let first = masters.start(1)?;
    masters.lead_to(3, &[1, 3], SOON)?;

    // The last one leaves the way to it: whoever comes next may well be the same again.
    third.end(Signal::SIGTERM)?;
    masters.lead_to(1, &[1], Duration::from_secs(5))?;
    first.end(Signal::SIGTERM)?;
    let _second = masters.start(2)?;
    masters.lead_to(2, &[2], SOON)
}

/// Which has none of the services that a store of ours has beside etcd's.
#[test]
fn the_store_may_be_etcd() -> Result<()> {
    let masters = Masters::on(|folder, port| {
        let clients = format!("http://127.0.0.1:{port}");
        let members = format!("http://127.0.0.1:{}", keelson_ports::free()?);
        let flags = [
            format!("--data-dir={}", folder.join("etcd").display()),
            format!("--listen-client-urls={clients}"),
            format!("--advertise-client-urls={clients}"),
            format!("--listen-peer-urls={members}"),
            format!("--initial-advertise-peer-urls={members}"),
            format!("--initial-cluster=default={members}"),
        ];
        Daemon::foreign(Path::new("etcd"), &flags, &folder.join("etcd.log"))
    })?;
    let _server = masters.start(1)?;
    masters.lead_to(1, &[1], PATIENCE)?;

    let path = "/api/v1/namespaces/default/configmaps";
    let new = json!({"metadata": {"name": "kept"}, "data": {"key": "one"}});
    let (code, mut kept) = masters.ask(1, "POST", path, Some(&new))?;
    ensure!(code == 201, "{kept}");
    let (code, refused) = masters.ask(1, "POST", path, Some(&new))?;
    ensure!(code == 409 && refused["reason"] == "AlreadyExists", "{refused}");
    kept["data"]["key"] = "two".into();
    let path = format!("{path}/kept");
    let (code, changed) = masters.ask(1, "PUT", &path, Some(&kept))?;
    ensure!(code == 200 && changed["data"]["key"] == "two", "{changed}");
    // It says which version it was made from, and that one is gone.
    let (code, refused) = masters.ask(1, "PUT", &path, Some(&kept))?;
    ensure!(code == 409 && refused["reason"] == "Conflict", "{refused}");
    let (code, removed) = masters.ask(1, "DELETE", &path, None)?;
    ensure!(code == 200, "{removed}");
    Ok(())
}

/// Room for so many node ports, and for a few more addresses.
const NUMBERS: [&str; 2] = [
    "--service-cluster-ip-range=10.96.0.0/26",
    "--service-node-port-range=30000-30049",
];
const PORTS: usize = 50;

fn service(name: &str) -> Value {
    json!({"metadata": {"name": name}, "spec": {"type": "NodePort", "ports": [{"port": 80}]}})
}

/// Addresses and ports of all services, none twice.
fn numbers(services: &Value) -> Result<(BTreeSet<String>, BTreeSet<u64>)> {
    let (mut addresses, mut ports) = (BTreeSet::new(), BTreeSet::new());
    for service in services["items"].as_array().context("services")? {
        let spec = &service["spec"];
        let address = spec["clusterIP"].as_str().context("an address")?;
        ensure!(
            addresses.insert(address.to_owned()),
            "{address} twice: {services}"
        );
        if let Some(port) = spec["ports"][0]["nodePort"].as_u64() {
            ensure!(ports.insert(port), "{port} twice: {services}");
        }
    }
    Ok((addresses, ports))
}

#[test]
fn no_number_is_given_twice() -> Result<()> {
    let masters = Masters::up()?;
    let first = masters.start_with(1, &NUMBERS)?;
    let _second = masters.start_with(2, &NUMBERS)?;
    for number in [1, 2] {
        eventually("two servers", PATIENCE, || {
            masters.get(number, SERVICES).map(drop)
        })?;
    }
    // Both servers give away most of what there is, at the same time.
    let created = std::thread::scope(|scope| {
        let create = |lane: usize| {
            let masters = &masters;
            scope.spawn(move || -> Result<()> {
                for one in 0..10 {
                    let name = format!("s-{lane}-{one}");
                    let server = if lane.is_multiple_of(2) { 1 } else { 2 };
                    let (code, said) = masters.ask(server, "POST", SERVICES, Some(&service(&name)))?;
                    ensure!(code == 201, "{said}");
                }
                Ok(())
            })
        };
        let lanes: Vec<_> = (0..4).map(create).collect();
        lanes
            .into_iter()
            .try_for_each(|lane| lane.join().map_err(|_| anyhow::anyhow!("a lane panicked"))?)
    });
    created?;
    let (_, ports) = numbers(&masters.get(1, SERVICES)?)?;
    ensure!(ports.len() == 40, "{ports:?}");

    // Of two that want the same address at the same time, one gets it.
    let mut wanted = service("wanted-1");
    wanted["spec"]["clusterIP"] = "10.96.0.5".into();
    let mut also = wanted.clone();
    also["metadata"]["name"] = "wanted-2".into();
    let (one, other) = std::thread::scope(|scope| {
        let one = scope.spawn(|| masters.ask(1, "POST", SERVICES, Some(&wanted)));
        let other = masters.ask(2, "POST", SERVICES, Some(&also));
        (one.join(), other)
    });
    let one = one.map_err(|_| anyhow::anyhow!("a request panicked"))??;
    let other = other?;
    let mut codes = [one.0, other.0];
    codes.sort_unstable();
    ensure!(codes == [201, 422], "{one:?} {other:?}");

    // A server that is killed and comes back knows what is taken, and what the other gives meanwhile.
    first.end(Signal::SIGKILL)?;
    let _first = masters.start_with(1, &NUMBERS)?;
    eventually("the first server again", PATIENCE, || {
        masters.get(1, SERVICES).map(drop)
    })?;
    for one in 41..PORTS {
        let server = if one % 2 == 0 { 1 } else { 2 };
        let (code, said) = masters.ask(server, "POST", SERVICES, Some(&service(&format!("late-{one}"))))?;
        ensure!(code == 201, "{said}");
    }
    let (_, ports) = numbers(&masters.get(2, SERVICES)?)?;
    ensure!(ports.len() == PORTS, "{ports:?}");
    for server in [1, 2] {
        let (code, said) = masters.ask(server, "POST", SERVICES, Some(&service("too-many")))?;
        let why = said["message"].as_str().unwrap_or_default();
        ensure!(code == 500 && why.contains("range is full"), "{said}");
    }
    // What is given back to one server can be had from the other.
    let (code, said) = masters.ask(1, "DELETE", &format!("{SERVICES}/s-0-0"), None)?;
    ensure!(code == 200, "{said}");
    let (code, said) = masters.ask(2, "POST", SERVICES, Some(&service("next")))?;
    ensure!(code == 201, "{said}");
    numbers(&masters.get(1, SERVICES)?).map(drop)
}
