use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};

use super::*;

fn pod(spec: Value) -> Pod {
    serde_json::from_value(json!({"metadata": {"name": "p"}, "spec": spec})).expect("a pod")
}

fn bar(labels: Value) -> Policy {
    let labels: BTreeMap<String, String> = serde_json::from_value(labels).expect("labels");
    Policy::of(Some(&labels), Policy::default()).expect("labels that make sense")
}

fn violations(level: &str, spec: Value) -> String {
    let pod = pod(spec);
    let policy = bar(json!({"pod-security.kubernetes.io/enforce": level}));
    let subject = Subject::of(&pod.metadata, pod.spec.as_ref()).expect("a spec");
    checks::evaluate(policy.enforce, &subject).details()
}

#[test]
fn a_plain_pod_is_not_restricted_enough() {
    let plain = json!({"containers": [{"name": "c", "image": "i"}]});
    assert_eq!(violations("baseline", plain.clone()), "");
    assert_eq!(
        violations("restricted", plain),
        "allowPrivilegeEscalation != false (container \"c\" must set securityContext.allowPrivilegeEscalation=false), \
         unrestricted capabilities (container \"c\" must set securityContext.capabilities.drop=[\"ALL\"]), \
         runAsNonRoot != true (pod or container \"c\" must set securityContext.runAsNonRoot=true), \
         seccompProfile (pod or container \"c\" must set securityContext.seccompProfile.type to \"RuntimeDefault\" or \"Localhost\")"
    );
    let hardened = json!({
        "securityContext": {"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}},
        "volumes": [{"name": "v", "emptyDir": {}}],
        "containers": [{"name": "c", "image": "i", "securityContext":
            {"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"], "add": ["NET_BIND_SERVICE"]}}}]});
    assert_eq!(violations("restricted", hardened), "");
}

#[test]
fn baseline_forbids_ways_out_of_the_container() {
    let spec = json!({
        "hostNetwork": true, "hostPID": true,
        "securityContext": {"sysctls": [{"name": "kernel.msgmax", "value": "1"}], "seccompProfile": {"type": "Unconfined"},
            "seLinuxOptions": {"type": "spc_t", "user": "u"}},
        "volumes": [{"name": "root", "hostPath": {"path": "/"}}],
        "initContainers": [{"name": "i", "image": "i", "securityContext": {"capabilities": {"add": ["SYS_ADMIN"]}}}],
        "containers": [{"name": "c", "image": "i", "ports": [{"containerPort": 1, "hostPort": 80}],
            "livenessProbe": {"httpGet": {"port": 1, "host": "1.2.3.4"}},
            "securityContext": {"privileged": true, "procMount": "Unmasked", "capabilities": {"add": ["NET_RAW", "CHOWN"]}}}]});
    assert_eq!(
        violations("baseline", spec),
        "non-default capabilities (containers \"i\", \"c\" must not include \"NET_RAW\", \"SYS_ADMIN\" in securityContext.capabilities.add), \
         host namespaces (hostNetwork=true, hostPID=true), \
         hostPath volumes (volume \"root\"), \
         hostPort (container \"c\" uses hostPort 80), \
         probe or lifecycle host (container \"c\" uses probe or lifecycle host \"1.2.3.4\"), \
         privileged (container \"c\" must not set securityContext.privileged=true), \
         procMount (container \"c\" must not set securityContext.procMount to \"Unmasked\"), \
         seLinuxOptions (pod set forbidden securityContext.seLinuxOptions: type \"spc_t\"; user may not be set), \
         seccompProfile (pod must not set securityContext.seccompProfile.type to \"Unconfined\"), \
         forbidden sysctls (kernel.msgmax)"
    );
}

