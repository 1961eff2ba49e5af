//! Client libraries that others wrote, each driving a real cluster: Rust's kube, Python's kubernetes, JavaScript's
//! @kubernetes/client-node, and Go's client-go, which speaks protobuf.
//!
//! Every story runs in a namespace of its own.

mod rust;
mod scripts;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Result;
use keelson_tests::cluster::Cluster;
use keelson_tests::isolation::isolate;
use keelson_tests::kubectl::{Kubectl, versions};
use libtest_mimic::{Arguments, Failed, Trial};

/// What a story has at hand.
pub struct Stage {
    /// The administrator's kubeconfig.
    pub kubeconfig: PathBuf,
    /// The story's own namespace.
    pub namespace: String,
}

/// A story's name and what happens in it.
pub type Story = (String, Box<dyn Fn(&Stage) -> Result<()> + Send>);

fn stories() -> Vec<Story> {
    rust::stories()
        .into_iter()
        .chain(scripts::python())
        .chain(scripts::node())
        .chain(scripts::operator())
        .collect()
}

fn tell(cluster: &Cluster, name: &str, story: &dyn Fn(&Stage) -> Result<()>) -> Result<()> {
    let newest = versions()?.pop().ok_or_else(|| anyhow::anyhow!("no kubectl"))?;
    let admin = Kubectl::new(newest, &cluster.kubeconfig());
    let namespace = name.replace("::", "-").replace('_', "-");
    admin.run(&format!("create namespace {namespace}"))?;
    let told = story(&Stage {
        kubeconfig: cluster.kubeconfig(),
        namespace: namespace.clone(),
    });
    if let Err(error) = &told {
        eprintln!("--- {name}: {error:#}");
        let there = admin.in_namespace(&namespace);
        for question in ["get all", "describe pods", "get events"] {
            eprintln!(
                "--- {name}: kubectl {question}\n{}",
                there.run(question).unwrap_or_default()
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
        return Ok(libtest_mimic::run(&arguments, trials(None, true)).exit_code());
    }
    // The namespaces that follow have no way out to a registry of packages.
    scripts::fetch_packages()?;
    let operator = scripts::build_operator()?;
    isolate()?;
    arguments.test_threads.get_or_insert(4);
    let cluster = Arc::new(Cluster::up()?);
    let conclusion = libtest_mimic::run(&arguments, trials(Some(&cluster), operator));
    drop(Arc::into_inner(cluster));
    Ok(conclusion.exit_code())
}

/// All stories; those of the operator are passed over if there is none.
fn trials(cluster: Option<&Arc<Cluster>>, operator: bool) -> Vec<Trial> {
    stories()
        .into_iter()
        .map(|(name, story)| {
            let cluster = cluster.cloned();
            let passed_over = !operator && name.starts_with("operator::");
            Trial::test(name.clone(), move || {
                let Some(cluster) = cluster else { return Ok(()) };
                tell(&cluster, &name, &story).map_err(|error| Failed::from(format!("{error:#}")))
            })
            .with_ignored_flag(passed_over)
        })
        .collect()
}
