//! The tutorials, typed as a newcomer types them: stock kubectl against a cluster of our own binaries with
//! real containers.
//!
//! Every story runs in a namespace of its own, with every version of kubectl there is.

mod access;
mod administering;
mod admission;
mod apply;
mod conformance;
mod custom;
mod debugging;
mod editing;
mod errors;
mod extending;
mod first_steps;
mod manifests;
mod nodes;
mod permissions;
mod policies;
mod printing;
mod releases;
mod running;
mod services;
mod tokens;
mod webhooks;
mod workloads;

use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Result;
use keelson_tests::cluster::{Cluster, ECHO, ECHO_AGAIN};
use keelson_tests::isolation::isolate;
use keelson_tests::kubectl::{Kubectl, versions};
use libtest_mimic::{Arguments, Failed, Trial};

/// What a story has at hand.
pub struct Stage {
    /// kubectl in the story's own namespace, as the administrator.
    pub kubectl: Kubectl,
    /// The namespace.
    pub namespace: String,
}

/// A story's name and what happens in it.
pub type Story = (&'static str, fn(&Stage) -> Result<()>);

fn stories() -> impl Iterator<Item = Story> {
    [
        first_steps::STORIES,
        workloads::STORIES,
        services::STORIES,
        manifests::STORIES,
        releases::STORIES,
        access::STORIES,
        administering::STORIES,
        admission::STORIES,
        errors::STORIES,
        apply::STORIES,
        permissions::STORIES,
        tokens::STORIES,
        custom::STORIES,
        extending::STORIES,
        debugging::STORIES,
        editing::STORIES,
        nodes::STORIES,
        printing::STORIES,
        running::STORIES,
        policies::STORIES,
        webhooks::STORIES,
        conformance::STORIES,
    ]
    .into_iter()
    .flatten()
    .copied()
}

fn tell(cluster: &Cluster, kubectl: &Kubectl, name: &str, story: fn(&Stage) -> Result<()>) -> Result<()> {
    let namespace = format!("{}-1-{}", name.replace('_', "-"), kubectl.minor());
    let admin = Kubectl::clone(kubectl);
    admin.run(&format!("create namespace {namespace}"))?;
    let stage = Stage {
        kubectl: admin.in_namespace(&namespace),
        namespace: namespace.clone(),
    };
    let told = story(&stage);
    if told.is_err() {
        for question in ["get all,endpointslices -o wide", "describe pods", "get events"] {
            eprintln!(
                "--- {name}: kubectl {question}\n{}",
                stage.kubectl.run(question).unwrap_or_default()
            );
        }
        eprintln!("{}", cluster.complaints());
    }
    admin.run(&format!("delete namespace {namespace} --wait=false"))?;
    told
}

fn main() -> Result<ExitCode> {
    let mut arguments = Arguments::from_args();
    if arguments.list {
        return Ok(libtest_mimic::run(&arguments, trials(None, &versions()?)).exit_code());
    }
    isolate()?;
    // Two cores carry the cluster as well as the stories.
    arguments.test_threads.get_or_insert(4);
    let cluster = Arc::new(Cluster::up()?);
    cluster.images(&["tag", ECHO, ECHO_AGAIN])?;
    let conclusion = libtest_mimic::run(&arguments, trials(Some(&cluster), &versions()?));
    drop(Arc::into_inner(cluster));
    Ok(conclusion.exit_code())
}

fn trials(cluster: Option<&Arc<Cluster>>, versions: &[keelson_tests::kubectl::Version]) -> Vec<Trial> {
    let mut trials = Vec::new();
    for version in versions {
        for (name, story) in stories() {
            let cluster = cluster.cloned();
            let version = version.clone();
            trials.push(Trial::test(
                format!("kubectl_{}::{name}", version.minor),
                move || {
                    let Some(cluster) = cluster else { return Ok(()) };
                    let kubectl = Kubectl::new(version, &cluster.kubeconfig());
                    tell(&cluster, &kubectl, name, story).map_err(|error| Failed::from(format!("{error:#}")))
                },
            ));
        }
    }
    trials
}
