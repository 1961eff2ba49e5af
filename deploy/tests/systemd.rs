//! The systemd units are units: `systemd-analyze verify` has nothing to say about them.

use std::error::Error;
use std::path::Path;
use std::process::Command;

const DAEMONS: [&str; 6] = [
    "kube-store",
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
    "kubelet",
    "kube-proxy",
];

#[test]
fn every_daemon_has_a_unit_that_verifies() -> Result<(), Box<dyn Error>> {
    let units = Path::new(env!("CARGO_MANIFEST_DIR")).join("systemd");
    let folder = tempfile::tempdir()?;
    let mut copies = Vec::new();
    for daemon in DAEMONS {
        let text = std::fs::read_to_string(units.join(format!("{daemon}.service")))?;
        assert!(text.contains("Type=notify\n"), "{daemon} tells when it is ready");
        let started = format!("ExecStart=/usr/local/bin/{daemon} --config /etc/keelson/{daemon}.yaml\n");
        assert!(
            text.contains(&started),
            "{daemon} is started with its configuration file"
        );
        // What is verified must exist; the daemons are installed elsewhere.
        let copy = folder.path().join(format!("{daemon}.service"));
        std::fs::write(
            &copy,
            text.replace(&format!("/usr/local/bin/{daemon}"), "/bin/true"),
        )?;
        copies.push(copy);
    }
    let output = match Command::new("systemd-analyze")
        .arg("verify")
        .args(&copies)
        .output()
    {
        Ok(output) => output,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            eprintln!("skipped: systemd-analyze is not installed (Debian package systemd)");
            return Ok(());
        }
        Err(error) => return Err(error.into()),
    };
    let said = String::from_utf8_lossy(&output.stderr);
    // Units of other packages that ours refer to are not there on every machine.
    let ours: Vec<&str> = said
        .lines()
        .filter(|line| DAEMONS.iter().any(|d| line.contains(&format!("{d}.service"))))
        .collect();
    assert!(ours.is_empty() && output.status.success(), "{said}");
    Ok(())
}
