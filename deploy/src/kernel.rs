//! Kernel settings that a cluster changes: remembered before, put back after.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::Context;

use crate::cluster::{Paths, write_file};

/// What kube-proxy sets.
const SETTINGS: [&str; 2] = ["net/ipv4/ip_forward", "net/ipv4/conf/all/route_localnet"];

fn file(paths: &Paths) -> PathBuf {
    paths.config("kernel-settings-before.json")
}

fn setting(name: &str) -> PathBuf {
    PathBuf::from("/proc/sys").join(name)
}

/// Remembers the settings as they are, unless an earlier start did.
pub(crate) fn remember(paths: &Paths) -> anyhow::Result<()> {
    let file = file(paths);
    if file.exists() {
        return Ok(());
    }
    let now: BTreeMap<&str, String> = SETTINGS
        .into_iter()
        .filter_map(|name| {
            Some((
                name,
                std::fs::read_to_string(setting(name)).ok()?.trim().to_owned(),
            ))
        })
        .collect();
    write_file(&file, &serde_json::to_vec(&now)?, 0o644)
}

/// Puts the settings back.
pub(crate) fn restore(paths: &Paths) -> anyhow::Result<()> {
    let file = file(paths);
    let Ok(text) = std::fs::read(&file) else {
        return Ok(());
    };
    let before: BTreeMap<String, String> =
        serde_json::from_slice(&text).with_context(|| format!("reading {}", file.display()))?;
    for (name, value) in before {
        std::fs::write(setting(&name), value).with_context(|| format!("setting {name}"))?;
    }
    std::fs::remove_file(&file).with_context(|| format!("removing {}", file.display()))
}
