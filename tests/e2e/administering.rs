//! What administrators do: certificates, roles kept as they are written down, what was applied last, autoscalers,
//! the documentation of every kind, and a drain that a budget holds up.

use std::io::{BufRead as _, BufReader};

use anyhow::{Context as _, Result, bail, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use keelson_tests::cluster::ECHO;
use rcgen::{CertificateParams, DnType, KeyPair};
use serde_json::{Value, json};

use crate::{Stage, Story};

pub const STORIES: &[Story] = &[
    (
        "certificates_are_approved_and_denied",
        certificates_are_approved_and_denied,
    ),
    ("roles_are_reconciled", roles_are_reconciled),
    ("what_was_applied_last_is_set", what_was_applied_last_is_set),
    ("an_autoscaler", an_autoscaler),
    ("every_kind_is_explained", every_kind_is_explained),
    ("a_budget_holds_up_a_drain", a_budget_holds_up_a_drain),
];

/// A request for a client's certificate, its name, and the key that stays here.
fn request(stage: &Stage, user: &str, signer: &str) -> Result<(String, String, KeyPair)> {
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, user);
    params
        .distinguished_name
        .push(DnType::OrganizationName, "developers");
    let pem = params.serialize_request(&key)?.pem()?;
    let name = format!("{}-{user}", stage.namespace);
    let request = json!({"apiVersion": "certificates.k8s.io/v1", "kind": "CertificateSigningRequest",
        "metadata": {"name": name}, "spec": {"request": STANDARD.encode(pem),
            "signerName": signer, "usages": ["client auth"]}});
    Ok((name, request.to_string(), key))
}

const CLIENTS: &str = "kubernetes.io/kube-apiserver-client";

fn certificates_are_approved_and_denied(stage: &Stage) -> Result<()> {
    let kubectl = &stage.kubectl;
    let (ann, asked, key) = request(stage, "ann", CLIENTS)?;
    kubectl.feed("create -f -", &asked)?;
    let (bob, asked, _) = request(stage, "bob", CLIENTS)?;
    kubectl.feed("create -f -", &asked)?;
    let row = kubectl.run(&format!("get csr {ann}"))?;
    ensure!(
        row.contains("Pending") && row.contains(CLIENTS) && row.contains("kubernetes-admin"),
        "{row}"
    );

    // Not everybody decides.
    let refused = kubectl.refused(&format!("certificate approve {ann} --as=eve"), None)?;
    ensure!(
        refused.contains("Forbidden") && refused.contains("eve"),
        "{refused}"
    );
    let refused = kubectl.refused(&format!("certificate deny {ann}-not"), None)?;
    ensure!(refused.contains("not found"), "{refused}");
    let nonsense = json!({"apiVersion": "certificates.k8s.io/v1", "kind": "CertificateSigningRequest",
        "metadata": {"name": format!("{ann}-bad")}, "spec": {"request": STANDARD.encode("nothing"),
            "signerName": CLIENTS, "usages": ["client auth"]}});
    let refused = kubectl.refused("create -f -", Some(&nonsense.to_string()))?;
    ensure!(refused.contains("spec.request: Invalid value"), "{refused}");

    let told = kubectl.run(&format!("certificate approve {ann}"))?;
    ensure!(
        told == format!("certificatesigningrequest.certificates.k8s.io/{ann} approved\n"),
        "{told}"
    );
    let told = kubectl.run(&format!("certificate deny {bob}"))?;
    ensure!(
        told == format!("certificatesigningrequest.certificates.k8s.io/{bob} denied\n"),
        "{told}"
    );
    kubectl.until(&format!("get csr {ann}"), |row| row.contains("Approved,Issued"))?;
    let row = kubectl.run(&format!("get csr {bob}"))?;
    ensure!(row.contains("Denied") && !row.contains("Issued"), "{row}");
    let described = kubectl.run(&format!("describe csr {ann}"))?;
    for part in [
        "Common Name:    ann",
        "Organization:   developers",
        "Approved,Issued",
    ] {
        ensure!(described.contains(part), "{part} is missing from {described}");
    }
    // A decision stands, for kubectl and for everybody else; the same one again changes nothing.
    let refused = kubectl.refused(&format!("certificate approve {bob}"), None)?;
    ensure!(refused.contains("is already Denied"), "{refused}");
    let mut both = kubectl.json(&format!("get csr {bob}"))?;
    let approved = json!({"type": "Approved", "status": "True", "reason": "Test"});
    let conditions = both["status"]["conditions"].as_array_mut();
    conditions.context("conditions")?.push(approved);
    let approval = format!("/apis/certificates.k8s.io/v1/certificatesigningrequests/{bob}/approval");
    let refused = kubectl.refused(&format!("replace --raw {approval} -f -"), Some(&both.to_string()))?;
    ensure!(
        refused.contains("Approved and Denied conditions are mutually exclusive"),
        "{refused}"
    );
    kubectl.run(&format!("certificate approve {ann}"))?;

    // Whoever has the key is who the certificate says.
    let certificate = kubectl.path(&format!("get csr {ann}"), "{.status.certificate}")?;
    let user = json!({"client-certificate-data": certificate,
        "client-key-data": STANDARD.encode(key.serialize_pem())});
    let review = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"});
    let review = kubectl.as_user(&user)?.feed(
        "create --raw /apis/authentication.k8s.io/v1/selfsubjectreviews -f -",
        &review.to_string(),
    )?;
    let review: Value = serde_json::from_str(&review)?;
    let me = &review["status"]["userInfo"];
    ensure!(
        me["username"] == "ann" && me["groups"] == json!(["developers", "system:authenticated"]),
        "{review}"
    );
    kubectl.run(&format!("delete csr {ann} {bob}")).map(drop)
}

