//! Tokens that pods are given: who may read their files, and how anybody finds out whether they are real.

use anyhow::{Context as _, Result, ensure};
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use keelson_tests::cluster::TOOLBOX;
use ring::signature::{ECDSA_P256_SHA256_FIXED, UnparsedPublicKey};
use serde_json::{Value, json};

use crate::{Stage, Story};

pub const STORIES: &[Story] = &[
    ("a_token_for_whom_a_pod_runs_as", a_token_for_whom_a_pod_runs_as),
    (
        "a_token_that_its_issuer_vouches_for",
        a_token_that_its_issuer_vouches_for,
    ),
];

fn a_token_for_whom_a_pod_runs_as(stage: &Stage) -> Result<()> {
    let kubectl = &stage.kubectl;
    let cases = [
        ("nobody-in-particular", json!({}), "644 0 0"),
        ("a-user", json!({"runAsUser": 1000}), "600 1000 0"),
        ("a-group", json!({"fsGroup": 10000}), "640 0 10000"),
        (
            "both",
            json!({"runAsUser": 1000, "fsGroup": 10000}),
            "640 1000 10000",
        ),
    ];
    for (name, security, _) in &cases {
        let manifest = json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
            "spec": {
                "restartPolicy": "Never", "securityContext": security,
                "containers": [{
                    "name": "c", "image": TOOLBOX,
                    "command": ["sh", "-c", "stat -L -c '%a %u %g' /tokens/token; cut -d. -f3 /tokens/token | wc -l"],
                    "volumeMounts": [{"name": "tokens", "mountPath": "/tokens"}],
                }],
                "volumes": [{"name": "tokens", "projected": {"sources": [
                    {"serviceAccountToken": {"path": "token", "expirationSeconds": 86400}},
                ]}}],
            },
        });
        kubectl.feed("create -f -", &manifest.to_string())?;
    }
    for (name, _, expected) in cases {
        let said = kubectl.until(&format!("logs {name}"), |said| said.lines().count() == 2)?;
        ensure!(
            said == format!("{expected}\n1\n"),
            "{name}: {said}, not {expected}"
        );
    }
    Ok(())
}

fn a_token_that_its_issuer_vouches_for(stage: &Stage) -> Result<()> {
    let (kubectl, namespace) = (&stage.kubectl, &stage.namespace);
    let script = "d=/var/run/secrets/kubernetes.io/serviceaccount; cat $d/token; \
        for path in .well-known/openid-configuration openid/v1/jwks; do echo; \
        curl -s --cacert $d/ca.crt -H \"Authorization: Bearer $(cat $d/token)\" \
        https://$KUBERNETES_SERVICE_HOST:$KUBERNETES_SERVICE_PORT/$path; done";
    let manifest = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "doubter"},
        "spec": {
            "restartPolicy": "Never",
            "containers": [{"name": "c", "image": TOOLBOX, "command": ["sh", "-c", script]}],
        },
    });
    kubectl.feed("create -f -", &manifest.to_string())?;
    let said = kubectl.until("logs doubter", |said| said.contains("\"keys\""))?;
    let mut lines = said.lines().filter(|line| !line.is_empty());
    let mut line = || lines.next().with_context(|| format!("too little said: {said}"));
    let (token, configuration, keys) = (line()?, line()?, line()?);
    let (configuration, keys): (Value, Value) =
        (serde_json::from_str(configuration)?, serde_json::from_str(keys)?);

    let (signed, signature) = token.rsplit_once('.').context("a token of three parts")?;
    let (header, claims) = signed.split_once('.').context("a token of three parts")?;
    let read =
        |part: &str| -> Result<Value> { Ok(serde_json::from_slice(&BASE64_URL_SAFE_NO_PAD.decode(part)?)?) };
    let (header, claims) = (read(header)?, read(claims)?);
    ensure!(
        claims["iss"] == configuration["issuer"],
        "{claims} {configuration}"
    );
    ensure!(
        claims["sub"] == format!("system:serviceaccount:{namespace}:default"),
        "{claims}"
    );
    let (address, algorithms) = (
        &configuration["jwks_uri"],
        &configuration["id_token_signing_alg_values_supported"],
    );
    ensure!(
        address
            .as_str()
            .is_some_and(|address| address.ends_with("/openid/v1/jwks")),
        "{configuration}"
    );
    ensure!(*algorithms == json!([header["alg"]]), "{configuration} {header}");

    let key = keys["keys"]
        .as_array()
        .and_then(|keys| keys.iter().find(|key| key["kid"] == header["kid"]))
        .with_context(|| format!("no key of {header} in {keys}"))?;
    ensure!(key["crv"] == "P-256" && key["use"] == "sig", "{key}");
    let mut point = vec![4];
    for coordinate in ["x", "y"] {
        let text = key[coordinate].as_str().context("a coordinate")?;
        point.extend(BASE64_URL_SAFE_NO_PAD.decode(text)?);
    }
    let signature = BASE64_URL_SAFE_NO_PAD.decode(signature)?;
    UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point)
        .verify(signed.as_bytes(), &signature)
        .map_err(|_| anyhow::anyhow!("the key did not sign the token"))
}
