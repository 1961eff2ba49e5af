//! What requests bring to be computed.

use std::sync::Arc;

use bytes::Bytes;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use keelson_api::field::Path;
use keelson_api::schema;
use keelson_apiserver::cel::check::Names;
use keelson_apiserver::cel::eval::Budget;
use keelson_apiserver::cel::types::of_definition;
use keelson_apiserver::cel::value::Value as Computed;
use keelson_apiserver::cel::{Program, json};
use keelson_apiserver::custom::definition::{Definition, schema_of};
use keelson_apiserver::custom::schema::{Schema, check, defaults, formats, pattern_of, prune, rules};
use keelson_fuzz::bounded;
use serde_json::Value;

use super::{fuzz, text};

const CEL: &[&str] = &[
    "self",
    "object",
    "oldObject",
    "has(",
    "all(",
    "exists(",
    "exists_one(",
    "map(",
    "filter(",
    "cel.bind(",
    "size(",
    "matches(",
    ".split(",
    ".join(",
    ".replace(",
    ".format([",
    "%s",
    "%.3f",
    "%e",
    "%x",
    "duration('",
    "timestamp('",
    "quantity('",
    "ip('",
    "cidr('",
    "url('",
    "semver('",
    "optional.of(",
    "?.",
    "[?",
    "orValue(",
    "optMap(",
    "in",
    "&&",
    "||",
    "!",
    "?",
    ":",
    "==",
    "<=",
    "+",
    "-",
    "*",
    "/",
    "%",
    "(",
    ")",
    "[",
    "]",
    "{",
    "}",
    ",",
    ".",
    "'",
    "\"",
    "'''",
    "r'",
    "b'",
    "\\u00e9",
    "\\x41",
    "\\101",
    "1u",
    "0x7f",
    "1e9",
    "9223372036854775807",
    "-9223372036854775808",
    "null",
    "true",
    "x, x",
    "sets.contains(",
    "lists.range(",
    ".lowerAscii()",
    ".substring(",
    ".charAt(",
    ".find(",
    ".findAll(",
    "string(",
    "int(",
    "double(",
    "bytes(",
    "base64.encode(",
    "Object{",
    "JSONPatch{",
    "__if__",
    ".sort()",
    ".flatten()",
    ".reverse()",
    ".slice(",
    ".sum()",
    ".indexOf(",
    ".isSorted()",
    "math.greatest(",
    ".metadata",
    ".spec",
    ".containers",
    ".labels",
    "format.dns1123Label()",
    "type(",
    "dyn(",
    "// ",
    "\n",
];

#[test]
fn expressions() {
    let definition = schema::by_kind("", "v1", "Pod").expect("pods");
    let declared = of_definition(definition);
    let pod: Value = serde_json::from_str(include_str!("../corpus/cel-object.json")).expect("a pod");
    let run = |input: &[u8]| {
        let Ok(program) = Program::parse(&text(input)) else {
            return;
        };
        let names = vec![("object", Arc::clone(&declared)), ("self", Arc::clone(&declared))];
        let _ = program.check(Names::new(names).with_patches());
        // What the checker refuses is computed all the same: rules over unknown fields are.
        let names = ["object", "self"].map(|name| (name, Computed::json(&pod, None)));
        if let Ok(value) = program.run(names.into(), &mut Budget::new(200_000)) {
            let _ = json::of(&value);
            let _ = (value.equals(&value), value.compare(&value));
        }
    };
    fuzz("cel").words(CEL).rounds(8_000).run(bounded(run));
}

#[test]
fn definitions_and_their_schemas() {
    let objects: [Value; 2] = [
        serde_json::json!({"apiVersion": "example.com/v1", "kind": "W", "metadata": {"name": "a"},
            "spec": {"size": 3, "tags": ["a", "b"], "deep": {"x": {"y": [1, null]}}, "port": "http", "when": "1h"}}),
        serde_json::json!({"spec": {"items": [{"name": "a"}, {"name": "a"}], "unknown": {"a": 1}}}),
    ];
    let read = |input: &[u8]| {
        if let Ok(definition) = serde_json::from_slice::<CustomResourceDefinition>(input) {
            let _ = serde_json::to_vec(&definition);
        }
        let Ok(definition) = Definition::read(&Bytes::copy_from_slice(input)) else {
            return;
        };
        for version in 0..definition.versions.len() {
            let schema = Schema::compile(&schema_of(&definition.spec, version));
            let _ = rules::check(&schema, &Path::new("schema"), false);
            for object in &objects {
                let mut object = object.clone();
                prune::object(&mut object, &schema, &mut Vec::new());
                defaults::apply(&mut object, &schema);
                let _ = check::object(&object, Some(&objects[0]), &schema);
                let _ = rules::run(&object, Some(&objects[0]), &schema);
            }
        }
    };
    let words = [
        "\"type\":\"object\"",
        "\"type\":\"array\"",
        "\"type\":\"integer\"",
        "\"type\":\"string\"",
        "\"properties\":",
        "\"items\":",
        "\"additionalProperties\":",
        "\"default\":",
        "\"enum\":",
        "\"pattern\":",
        "\"format\":",
        "\"x-kubernetes-validations\":",
        "\"rule\":",
        "\"messageExpression\":",
        "\"x-kubernetes-list-type\":\"map\"",
        "\"x-kubernetes-list-type\":\"set\"",
        "\"x-kubernetes-list-map-keys\":",
        "\"x-kubernetes-int-or-string\":true",
        "\"x-kubernetes-embedded-resource\":true",
        "\"x-kubernetes-preserve-unknown-fields\":true",
        "\"nullable\":true",
        "\"maxLength\":",
        "\"multipleOf\":",
        "\"allOf\":",
        "\"not\":",
        "\"$ref\":",
        "\"(a*)*\"",
        "\"date-time\"",
        "{}",
        "[]",
        "null",
        "-1",
        "0",
        "1e999",
        "oldSelf",
    ];
    fuzz("definition").words(&words).rounds(2_000).run(bounded(read));
}

#[test]
fn formats_and_patterns() {
    let known = [
        "date-time",
        "date",
        "duration",
        "uuid",
        "ipv4",
        "ipv6",
        "cidr",
        "email",
        "hostname",
        "uri",
        "mac",
        "byte",
        "isbn10",
        "isbn13",
        "creditcard",
        "ssn",
        "hexcolor",
        "rgbcolor",
        "bsonobjectid",
        "password",
    ];
    let holds = |input: &[u8]| {
        let input = text(input);
        for format in known {
            let _ = formats::holds(format, &input);
        }
        let _ = formats::go_duration(&input);
        if let Ok(pattern) = pattern_of(&input) {
            let _ = pattern.is_match("aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaab");
        }
    };
    let words = [
        "-",
        ":",
        "T",
        "Z",
        ".",
        "h",
        "m",
        "ms",
        "µs",
        "@",
        "://",
        "%",
        "(",
        ")",
        "[",
        "]",
        "*",
        "+",
        "?",
        "{1000}",
        "{1,}",
        "\\d",
        "\\p{L}",
        "(?i)",
        "|",
        "^",
        "$",
        "[[:alpha:]]",
        "(?P<n>",
    ];
    fuzz("format").words(&words).rounds(1_000).run(bounded(holds));
}
