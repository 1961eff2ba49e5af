//! What admission plugins do to requests: each one that is on by default, and quotas when two servers spend the same one.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use keelson_tests::control_plane::{Answer, ControlPlane};
use keelson_tests::process::eventually;
use rcgen::{CertificateParams, DnType, KeyPair};
use serde_json::{Value, json};

/// How long caches may take to follow on a busy machine.
const SOON: Duration = Duration::from_secs(30);

/// Requests of somebody to a control plane.
struct Caller<'p> {
    plane: &'p ControlPlane,
    args: Vec<String>,
}

impl<'p> Caller<'p> {
    fn new(plane: &'p ControlPlane, name: &str) -> Self {
        Self {
            plane,
            args: plane.certificate(name),
        }
    }

    fn ask(&self, method: &str, path: &str, body: &Value) -> Result<Answer> {
        self.plane.curl(method, path, Some(&body.to_string()), &self.args)
    }

    /// The object that is answered.
    fn done(&self, method: &str, path: &str, body: &Value) -> Result<Value> {
        let answer = self.ask(method, path, body)?;
        ensure!((200..300).contains(&answer.code), "{method} {path}: {answer:?}");
        Ok(serde_json::from_str(&answer.body)?)
    }

    /// The same as soon as caches know what it takes.
    fn done_soon(&self, path: &str, body: &Value, fits: impl Fn(&Value) -> bool) -> Result<Value> {
        eventually(path, SOON, || {
            let dry = self.done("POST", &format!("{path}?dryRun=All"), body)?;
            ensure!(fits(&dry), "{dry}");
            Ok(())
        })?;
        self.done("POST", path, body)
    }

    /// Refused with 403 and these words.
    fn refused(&self, method: &str, path: &str, body: &Value, words: &str) -> Result<()> {
        let answer = self.ask(method, path, body)?;
        let status: Value = serde_json::from_str(&answer.body)?;
        let message = status["message"].as_str().unwrap_or_default();
        ensure!(
            answer.code == 403 && message.contains(words),
            "{method} {path}: {words}: {answer:?}"
        );
        Ok(())
    }

    fn get(&self, path: &str) -> Result<Value> {
        let answer = self.plane.curl("GET", path, None, &self.args)?;
        ensure!(answer.code == 200, "{path}: {answer:?}");
        Ok(serde_json::from_str(&answer.body)?)
    }
}

/// A namespace with an account, which nobody makes here by itself.
fn namespace(admin: &Caller<'_>, name: &str) -> Result<()> {
    admin.done("POST", "/api/v1/namespaces", &json!({"metadata": {"name": name}}))?;
    let account = json!({"metadata": {"name": "default"}, "automountServiceAccountToken": false});
    admin.done(
        "POST",
        &format!("/api/v1/namespaces/{name}/serviceaccounts"),
        &account,
    )?;
    Ok(())
}

fn pod(name: &str, more: Value) -> Value {
    let mut spec = json!({"containers": [{"name": "c", "image": "example.com/i:1"}]});
    for (key, value) in more.as_object().into_iter().flatten() {
        spec[key] = value.clone();
    }
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec})
}

