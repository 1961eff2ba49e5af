//! Whatever a client sends: what reads it answers with an error, not with a panic, and what it takes it takes the same
//! way again.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Pod;
use keelson_api::apply::FieldSet;
use keelson_api::jsonpath::JsonPath;
use keelson_api::patch;
use keelson_api::quantity::Amount;
use keelson_api::schema;
use keelson_api::selector::{FieldSelector, LabelSelector};
use keelson_api::strict::{self, FieldValidation};
use keelson_api::{protobuf, validation};
use proptest::prelude::*;
use serde_json::Value;

const POD: &str = r#"{"apiVersion":"v1","kind":"Pod","metadata":{"name":"a","labels":{"x":"y"},"managedFields":
[{"manager":"m","operation":"Update","fieldsType":"FieldsV1","fieldsV1":{"f:spec":{"k:{\"name\":\"c\"}":{".":{}}}}}]},
"spec":{"containers":[{"name":"c","image":"i","resources":{"requests":{"cpu":"100m"}},"ports":[{"containerPort":80}],
"livenessProbe":{"httpGet":{"path":"/","port":"web"}}}],"tolerations":[{"operator":"Exists","tolerationSeconds":-1}]},
"status":{"phase":"Running","startTime":"2026-01-02T03:04:05Z"}}"#;

/// Every reader of text gets the text.
fn read_text(text: &str) {
    if let Ok(selector) = text.parse::<LabelSelector>() {
        let again: LabelSelector = selector.to_string().parse().expect("its own text");
        let labels = BTreeMap::from([("a".to_owned(), "b".to_owned())]);
        assert_eq!(selector.matches(&labels), again.matches(&labels), "{text:?}");
    }
    if let Ok(selector) = text.parse::<FieldSelector>() {
        let _ = selector.matches_with(|_| Some("b"));
    }
    if let Ok(path) = JsonPath::parse(text) {
        let pod: Value = serde_json::from_str(POD).expect("a pod");
        let _ = path.find(&pod);
    }
    let _ = text.parse::<Amount>();
    let _ = validation::parse_ip(text);
    let _ = validation::parse_cidr(text);
}

/// Every reader of bytes gets the bytes.
fn read_bytes(bytes: &[u8]) {
    for (group, version, kind) in [
        ("", "v1", "Pod"),
        ("apps", "v1", "Deployment"),
        ("", "v1", "Secret"),
    ] {
        let Some(definition) = schema::by_kind(group, version, kind) else {
            panic!("no schema for {kind}");
        };
        for wish in [
            FieldValidation::Strict,
            FieldValidation::Warn,
            FieldValidation::Ignore,
        ] {
            // What it passes over, fields that are dropped, may be anything.
            if let Ok((json, _)) = strict::decode(definition, version, bytes, wish) {
                let _ = serde_json::from_slice::<Pod>(&json);
            }
        }
    }
    if let Ok(json) = protobuf::decode(bytes) {
        serde_json::from_slice::<Value>(&json).expect("JSON is what comes out");
    }
    let _ = protobuf::encode(bytes);
    if let Ok(operations) = patch::json::parse(bytes) {
        let mut pod: Value = serde_json::from_str(POD).expect("a pod");
        let _ = patch::json::apply(&mut pod, &operations);
    }
    if let Ok(set) = FieldSet::parse(&String::from_utf8_lossy(bytes)) {
        let again = FieldSet::parse(&set.clone().into_json()).expect("its own text");
        assert_eq!(set, again);
    }
}

/// Text made of what readers look for.
fn almost() -> impl Strategy<Value = String> {
    let pieces = prop_oneof![
        Just("a"),
        Just("b"),
        Just("in"),
        Just("notin"),
        Just("("),
        Just(")"),
        Just(","),
        Just("!"),
        Just("="),
        Just("=="),
        Just("!="),
        Just("<"),
        Just(">"),
        Just("."),
        Just("["),
        Just("]"),
        Just("{"),
        Just("}"),
        Just("'"),
        Just("\""),
        Just("\\"),
        Just("*"),
        Just("@"),
        Just("?"),
        Just("$"),
        Just(":"),
        Just("/"),
        Just("-1"),
        Just("10"),
        Just("99999999999999999999"),
        Just("1e9"),
        Just("Ki"),
        Just("\u{0}"),
        Just("é"),
        Just(" "),
        Just("f:"),
        Just("k:"),
        Just("null"),
        Just("true"),
    ];
    prop::collection::vec(pieces, 0..24).prop_map(|pieces| pieces.concat())
}

/// A document with some of its bytes changed, taken out or doubled.
fn damaged(document: Vec<u8>) -> impl Strategy<Value = Vec<u8>> {
    let length = document.len();
    let damage = (0..length, any::<u8>(), 0..3usize);
    prop::collection::vec(damage, 1..6).prop_map(move |damages| {
        let mut bytes = document.clone();
        for (at, byte, how) in damages {
            let at = at % bytes.len().max(1);
            match how {
                0 => bytes[at] = byte,
                1 if bytes.len() > 1 => drop(bytes.remove(at)),
                _ => bytes.insert(at, byte),
            }
        }
        bytes
    })
}

fn sent() -> Vec<u8> {
    protobuf::encode(POD.as_bytes()).expect("a pod")
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn text_is_read_or_refused(text in almost(), noise in ".{0,40}") {
        read_text(&text);
        read_text(&noise);
    }

    #[test]
    fn bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200), text in almost()) {
        read_bytes(&bytes);
        read_bytes(text.as_bytes());
        let mut framed = b"k8s\0".to_vec();
        framed.extend_from_slice(&bytes);
        read_bytes(&framed);
    }

    #[test]
    fn damaged_documents_are_read_or_refused(json in damaged(POD.as_bytes().to_vec()), proto in damaged(sent())) {
        read_bytes(&json);
        read_bytes(&proto);
    }

    #[test]
    fn damaged_patches_are_read_or_refused(
        operations in damaged(
            br#"[{"op":"add","path":"/spec/containers/-","value":{"name":"x"}},{"op":"move","from":"/metadata/labels/x",
"path":"/metadata/labels/z~1y"},{"op":"test","path":"/status","value":null},{"op":"copy","from":"/spec","path":"/a"}]"#.to_vec(),
        ),
        fields in damaged(br#"{"f:spec":{"f:containers":{"k:{\"name\":\"c\",\"port\":80}":{".":{},"f:image":{}},"v:\"x\"":{},"i:3":{}}}}"#.to_vec()),
    ) {
        read_bytes(&operations);
        read_bytes(&fields);
    }
}

#[test]
fn depth_and_length_are_bounded() {
    for opening in ["[", "{\"a\":", "(", "a[?(@."] {
        let text = opening.repeat(100_000);
        read_text(&text);
        read_bytes(text.as_bytes());
    }
    // Messages within messages: a field of length, of the rest, over and over.
    let mut nested = vec![];
    for _ in 0..5_000 {
        let mut outer = vec![0x0a];
        let mut length = nested.len();
        while length >= 0x80 {
            outer.push((length as u8 & 0x7f) | 0x80);
            length >>= 7;
        }
        outer.push(length as u8);
        outer.extend_from_slice(&nested);
        nested = outer;
    }
    let mut framed = b"k8s\0".to_vec();
    framed.extend_from_slice(&nested);
    read_bytes(&framed);
}