fn roles_are_reconciled(stage: &Stage) -> Result<()> {
    let kubectl = &stage.kubectl;
    let role = |verbs: &[&str]| {
        json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role",
            "metadata": {"name": "grown", "namespace": stage.namespace},
            "rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": verbs}]})
        .to_string()
    };
    let binding = |role: &str, user: &str| {
        json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding",
            "metadata": {"name": "grown", "namespace": stage.namespace},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": role},
            "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": user}]})
        .to_string()
    };
    let verbs = || kubectl.path("get role grown", "{.rules[*].verbs[*]}");
    let told = kubectl.feed("auth reconcile --dry-run=client -f -", &role(&["get"]))?;
    ensure!(told.contains("dry run"), "{told}");
    ensure!(verbs().is_err(), "a dry run makes nothing");
    for more in ["get", "list"] {
        let told = kubectl.feed("auth reconcile -f -", &role(&[more]))?;
        ensure!(
            told.contains("role.rbac.authorization.k8s.io/grown reconciled"),
            "{told}"
        );
    }
    // What was there stays, what is missing is added, until somebody wants nothing else.
    let both = verbs()?;
    ensure!(both.contains("get") && both.contains("list"), "{both}");
    let told = kubectl.feed("auth reconcile --remove-extra-permissions -f -", &role(&["list"]))?;
    ensure!(told.contains("reconciled"), "{told}");
    ensure!(verbs()? == "list", "{}", verbs()?);

    let subjects = || kubectl.path("get rolebinding grown", "{.roleRef.name}:{.subjects[*].name}");
    kubectl.feed("auth reconcile -f -", &binding("grown", "ann"))?;
    kubectl.feed("auth reconcile -f -", &binding("grown", "bob"))?;
    ensure!(subjects()? == "grown:ann bob", "{}", subjects()?);
    kubectl.until("auth can-i list pods --as=bob", |told| told.trim() == "yes")?;
    // The role of a binding cannot be changed: the binding is another one.
    kubectl.feed("auth reconcile -f -", &binding("other", "eve"))?;
    ensure!(subjects()?.starts_with("other:"), "{}", subjects()?);

    // Nobody gives what they do not have.
    let told = kubectl.refused("auth reconcile -f - --as=eve", Some(&role(&["delete"])))?;
    ensure!(told.contains("forbidden") && told.contains("eve"), "{told}");
    Ok(())
}

