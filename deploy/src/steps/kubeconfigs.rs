//! A kubeconfig for every identity.

use crate::cluster::{Cluster, write_file};
use crate::kubeconfig::{Material, write};

pub(crate) async fn run(cluster: &Cluster) -> anyhow::Result<((), String)> {
    write_all(cluster)?;
    let admin = cluster.paths.admin_kubeconfig();
    Ok(((), format!("admin: {}", admin.display())))
}

/// Writes them, with the certificates as they are now.
pub(crate) fn write_all(cluster: &Cluster) -> anyhow::Result<()> {
    for (identity, _, _) in crate::pki::identities(&cluster.parameters.node_name) {
        let material = if identity == "admin" {
            Material::Embedded
        } else {
            Material::Paths
        };
        write(cluster, identity, material)?;
    }
    let admin = std::fs::read(cluster.paths.kubeconfig("admin"))?;
    write_file(&cluster.paths.admin_kubeconfig(), &admin, crate::pki::SECRET)
}
