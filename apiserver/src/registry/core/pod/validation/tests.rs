//! Mistakes people make in pods, and the causes they are told.

use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};

use super::{pod, update};
use crate::registry::core::pod::defaults;

fn good() -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": "default"},
        "spec": {
            "volumes": [{"name": "conf", "configMap": {"name": "c"}}],
            "containers": [{
                "name": "web", "image": "nginx:1", "ports": [{"name": "http", "containerPort": 80}],
                "volumeMounts": [{"name": "conf", "mountPath": "/conf"}],
                "resources": {"requests": {"cpu": "100m"}, "limits": {"cpu": "1"}}
            }]
        }
    })
}

fn read(value: Value) -> Pod {
    let mut pod: Pod = serde_json::from_value(value).expect("a pod");
    defaults::pod(&mut pod);
    pod
}

fn causes(value: Value) -> Vec<String> {
    pod(&read(value)).iter().map(ToString::to_string).collect()
}

const LABEL: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')";

#[test]
fn a_good_pod_passes() {
    assert_eq!(causes(good()), [""; 0]);
}

#[test]
fn mistakes_get_upstreams_causes() {
    type Change = fn(&mut Value);
    let cases: Vec<(Change, Vec<String>)> = vec![
        (
            |p| {
                p["spec"]["hostNetwork"] = json!(true);
                p["spec"]["containers"][0]["ports"] = json!([{"containerPort": 80, "hostPort": 81}, {"containerPort": 82}]);
            },
            vec!["spec.containers[0].ports[0].hostPort: Invalid value: 81: must match `containerPort` when `hostNetwork` is true".to_owned()],
        ),
        (|p| p["spec"]["containers"] = json!([]), vec!["spec.containers: Required value".into()]),
        (|p| p["spec"] = json!(null), vec!["spec.containers: Required value".into()]),
        (
            |p| p["spec"]["containers"][0]["name"] = json!("Web"),
            vec![format!("spec.containers[0].name: Invalid value: \"Web\": {LABEL}")],
        ),
        (
            |p| p["spec"]["containers"][0]["name"] = json!("a".repeat(64)),
            vec![format!(
                "spec.containers[0].name: Invalid value: \"{}\": must be no more than 63 characters",
                "a".repeat(64)
            )],
        ),
        (|p| p["spec"]["containers"][0]["name"] = json!(""), vec!["spec.containers[0].name: Required value".into()]),
        (|p| p["spec"]["containers"][0]["image"] = json!(""), vec!["spec.containers[0].image: Required value".into()]),
        (
            |p| p["spec"]["containers"][0]["image"] = json!(" nginx"),
            vec!["spec.containers[0].image: Invalid value: \" nginx\": must not have leading or trailing whitespace".into()],
        ),
        (
            |p| {
                let same = p["spec"]["containers"][0].clone();
                p["spec"]["containers"].as_array_mut().expect("a list").push(same);
            },
            vec!["spec.containers[1].name: Duplicate value: \"web\"".into()],
        ),
        (
            |p| p["spec"]["containers"][0]["ports"][0]["containerPort"] = json!(70000),
            vec!["spec.containers[0].ports[0].containerPort: Invalid value: 70000: must be between 1 and 65535, inclusive".into()],
        ),
        (
            |p| p["spec"]["containers"][0]["ports"][0]["containerPort"] = json!(0),
            vec!["spec.containers[0].ports[0].containerPort: Required value".into()],
        ),
        (
            |p| p["spec"]["containers"][0]["ports"][0]["protocol"] = json!("tcp"),
            vec!["spec.containers[0].ports[0].protocol: Unsupported value: \"tcp\": supported values: \"SCTP\", \"TCP\", \"UDP\"".into()],
        ),
        (
            |p| p["spec"]["containers"][0]["ports"][0]["name"] = json!("a-very-long-port-name"),
            vec!["spec.containers[0].ports[0].name: Invalid value: \"a-very-long-port-name\": must be no more than 15 characters".into()],
        ),
        (
            |p| {
                p["spec"]["containers"][0]["ports"] = json!([
                    {"name": "http", "containerPort": 80, "hostPort": 8080},
                    {"name": "http", "containerPort": 81, "hostPort": 8080}]);
            },
            vec![
                "spec.containers[0].ports[1].name: Duplicate value: \"http\"".into(),
                "spec.containers[0].ports[1].hostPort: Duplicate value: \"TCP//8080\"".into(),
            ],
        ),
        (
            |p| p["spec"]["containers"][0]["volumeMounts"][0]["name"] = json!("other"),
            vec!["spec.containers[0].volumeMounts[0].name: Not found: \"other\"".into()],
        ),
        (
            |p| p["spec"]["containers"][0]["volumeMounts"][0]["mountPath"] = json!(""),
            vec!["spec.containers[0].volumeMounts[0].mountPath: Required value".into()],
        ),
        (
            |p| p["spec"]["containers"][0]["volumeMounts"][0]["subPath"] = json!("../x"),
            vec!["spec.containers[0].volumeMounts[0].subPath: Invalid value: \"../x\": must not contain '..'".into()],
        ),
        (
            |p| p["spec"]["containers"][0]["resources"]["requests"]["cpu"] = json!("2"),
            vec!["spec.containers[0].resources.requests: Invalid value: \"2\": must be less than or equal to cpu limit of 1".into()],
        ),
        (
            |p| p["spec"]["containers"][0]["resources"] = json!({"requests": {"memory": "-1Mi"}}),
            vec!["spec.containers[0].resources.requests[memory]: Invalid value: \"-1Mi\": must be greater than or equal to 0".into()],
        ),
        (
            |p| p["spec"]["containers"][0]["resources"] = json!({"requests": {"cpus": "1"}}),
            vec![
                "spec.containers[0].resources.requests[cpus]: Invalid value: \"cpus\": must be a standard resource type or fully qualified".into(),
                "spec.containers[0].resources.requests[cpus]: Invalid value: \"cpus\": must be a standard resource for containers".into(),
            ],
        ),
        (
            |p| p["spec"]["containers"][0]["imagePullPolicy"] = json!("Sometimes"),
            vec!["spec.containers[0].imagePullPolicy: Unsupported value: \"Sometimes\": supported values: \"Always\", \"IfNotPresent\", \"Never\"".into()],
        ),
        (
            |p| p["spec"]["containers"][0]["env"] = json!([{"name": "A=B", "value": "c"}]),
            vec!["spec.containers[0].env[0].name: Invalid value: \"A=B\": a valid environment variable name must consist only of printable ASCII characters other than '='".into()],
        ),
        (
            |p| p["spec"]["containers"][0]["env"] = json!([{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "spec.x"}}}]),
            vec!["spec.containers[0].env[0].valueFrom.fieldRef.fieldPath: Invalid value: \"spec.x\": error converting fieldPath: field label not supported: spec.x".into()],
        ),
        (
            |p| p["spec"]["containers"][0]["env"] = json!([{"name": "A", "valueFrom": {}}]),
            vec!["spec.containers[0].env[0].valueFrom: Invalid value: \"\": must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`".into()],
        ),
        (
            |p| p["spec"]["containers"][0]["livenessProbe"] = json!({"periodSeconds": -1}),
            vec![
                "spec.containers[0].livenessProbe: Required value: must specify a handler type".into(),
                "spec.containers[0].livenessProbe.periodSeconds: Invalid value: -1: must be greater than or equal to 0".into(),
            ],
        ),
        (
            |p| p["spec"]["containers"][0]["livenessProbe"] = json!({"httpGet": {"port": 80}, "exec": {"command": ["a"]}, "successThreshold": 2}),
            vec![
                "spec.containers[0].livenessProbe.httpGet: Forbidden: may not specify more than 1 handler type".into(),
                "spec.containers[0].livenessProbe.successThreshold: Invalid value: 2: must be 1".into(),
            ],
        ),
        (
            |p| p["spec"]["restartPolicy"] = json!("Maybe"),
            vec!["spec.restartPolicy: Unsupported value: \"Maybe\": supported values: \"Always\", \"OnFailure\", \"Never\"".into()],
        ),
        (
            |p| p["spec"]["dnsPolicy"] = json!("None"),
            vec!["spec.dnsConfig: Required value: must provide `dnsConfig` when `dnsPolicy` is None".into()],
        ),
        (
            |p| p["spec"]["nodeSelector"] = json!({"a b": "c"}),
            vec!["spec.nodeSelector: Invalid value: \"a b\": name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')".into()],
        ),
        (
            |p| p["spec"]["tolerations"] = json!([{"key": "a", "operator": "Exists", "effect": "NoSchedule", "tolerationSeconds": 3}]),
            vec!["spec.tolerations[0].effect: Invalid value: \"NoSchedule\": effect must be 'NoExecute' when `tolerationSeconds` is set".into()],
        ),
        (
            |p| p["spec"]["volumes"][0] = json!({"name": "conf", "configMap": {"name": ""}, "emptyDir": {}}),
            vec![
                "spec.volumes[0].configMap: Forbidden: may not specify more than 1 volume type".into(),
                "spec.volumes[0].configMap.name: Required value".into(),
            ],
        ),
        (
            |p| p["spec"]["volumes"][0] = json!({"name": "conf", "secret": {"secretName": "s", "defaultMode": 512}}),
            vec!["spec.volumes[0].secret.defaultMode: Invalid value: 512: must be a number between 0 and 0777 (octal), both inclusive".into()],
        ),
        (
            |p| p["spec"]["volumes"][0] = json!({"name": "conf", "hostPath": {"path": "/a/../b", "type": "Thing"}}),
            vec![
                "spec.volumes[0].hostPath.path: Invalid value: \"/a/../b\": must not contain '..'".into(),
                "spec.volumes[0].hostPath.type: Unsupported value: \"Thing\": supported values: \"\", \"BlockDevice\", \"CharDevice\", \"Directory\", \"DirectoryOrCreate\", \"File\", \"FileOrCreate\", \"Socket\"".into(),
            ],
        ),
        (
            |p| p["spec"]["initContainers"] = json!([{"name": "web", "image": "a", "readinessProbe": {"exec": {"command": ["a"]}}}]),
            vec![
                "spec.initContainers[0].name: Duplicate value: \"web\"".into(),
                "spec.initContainers[0].readinessProbe: Forbidden: may not be set for init containers without restartPolicy=Always".into(),
            ],
        ),
        (
            |p| p["spec"]["securityContext"] = json!({"runAsUser": -1, "seccompProfile": {"type": "Localhost"}}),
            vec![
                "spec.securityContext.runAsUser: Invalid value: -1: must be between 0 and 2147483647, inclusive".into(),
                "spec.securityContext.seccompProfile.localhostProfile: Required value: must be set when seccomp type is Localhost".into(),
            ],
        ),
        (
            |p| p["spec"]["activeDeadlineSeconds"] = json!(0),
            vec!["spec.activeDeadlineSeconds: Invalid value: 0: must be between 1 and 2147483647, inclusive".into()],
        ),
        (
            |p| p["spec"]["topologySpreadConstraints"] = json!([{"maxSkew": 0, "topologyKey": "", "whenUnsatisfiable": "x"}]),
            vec![
                "spec.topologySpreadConstraints[0].maxSkew: Invalid value: 0: must be greater than zero".into(),
                "spec.topologySpreadConstraints[0].topologyKey: Required value: can not be empty".into(),
                "spec.topologySpreadConstraints[0].whenUnsatisfiable: Unsupported value: \"x\": supported values: \"DoNotSchedule\", \"ScheduleAnyway\"".into(),
            ],
        ),
        (
            |p| {
                p["spec"]["affinity"] = json!({"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution":
                    {"nodeSelectorTerms": [{"matchExpressions": [{"key": "a", "operator": "In"}]}]}}});
            },
            vec!["spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms[0].matchExpressions[0].values: Required value: must be specified when `operator` is 'In' or 'NotIn'".into()],
        ),
    ];
    for (change, expected) in cases {
        let mut value = good();
        change(&mut value);
        assert_eq!(causes(value), expected);
    }
}