#[test]
fn volumes_of_hardened_pods_are_few() {
    let spec = json!({
        "securityContext": {"runAsNonRoot": true, "runAsUser": 0, "seccompProfile": {"type": "RuntimeDefault"}},
        "volumes": [{"name": "root", "hostPath": {"path": "/"}}, {"name": "share", "nfs": {"server": "s", "path": "/"}}],
        "containers": [{"name": "c", "image": "i", "securityContext":
            {"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}}}]});
    assert_eq!(
        violations("restricted", spec),
        "restricted volume types (volumes \"root\", \"share\" use restricted volume types \"hostPath\", \"nfs\"), \
         runAsUser=0 (pod must not set runAsUser=0)"
    );
}

#[test]
fn labels_name_levels_and_versions() {
    let policy = bar(json!({"pod-security.kubernetes.io/enforce": "baseline",
                            "pod-security.kubernetes.io/enforce-version": "v1.24"}));
    assert_eq!(policy.enforce.to_string(), "baseline:v1.24");
    // Who is not told otherwise is warned of what is enforced.
    assert_eq!(policy.warn, policy.enforce);
    assert!(bar(json!({})).asks_nothing());
    let labels: BTreeMap<String, String> =
        [("pod-security.kubernetes.io/enforce".into(), "strict".into())].into();
    let (policy, errors) = Policy::of(Some(&labels), Policy::default()).expect_err("no such level");
    assert_eq!(policy.enforce.level, Level::Restricted);
    assert_eq!(
        errors[0].to_string(),
        "metadata.labels[pod-security.kubernetes.io/enforce]: Invalid value: \"strict\": must be one of privileged, baseline, restricted"
    );
}

#[test]
fn pods_that_are_there_already_are_told_of() {
    let mut pods = vec![pod(json!({"hostNetwork": true, "containers": []})); 3];
    for (pod, name) in pods.iter_mut().zip(["b", "a", "c"]) {
        pod.metadata.name = Some(name.into());
    }
    let enforce = bar(json!({"pod-security.kubernetes.io/enforce": "baseline"})).enforce;
    assert_eq!(
        warnings_of("n", enforce, &pods),
        [
            "existing pods in namespace \"n\" violate the new PodSecurity enforce level \"baseline:latest\"",
            "a (and 2 other pods): host namespaces"
        ]
    );
}

#[test]
fn a_configuration_says_what_holds_by_default_and_who_is_exempt() {
    let read = |text: &str| {
        let head = "apiVersion: pod-security.admission.config.k8s.io/v1\nkind: PodSecurityConfiguration\n";
        config::PodSecurityConfiguration::read(
            keelson_daemon::yaml::from_str(&format!("{head}{text}")).expect("YAML"),
        )
    };
    let config = read(
        "defaults: {enforce: baseline, warn: restricted, warn-version: v1.30}\n\
         exemptions: {usernames: [jane], runtimeClasses: [vm], namespaces: [kube-system]}\n",
    )
    .expect("a configuration");
    let labels = |json: Value| -> BTreeMap<String, String> { serde_json::from_value(json).expect("labels") };
    let of = |json: Value| {
        let policy = Policy::of(Some(&labels(json)), config.defaults).expect("labels that make sense");
        format!("{} {} {}", policy.enforce, policy.audit, policy.warn)
    };
    assert_eq!(
        of(json!({})),
        "baseline:latest privileged:latest restricted:v1.30"
    );
    assert_eq!(
        of(json!({"pod-security.kubernetes.io/enforce": "privileged"})),
        "privileged:latest privileged:latest restricted:v1.30"
    );
    let exempt = &config.exemptions;
    assert_eq!(exempt.of("kube-system", "jane"), Some("namespace"));
    assert_eq!(exempt.of("a", "jane"), Some("user"));
    assert_eq!(exempt.of("a", "joe"), None);
    assert!(exempt.runtime_class(Some("vm")) && !exempt.runtime_class(None));
    assert!(read("defaults: {enforce: strict}\n").is_err());
    assert!(read("exemptions: {usernames: [a, a]}\n").is_err());
    assert!(read("exemption: {}\n").is_err());
}
