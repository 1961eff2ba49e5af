//! The decoders of the object model, fed with what nobody should send.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, Secret};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use keelson_api::apply::{self, Application, Converter, Failure, FieldSet, Managed, Manager, Operation};
use keelson_api::jsonpath::JsonPath;
use keelson_api::quantity::Amount;
use keelson_api::schema::{self, Definition, Shape, Type};
use keelson_api::selector::{FieldSelector, LabelSelector};
use keelson_api::strict::{self, FieldValidation};
use keelson_api::{Gvk, Kind, packed, patch, protobuf, validation};
use keelson_fuzz::{Counted, Fuzz, bounded, bounded_to, text};
use serde_json::{Map, Value, json};

#[global_allocator]
static ALLOCATOR: Counted = Counted;

const POD: &str = include_str!("corpus/body/pod.json");

/// What API types are made of in JSON.
const FIELDS: &[&str] = &[
    "\"apiVersion\":",
    "\"kind\":",
    "\"metadata\":",
    "\"spec\":",
    "\"status\":",
    "\"labels\":",
    "\"name\":",
    "\"containers\":",
    "\"ports\":",
    "\"data\":",
    "\"stringData\":",
    "\"$patch\":\"replace\"",
    "\"$patch\":\"delete\"",
    "\"$retainKeys\":",
    "\"$deleteFromPrimitiveList/finalizers\":",
    "\"$setElementOrder/containers\":",
    "null",
    "{}",
    "[]",
    "1e999",
    "-1",
    "\"100m\"",
    "\"1Ki\"",
    "true",
    "\\u0000",
    "\\ud83d",
];

fn fuzz(name: &str) -> Fuzz {
    Fuzz::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/corpus"), name)
}

fn definition(group: &str, version: &str, kind: &str) -> &'static Definition {
    schema::by_kind(group, version, kind).expect("a kind of the table")
}

fn pod() -> Value {
    serde_json::from_str(POD).expect("a pod")
}

/// What is read in one pass is what is read with everything looked at, and there was nothing to say.
fn plain<K: Kind + PartialEq>(kind: &'static Definition, input: &[u8]) {
    if let Some(object) = packed::plain::<K>(input) {
        let checked = strict::check(kind, input).expect("a body that can be read");
        assert!(checked.complaints.is_empty() && checked.as_it_was());
        assert!(packed::decode::<K>(input).is_ok_and(|other| other == object));
    }
}

#[test]
fn bodies_in_json() {
    let kinds = [
        definition("", "v1", "Pod"),
        definition("apps", "v1", "Deployment"),
        definition("", "v1", "Secret"),
        definition("apiextensions.k8s.io", "v1", "CustomResourceDefinition"),
    ];
    let decode = |input: &[u8]| {
        for kind in kinds {
            for wish in [
                FieldValidation::Strict,
                FieldValidation::Warn,
                FieldValidation::Ignore,
            ] {
                let Ok((read, _)) = strict::decode(kind, "v1", input, wish) else {
                    continue;
                };
                let _ = serde_json::from_slice::<Pod>(&read);
            }
        }
        if let Ok(mut value) = serde_json::from_slice::<Value>(input) {
            let _ = strict::decode_value(kinds[0], "v1", &mut value, FieldValidation::Strict);
            let _ = protobuf::encode(input);
        }
        let _ = strict::duplicates(input);
        plain::<Pod>(kinds[0], input);
        plain::<Secret>(kinds[2], input);
        plain::<CustomResourceDefinition>(kinds[3], input);
    };
    fuzz("body").words(FIELDS).rounds(2_000).run(bounded(decode));
}

/// An object of a type with something in every field, to a depth. Fields without anything in them are left out: in
/// protobuf an empty message is the same as none.
fn sample(definition: &Definition, depth: usize) -> Value {
    match definition.shape() {
        Shape::Any => json!({"any": [1, "x", null]}),
        Shape::Quantity => json!("1500m"),
        Shape::Time => json!("2026-01-02T03:04:05Z"),
        Shape::IntOrString => json!("25%"),
        Shape::Fields => {
            let fields = definition.fields().iter();
            let some =
                fields.filter_map(|field| Some((field.name().to_owned(), of_type(field.ty(), depth)?)));
            some.collect::<Map<_, _>>().into()
        }
    }
}

