//! What a cluster lets in: quotas, pod security, and every kind there is.

use std::process::Stdio;

use anyhow::{Context as _, Result, ensure};

use crate::{Stage, Story};

pub const STORIES: &[Story] = &[
    ("every_kind_is_served", every_kind_is_served),
    ("a_quota_is_kept", a_quota_is_kept),
    ("a_crowd_does_not_exceed_a_quota", a_crowd_does_not_exceed_a_quota),
    ("pod_security_warns_and_refuses", pod_security_warns_and_refuses),
    ("a_claim_in_use_stays", a_claim_in_use_stays),
    (
        "a_replication_controller_leaves_its_pods",
        a_replication_controller_leaves_its_pods,
    ),
];

const RARE_KINDS: &str = include_str!("../manifests/rare-kinds.yaml");
const ECHO: &str = "keelson.local/echo:1";

fn every_kind_is_served(stage: &Stage) -> Result<()> {
    let told = stage.kubectl.run("api-resources --no-headers -o name")?;
    for name in [
        "csidrivers.storage.k8s.io",
        "volumeattributesclasses.storage.k8s.io",
        "validatingadmissionpolicies.admissionregistration.k8s.io",
        "mutatingwebhookconfigurations.admissionregistration.k8s.io",
        "flowschemas.flowcontrol.apiserver.k8s.io",
        "resourceclaims.resource.k8s.io",
        "servicecidrs.networking.k8s.io",
        "apiservices.apiregistration.k8s.io",
    ] {
        ensure!(told.lines().any(|line| line == name), "no {name} in {told}");
    }
    let created = stage.kubectl.feed("create --dry-run=server -f -", RARE_KINDS)?;
    let wanted = RARE_KINDS.matches("\nkind: ").count();
    ensure!(created.lines().count() == wanted, "{wanted} kinds, but {created}");
    let levels = stage.kubectl.run("get prioritylevelconfigurations,flowschemas")?;
    ensure!(
        levels.contains("workload-low") && levels.contains("system-leader-election"),
        "{levels}"
    );
    let services = stage.kubectl.run("get apiservices v1.apps")?;
    ensure!(
        services.contains("Local") && services.contains("True"),
        "{services}"
    );
    Ok(())
}

fn a_quota_is_kept(stage: &Stage) -> Result<()> {
    let kubectl = &stage.kubectl;
    kubectl.run("create quota small --hard=pods=1,services.nodeports=0,requests.storage=1Gi")?;
    kubectl.until("get quota small -o jsonpath={.status.used.pods}", |used| {
        used == "0"
    })?;
    kubectl.run(&format!("run first --image={ECHO}"))?;
    let refused = kubectl.refused(&format!("run second --image={ECHO}"), None)?;
    let text = "pods \"second\" is forbidden: exceeded quota: small, requested: pods=1, used: pods=1, limited: pods=1";
    ensure!(refused.contains(text), "{refused}");
    let refused = kubectl.refused("create service nodeport web --tcp=80", None)?;
    let text = "exceeded quota: small, requested: services.nodeports=1, used: services.nodeports=0, limited: services.nodeports=0";
    ensure!(refused.contains(text), "{refused}");
    let described = kubectl.run("describe quota small")?;
    ensure!(described.contains("requests.storage"), "{described}");
    kubectl.run("delete pod first --now")?;
    kubectl.until("get quota small -o jsonpath={.status.used.pods}", |used| {
        used == "0"
    })?;
    kubectl.run(&format!("run second --image={ECHO}"))?;
    Ok(())
}

fn a_crowd_does_not_exceed_a_quota(stage: &Stage) -> Result<()> {
    const ROOM: usize = 3;
    let kubectl = &stage.kubectl;
    kubectl.run(&format!("create quota few --hard=secrets={ROOM}"))?;
    kubectl.until("get quota few -o jsonpath={.status.used.secrets}", |used| {
        used == "0"
    })?;
    let crowd = (0..8)
        .map(|i| {
            let name = format!("s{i}");
            let mut command = kubectl.command(&["create", "secret", "generic", &name]);
            command.stdout(Stdio::null()).stderr(Stdio::null());
            command.spawn().context("kubectl")
        })
        .collect::<Result<Vec<_>>>()?;
    let mut created = 0;
    for mut child in crowd {
        created += usize::from(child.wait()?.success());
    }
    let there = kubectl.run("get secrets -o name")?.lines().count();
    ensure!(
        created == ROOM && there == ROOM,
        "{created} created, {there} there"
    );
    Ok(())
}

