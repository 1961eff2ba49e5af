//! Authorities, certificates and keys.

use crate::cluster::Cluster;

pub(crate) async fn run(cluster: &Cluster) -> anyhow::Result<((), String)> {
    let outcome = crate::pki::ensure(cluster)?;
    let said = match (outcome.issued, outcome.kept) {
        (0, kept) => format!("{kept} certificates are good"),
        (issued, 0) => format!("{issued} certificates issued"),
        (issued, kept) => format!("{issued} certificates issued, {kept} are good"),
    };
    Ok(((), said))
}
