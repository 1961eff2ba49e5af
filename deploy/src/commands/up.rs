//! `keeladm up`.

use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use crate::cluster::Cluster;
use crate::progress::{Progress, human};
use crate::steps::{containerd, daemons, images, kubeconfigs, pki, preflight, ready};
use crate::supervisor::{self, State, Verb};
use crate::{teardown, units};

/// What happens to the processes when a step fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OnFailure {
    /// They are stopped: nothing is left half-started.
    Stop,
    /// They are left for a look at them.
    Keep,
}

pub(crate) async fn run(
    cluster: Cluster,
    ready_made_images: Option<&Path>,
    timeout: Duration,
    on_failure: OnFailure,
) -> anyhow::Result<ExitCode> {
    if supervisor::running(&cluster.paths).await {
        return already_up(&cluster, timeout).await;
    }
    let progress = Progress::start(&format!("Bringing up cluster {}", cluster.parameters.name));
    let machine = progress.step("preflight", preflight::run(&cluster)).await?;
    let archives = progress
        .step("images", images::build(&cluster, ready_made_images))
        .await?;
    cluster.save()?;
    progress.step("certificates", pki::run(&cluster)).await?;
    progress.step("kubeconfigs", kubeconfigs::run(&cluster)).await?;
    progress
        .step("containerd", containerd::run(&cluster, &machine))
        .await?;

    let started = async {
        progress.step("start", daemons::run(&cluster, &machine)).await?;
        let deadline = Instant::now() + timeout;
        // Pods need the images, the node does not: both are waited for at once.
        let importing = progress.step("image import", images::import(&cluster.paths, &archives, timeout));
        let waiting = async {
            progress
                .step("kube-store", ready::daemon(&cluster, "kube-store", deadline))
                .await?;
            progress
                .step("kube-apiserver", ready::apiserver(&cluster, deadline))
                .await?;
            for daemon in units::DAEMONS.into_iter().skip(2) {
                progress
                    .step(daemon, ready::daemon(&cluster, daemon, deadline))
                    .await?;
            }
            progress.step("node", ready::node(&cluster, deadline)).await
        };
        let (imported, waited) = tokio::join!(importing, waiting);
        waited.and(imported)
    }
    .await;
    if let Err(error) = started {
        if on_failure == OnFailure::Stop {
            eprintln!(
                "stopping what was started; logs stay in {}",
                cluster.paths.dir.join("logs").display()
            );
            teardown::stop(&cluster.paths).await;
        }
        return Err(error);
    }
    progress.reached("cluster is up", "");
    println!(
        "\nIt took {}. Use it with:\n\n    export KUBECONFIG={}\n    kubectl get nodes\n",
        human(progress.elapsed()),
        cluster.paths.admin_kubeconfig().display()
    );
    Ok(ExitCode::SUCCESS)
}

/// Says what runs, and starts what was stopped.
async fn already_up(wanted: &Cluster, timeout: Duration) -> anyhow::Result<ExitCode> {
    let cluster = wanted.paths.load()?.unwrap_or_else(|| wanted.clone());
    if cluster.parameters != wanted.parameters {
        eprintln!(
            "note: cluster {} keeps running as it was made; for other parameters take it down first",
            cluster.parameters.name
        );
    }
    let stopped: Vec<String> = supervisor::ask(&cluster.paths, Verb::Status, &[])
        .await?
        .into_iter()
        .filter(|process| process.state == State::Stopped)
        .map(|process| process.name)
        .collect();
    let progress = Progress::start(&format!("Cluster {} runs already", cluster.parameters.name));
    if !stopped.is_empty() {
        supervisor::ask(&cluster.paths, Verb::Start, &stopped).await?;
        println!("  starting {}, which was stopped", stopped.join(", "));
    }
    let deadline = Instant::now() + timeout;
    for daemon in std::iter::once(units::RUNTIME).chain(units::DAEMONS) {
        progress
            .step(daemon, ready::daemon(&cluster, daemon, deadline))
            .await?;
    }
    progress.step("node", ready::node(&cluster, deadline)).await?;
    println!(
        "\nUse it with:\n\n    export KUBECONFIG={}\n    kubectl get nodes\n",
        cluster.paths.admin_kubeconfig().display()
    );
    Ok(ExitCode::SUCCESS)
}