/// Each of these is nothing that a pod cannot have, and one of them is.
#[test]
fn places_to_run_are_described_freely() {
    let preferred = |value: &str| {
        json!({"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 1, "preference":
            {"matchExpressions": [{"key": "k", "operator": "In", "values": [value]}]}}]}})
    };
    let required = json!({"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
        {"matchExpressions": [{"key": "k", "operator": "Lt", "values": ["$x"]}]}]}}});
    let spread = |count: usize| -> Value {
        let one = json!({"maxSkew": 1, "topologyKey": "a b", "whenUnsatisfiable": "DoNotSchedule",
            "labelSelector": {}});
        std::iter::repeat_n(one, count).collect()
    };
    let gates = json!([{"name": "example.com/gate"}]);
    for (fields, wanted) in [
        (json!({"affinity": preferred("bad value!")}), &[][..]),
        (
            json!({"affinity": required}),
            &[
                "spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms[0].\
               matchExpressions[0].values[0]: Invalid value: \"$x\"",
            ],
        ),
        (json!({"topologySpreadConstraints": spread(1)}), &[]),
        (
            json!({"topologySpreadConstraints": spread(2)}),
            &["spec.topologySpreadConstraints[0].{topologyKey, whenUnsatisfiable}: Duplicate value"],
        ),
        (
            json!({"schedulingGates": gates, "nodeName": "n"}),
            &["spec.nodeName: Forbidden: cannot be set until all schedulingGates have been cleared"],
        ),
        (
            json!({"tolerations": [{"key": "k", "operator": "Exists", "value": "x"}]}),
            &[
                "spec.tolerations[0].operator: Invalid value: \"x\": value must be empty when `operator` is 'Exists'",
            ],
        ),
        (json!({"dnsConfig": {"searches": ["_a_b.c", "."]}}), &[]),
        (
            json!({"dnsConfig": {"searches": ["a_"]}}),
            &["spec.dnsConfig.searches[0]: Invalid value"],
        ),
        (
            json!({"hostAliases": [{"ip": "10.0.0.1", "hostnames": ["ok", "B@d"]}]}),
            &["spec.hostAliases[0].hostnames[1]: Invalid value: \"B@d\""],
        ),
        (
            json!({"os": {"name": "dummy"}}),
            &["spec.os: Unsupported value: \"dummy\": supported values: \"linux\", \"windows\""],
        ),
        (
            json!({"os": {"name": ""}}),
            &["spec.os.name: Required value: cannot be empty"],
        ),
        (json!({"imagePullSecrets": [{"name": ""}]}), &[]),
    ] {
        let mut value = good();
        for (name, field) in fields.as_object().into_iter().flatten() {
            value["spec"][name] = field.clone();
        }
        let found = causes(value);
        let right = found.len() == wanted.len() && found.iter().zip(wanted).all(|(f, w)| f.starts_with(w));
        assert!(right, "{fields}: {found:?}");
    }
}

