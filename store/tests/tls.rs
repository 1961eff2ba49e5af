//! Clients and members with certificates.

mod common;

use std::process::Command;

use common::certificates::Certificates;

struct Process(std::process::Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn only_clients_with_a_trusted_certificate_are_served() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let files = Certificates(folder.path().to_owned());
    let authority = files.authority("ca")?;
    files.issue("server", &authority)?;
    files.issue("client", &authority)?;
    let stranger = files.authority("other-ca")?;
    files.issue("stranger", &stranger)?;
    let (client, peer, metrics) = (
        keelson_ports::free()?,
        keelson_ports::free()?,
        keelson_ports::free()?,
    );
    let peer_url = format!("https://127.0.0.1:{peer}");
    let _store = Process(
        Command::new(env!("CARGO_BIN_EXE_kube-store"))
            .arg(format!("--data-dir={}", files.path("data")))
            .arg(format!("--listen-client-urls=https://127.0.0.1:{client}"))
            .arg(format!("--advertise-client-urls=https://127.0.0.1:{client}"))
            .arg(format!("--listen-peer-urls={peer_url}"))
            .arg(format!("--initial-advertise-peer-urls={peer_url}"))
            .arg(format!("--listen-metrics-urls=http://127.0.0.1:{metrics}"))
            .args(files.member_flags())
            .spawn()?,
    );
    let put = |name: &str, time: &str| -> anyhow::Result<bool> {
        let mut command = Command::new("etcdctl");
        command
            .env("ETCDCTL_API", "3")
            .arg(format!("--endpoints=https://127.0.0.1:{client}"))
            .arg(format!("--cacert={}", files.path("ca.crt")))
            .arg(format!("--command-timeout={time}"));
        if !name.is_empty() {
            command
                .arg(format!("--cert={}", files.path(&format!("{name}.crt"))))
                .arg(format!("--key={}", files.path(&format!("{name}.key"))));
        }
        Ok(command.args(["put", "k", "v"]).output()?.status.success())
    };
    assert!(put("client", "20s")?, "a trusted client is served");
    assert!(!put("stranger", "2s")?, "a stranger is not");
    assert!(!put("", "2s")?, "nobody is not");
    let health = Command::new("curl")
        .args(["-s", "-m", "5", &format!("http://127.0.0.1:{metrics}/health")])
        .output()?;
    assert!(String::from_utf8_lossy(&health.stdout).contains("\"health\":\"true\""));
    Ok(())
}
