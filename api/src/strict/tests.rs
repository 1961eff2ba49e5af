use super::*;
use crate::schema;

fn pod(body: &str) -> Result<Checked<'_>, String> {
    check(schema::by_kind("", "v1", "Pod").expect("pods"), body.as_bytes())
}

#[test]
fn names_what_is_unknown_or_twice() {
    let body = r#"{"kind":"Pod","Spec":{},"metadata":{"labels":{"a":"b","a":"c"},"nam":1},
        "spec":{"containers":[{"name":"a","imag":"x","ports":[{"containerPort":1,"hostPort":2,"hostPort":3}]}]}}"#;
    let checked = pod(body).expect("well typed");
    assert_eq!(
        checked.complaints,
        [
            "unknown field \"Spec\"",
            "duplicate field \"metadata.labels.a\"",
            "unknown field \"metadata.nam\"",
            "unknown field \"spec.containers[0].imag\"",
            "duplicate field \"spec.containers[0].ports[0].hostPort\"",
        ]
    );
    assert!(matches!(checked.json, Cow::Borrowed(_)));
    let error = decode(
        schema::by_kind("apps", "v1", "Deployment").expect("deployments"),
        "v1",
        br#"{"spec":{"foo":1,"bar":{"x":[1,{}]}}}"#,
        FieldValidation::Strict,
    )
    .expect_err("unknown fields");
    assert_eq!(
        error.message(),
        "Deployment in version \"v1\" cannot be handled as a Deployment: strict decoding error: \
         unknown field \"spec.foo\", unknown field \"spec.bar\""
    );
    assert_eq!(error.code(), 400);
}

#[test]
fn refuses_wrong_types() {
    for (body, wanted) in [
        (
            r#"{"spec":{"containers":[{"env":[{"name":"a","value":1}]}]}}"#,
            "json: cannot unmarshal number into Go struct field EnvVar.spec.containers.env.value of type string",
        ),
        (
            r#"{"spec":{"terminationGracePeriodSeconds":"x"}}"#,
            "json: cannot unmarshal string into Go struct field PodSpec.spec.terminationGracePeriodSeconds of type int64",
        ),
        (
            r#"{"spec":{"containers":{}}}"#,
            "json: cannot unmarshal object into Go struct field PodSpec.spec.containers of type []v1.Container",
        ),
        (
            r#"{"spec":{"priority":1.5}}"#,
            "json: cannot unmarshal number 1.5 into Go struct field PodSpec.spec.priority of type int32",
        ),
        ("[]", "json: cannot unmarshal array into Go value of type v1.Pod"),
        (
            r#"{"spec":{"overhead":{"cpu":"1x"}}}"#,
            "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'",
        ),
    ] {
        assert_eq!(pod(body).expect_err(body), wanted);
    }
    assert!(pod("{").is_err() && pod("{} x").is_err());
    assert!(pod(&format!("{{\"spec\":{}", "[".repeat(100_000))).is_err());
}

#[test]
fn rewrites_only_what_is_spelled_differently() {
    let body =
        r#"{"spec":{"overhead":{"cpu":0.5,"memory":"1024Ki"},"containers":[{"name":"a","args":[null]}]}}"#;
    let checked = pod(body).expect("well typed");
    let value: serde_json::Value = serde_json::from_slice(&checked.json).expect("json");
    assert_eq!(value["spec"]["overhead"]["cpu"], "500m");
    assert_eq!(value["spec"]["overhead"]["memory"], "1Mi");
    assert_eq!(value["spec"]["containers"][0]["args"][0], "");
    for (given, stored) in [
        ("aGV\\nsbG8=", "aGVsbG8="),
        ("aGVsbG9=", "aGVsbG8="),
        ("ZZ==", "ZQ=="),
    ] {
        let body = format!(r#"{{"data":{{"a":"{given}"}}}}"#);
        let secret = check(
            schema::by_kind("", "v1", "Secret").expect("secrets"),
            body.as_bytes(),
        );
        let stored = format!(r#"{{"data":{{"a":"{stored}"}}}}"#);
        assert_eq!(&*secret.expect("base64").json, stored.as_bytes());
    }
    let plain = pod(r#"{"spec":{"overhead":{"cpu":"500m"},"nodeName":null}}"#).expect("well typed");
    assert!(matches!(plain.json, Cow::Borrowed(_)) && plain.complaints.is_empty());
}

#[test]
fn a_condition_without_its_moment_has_the_zero_one() {
    for given in ["", r#","lastTransitionTime":null"#] {
        let body = format!(r#"{{"status":{{"conditions":[{{"type":"A"{given}}}]}}}}"#);
        let service = schema::by_kind("", "v1", "Service").expect("services");
        let checked = check(service, body.as_bytes()).expect("well typed");
        let value: Value = serde_json::from_slice(&checked.json).expect("JSON");
        assert_eq!(
            value["status"]["conditions"][0]["lastTransitionTime"],
            crate::time::ZERO
        );
        serde_json::from_value::<k8s_openapi::api::core::v1::Service>(value).expect("a service");
    }
    let told = r#"{"status":{"conditions":[{"type":"A","lastTransitionTime":"2026-01-01T00:00:00Z"}]}}"#;
    let service = schema::by_kind("", "v1", "Service").expect("services");
    assert!(check(service, told.as_bytes()).expect("well typed").as_it_was());
}