fn pod_security_warns_and_refuses(stage: &Stage) -> Result<()> {
    let kubectl = &stage.kubectl;
    let labels = "pod-security.kubernetes.io/enforce=baseline pod-security.kubernetes.io/warn=restricted";
    kubectl.run(&format!("label namespace {} {labels}", stage.namespace))?;
    let image = format!("--image={ECHO}");
    let output = kubectl.command(&["run", "plain", &image]).output()?;
    let told = String::from_utf8_lossy(&output.stderr);
    let text = "Warning: would violate PodSecurity \"restricted:latest\": allowPrivilegeEscalation != false (container \"plain\" \
                must set securityContext.allowPrivilegeEscalation=false), unrestricted capabilities";
    ensure!(output.status.success() && told.contains(text), "{told}");
    let output = kubectl
        .command(&["create", "deployment", "web", &image])
        .output()?;
    let told = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.success() && told.contains("Warning: would violate PodSecurity \"restricted:latest\""),
        "{told}"
    );
    let pod = format!(
        r#"{{"apiVersion":"v1","kind":"Pod","metadata":{{"name":"open"}},"spec":{{"hostNetwork":true,"containers":[{{"name":"c",
        "image":"{ECHO}","securityContext":{{"privileged":true}}}}]}}}}"#
    );
    let refused = kubectl.refused("create -f -", Some(&pod))?;
    let text = "pods \"open\" is forbidden: violates PodSecurity \"baseline:latest\": host namespaces (hostNetwork=true), \
                privileged (container \"c\" must not set securityContext.privileged=true)";
    ensure!(refused.contains(text), "{refused}");
    let label = format!(
        "label namespace {} pod-security.kubernetes.io/audit=strict",
        stage.namespace
    );
    let refused = kubectl.refused(&label, None)?;
    ensure!(
        refused.contains("must be one of privileged, baseline, restricted"),
        "{refused}"
    );
    Ok(())
}

fn a_claim_in_use_stays(stage: &Stage) -> Result<()> {
    let kubectl = &stage.kubectl;
    let claim = r#"{"apiVersion":"v1","kind":"PersistentVolumeClaim","metadata":{"name":"data"},
        "spec":{"accessModes":["ReadWriteOnce"],"storageClassName":"","resources":{"requests":{"storage":"1Mi"}}}}"#;
    kubectl.feed("create -f -", claim)?;
    let finalizers = kubectl.run("get pvc data -o jsonpath={.metadata.finalizers[0]}")?;
    ensure!(finalizers == "kubernetes.io/pvc-protection", "{finalizers}");
    kubectl.run("delete pvc data")?;
    Ok(())
}

fn a_replication_controller_leaves_its_pods(stage: &Stage) -> Result<()> {
    let kubectl = &stage.kubectl;
    let controller = format!(
        r#"{{"apiVersion":"v1","kind":"ReplicationController","metadata":{{"name":"old"}},"spec":{{"replicas":1,
        "selector":{{"a":"b"}},"template":{{"metadata":{{"labels":{{"a":"b"}}}},"spec":{{"containers":[{{"name":"c",
        "image":"{ECHO}"}}]}}}}}}}}"#
    );
    kubectl.feed("create -f -", &controller)?;
    kubectl.until("get pods -l a=b -o name", |pods| pods.lines().count() == 1)?;
    // Nobody says what is to become of the pods: as ever, they stay.
    let path = format!(
        "/api/v1/namespaces/{}/replicationcontrollers/old",
        stage.namespace
    );
    kubectl.run(&format!("delete --raw {path}"))?;
    kubectl.until("get rc -o name", |controllers| controllers.trim().is_empty())?;
    let owners = kubectl.run("get pods -l a=b -o jsonpath={.items[*].metadata.ownerReferences}")?;
    ensure!(owners.trim().is_empty(), "{owners}");
    let pods = kubectl.run("get pods -l a=b -o name")?;
    ensure!(pods.lines().count() == 1, "{pods}");
    Ok(())
}
