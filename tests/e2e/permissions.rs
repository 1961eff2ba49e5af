//! Who may do what: roles for service accounts, used from outside and from a pod.

use anyhow::{Result, ensure};
use keelson_tests::cluster::TOOLBOX;

use crate::{Stage, Story};

pub const STORIES: &[Story] = &[
    ("a_role_for_a_service_account", a_role_for_a_service_account),
    ("a_token_in_a_pod", a_token_in_a_pod),
    ("nobody_grants_what_they_lack", nobody_grants_what_they_lack),
    ("roles_made_of_roles", roles_made_of_roles),
];

fn a_role_for_a_service_account(stage: &Stage) -> Result<()> {
    let (kubectl, namespace) = (&stage.kubectl, &stage.namespace);
    kubectl.run("create serviceaccount reader")?;
    let token = kubectl.run("create token reader")?;
    let reader = kubectl.with_token(token.trim())?;
    let refusal = reader.refused("get pods", None)?;
    ensure!(
        refusal.contains(&format!(
            "pods is forbidden: User \"system:serviceaccount:{namespace}:reader\" cannot list resource \"pods\" in API group \"\" in the namespace \"{namespace}\""
        )),
        "{refusal}"
    );
    kubectl.run("create role pods --verb=get,list,watch --resource=pods,pods/log")?;
    kubectl.run(&format!(
        "create rolebinding pods --role=pods --serviceaccount={namespace}:reader"
    ))?;
    reader.until("get pods -o name", |_| true)?;
    for (request, what) in [
        ("get secrets", "cannot list resource \"secrets\""),
        ("delete pod x", "cannot delete resource \"pods\""),
        ("get pods -A", "at the cluster scope"),
        ("get pods -n default", "in the namespace \"default\""),
        ("get --raw /metrics", "cannot get path \"/metrics\""),
    ] {
        let refusal = reader.refused(request, None)?;
        ensure!(
            refusal.contains("Forbidden") && refusal.contains(what),
            "{request}: {refusal}"
        );
    }
    kubectl.run("delete rolebinding pods")?;
    keelson_tests::process::eventually("taking the role away", std::time::Duration::from_secs(10), || {
        reader.refused("get pods", None)
    })?;
    let refusal = kubectl.with_token("nonsense")?.refused("get pods", None)?;
    ensure!(refusal.contains("You must be logged in"), "{refusal}");
    Ok(())
}

fn a_token_in_a_pod(stage: &Stage) -> Result<()> {
    let (kubectl, namespace) = (&stage.kubectl, &stage.namespace);
    kubectl.run("create serviceaccount inside")?;
    kubectl.run("create role maps --verb=list --resource=configmaps")?;
    kubectl.run(&format!(
        "create rolebinding maps --role=maps --serviceaccount={namespace}:inside"
    ))?;
    let ask = |path: &str| {
        format!(
            "d=/var/run/secrets/kubernetes.io/serviceaccount; curl -s --cacert $d/ca.crt -H \"Authorization: Bearer $(cat $d/token)\" \
             https://$KUBERNETES_SERVICE_HOST:$KUBERNETES_SERVICE_PORT/api/v1/namespaces/{namespace}/{path}"
        )
    };
    let script = format!("{}; {}", ask("configmaps"), ask("secrets"));
    let manifest = serde_json::json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "asker"},
        "spec": {
            "serviceAccountName": "inside", "restartPolicy": "Never",
            "containers": [{"name": "c", "image": TOOLBOX, "command": ["sh", "-c", script]}],
        },
    });
    kubectl.feed("apply -f -", &manifest.to_string())?;
    let said = kubectl.until("logs asker", |said| said.contains("secrets is forbidden"))?;
    ensure!(said.contains("kube-root-ca.crt"), "{said}");
    ensure!(
        said.contains(&format!("system:serviceaccount:{namespace}:inside")),
        "{said}"
    );
    Ok(())
}