#[test]
fn pods_are_completed_and_held_to_what_classes_and_limits_say() -> Result<()> {
    let plane = ControlPlane::up(|_, _| Ok(Vec::new()))?;
    let admin = Caller::new(&plane, "admin");
    let pods = "/api/v1/namespaces/a/pods";
    // NamespaceLifecycle.
    let lost = admin.ask("POST", pods, &pod("p", Value::Null))?;
    ensure!(
        lost.code == 404 && lost.body.contains("namespaces \\\"a\\\" not found"),
        "{lost:?}"
    );
    admin.refused(
        "DELETE",
        "/api/v1/namespaces/default",
        &json!({}),
        "this namespace may not be deleted",
    )?;
    namespace(&admin, "a")?;

    // ServiceAccount, DefaultTolerationSeconds, Priority.
    let plain = admin.done("POST", pods, &pod("plain", Value::Null))?;
    ensure!(plain["spec"]["serviceAccountName"] == "default", "{plain}");
    ensure!(plain["spec"]["priority"] == 0, "{plain}");
    for taint in ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"] {
        let wanted =
            json!({"key": taint, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300});
        let tolerations = plain["spec"]["tolerations"].as_array().context("tolerations")?;
        ensure!(tolerations.contains(&wanted), "{plain}");
    }
    admin.refused(
        "POST",
        pods,
        &pod("p", json!({"priorityClassName": "high"})),
        "no PriorityClass with name high was found",
    )?;
    let class = json!({"metadata": {"name": "high"}, "value": 1000, "preemptionPolicy": "Never"});
    admin.done("POST", "/apis/scheduling.k8s.io/v1/priorityclasses", &class)?;
    let high = eventually("the class is known", SOON, || {
        admin.done("POST", pods, &pod("high", json!({"priorityClassName": "high"})))
    })?;
    ensure!(
        high["spec"]["priority"] == 1000 && high["spec"]["preemptionPolicy"] == "Never",
        "{high}"
    );
    admin.refused(
        "POST",
        pods,
        &pod("p", json!({"priorityClassName": "high", "priority": 7})),
        "the integer value of priority (7) must not be provided in pod spec; priority admission controller computed 1000",
    )?;

    // RuntimeClass.
    let classy = |name: &str| pod(name, json!({"runtimeClassName": "vm"}));
    admin.refused("POST", pods, &classy("p"), "RuntimeClass \"vm\" not found")?;
    let class = json!({"metadata": {"name": "vm"}, "handler": "vm", "overhead": {"podFixed": {"cpu": "250m"}},
        "scheduling": {"nodeSelector": {"virtual": "yes"}}});
    admin.done("POST", "/apis/node.k8s.io/v1/runtimeclasses", &class)?;
    let vm = admin.done("POST", pods, &classy("vm"))?;
    ensure!(
        vm["spec"]["overhead"]["cpu"] == "250m" && vm["spec"]["nodeSelector"]["virtual"] == "yes",
        "{vm}"
    );

    // LimitRanger.
    let range = json!({"metadata": {"name": "l"}, "spec": {"limits": [{"type": "Container",
        "default": {"cpu": "500m"}, "defaultRequest": {"cpu": "100m"}, "max": {"cpu": "1"}}]}});
    admin.done("POST", "/api/v1/namespaces/a/limitranges", &range)?;
    let limited = admin.done_soon(pods, &pod("limited", Value::Null), |pod| {
        pod["spec"]["containers"][0]["resources"]["limits"]["cpu"] == "500m"
    })?;
    ensure!(
        limited["spec"]["containers"][0]["resources"]["requests"]["cpu"] == "100m",
        "{limited}"
    );
    ensure!(
        limited["metadata"]["annotations"]["kubernetes.io/limit-ranger"]
            .as_str()
            .is_some_and(|note| note.starts_with("LimitRanger plugin set: ")),
        "{limited}"
    );
    let mut greedy = pod("greedy", Value::Null);
    greedy["spec"]["containers"][0]["resources"] = json!({"limits": {"cpu": "2"}});
    admin.refused(
        "POST",
        pods,
        &greedy,
        "maximum cpu usage per Container is 1, but limit is 2",
    )
}

