//! What every program does with a command line or a configuration file that is wrong, and with one that asks
//! for help; what several apiservers on one store make of each other;
//! and what needs an apiserver and controllers, but no node.

mod addresses;
mod budgets;
mod daemons;
mod evictions;
mod masters;
mod mirroring;
mod plane;
mod removal;
mod workloads;

use std::process::Command;

use anyhow::{Result, ensure};
use keelson_tests::cluster::binaries;
use keelson_tests::process::{output, text};

const DAEMONS: [&str; 6] = [
    "kube-store",
    "kube-apiserver",
    "kube-scheduler",
    "kube-controller-manager",
    "kubelet",
    "kube-proxy",
];

fn program(name: &str, args: &[&str]) -> Result<(Option<i32>, String, String)> {
    let mut command = Command::new(binaries()?.join(name));
    command.args(args);
    let output = output(command, None)?;
    Ok((output.status.code(), text(&output.stdout), text(&output.stderr)))
}

#[test]
fn an_answer_to_a_question_is_no_table() -> Result<()> {
    let plane = plane::Plane::start("disruption-controller")?;
    let review = serde_json::json!({"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview",
        "spec": {"resourceAttributes": {"namespace": "default", "verb": "get", "resource": "pods"}}});
    let path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
    let table = "Accept: application/json;as=Table;v=v1;g=meta.k8s.io";
    let refused = plane.call_with(&[table], "POST", path, &review, 406)?;
    ensure!(refused["reason"] == "NotAcceptable", "{refused}");
    Ok(())
}

#[test]
fn an_unknown_flag_is_named() -> Result<()> {
    for name in DAEMONS.iter().chain(&["keeladm"]) {
        let (code, _, errors) = program(name, &["--no-such-flag=1"])?;
        ensure!(
            code == Some(2) && errors.contains("--no-such-flag"),
            "{name}: {code:?} {errors}"
        );
    }
    Ok(())
}

#[test]
fn an_unknown_key_of_a_configuration_file_is_named() -> Result<()> {
    let file = tempfile::NamedTempFile::new()?;
    std::fs::write(file.path(), "no-such-key: 1\n")?;
    let config = format!("--config={}", file.path().display());
    for name in DAEMONS {
        let (code, _, errors) = program(name, &[&config])?;
        ensure!(
            code == Some(2) && errors.contains("no-such-key"),
            "{name}: {code:?} {errors}"
        );
    }
    Ok(())
}

#[test]
fn a_configuration_file_that_is_not_there_is_named() -> Result<()> {
    for name in DAEMONS {
        let (code, _, errors) = program(name, &["--config=/no/such/file.yaml"])?;
        ensure!(
            code == Some(2) && errors.contains("/no/such/file.yaml"),
            "{name}: {code:?} {errors}"
        );
    }
    Ok(())
}

#[test]
fn help_names_upstream_s_flags() -> Result<()> {
    let wanted: [(&str, &[&str]); 6] = [
        (
            "kube-store",
            &[
                "--name",
                "--data-dir",
                "--listen-client-urls",
                "--initial-cluster",
                "--cert-file",
            ],
        ),
        (
            "kube-apiserver",
            &[
                "--etcd-servers",
                "--secure-port",
                "--client-ca-file",
                "--token-auth-file",
                "--service-cluster-ip-range",
            ],
        ),
        ("kube-scheduler", &["--kubeconfig", "--leader-elect"]),
        (
            "kube-controller-manager",
            &["--kubeconfig", "--leader-elect", "--cluster-cidr"],
        ),
        (
            "kubelet",
            &["--kubeconfig", "--container-runtime-endpoint", "--node-ip"],
        ),
        ("kube-proxy", &["--kubeconfig", "--cluster-cidr"]),
    ];
    for (name, flags) in wanted {
        let (code, help, _) = program(name, &["--help"])?;
        ensure!(code == Some(0), "{name} --help: {code:?}");
        for flag in flags.iter().chain(&["--config", "--log-format"]) {
            ensure!(help.contains(flag), "{name} --help does not name {flag}");
        }
    }
    Ok(())
}