fn what_was_applied_last_is_set(stage: &Stage) -> Result<()> {
    let kubectl = &stage.kubectl;
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("map.json").display().to_string();
    let map = |data: Value| {
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "m"}, "data": data}).to_string()
    };
    std::fs::write(&file, map(json!({"a": "1"})))?;
    kubectl.feed("create -f -", &map(json!({"a": "1", "b": "2"})))?;

    // It was created, not applied: nothing is known of what was applied.
    let missing = "no last-applied-configuration annotation found on resource: m";
    let told = kubectl.run("apply view-last-applied configmap/m")?;
    ensure!(told.trim().is_empty(), "{told}");
    let told = kubectl.refused(&format!("apply set-last-applied -f {file}"), None)?;
    ensure!(told.contains(missing), "{told}");
    let told = kubectl.run(&format!("apply set-last-applied --create-annotation -f {file}"))?;
    ensure!(told == "configmap/m configured\n", "{told}");
    let last = kubectl.run("apply view-last-applied configmap/m -o json")?;
    let last: Value = serde_json::from_str(&last)?;
    ensure!(last["data"] == json!({"a": "1"}), "{last}");
    let data = kubectl.path("get configmap m", "{.data}")?;
    ensure!(data == r#"{"a":"1","b":"2"}"#, "the map itself stays: {data}");

    // From now on it counts as applied: what is in it and not in the next one goes.
    kubectl.feed("apply -f -", &map(json!({"c": "three"})))?;
    let data = kubectl.path("get configmap m", "{.data}")?;
    ensure!(data == r#"{"b":"2","c":"three"}"#, "{data}");

    std::fs::write(&file, map(json!({"b": "2", "c": "three"})))?;
    let told = kubectl.run(&format!("apply set-last-applied --dry-run=server -f {file}"))?;
    ensure!(told == "configmap/m configured (server dry run)\n", "{told}");
    let last = kubectl.run("apply view-last-applied configmap/m")?;
    ensure!(!last.contains("b:"), "a dry run changes nothing: {last}");
    let mut edit = kubectl.command(&["apply", "edit-last-applied", "configmap/m"]);
    edit.env("EDITOR", "sed -i s/three/four/");
    let told = keelson_tests::process::succeed(edit, None)?;
    ensure!(told.contains("configmap/m edited"), "{told}");
    let last = kubectl.run(&format!("apply view-last-applied -f {file}"))?;
    ensure!(last.contains("c: four"), "{last}");
    let data = kubectl.path("get configmap m", "{.data.c}")?;
    ensure!(data == "three", "the map itself stays: {data}");
    kubectl.run("delete configmap m").map(drop)
}

fn an_autoscaler(stage: &Stage) -> Result<()> {
    let kubectl = &stage.kubectl;
    // Nothing runs, and nothing is scaled: https://kubernetes.io/docs/tasks/run-application/horizontal-pod-autoscale/
    kubectl.run(&format!("create deployment web --image={ECHO} --replicas=0"))?;
    let told = kubectl.run("autoscale deployment web --min=2 --max=5 --cpu-percent=80")?;
    ensure!(
        told == "horizontalpodautoscaler.autoscaling/web autoscaled\n",
        "{told}"
    );
    let told = kubectl.refused("autoscale deployment web --max=5", None)?;
    ensure!(told.contains("\"web\" already exists"), "{told}");
    let told = kubectl.refused("autoscale deployment nothing --max=5", None)?;
    ensure!(told.contains("deployments.apps \"nothing\" not found"), "{told}");
    let told = kubectl.refused(
        "autoscale deployment web --name=upside-down --min=3 --max=2",
        None,
    )?;
    ensure!(told.contains("max"), "{told}");

    let two = kubectl.json("get horizontalpodautoscalers.v2.autoscaling web")?;
    ensure!(
        two["spec"]
            == json!({"minReplicas": 2, "maxReplicas": 5,
                "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"},
                "metrics": [{"type": "Resource", "resource": {"name": "cpu",
                    "target": {"type": "Utilization", "averageUtilization": 80}}}]}),
        "{two}"
    );
    let one = kubectl.json("get horizontalpodautoscalers.v1.autoscaling web")?;
    ensure!(one["spec"]["targetCPUUtilizationPercentage"] == 80, "{one}");
    let row = kubectl.run("get hpa web")?;
    ensure!(
        ["Deployment/web", "<unknown>/80%", "MINPODS"]
            .iter()
            .all(|part| row.contains(part)),
        "{row}"
    );
    let described = kubectl.run("describe hpa web")?;
    for part in ["Deployment/web", "Min replicas:", "Max replicas:", "80%"] {
        ensure!(described.contains(part), "{part} is missing from {described}");
    }
    kubectl.run("delete hpa,deployment web").map(drop)
}

/// Every resource that discovery lists, with its group version; not those that other stories define meanwhile.
fn resources(stage: &Stage) -> Result<Vec<(String, String)>> {
    let kubectl = &stage.kubectl;
    let mut found = Vec::new();
    let versions = kubectl.run("api-versions")?;
    for version in versions
        .lines()
        .filter(|version| !version.contains("example.com"))
    {
        let path = match version.contains('/') {
            true => format!("/apis/{version}"),
            false => format!("/api/{version}"),
        };
        let list: Value = serde_json::from_str(&kubectl.run(&format!("get --raw {path}"))?)?;
        for resource in list["resources"].as_array().context("resources")? {
            let name = resource["name"].as_str().context("a name")?;
            if !name.contains('/') {
                found.push((version.to_owned(), name.to_owned()));
            }
        }
    }
    Ok(found)
}