#[test]
fn storage_nodes_and_ingresses_get_what_they_leave_out() -> Result<()> {
    let plane = ControlPlane::up(|_, _| Ok(Vec::new()))?;
    let admin = Caller::new(&plane, "admin");
    namespace(&admin, "a")?;
    // TaintNodesByCondition.
    let node = admin.done("POST", "/api/v1/nodes", &json!({"metadata": {"name": "n1"}}))?;
    let taint = json!([{"key": "node.kubernetes.io/not-ready", "effect": "NoSchedule"}]);
    ensure!(node["spec"]["taints"] == taint, "{node}");

    // DefaultStorageClass and StorageObjectInUseProtection.
    let class = |name: &str, grows: bool, default: &str| {
        json!({"metadata": {"name": name, "annotations": {"storageclass.kubernetes.io/is-default-class": default}},
               "provisioner": "example.com/p", "allowVolumeExpansion": grows})
    };
    let classes = "/apis/storage.k8s.io/v1/storageclasses";
    admin.done("POST", classes, &class("stiff", false, "true"))?;
    admin.done("POST", classes, &class("soft", true, "false"))?;
    let claims = "/api/v1/namespaces/a/persistentvolumeclaims";
    let claim = |name: &str, class: &Value| {
        json!({"metadata": {"name": name}, "spec": {"storageClassName": class, "accessModes": ["ReadWriteOnce"],
               "resources": {"requests": {"storage": "1Gi"}}}})
    };
    let stiff = admin.done_soon(claims, &claim("stiff", &Value::Null), |claim| {
        claim["spec"]["storageClassName"] == "stiff"
    })?;
    ensure!(
        stiff["metadata"]["finalizers"] == json!(["kubernetes.io/pvc-protection"]),
        "{stiff}"
    );
    admin.done("POST", claims, &claim("soft", &json!("soft")))?;
    let volume = json!({"metadata": {"name": "v"}, "spec": {"capacity": {"storage": "1Gi"},
        "accessModes": ["ReadWriteOnce"], "hostPath": {"path": "/tmp/v"}}});
    let volume = admin.done("POST", "/api/v1/persistentvolumes", &volume)?;
    ensure!(
        volume["metadata"]["finalizers"] == json!(["kubernetes.io/pv-protection"]),
        "{volume}"
    );

    // PersistentVolumeClaimResize.
    for name in ["stiff", "soft"] {
        let path = format!("{claims}/{name}");
        let mut claim = admin.get(&path)?;
        claim["spec"]["volumeName"] = json!(format!("volume-of-{name}"));
        let mut claim = admin.done("PUT", &path, &claim)?;
        claim["status"] =
            json!({"phase": "Bound", "capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"]});
        let mut claim = admin.done("PUT", &format!("{path}/status"), &claim)?;
        claim["spec"]["resources"]["requests"]["storage"] = json!("2Gi");
        if name == "soft" {
            admin.done("PUT", &path, &claim)?;
        } else {
            let words = "only dynamically provisioned pvc can be resized and the storageclass that provisions the pvc must \
                         support resize";
            admin.refused("PUT", &path, &claim, words)?;
        }
    }

    // DefaultIngressClass.
    let classes = "/apis/networking.k8s.io/v1/ingressclasses";
    let default = json!({"ingressclass.kubernetes.io/is-default-class": "true"});
    let class = json!({"metadata": {"name": "usual", "annotations": default}, "spec": {"controller": "example.com/c"}});
    admin.done("POST", classes, &class)?;
    let ingress = json!({"metadata": {"name": "i"}, "spec": {"defaultBackend":
        {"service": {"name": "s", "port": {"number": 80}}}}});
    let ingress = admin.done_soon(
        "/apis/networking.k8s.io/v1/namespaces/a/ingresses",
        &ingress,
        |ingress| ingress["spec"]["ingressClassName"] == "usual",
    )?;
    ensure!(ingress["spec"]["ingressClassName"] == "usual", "{ingress}");
    Ok(())
}

fn csr(name: &str, signer: &str, organization: &str) -> Result<Value> {
    use base64::Engine as _;
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "somebody");
    params
        .distinguished_name
        .push(DnType::OrganizationName, organization);
    let pem = params.serialize_request(&KeyPair::generate()?)?.pem()?;
    let request = base64::engine::general_purpose::STANDARD.encode(pem);
    Ok(
        json!({"metadata": {"name": name}, "spec": {"request": request, "signerName": signer, "usages": ["client auth"]}}),
    )
}

