//! What the container runtime does for each pod's network, as a CNI configuration list.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use ipnet::IpNet;
use serde_json::{Value, json};

/// Runtimes take the first file by name.
const FILE: &str = "10-keelson.conflist";

/// The configuration for pods of `ranges`.
#[must_use]
pub fn configuration(ranges: &[IpNet], data_dir: &Path) -> Value {
    let per_range: Vec<Value> = ranges
        .iter()
        .map(|range| json!([{ "subnet": range.trunc().to_string() }]))
        .collect();
    let routes: Vec<Value> = ranges
        .iter()
        .map(|range| json!({ "dst": if range.addr().is_ipv6() { "::/0" } else { "0.0.0.0/0" } }))
        .collect();
    json!({
        "cniVersion": "1.0.0",
        "name": "keelson",
        "plugins": [
            {
                "type": "ptp",
                // Our own rules do it, for traffic that leaves the cluster.
                "ipMasq": false,
                "ipam": {
                    "type": "host-local",
                    "dataDir": data_dir,
                    "ranges": per_range,
                    "routes": routes,
                },
            },
            { "type": "portmap", "capabilities": { "portMappings": true }, "snat": true },
        ],
    })
}

/// Writes the configuration if it is not there already. True when the file changed.
///
/// # Errors
/// When the file cannot be written.
pub fn write(folder: &Path, ranges: &[IpNet], data_dir: &Path) -> std::io::Result<bool> {
    let path = path(folder);
    let text = format!("{:#}\n", configuration(ranges, data_dir));
    if std::fs::read_to_string(&path).is_ok_and(|present| present == text) {
        return Ok(false);
    }
    std::fs::create_dir_all(folder)?;
    // Under a name that runtimes do not look at, so that they never see half of it.
    let temporary = folder.join(format!(".{FILE}.tmp"));
    std::fs::write(&temporary, text)?;
    std::fs::rename(&temporary, &path)?;
    Ok(true)
}

/// Removes the configuration.
///
/// # Errors
/// When it is there and cannot be removed.
pub fn remove(folder: &Path) -> std::io::Result<()> {
    match std::fs::remove_file(path(folder)) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn path(folder: &Path) -> PathBuf {
    folder.join(FILE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_range_is_the_nodes_and_an_unchanged_file_is_left_alone() -> Result<(), Box<dyn std::error::Error>>
    {
        let folder = std::env::temp_dir().join(format!("keelson-cni-{}", std::process::id()));
        let ranges = ["10.244.3.0/24".parse()?];
        assert!(write(&folder, &ranges, Path::new("/data"))?);
        assert!(!write(&folder, &ranges, Path::new("/data"))?);
        let read: Value = serde_json::from_slice(&std::fs::read(path(&folder))?)?;
        assert_eq!(
            read["plugins"][0]["ipam"]["ranges"],
            json!([[{ "subnet": "10.244.3.0/24" }]])
        );
        remove(&folder)?;
        remove(&folder)?;
        std::fs::remove_dir(&folder)?;
        Ok(())
    }
}