fn every_kind_is_explained(stage: &Stage) -> Result<()> {
    let kubectl = &stage.kubectl;
    let resources = resources(stage)?;
    ensure!(resources.len() > 70, "{resources:?}");
    for (version, name) in &resources {
        let told = kubectl.run(&format!("explain {name} --api-version={version} --recursive"))?;
        let (head, fields) = told.split_once("FIELDS:").with_context(|| told.clone())?;
        ensure!(
            head.contains("KIND:") && head.contains("VERSION:") && head.contains("DESCRIPTION:"),
            "{version} {name}: {told}"
        );
        for field in ["apiVersion\t<string>", "kind\t<string>", "metadata\t<ObjectMeta>"] {
            ensure!(fields.contains(field), "{version} {name}: no {field} in {told}");
        }
    }
    // By name and group kubectl takes the first kind whose name is a beginning of what is asked for. For these that is
    // core's `events`, which has no field `events`: kubectl fails whatever the server says.
    let told = kubectl.refused("explain events.events.k8s.io", None)?;
    ensure!(told.contains("does not exist"), "{told}");
    let told = kubectl.run("explain events --api-version=events.k8s.io/v1 --recursive")?;
    ensure!(told.contains("reportingController"), "{told}");
    for name in ["deployments.apps", "ingresses.networking.k8s.io", "hpa"] {
        let told = kubectl.run(&format!("explain {name} --recursive"))?;
        ensure!(told.contains("spec\t<"), "{name}: {told}");
    }
    Ok(())
}

/// Only the story's own pod is evicted; others are here too.
fn a_budget_holds_up_a_drain(stage: &Stage) -> Result<()> {
    let kubectl = &stage.kubectl;
    let app = &stage.namespace;
    kubectl.run(&format!("create deployment {app} --image={ECHO}"))?;
    kubectl.run(&format!(
        "create pdb {app} --selector=app={app} --min-available=1"
    ))?;
    kubectl.run(&format!("rollout status deployment/{app} --timeout=120s"))?;
    kubectl.until(
        &format!("get pdb {app} -o jsonpath={{.status.currentHealthy}}/{{.status.disruptionsAllowed}}"),
        |healthy| healthy == "1/0",
    )?;
    let pod = kubectl.path(
        &format!("get pods -l app={app}"),
        "{.items[0].metadata.name}/{.items[0].spec.nodeName}",
    )?;
    let (pod, node) = pod.split_once('/').context("a pod on a node")?;
    let drained = drain(stage, pod, node);
    kubectl.run(&format!("uncordon {node}"))?;
    drained?;
    kubectl.run(&format!("rollout status deployment/{app} --timeout=120s"))?;
    kubectl.run(&format!("delete deployment,pdb {app}")).map(drop)
}

fn drain(stage: &Stage, pod: &str, node: &str) -> Result<()> {
    let kubectl = &stage.kubectl;
    let app = &stage.namespace;
    let words =
        format!("drain {node} --pod-selector=app={app} --ignore-daemonsets --grace-period=1 --timeout=90s");
    let mut drain = kubectl.start(&words)?;
    let mut said = BufReader::new(drain.stderr.take().context("its words")?).lines();
    let refusal = "Cannot evict pod as it would violate the pod's disruption budget";
    loop {
        match said.next() {
            Some(line) if line.as_ref().is_ok_and(|line| line.contains(refusal)) => break,
            Some(line) => eprintln!("{}", line?),
            None => bail!("drained in spite of the budget: {}", drain.wait()?),
        }
    }
    let phase = kubectl.path(
        &format!("get pod {pod}"),
        "{.status.phase}{.metadata.deletionTimestamp}",
    )?;
    ensure!(phase == "Running", "{phase}");
    // What the budget allows is looked at again with each try.
    kubectl.run(&format!(
        r#"patch pdb {app} --type=merge -p {{"spec":{{"minAvailable":0}}}}"#
    ))?;
    let rest: Vec<String> = said.collect::<Result<_, _>>()?;
    ensure!(drain.wait()?.success(), "{rest:?}");
    let gone = kubectl.refused(&format!("get pod {pod}"), None)?;
    ensure!(gone.contains("not found"), "{gone}");
    Ok(())
}
