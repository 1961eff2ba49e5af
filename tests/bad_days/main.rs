//! What goes wrong in a cluster's life, done to a real one: daemons killed in turn under load, the container
//! runtime killed, ten thousand pods listed while they are watched.
//!
//! The stories share one cluster and run one after the other.

mod crowds;
mod kills;
mod load;

use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Result;
use keelson_tests::cluster::Cluster;
use keelson_tests::isolation::isolate;
use keelson_tests::kubectl::{Kubectl, versions};
use libtest_mimic::{Arguments, Failed, Trial};

/// A cluster and its administrator.
pub struct Stage {
    /// The cluster.
    pub cluster: Cluster,
    /// The newest kubectl, as the administrator.
    pub kubectl: Kubectl,
}

type Story = fn(&Stage) -> Result<()>;

const STORIES: &[(&str, Story)] = &[
    (
        "every_daemon_is_killed_under_load",
        kills::every_daemon_is_killed_under_load,
    ),
    (
        "pods_outlive_the_container_runtime",
        kills::pods_outlive_the_container_runtime,
    ),
    (
        "ten_thousand_pods_are_listed_while_watched",
        crowds::ten_thousand_pods_are_listed_while_watched,
    ),
];

fn trials(stage: Option<&Arc<Stage>>) -> Vec<Trial> {
    let trial = |(name, story): &(&str, Story)| {
        let (stage, story) = (stage.cloned(), *story);
        Trial::test(*name, move || match stage {
            Some(stage) => story(&stage).map_err(|error| Failed::from(format!("{error:#}"))),
            None => Ok(()),
        })
    };
    STORIES.iter().map(trial).collect()
}

fn main() -> Result<ExitCode> {
    let mut arguments = Arguments::from_args();
    if arguments.list {
        return Ok(libtest_mimic::run(&arguments, trials(None)).exit_code());
    }
    isolate()?;
    arguments.test_threads = Some(1);
    let cluster = Cluster::up()?;
    let newest = versions()?.pop().ok_or_else(|| anyhow::anyhow!("no kubectl"))?;
    let kubectl = Kubectl::new(newest, &cluster.kubeconfig());
    let stage = Arc::new(Stage { cluster, kubectl });
    let conclusion = libtest_mimic::run(&arguments, trials(Some(&stage)));
    drop(Arc::into_inner(stage));
    Ok(conclusion.exit_code())
}
