//! What webhooks, extension servers and issuers answer.

use keelson_apiserver::admission::webhooks::review;
use keelson_apiserver::aggregator::published;
use keelson_apiserver::authentication::oidc::signer::Discovered;
use keelson_apiserver::authentication::webhook as tokens;
use keelson_apiserver::authorization::webhook as access;
use keelson_apiserver::custom::conversion;
use keelson_fuzz::bounded;
use serde_json::{Value, json};

use super::fuzz;

#[test]
fn reviews() {
    let original = json!({"apiVersion": "a.example.com/v1", "kind": "A",
        "metadata": {"name": "a", "namespace": "b", "uid": "c", "labels": {"d": "e"}}, "spec": {}});
    let audiences = ["a".to_owned()];
    let read = |input: &[u8]| {
        if let Ok(answer) = review::answer(input, "u") {
            let _ = answer.denied("w.example.com");
            if let Some(patch) = &answer.patch {
                let _ = keelson_api::patch::json::parse(patch);
            }
        }
        if let Ok(status) = tokens::status_of(input) {
            let _ = tokens::judge(status, &audiences);
        }
        let _ = access::opinion_of(input);
        for mut object in conversion::converted(input, "apiextensions.k8s.io/v1", "u").unwrap_or_default() {
            if conversion::check(&original, &object, "a.example.com/v2").is_ok() {
                let _ = conversion::restore_metadata(&original, &mut object);
            }
        }
    };
    let words = [
        "\"response\":{",
        "\"status\":{",
        "\"uid\":\"u\"",
        "\"allowed\":true",
        "\"denied\":true",
        "\"patchType\":\"JSONPatch\"",
        "\"patch\":\"W10=\"",
        "\"warnings\":[",
        "\"authenticated\":true",
        "\"user\":{",
        "\"audiences\":[",
        "\"extra\":{",
        "\"convertedObjects\":[",
        "\"result\":{\"status\":\"Success\"}",
        "\"metadata\":",
        "\"code\":-1",
        "{}",
        "[]",
        "null",
        "1e999",
    ];
    fuzz("review").words(&words).rounds(1_500).run(bounded(read));
}

#[test]
fn documents_of_other_servers() {
    let own = br#"{"swagger":"2.0","paths":{"/api/":{}},"definitions":{"io.k8s.A":{}}}"#;
    let read = |input: &[u8]| {
        if let Ok(found) = serde_json::from_slice::<Discovered>(input) {
            let _ = found.jwks_uri.parse::<http::Uri>();
        }
        let Ok(document) = serde_json::from_slice::<Value>(input) else {
            return;
        };
        let resources = document["resources"].as_array().cloned().unwrap_or_default();
        let _ = published::aggregated("a.example.com", "v1", &resources);
        let part = published::part_of_v2(&document, "/apis/a.example.com/v1");
        let _ = published::with_parts(own, &[part.into()]);
    };
    let words = [
        "\"resources\":[",
        "\"name\":\"as\"",
        "\"name\":\"as/status\"",
        "\"name\":\"/\"",
        "\"verbs\":[",
        "\"shortNames\":[",
        "\"namespaced\":true",
        "\"paths\":{",
        "\"/apis/a.example.com/v1/\":{}",
        "\"definitions\":{",
        "\"issuer\":",
        "\"jwks_uri\":",
        "{}",
        "[]",
        "null",
    ];
    fuzz("published").words(&words).rounds(1_500).run(bounded(read));
}