fn nobody_grants_what_they_lack(stage: &Stage) -> Result<()> {
    let (kubectl, namespace) = (&stage.kubectl, &stage.namespace);
    kubectl.run("create serviceaccount boss")?;
    // `*` as a verb would hold escalate and bind, too.
    kubectl.run("create role boss --verb=get,create,update,delete --resource=roles.rbac.authorization.k8s.io,rolebindings.rbac.authorization.k8s.io")?;
    kubectl.run(&format!(
        "create rolebinding boss --role=boss --serviceaccount={namespace}:boss"
    ))?;
    let boss = kubectl.with_token(kubectl.run("create token boss")?.trim())?;
    boss.until("get role boss", |_| true)?;
    let refusal = boss.refused("create role thief --verb=get,list --resource=secrets", None)?;
    ensure!(
        refusal.contains(&format!(
            "user \"system:serviceaccount:{namespace}:boss\" (groups=[\"system:serviceaccounts\" \"system:serviceaccounts:{namespace}\" \"system:authenticated\"]) is attempting to grant RBAC permissions not currently held:"
        )) && refusal.contains("{APIGroups:[\"\"], Resources:[\"secrets\"], Verbs:[\"get\" \"list\"]}"),
        "{refusal}"
    );
    let bind = format!("create rolebinding thief --clusterrole=view --serviceaccount={namespace}:boss");
    let refusal = boss.refused(&bind, None)?;
    ensure!(
        refusal.contains("is attempting to grant RBAC permissions not currently held"),
        "{refusal}"
    );
    let refusal = boss.refused(
        &format!("create rolebinding thief --role=nonesuch --serviceaccount={namespace}:boss"),
        None,
    )?;
    ensure!(
        refusal.contains("roles.rbac.authorization.k8s.io \"nonesuch\" not found"),
        "{refusal}"
    );
    kubectl.run("create role binder --verb=bind --resource=clusterroles.rbac.authorization.k8s.io --resource-name=view")?;
    kubectl.run(&format!(
        "create rolebinding binder --role=binder --serviceaccount={namespace}:boss"
    ))?;
    boss.until(&bind, |_| true)?;
    boss.until("get pods -o name", |_| true)?;
    let refusal = kubectl.refused(
        "patch rolebinding thief --type=merge -p {\"roleRef\":{\"name\":\"edit\"}}",
        None,
    )?;
    ensure!(refusal.contains("cannot change roleRef"), "{refusal}");
    Ok(())
}

fn roles_made_of_roles(stage: &Stage) -> Result<()> {
    let kubectl = &stage.kubectl;
    let resources = "{.rules[*].resources[*]}";
    for (role, has) in [
        ("view", "pods/log"),
        ("edit", "pods/exec"),
        ("admin", "rolebindings"),
    ] {
        keelson_tests::process::eventually(role, std::time::Duration::from_secs(20), || {
            let listed = kubectl.path(&format!("get clusterrole {role}"), resources)?;
            ensure!(listed.split(' ').any(|one| one == has), "{role}: {listed}");
            Ok(())
        })?;
    }
    let viewed = kubectl.path("get clusterrole view", resources)?;
    ensure!(!viewed.contains("secrets"), "{viewed}");
    let name = format!("widgets-{}", stage.namespace);
    kubectl.run(&format!(
        "create clusterrole {name} --verb=get --resource=pods/{name}"
    ))?;
    kubectl.run(&format!(
        "label clusterrole {name} rbac.authorization.k8s.io/aggregate-to-view=true"
    ))?;
    kubectl.until(
        &format!("get clusterrole edit -o jsonpath={resources}"),
        |listed| listed.contains(&name),
    )?;
    kubectl.run(&format!("delete clusterrole {name}"))?;
    kubectl.until(
        &format!("get clusterrole admin -o jsonpath={resources}"),
        |listed| !listed.contains(&name),
    )?;
    Ok(())
}
