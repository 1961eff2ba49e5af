//! Mistakes in manifests, and the words Kubernetes has for them.

use anyhow::{Result, ensure};

use crate::{Stage, Story};

pub const STORIES: &[Story] = &[("mistakes_in_manifests", mistakes_in_manifests)];

const UNKNOWN_FIELD: &str = "an unknown field";

/// What is wrong, the manifest, and the texts the answer must contain.
const MISTAKES: &[(&str, &str, &[&str])] = &[
    (
        "no containers",
        r#"{"kind":"Pod","apiVersion":"v1","metadata":{"name":"p"},"spec":{"containers":[]}}"#,
        &["Pod \"p\" is invalid", "spec.containers: Required value"],
    ),
    (
        "no image",
        r#"{"kind":"Pod","apiVersion":"v1","metadata":{"name":"p"},"spec":{"containers":[{"name":"c"}]}}"#,
        &["spec.containers[0].image: Required value"],
    ),
    (
        "a name in capitals",
        r#"{"kind":"Pod","apiVersion":"v1","metadata":{"name":"Upper"},"spec":{"containers":[{"name":"c","image":"i"}]}}"#,
        &[
            "metadata.name: Invalid value: \"Upper\"",
            "a lowercase RFC 1123 subdomain must consist of",
        ],
    ),
    (
        "the same container twice",
        r#"{"kind":"Pod","apiVersion":"v1","metadata":{"name":"p"},"spec":{"containers":[{"name":"c","image":"i"},{"name":"c","image":"i"}]}}"#,
        &["spec.containers[1].name: Duplicate value: \"c\""],
    ),
    (
        "a restart policy that is none",
        r#"{"kind":"Pod","apiVersion":"v1","metadata":{"name":"p"},"spec":{"restartPolicy":"Sometimes","containers":[{"name":"c","image":"i"}]}}"#,
        &[
            "spec.restartPolicy: Unsupported value: \"Sometimes\": supported values: \"Always\", \"OnFailure\", \"Never\"",
        ],
    ),
    (
        "a mount without a volume",
        r#"{"kind":"Pod","apiVersion":"v1","metadata":{"name":"p"},"spec":{"containers":[{"name":"c","image":"i","volumeMounts":[{"name":"v","mountPath":"/v"}]}]}}"#,
        &["spec.containers[0].volumeMounts[0].name: Not found: \"v\""],
    ),
    (
        "a port too large",
        r#"{"kind":"Pod","apiVersion":"v1","metadata":{"name":"p"},"spec":{"containers":[{"name":"c","image":"i","ports":[{"containerPort":70000}]}]}}"#,
        &[
            "spec.containers[0].ports[0].containerPort: Invalid value: 70000: must be between 1 and 65535, inclusive",
        ],
    ),
    (
        "a request above the limit",
        r#"{"kind":"Pod","apiVersion":"v1","metadata":{"name":"p"},"spec":{"containers":[{"name":"c","image":"i","resources":{"requests":{"cpu":"2"},"limits":{"cpu":"1"}}}]}}"#,
        &[
            "spec.containers[0].resources.requests: Invalid value: \"2\": must be less than or equal to cpu limit of 1",
        ],
    ),
    (
        "a negative grace period",
        r#"{"kind":"Pod","apiVersion":"v1","metadata":{"name":"p"},"spec":{"terminationGracePeriodSeconds":-1,"containers":[{"name":"c","image":"i","livenessProbe":{"periodSeconds":-1,"tcpSocket":{"port":1}}}]}}"#,
        &["must be greater than or equal to 0"],
    ),
    (
        "a probe with two handlers",
        r#"{"kind":"Pod","apiVersion":"v1","metadata":{"name":"p"},"spec":{"containers":[{"name":"c","image":"i","livenessProbe":{"tcpSocket":{"port":1},"exec":{"command":["x"]}}}]}}"#,
        &["may not specify more than 1 handler type"],
    ),
    (
        "a bad label value",
        r#"{"kind":"ConfigMap","apiVersion":"v1","metadata":{"name":"m","labels":{"a":"no spaces please"}}}"#,
        &[
            "metadata.labels: Invalid value: \"no spaces please\"",
            "a valid label must be an empty string or consist of",
        ],
    ),
    (
        "a selector that misses the template",
        r#"{"kind":"Deployment","apiVersion":"apps/v1","metadata":{"name":"d"},"spec":{"selector":{"matchLabels":{"a":"b"}},"template":{"metadata":{"labels":{"a":"c"}},"spec":{"containers":[{"name":"c","image":"i"}]}}}}"#,
        &[
            "spec.template.metadata.labels: Invalid value",
            "`selector` does not match template `labels`",
        ],
    ),
    (
        "no selector",
        r#"{"kind":"Deployment","apiVersion":"apps/v1","metadata":{"name":"d"},"spec":{"template":{"metadata":{"labels":{"a":"c"}},"spec":{"containers":[{"name":"c","image":"i"}]}}}}"#,
        &["spec.selector: Required value"],
    ),
    (
        "negative replicas",
        r#"{"kind":"Deployment","apiVersion":"apps/v1","metadata":{"name":"d"},"spec":{"replicas":-1,"selector":{"matchLabels":{"a":"b"}},"template":{"metadata":{"labels":{"a":"b"}},"spec":{"containers":[{"name":"c","image":"i"}]}}}}"#,
        &["spec.replicas: Invalid value: -1: must be greater than or equal to 0"],
    ),
    (
        "a service without ports",
        r#"{"kind":"Service","apiVersion":"v1","metadata":{"name":"s"},"spec":{"selector":{"a":"b"}}}"#,
        &["spec.ports: Required value"],
    ),
    (
        "a cluster IP that is none",
        r#"{"kind":"Service","apiVersion":"v1","metadata":{"name":"s"},"spec":{"clusterIP":"1.2.3","ports":[{"port":80}]}}"#,
        &["spec.clusterIPs[0]: Invalid value: \"1.2.3\""],
    ),
    (
        "a service type that is none",
        r#"{"kind":"Service","apiVersion":"v1","metadata":{"name":"s"},"spec":{"type":"Magic","ports":[{"port":80}]}}"#,
        &[
            "spec.type: Unsupported value: \"Magic\": supported values: \"ClusterIP\", \"ExternalName\", \"LoadBalancer\", \"NodePort\"",
        ],
    ),
    (
        "a key of a config map",
        r#"{"kind":"ConfigMap","apiVersion":"v1","metadata":{"name":"m"},"data":{"a/b":"c"}}"#,
        &["data[a/b]: Invalid value: \"a/b\""],
    ),
    (
        "a secret that is not base64",
        r#"{"kind":"Secret","apiVersion":"v1","metadata":{"name":"s"},"data":{"a":"***"}}"#,
        &["illegal base64 data"],
    ),
    (
        UNKNOWN_FIELD,
        r#"{"kind":"ConfigMap","apiVersion":"v1","metadata":{"name":"m"},"date":{"a":"b"}}"#,
        &["unknown field \"date\""],
    ),
    (
        "a string for a number",
        r#"{"kind":"Pod","apiVersion":"v1","metadata":{"name":"p"},"spec":{"containers":[{"name":"c","image":"i","ports":[{"containerPort":"eighty"}]}]}}"#,
        &["containerPort"],
    ),
    (
        "a kind that is none",
        r#"{"kind":"Podd","apiVersion":"v1","metadata":{"name":"p"}}"#,
        &["no matches for kind \"Podd\" in version \"v1\""],
    ),
];

fn mistakes_in_manifests(stage: &Stage) -> Result<()> {
    // Before 1.25, kubectl validates by itself and in words of its own; what is asked for here are the server's. But
    // of unknown fields the server then says nothing.
    let validates_itself = stage.kubectl.minor() < 25;
    let mut wrong = Vec::new();
    for (what, manifest, texts) in MISTAKES {
        let validate = !validates_itself || *what == UNKNOWN_FIELD;
        let refused = stage
            .kubectl
            .refused(&format!("create --validate={validate} -f -"), Some(manifest))?;
        if let Some(missing) = texts.iter().find(|text| !refused.contains(**text)) {
            wrong.push(format!("{what}: no {missing:?} in: {refused}"));
        }
    }
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}
