//! What the CNI plugin `portmap` leaves in iptables when its last pod is gone: empty chains and the jumps to them.

use std::process::Stdio;

use anyhow::{Context, bail};
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use crate::system;

/// The plugin's chains that belong to no single pod.
const COMMON: &str = "CNI-HOSTPORT-";
/// The prefix of its chains for single pods: as long as there is one, somebody uses the plugin.
const OF_A_POD: &str = "CNI-DN-";

/// Removes them for both families; does nothing where there is no iptables, or where pods still use them.
pub(crate) async fn remove() -> anyhow::Result<()> {
    for family in ["iptables", "ip6tables"] {
        let (Some(save), Some(restore)) = (
            system::program(&format!("{family}-save")),
            system::program(&format!("{family}-restore")),
        ) else {
            continue;
        };
        let output = Command::new(save)
            .args(["-t", "nat"])
            .output()
            .await
            .with_context(|| format!("running {family}-save"))?;
        let Some(text) = removal(&String::from_utf8_lossy(&output.stdout)) else {
            continue;
        };
        let mut child = Command::new(restore)
            .arg("--noflush")
            .stdin(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("running {family}-restore"))?;
        if let Some(mut stdin) = child.stdin.take() {
            stdin
                .write_all(text.as_bytes())
                .await
                .with_context(|| format!("writing to {family}-restore"))?;
        }
        let output = child
            .wait_with_output()
            .await
            .with_context(|| format!("waiting for {family}-restore"))?;
        if !output.status.success() {
            bail!(
                "{family}-restore: {}",
                String::from_utf8_lossy(&output.stderr).trim()
            );
        }
    }
    Ok(())
}

/// What to feed to `iptables-restore`, given what `iptables-save` says.
fn removal(saved: &str) -> Option<String> {
    let chains: Vec<&str> = saved
        .lines()
        .filter_map(|line| line.strip_prefix(':')?.split(' ').next())
        .filter(|chain| chain.starts_with(COMMON))
        .collect();
    if chains.is_empty() || saved.contains(OF_A_POD) {
        return None;
    }
    let mut text = String::from("*nat\n");
    for rule in saved
        .lines()
        .filter(|line| line.contains(COMMON))
        .filter_map(|line| line.strip_prefix("-A "))
    {
        text.push_str(&format!("-D {rule}\n"));
    }
    for chain in &chains {
        text.push_str(&format!("-F {chain}\n"));
    }
    for chain in &chains {
        text.push_str(&format!("-X {chain}\n"));
    }
    text.push_str("COMMIT\n");
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::removal;

    const EMPTY: &str = "*nat\n:PREROUTING ACCEPT [0:0]\n:CNI-HOSTPORT-DNAT - [0:0]\n\
                         -A PREROUTING -m addrtype --dst-type LOCAL -j CNI-HOSTPORT-DNAT\nCOMMIT\n";

    #[test]
    fn common_chains_go_once_no_pod_uses_them() {
        assert_eq!(
            removal(EMPTY).as_deref(),
            Some(
                "*nat\n-D PREROUTING -m addrtype --dst-type LOCAL -j CNI-HOSTPORT-DNAT\n\
                 -F CNI-HOSTPORT-DNAT\n-X CNI-HOSTPORT-DNAT\nCOMMIT\n"
            )
        );
        assert_eq!(
            removal(&EMPTY.replace("COMMIT", ":CNI-DN-0123 - [0:0]\nCOMMIT")),
            None
        );
        assert_eq!(removal("*nat\n:PREROUTING ACCEPT [0:0]\nCOMMIT\n"), None);
    }
}
