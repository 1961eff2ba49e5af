//! A kubeconfig for every identity.

use crate::cluster::Cluster;
use crate::kubeconfig::{Material, write};

pub(crate) async fn run(cluster: &Cluster) -> anyhow::Result<((), String)> {
    for (identity, _, _) in crate::pki::identities(&cluster.parameters.node_name) {
        let material = if identity == "admin" {
            Material::Embedded
        } else {
            Material::Paths
        };
        write(cluster, identity, material)?;
    }
    Ok((
        (),
        format!("admin: {}", cluster.paths.kubeconfig("admin").display()),
    ))
}
