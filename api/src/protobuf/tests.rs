use proptest::prelude::*;
use serde_json::json;

use super::*;

fn round(value: Value) -> Value {
    let bytes = encode(value.to_string().as_bytes()).expect("encodes");
    serde_json::from_slice(&decode(&bytes).expect("decodes")).expect("json")
}

#[test]
fn bytes_are_those_of_go() {
    let bytes =
        encode(br#"{"apiVersion":"v1","kind":"Namespace","metadata":{"name":"a"}}"#).expect("encodes");
    let wanted = b"k8s\0\x0a\x0f\x0a\x02v1\x12\x09Namespace\x12\x05\x0a\x03\x0a\x01a\x1a\x00\x22\x00";
    assert_eq!(bytes, wanted);
    // As a Go client sends it: empty strings, structs and an absent time are written too.
    let mut sent = b"k8s\0\x0a\x0f\x0a\x02v1\x12\x09Namespace\x12".to_vec();
    let raw =
        b"\x0a\x13\x0a\x01a\x12\x00\x1a\x00\x22\x00\x2a\x00\x32\x00\x38\x00\x42\x00\x12\x00\x1a\x02\x0a\x00";
    sent.push(raw.len() as u8);
    sent.extend_from_slice(raw);
    let got: Value = serde_json::from_slice(&decode(&sent).expect("decodes")).expect("json");
    assert_eq!(
        got,
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "a"}})
    );
}

#[test]
fn what_has_no_version_of_its_own_is_written_and_read() {
    for object in [
        json!({"apiVersion": "", "kind": "APIVersions", "versions": ["v1"]}),
        json!({"apiVersion": "policy/v1beta1", "kind": "Eviction", "metadata": {"name": "a"}}),
    ] {
        let read = round(object.clone());
        for (field, value) in object.as_object().expect("an object") {
            assert_eq!(&read[field], value, "{field}");
        }
    }
}

#[test]
fn pods_come_back_whole() {
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "name": "a", "namespace": "b", "labels": {"x": "y", "empty": ""}, "creationTimestamp": "2026-01-02T03:04:05Z",
            "managedFields": [{"manager": "m", "operation": "Update", "fieldsType": "FieldsV1", "fieldsV1": {"f:spec": {}}}],
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "r", "uid": "u", "controller": false}],
        },
        "spec": {
            "terminationGracePeriodSeconds": 0, "automountServiceAccountToken": false, "hostNetwork": true,
            "containers": [{
                "name": "c", "image": "i", "args": ["-x", ""],
                "resources": {"requests": {"cpu": "100m"}},
                "ports": [{"containerPort": 80, "protocol": "TCP"}],
                "livenessProbe": {"httpGet": {"path": "/", "port": "web", "scheme": "HTTP"}, "periodSeconds": 10},
                "readinessProbe": {"tcpSocket": {"port": 80}},
                "env": [{"name": "E", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k", "optional": false}}}],
            }],
            "ephemeralContainers": [{"name": "e", "image": "j", "targetContainerName": "c"}],
            "volumes": [{"name": "v", "configMap": {"name": "cm", "defaultMode": 420}}],
            "tolerations": [{"operator": "Exists", "tolerationSeconds": -1}],
        },
        "status": {"phase": "Running", "startTime": "1969-12-31T23:59:59Z"},
    });
    assert_eq!(round(pod.clone()), pod);
}

#[test]
fn other_shapes_come_back_too() {
    for object in [
        json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "data": {"k": "aGVsbG8="}, "type": "Opaque"}),
        json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": "l"},
               "spec": {"holderIdentity": "h", "renewTime": "2026-01-02T03:04:05.123456Z", "leaseTransitions": 0}}),
        json!({"apiVersion": "v1", "kind": "PodList", "metadata": {"resourceVersion": "5"}, "items": [{"metadata": {"name": "a"}, "spec": {"containers": [{"name": "c"}]}}]}),
        json!({"apiVersion": "apps/v1", "kind": "ControllerRevision", "metadata": {"name": "r"}, "data": {"spec": {"n": [1, null]}}, "revision": 1}),
        json!({"apiVersion": "policy/v1", "kind": "DeleteOptions", "gracePeriodSeconds": 0, "propagationPolicy": "Background"}),
        json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "metadata": {"name": "t"},
               "spec": {"token": "x"}, "status": {"user": {"extra": {"k": ["a", "b"]}}}}),
        json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingWebhookConfiguration", "metadata": {"name": "w"},
               "webhooks": [{"name": "n", "sideEffects": "None", "admissionReviewVersions": ["v1"], "clientConfig": {"caBundle": "aGk="},
                             "rules": [{"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"]}]}]}),
        json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {"name": "c"},
               "spec": {"group": "g", "scope": "Namespaced", "names": {"kind": "K", "plural": "ks"}, "versions": [{"name": "v1", "served": true, "storage": true,
                 "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": true, "properties": {"a": {
                   "type": "array", "items": {"type": "number", "maximum": 1.5, "default": 0}, "additionalProperties": false}}}}}]}}),
    ] {
        assert_eq!(round(object.clone()), object);
    }
}

#[test]
fn a_list_made_item_by_item_is_the_list() {
    let items = [
        json!({"metadata": {"name": "a", "labels": {"x": "y"}}, "spec": {"containers": [{"name": "c"}]}}),
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "b"}, "status": {"phase": "Running"}}),
    ];
    let metadata = json!({"resourceVersion": "5", "continue": "more", "remainingItemCount": 7});
    for count in 0..=2 {
        let list =
            json!({"apiVersion": "v1", "kind": "PodList", "metadata": metadata, "items": items[..count]});
        let whole = encode(list.to_string().as_bytes()).expect("a list");
        let form = ListForm::of("v1", "PodList").expect("a form");
        let made: Vec<u8> = items[..count]
            .iter()
            .flat_map(|item| form.item(item.to_string().as_bytes()).expect("an item"))
            .collect();
        let (head, tail) = form.around(&metadata, made.len());
        // In another order of fields, which says nothing.
        let read = |bytes: &[u8]| decode(bytes).expect("a list");
        assert_eq!(read(&[head, made, tail].concat()), read(&whole), "{count}");
    }
    assert_eq!(
        ListForm::of("meta.k8s.io/v1", "Table")
            .expect_err("no form")
            .code(),
        406
    );
}

#[test]
fn what_has_no_form_is_refused() {
    assert_eq!(
        encode(br#"{"apiVersion":"x.io/v1","kind":"Thing"}"#)
            .expect_err("custom")
            .code(),
        406
    );
    assert_eq!(decode(b"{}").expect_err("no magic").code(), 400);
    assert_eq!(
        watch_frame("ADDED", b"xy"),
        b"\0\0\0\x0d\x0a\x05ADDED\x12\x04\x0a\x02xy"
    );
}

proptest! {
    #[test]
    fn reading_never_panics(mut bytes in prop::collection::vec(any::<u8>(), 0..80)) {
        let _ = decode(&bytes);
        let mut framed = b"k8s\0\x0a\x09\x0a\x02v1\x12\x03Pod\x12".to_vec();
        framed.push(bytes.len() as u8);
        framed.append(&mut bytes);
        let _ = decode(&framed);
    }
}
