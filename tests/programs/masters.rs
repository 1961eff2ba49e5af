//! Several apiservers on one store: where the `kubernetes` service leads as they come, stop and are killed.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use keelson_tests::daemons::{Daemon, free_port, store_flags};
use keelson_tests::process::{eventually, run};
use nix::sys::signal::Signal;
use serde_json::Value;

const TOKEN: &str = "administrators-token";

struct Masters {
    folder: tempfile::TempDir,
    store: String,
    port: u16,
}

impl Masters {
    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The number is its address's last part, of the loopback to listen on and of a network that leads nowhere.
    fn start(&self, number: u8) -> Result<Daemon> {
        let file = |flag: &str, name: &str| format!("--{flag}={}", self.path(name).display());
        Daemon::start(
            "kube-apiserver",
            &[
                format!("--bind-address=127.0.0.{number}"),
                format!("--advertise-address=192.0.2.{number}"),
                format!("--secure-port={}", self.port),
                format!("--etcd-servers={}", self.store),
                file("tls-cert-file", "tls.crt"),
                file("tls-private-key-file", "tls.key"),
                file("service-account-key-file", "tls.key"),
                file("service-account-signing-key-file", "tls.key"),
                file("token-auth-file", "tokens.csv"),
            ],
            &self.path(&format!("apiserver-{number}.log")),
        )
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
    let folder = tempfile::tempdir()?;
    certificate(folder.path())?;
    std::fs::write(
        folder.path().join("tokens.csv"),
        format!("{TOKEN},admin,1,\"system:masters\"\n"),
    )?;
    let (store, port) = (free_port()?, free_port()?);
    let log = folder.path().join("store.log");
    let _store = Daemon::start(
        "kube-store",
        &store_flags(&folder.path().join("store"), store)?,
        &log,
    )?;
    let masters = Masters {
        folder,
        store: format!("http://127.0.0.1:{store}"),
        port,
    };
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