fn of_type(ty: &Type, depth: usize) -> Option<Value> {
    Some(match ty {
        Type::String => json!("text"),
        Type::Int32 | Type::Int64 => json!(-7),
        Type::Bool => json!(true),
        Type::Double => json!(0.5),
        Type::Bytes => json!("AP8K"),
        Type::Object => json!({"k": "v"}),
        Type::List(of) => Value::from(vec![of_type(of, depth)?]),
        Type::Map(of) => json!({"key": of_type(of, depth)?}),
        Type::Named(_) if depth == 0 => return None,
        Type::Named(id) => {
            let inside = sample(id.get(), depth - 1);
            return (inside != json!({})).then_some(inside);
        }
    })
}

/// One object of every kind that has a form in protobuf, as Go's clients would send it.
fn every_kind() -> Vec<Vec<u8>> {
    let mut sent = Vec::new();
    for definition in schema::all() {
        let Some((group, version, kind)) = definition.kinds().next() else {
            continue;
        };
        if !protobuf::supports(group, version, kind) {
            continue;
        }
        let mut object = sample(definition, 4);
        object["apiVersion"] = Gvk::new(group, version, kind).api_version().into();
        object["kind"] = kind.into();
        let bytes = serde_json::to_vec(&object).expect("a value");
        sent.extend(protobuf::encode(&bytes));
    }
    sent
}

#[test]
fn bodies_in_protobuf() {
    let kinds = every_kind();
    assert!(kinds.len() > 60, "only {} kinds were written", kinds.len());
    for object in &kinds {
        let read = protobuf::decode(object).expect("what was written is read");
        assert_eq!(protobuf::encode(&read).as_ref(), Ok(object), "{}", text(&read));
    }
    let decode = |input: &[u8]| {
        let mut framed = b"k8s\0".to_vec();
        framed.extend_from_slice(input.strip_prefix(b"k8s\0").unwrap_or(input));
        if let Ok(read) = protobuf::decode(&framed) {
            serde_json::from_slice::<Value>(&read).expect("JSON is what comes out");
            // What was read is written in one way only, which is read and written the same.
            let Ok(written) = protobuf::encode(&read) else {
                return;
            };
            let again = protobuf::decode(&written).and_then(|again| protobuf::encode(&again));
            assert_eq!(again.as_ref(), Ok(&written), "{}", text(&read));
        }
    };
    let words = [
        "\x0a",
        "\x12",
        "\x1a",
        "\x22",
        "\x00",
        "\x7f",
        "v1",
        "Pod",
        "apps/v1",
        "Deployment",
    ];
    fuzz("protobuf")
        .examples(kinds)
        .words(&words)
        .rounds(8_000)
        .run(bounded(decode));
}

#[test]
fn patches_in_json() {
    let apply = |input: &[u8]| {
        if let Ok(operations) = patch::json::parse(input) {
            let _ = patch::json::apply(&mut pod(), &operations);
        }
    };
    let words = [
        "\"op\":",
        "\"add\"",
        "\"remove\"",
        "\"move\"",
        "\"copy\"",
        "\"test\"",
        "\"replace\"",
        "\"path\":",
        "\"from\":",
        "\"value\":",
        "/-",
        "/0",
        "/01",
        "/-1",
        "~0",
        "~1",
        "~2",
        "/metadata",
        "/spec/containers",
        "\"\"",
        "/99999999999999999999",
        "[]",
        "{}",
    ];
    // Copies may take 32 MiB.
    fuzz("json-patch").words(&words).run(bounded_to(40 << 20, apply));
}

#[test]
fn patches_that_merge() {
    let kinds = [
        definition("", "v1", "Pod"),
        definition("apps", "v1", "Deployment"),
    ];
    let apply = |input: &[u8]| {
        let Ok(patch) = serde_json::from_slice::<Value>(input) else {
            return;
        };
        let mut merged = pod();
        let _ = patch::merge::apply(&mut merged, patch.clone());
        patch::merge::diff(&pod(), &merged);
        for kind in kinds {
            let _ = patch::strategic::apply(&mut pod(), patch.clone(), kind);
        }
    };
    fuzz("merge-patch")
        .words(FIELDS)
        .rounds(2_000)
        .run(bounded(apply));
}

