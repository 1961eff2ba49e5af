//! kubeconfig files.

use std::path::Path;

use anyhow::Context;
use base64::Engine;
use serde_json::{Value, json};

use crate::cluster::Cluster;
use crate::pki::SECRET;

/// How a kubeconfig carries certificates and keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Material {
    /// Inside, so that the file can be carried to another machine.
    Embedded,
    /// As paths, so that renewed certificates are picked up.
    Paths,
}

/// Writes the kubeconfig of one identity; its certificate is `IDENTITY-client` of the PKI.
///
/// # Errors
/// When a certificate cannot be read or the file cannot be written.
pub fn write(cluster: &Cluster, identity: &str, material: Material) -> anyhow::Result<()> {
    let paths = &cluster.paths;
    let name = &cluster.parameters.name;
    let (ca, certificate, key) = (
        paths.pki("ca.crt"),
        paths.pki(&format!("{identity}-client.crt")),
        paths.pki(&format!("{identity}-client.key")),
    );
    let mut in_cluster = json!({ "server": cluster.server() });
    let mut user = json!({});
    for (object, field, path) in [
        (&mut in_cluster, "certificate-authority", ca.as_path()),
        (&mut user, "client-certificate", certificate.as_path()),
    ] {
        put(object, field, path, material)?;
    }
    put(&mut user, "client-key", &key, material)?;
    let context = format!("{identity}@{name}");
    let document = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{ "name": name, "cluster": in_cluster }],
        "users": [{ "name": identity, "user": user }],
        "contexts": [{ "name": context, "context": { "cluster": name, "user": identity } }],
        "current-context": context,
    });
    let text = serde_yaml::to_string(&document).context("writing a kubeconfig")?;
    crate::cluster::write_file(&paths.kubeconfig(identity), text.as_bytes(), SECRET)
}

fn put(object: &mut Value, field: &str, path: &Path, material: Material) -> anyhow::Result<()> {
    match material {
        Material::Paths => object[field] = json!(path),
        Material::Embedded => {
            let bytes = std::fs::read(path).with_context(|| format!("reading {}", path.display()))?;
            object[format!("{field}-data")] = json!(base64::engine::general_purpose::STANDARD.encode(bytes));
        }
    }
    Ok(())
}