#[test]
fn certificates_are_approved_and_signed_by_who_may_for_the_signer() -> Result<()> {
    let plane = ControlPlane::up(|_, authority| {
        authority.issue("approver", &[])?;
        Ok(Vec::new())
    })?;
    let (admin, approver) = (Caller::new(&plane, "admin"), Caller::new(&plane, "approver"));
    let requests = "/apis/certificates.k8s.io/v1/certificatesigningrequests";
    admin.refused(
        "POST",
        requests,
        &csr("root", "kubernetes.io/kube-apiserver-client", "system:masters")?,
        "use of kubernetes.io/kube-apiserver-client signer with system:masters group is not allowed",
    )?;
    admin.done("POST", requests, &csr("plain", "example.com/mine", "dev")?)?;

    let rbac = "/apis/rbac.authorization.k8s.io/v1";
    let bind = |name: &str, rules: Value| -> Result<()> {
        admin.done(
            "POST",
            &format!("{rbac}/clusterroles"),
            &json!({"metadata": {"name": name}, "rules": rules}),
        )?;
        let binding = json!({"metadata": {"name": name},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": name},
            "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "approver"}]});
        admin.done("POST", &format!("{rbac}/clusterrolebindings"), &binding)?;
        Ok(())
    };
    bind(
        "changes",
        json!([{"verbs": ["get", "update"], "apiGroups": ["certificates.k8s.io"],
        "resources": ["certificatesigningrequests", "certificatesigningrequests/approval", "certificatesigningrequests/status"]}]),
    )?;
    let path = format!("{requests}/plain");
    let condition = |kind: &str| json!({"type": kind, "status": "True", "reason": "Test", "message": "m"});
    let mut request = eventually("the role counts", SOON, || approver.get(&path))?;
    request["status"] = json!({"conditions": [condition("Approved")]});
    let approval = format!("{path}/approval");
    let words = "user not permitted to approve requests with signerName \"example.com/mine\"";
    approver.refused("PUT", &approval, &request, words)?;
    bind(
        "approves",
        json!([{"verbs": ["approve"], "apiGroups": ["certificates.k8s.io"], "resources": ["signers"],
        "resourceNames": ["example.com/*"]}]),
    )?;
    let mut request = eventually("approving is allowed", SOON, || {
        approver.done("PUT", &approval, &request)
    })?;

    let conditions = request["status"]["conditions"].as_array_mut();
    conditions.context("conditions")?.push(condition("Failed"));
    let status = format!("{path}/status");
    let words = "user not permitted to sign requests with signerName \"example.com/mine\"";
    approver.refused("PUT", &status, &request, words)?;
    bind(
        "signs",
        json!([{"verbs": ["sign"], "apiGroups": ["certificates.k8s.io"], "resources": ["signers"],
        "resourceNames": ["example.com/mine"]}]),
    )?;
    eventually("signing is allowed", SOON, || {
        approver.done("PUT", &status, &request)
    })?;
    Ok(())
}

#[test]
fn a_kubelet_speaks_for_its_own_node() -> Result<()> {
    let plane = ControlPlane::up(|_, authority| {
        authority.issue("system:node:n1", &["system:nodes"])?;
        Ok(Vec::new())
    })?;
    let (admin, kubelet) = (
        Caller::new(&plane, "admin"),
        Caller::new(&plane, "system-node-n1"),
    );
    let nodes = "/api/v1/nodes";
    let label = "node-restriction.kubernetes.io/vault";
    let bold = json!({"metadata": {"name": "n1", "labels": {label: "yes"}}});
    let words = "is not allowed to set the following labels: node-restriction.kubernetes.io/vault";
    eventually("the kubelet is known", SOON, || {
        kubelet.refused("POST", nodes, &bold, words)
    })?;
    let mut own = kubelet.done("POST", nodes, &json!({"metadata": {"name": "n1"}}))?;
    own["metadata"]["labels"] = json!({label: "yes"});
    let path = format!("{nodes}/n1");
    kubelet.refused(
        "PUT",
        &path,
        &own,
        "is not allowed to modify labels: node-restriction.kubernetes.io/vault",
    )?;
    own["metadata"]["labels"] = json!({"kubernetes.io/os": "linux"});
    own["spec"]["taints"] = Value::Null;
    kubelet.refused("PUT", &path, &own, "node \"n1\" is not allowed to modify taints")?;
    kubelet.refused(
        "POST",
        nodes,
        &json!({"metadata": {"name": "n2"}}),
        "node \"n1\" is not allowed to modify node \"n2\"",
    )?;

    let slices = "/apis/resource.k8s.io/v1/resourceslices";
    let slice = |name: &str, node: &str| {
        json!({"metadata": {"name": name}, "spec": {"driver": "gpu.example.com", "nodeName": node,
               "pool": {"name": node, "generation": 1, "resourceSliceCount": 1}, "devices": [{"name": "d0"}]}})
    };
    let words = "can only create ResourceSlice with the same NodeName as the requesting node";
    kubelet.refused("POST", slices, &slice("s2", "n2"), words)?;
    kubelet.done("POST", slices, &slice("s1", "n1"))?;
    admin.done("POST", slices, &slice("s2", "n2"))?;
    let other = plane.curl("DELETE", &format!("{slices}/s2"), None, &kubelet.args)?;
    ensure!(other.code == 403, "{other:?}");
    eventually("the slice is known to be the node's", SOON, || {
        let own = plane.curl("DELETE", &format!("{slices}/s1"), None, &kubelet.args)?;
        ensure!(own.code == 200, "{own:?}");
        Ok(())
    })
}

#[test]
fn two_servers_spend_a_quota_to_the_last_and_no_further() -> Result<()> {
    const ROOM: usize = 10;
    const EACH: usize = 6;
    let plane = ControlPlane::up(|_, _| Ok(Vec::new()))?;
    let (_second, port) = plane.second_apiserver()?;
    let admin = Caller::new(&plane, "admin");
    namespace(&admin, "a")?;
    let quotas = "/api/v1/namespaces/a/resourcequotas";
    let hard = json!({"secrets": ROOM.to_string()});
    let mut quota = admin.done(
        "POST",
        quotas,
        &json!({"metadata": {"name": "q"}, "spec": {"hard": hard}}),
    )?;
    // Who counts what is there already does not run here.
    quota["status"] = json!({"hard": hard, "used": {"secrets": "0"}});
    admin.done("PUT", &format!("{quotas}/q/status"), &quota)?;
    let make = |port: u16, name: &str, query: &str| {
        let secret = json!({"metadata": {"name": name}}).to_string();
        let path = format!("/api/v1/namespaces/a/secrets{query}");
        plane.curl_at(port, "POST", &path, Some(&secret), &admin.args)
    };
    for port in [plane.port, port] {
        eventually("the server knows the quota", SOON, || {
            let path = "/api/v1/namespaces/a/resourcequotas?resourceVersion=0";
            let listed = plane.curl_at(port, "GET", path, None, &admin.args)?;
            ensure!(listed.body.contains("\"used\""), "{listed:?}");
            Ok(())
        })?;
    }
    let made = std::thread::scope(|scope| -> Result<usize> {
        let mut crowd = Vec::new();
        for (place, port) in [plane.port, port].into_iter().cycle().take(6).enumerate() {
            let make = &make;
            crowd.push(scope.spawn(move || -> Result<usize> {
                let mut made = 0;
                for number in 0..EACH {
                    let answer = make(port, &format!("s{place}-{number}"), "")?;
                    match answer.code {
                        201 => made += 1,
                        403 => ensure!(answer.body.contains("exceeded quota: q"), "{answer:?}"),
                        _ => bail!("{answer:?}"),
                    }
                }
                Ok(made)
            }));
        }
        let mut made = 0;
        for one in crowd {
            made += one.join().map_err(|_| anyhow::anyhow!("a thread failed"))??;
        }
        Ok(made)
    })?;
    ensure!(made == ROOM, "{made} of {ROOM} were made");
    let there = admin.get("/api/v1/namespaces/a/secrets")?;
    ensure!(there["items"].as_array().map(Vec::len) == Some(ROOM), "{there}");
    let used = admin.get(&format!("{quotas}/q"))?;
    let secrets = &used["status"]["used"]["secrets"];
    ensure!(secrets.as_str() == Some(&ROOM.to_string()), "{used}");
    // A trial run costs nothing and is refused all the same.
    ensure!(make(port, "more", "?dryRun=All")?.code == 403);
    Ok(())
}

#[test]
fn a_file_says_what_pods_are_held_to_by_default_and_who_is_exempt() -> Result<()> {
    let plane = ControlPlane::up(|folder, authority| {
        authority.issue("jane", &["system:masters"])?;
        let config = json!({
            "apiVersion": "apiserver.config.k8s.io/v1", "kind": "AdmissionConfiguration",
            "plugins": [{"name": "PodSecurity", "configuration": {
                "apiVersion": "pod-security.admission.config.k8s.io/v1", "kind": "PodSecurityConfiguration",
                "defaults": {"enforce": "baseline", "enforce-version": "latest"},
                "exemptions": {"usernames": ["jane"], "namespaces": ["free"], "runtimeClasses": ["vm"]},
            }}],
        });
        std::fs::write(folder.join("admission.yaml"), config.to_string())?;
        let flag = format!(
            "--admission-control-config-file={}",
            folder.join("admission.yaml").display()
        );
        Ok(vec![flag])
    })?;
    let (admin, jane) = (Caller::new(&plane, "admin"), Caller::new(&plane, "jane"));
    namespace(&admin, "held")?;
    namespace(&admin, "free")?;
    let class = json!({"metadata": {"name": "vm"}, "handler": "vm"});
    admin.done("POST", "/apis/node.k8s.io/v1/runtimeclasses", &class)?;
    let held = "/api/v1/namespaces/held/pods";
    let open = |name: &str| pod(name, json!({"hostNetwork": true}));
    admin.refused(
        "POST",
        held,
        &open("p"),
        "violates PodSecurity \"baseline:latest\": host namespaces (hostNetwork=true)",
    )?;
    admin.done("POST", "/api/v1/namespaces/free/pods", &open("p"))?;
    jane.done("POST", held, &open("janes"))?;
    admin.done(
        "POST",
        held,
        &pod("vm", json!({"hostNetwork": true, "runtimeClassName": "vm"})),
    )?;
    // What a namespace says itself goes before the default.
    let labels =
        json!({"metadata": {"name": "open", "labels": {"pod-security.kubernetes.io/enforce": "privileged"}}});
    admin.done("POST", "/api/v1/namespaces", &labels)?;
    admin.done(
        "POST",
        "/api/v1/namespaces/open/serviceaccounts",
        &json!({"metadata": {"name": "default"}}),
    )?;
    admin.done("POST", "/api/v1/namespaces/open/pods", &open("p"))?;
    Ok(())
}