/// One version of a kind.
struct Only(&'static Definition);

impl Converter for Only {
    fn schema(&self, version: &str) -> Option<&dyn apply::Schema> {
        (version == "v1").then_some(self.0 as &dyn apply::Schema)
    }

    fn convert(&self, _: &Value, _: &str, _: &str) -> Option<Result<Value, String>> {
        None
    }
}

fn applied(config: &Value, live: &Value, managed: &Managed) -> Result<(Option<Value>, Managed), Failure> {
    let kind = Only(definition("", "v1", "Pod"));
    let application = Application {
        config,
        live,
        exists: true,
        manager: Manager {
            name: "m".to_owned(),
            operation: Operation::Apply,
            version: "v1".to_owned(),
            subresource: String::new(),
        },
        force: true,
        reset: &FieldSet::of_fields(&[&["status"]]),
        now: Timestamp::UNIX_EPOCH,
    };
    application.validate(&kind)?;
    application.apply(managed, &kind)
}

#[test]
fn configurations_that_are_applied() {
    let apply = |input: &[u8]| {
        let Ok(config) = serde_json::from_slice::<Value>(input) else {
            return;
        };
        let Ok((Some(once), managed)) = applied(&config, &pod(), &Managed::default()) else {
            return;
        };
        // What was said once changes nothing when it is said again.
        if let Ok((Some(twice), _)) = applied(&config, &once, &managed) {
            assert_eq!(once, twice);
        }
    };
    fuzz("apply").words(FIELDS).rounds(1_500).run(bounded(apply));
}

#[test]
fn field_sets() {
    let read = |input: &[u8]| {
        if let Ok(set) = FieldSet::parse(&text(input)) {
            assert_eq!(FieldSet::parse(&set.clone().into_json()), Ok(set));
        }
    };
    let words = [
        "\"f:",
        "\"k:{\\\"",
        "\"v:",
        "\"i:",
        "\".\":{}",
        "{}",
        "\\\"",
        "\\u0000",
    ];
    fuzz("field-set").words(&words).run(bounded(read));
}

#[test]
fn selectors() {
    let labels = std::collections::BTreeMap::from([("a".to_owned(), "b".to_owned())]);
    let read = |input: &[u8]| {
        let input = text(input);
        if let Ok(selector) = input.parse::<LabelSelector>() {
            let again: LabelSelector = selector.to_string().parse().expect("its own text");
            assert_eq!(selector.matches(&labels), again.matches(&labels));
        }
        if let Ok(selector) = input.parse::<FieldSelector>() {
            let _ = selector.matches_with(|_| Some("b"));
        }
    };
    let words = [
        "in",
        "notin",
        "(",
        ")",
        ",",
        "!",
        "=",
        "==",
        "!=",
        "<",
        ">",
        "a",
        "b",
        "example.com/",
        "\\,",
        "\\=",
    ];
    fuzz("selector").words(&words).run(bounded(read));
}

#[test]
fn paths_into_json() {
    let find = |input: &[u8]| {
        if let Ok(path) = JsonPath::parse(&text(input)) {
            let _ = path.find(&pod());
        }
    };
    let words = [
        "{",
        "}",
        ".",
        "..",
        "[",
        "]",
        "*",
        "?(",
        "@",
        "==",
        "&&",
        "'",
        "\"",
        "\\",
        ":",
        "-1",
        "[0:1:1]",
        ".metadata",
        ".spec",
        "range",
        "end",
        "[?(@.name=='c')]",
        "$",
    ];
    fuzz("jsonpath").words(&words).run(bounded(find));
}

#[test]
fn quantities_names_and_addresses() {
    let read = |input: &[u8]| {
        let input = text(input);
        if let Ok(amount) = input.parse::<Amount>() {
            assert_eq!(
                amount.to_string().parse::<Amount>().map(|again| again == amount),
                Ok(true),
                "{input}"
            );
        }
        let _ = validation::parse_ip(&input);
        let _ = validation::parse_cidr(&input);
    };
    let words = [
        "m", "u", "n", "k", "Ki", "Mi", "Ei", "E", "e", "e9", "-", "+", ".", "::", "/", "/64", "255", "0x",
    ];
    fuzz("quantity").words(&words).run(bounded(read));
}