#[test]
fn pods_hardly_change() {
    let old = read(good());
    let change = |change: fn(&mut Value)| {
        let mut value = good();
        change(&mut value);
        let found = update::pod(&read(value), &old);
        found.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    assert_eq!(
        change(|p| p["spec"]["containers"][0]["image"] = json!("nginx:2")),
        [""; 0]
    );
    assert_eq!(
        change(|p| p["spec"]["tolerations"] = json!([{"key": "a", "operator": "Exists"}])),
        [""; 0]
    );
    assert_eq!(change(|p| p["spec"]["activeDeadlineSeconds"] = json!(5)), [""; 0]);
    let refused = change(|p| p["spec"]["containers"][0]["command"] = json!(["sh"]));
    assert_eq!(refused.len(), 1);
    assert!(
        refused[0].starts_with("spec: Forbidden: pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)\n"),
        "{refused:?}"
    );
    assert_eq!(
        change(|p| {
            p["spec"]["initContainers"] = json!([{"name": "i", "image": "i"}]);
        }),
        ["spec.initContainers: Forbidden: pod updates may not add or remove containers"]
    );
}

/// A pod that is never restarted may have containers that are.
#[test]
fn containers_come_back_if_they_say_so() {
    let rules = json!([{"action": "Restart", "exitCodes": {"operator": "In", "values": [42]}}]);
    let state = |state: Value| {
        let mut pod = good();
        pod["spec"]["restartPolicy"] = json!("Never");
        pod["spec"]["containers"][0]["restartPolicy"] = json!("Never");
        pod["spec"]["containers"][0]["restartPolicyRules"] = rules.clone();
        pod["status"] = json!({"containerStatuses": [{"name": "web", "image": "", "imageID": "", "ready": false,
            "restartCount": 0, "state": state}]});
        read(pod)
    };
    for (exit_code, count) in [(42, 0), (1, 1)] {
        let ended = state(json!({"terminated": {"exitCode": exit_code}}));
        let errors = update::status(&state(json!({"running": {}})), &ended);
        assert_eq!(errors.len(), count, "{errors:?}");
    }
}

#[test]
fn nothing_is_added_to_a_pod_that_mirrors_a_file() {
    let mut pod = good();
    pod["metadata"]["annotations"] = json!({"kubernetes.io/config.mirror": "x"});
    let pod = read(pod);
    let texts: Vec<String> = update::ephemeral_containers(&pod, &pod)
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(
        texts,
        [": Forbidden: static pods do not support ephemeral containers"]
    );
}

/// What Kueue and other queues do before they let a pod go.
#[test]
fn gated_pods_are_narrowed_down() {
    let expressions = |keys: &[&str]| -> Value {
        let exists = |key: &&str| json!({"key": key, "operator": "Exists"});
        keys.iter().map(exists).collect()
    };
    let gated = |terms: &[&[&str]]| {
        let terms: Vec<Value> = terms
            .iter()
            .map(|keys| json!({"matchExpressions": expressions(keys)}))
            .collect();
        let mut pod = good();
        pod["spec"]["schedulingGates"] = json!([{"name": "example.com/queue"}]);
        if !terms.is_empty() {
            let required = json!({"nodeSelectorTerms": terms});
            pod["spec"]["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"] =
                required;
        }
        read(pod)
    };
    const COUNT: &str = "no additions/deletions to non-empty NodeSelectorTerms list are allowed";
    const ADDED: &str = "only additions are allowed (no mutations or deletions)";
    for (old, new, refused) in [
        (&[][..], &[&["a"][..], &["b"]][..], ""),
        (&[&["a"][..]], &[&["a", "b"]], ""),
        (&[&["a"][..], &["b"]], &[&["a", "c"], &["b", "d", "e"]], ""),
        (&[&["a"][..]], &[&["a"], &["b"]], COUNT),
        (&[&["a"][..]], &[], COUNT),
        (&[&["a"][..]], &[&["b", "a"]], ADDED),
        (&[&["a"][..], &["b", "c"]], &[&["a"], &["b"]], ADDED),
    ] {
        let errors = update::pod(&gated(new), &gated(old));
        let texts: Vec<String> = errors.iter().map(ToString::to_string).collect();
        let right = match refused {
            "" => texts.is_empty(),
            why => texts.len() == 1 && texts[0].ends_with(why),
        };
        assert!(right, "{old:?} {new:?}: {texts:?}");
    }
}

#[test]
fn a_typical_pod_is_checked_quickly() {
    let pod_object = read(good());
    let begun = std::time::Instant::now();
    const ROUNDS: u32 = 1000;
    for _ in 0..ROUNDS {
        assert!(pod(&pod_object).is_empty());
    }
    // A few microseconds when optimised; this only catches something going badly wrong.
    assert!(
        begun.elapsed() / ROUNDS < std::time::Duration::from_millis(1),
        "{:?}",
        begun.elapsed() / ROUNDS
    );
}
