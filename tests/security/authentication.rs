//! Who callers are: tokens of issuers, of webhooks, of machines that join, and proxies that vouch for others.

use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::issuer::{Curve, Issuer};
use crate::servers::{http, webhook_config};
use keelson_tests::authority::Authority;
use keelson_tests::control_plane::{Answer, ControlPlane};

const WHO: &str = "/apis/authentication.k8s.io/v1/selfsubjectreviews";
const ME: &str = r#"{"apiVersion":"authentication.k8s.io/v1","kind":"SelfSubjectReview"}"#;

fn user(answer: &Answer) -> Result<Value> {
    ensure!(answer.code == 201, "{answer:?}");
    let review: Value = serde_json::from_str(&answer.body)?;
    Ok(review["status"]["userInfo"].clone())
}

fn who(plane: &ControlPlane, token: &str) -> Result<Value> {
    user(&plane.bearer(token, "POST", WHO, Some(ME))?)
}

fn refused(plane: &ControlPlane, token: &str) -> Result<()> {
    let answer = plane.bearer(token, "POST", WHO, Some(ME))?;
    ensure!(
        answer.code == 401 && answer.body.contains("\"Unauthorized\""),
        "{answer:?}"
    );
    Ok(())
}

#[test]
fn a_certificate_is_known_by_its_digest() -> Result<()> {
    let plane = ControlPlane::up(|_, _| Ok(Vec::new()))?;
    let me = user(&plane.admin("POST", WHO, Some(ME))?)?;
    let id = me["extra"]["authentication.kubernetes.io/credential-id"][0].as_str();
    let digest = id
        .and_then(|id| id.strip_prefix("X509SHA256="))
        .unwrap_or_default();
    let hexadecimal = |digit: u8| digit.is_ascii_digit() || (b'a'..=b'f').contains(&digit);
    ensure!(digest.len() == 64 && digest.bytes().all(hexadecimal), "{me}");
    Ok(())
}

#[test]
fn an_issuer_s_tokens_are_believed_as_long_as_they_are_good() -> Result<()> {
    let mut issuer = None;
    let plane = ControlPlane::up(|_, authority| {
        let started = Issuer::start(authority)?;
        let flags = vec![
            format!("--oidc-issuer-url={}", started.url),
            "--oidc-client-id=api".into(),
            format!("--oidc-ca-file={}", authority.certificate.display()),
            "--oidc-username-prefix=oidc:".into(),
            "--oidc-groups-claim=groups".into(),
            "--oidc-groups-prefix=g:".into(),
            "--oidc-required-claim=hd=example.com".into(),
            "--oidc-signing-algs=RS256,ES256".into(),
        ];
        issuer = Some(started);
        Ok(flags)
    })?;
    let issuer = issuer.context("an issuer")?;
    let good = json!({"sub": "jane", "groups": ["dev"], "hd": "example.com"});
    let jane = who(&plane, &issuer.token(good.clone())?)?;
    ensure!(jane["username"] == "oidc:jane", "{jane}");
    ensure!(
        jane["groups"] == json!(["g:dev", "system:authenticated"]),
        "{jane}"
    );

    let with = |key: &str, value: Value| -> Result<String> {
        let mut claims = good.clone();
        claims[key] = value;
        issuer.token(claims)
    };
    let now = jiff::Timestamp::now().as_second();
    refused(&plane, &with("exp", json!(now - 1))?)?;
    refused(&plane, &with("nbf", json!(now + 3600))?)?;
    refused(&plane, &with("aud", json!("another"))?)?;
    refused(&plane, &with("iss", json!("https://elsewhere"))?)?;
    refused(&plane, &with("hd", json!("other.com"))?)?;
    let mut forged = issuer.token(good.clone())?;
    forged.truncate(forged.len() - 8);
    forged.push_str("AAAAAAAA");
    refused(&plane, &forged)?;

    // A new key is learned when the first token comes that it signed; what the old one signed is nothing any more.
    let old = issuer.token(json!({"sub": "joe", "hd": "example.com"}))?;
    issuer.rotate("two", Curve::P256)?;
    keelson_tests::process::eventually("the new key is known", std::time::Duration::from_secs(10), || {
        who(&plane, &issuer.token(good.clone())?)
    })?;
    refused(&plane, &old)?;

    // What may be done is a question of roles, as for everybody. Nobody puts `view` together here: one of its parts does.
    let token = issuer.token(good)?;
    ensure!(plane.bearer(&token, "GET", "/api/v1/namespaces", None)?.code == 403);
    let binding = r#"{"apiVersion":"rbac.authorization.k8s.io/v1","kind":"ClusterRoleBinding","metadata":{"name":"devs"},
        "roleRef":{"apiGroup":"rbac.authorization.k8s.io","kind":"ClusterRole","name":"system:aggregate-to-view"},
        "subjects":[{"apiGroup":"rbac.authorization.k8s.io","kind":"Group","name":"g:dev"}]}"#;
    let bound = plane.admin(
        "POST",
        "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings",
        Some(binding),
    )?;
    ensure!(bound.code == 201, "{bound:?}");
    keelson_tests::process::eventually("the role counts", std::time::Duration::from_secs(10), || {
        let listed = plane.bearer(&token, "GET", "/api/v1/namespaces", None)?;
        ensure!(listed.code == 200, "{listed:?}");
        Ok(())
    })
}

#[test]
fn a_configuration_maps_claims_with_expressions() -> Result<()> {
    let mut issuer = None;
    let plane = ControlPlane::up(|folder, authority| {
        let started = Issuer::start(authority)?;
        let authority = std::fs::read_to_string(&authority.certificate)?;
        let config = json!({
            "apiVersion": "apiserver.config.k8s.io/v1",
            "kind": "AuthenticationConfiguration",
            "jwt": [{
                "issuer": {
                    "url": started.url, "audiences": ["other", "api"], "audienceMatchPolicy": "MatchAny",
                    "certificateAuthority": authority,
                },
                "claimMappings": {
                    "username": {"expression": "'user:' + claims.sub"},
                    "groups": {"expression": "claims.roles.map(r, 'role:' + r)"},
                    "uid": {"claim": "oid"},
                    "extra": [{"key": "example.com/tenant", "valueExpression": "claims.tenant"}],
                },
                "claimValidationRules": [{"expression": "claims.tenant != 'closed'", "message": "tenant is closed"}],
                "userValidationRules": [{"expression": "!user.groups.exists(g, g == 'role:banned')"}],
            }],
            "anonymous": {"enabled": true, "conditions": [{"path": "/livez"}, {"path": "/readyz"}]},
        });
        std::fs::write(folder.join("authentication.yaml"), config.to_string())?;
        issuer = Some(started);
        Ok(vec![format!(
            "--authentication-config={}",
            folder.join("authentication.yaml").display()
        )])
    })?;
    let issuer = issuer.context("an issuer")?;
    let token = |tenant: &str, role: &str| {
        issuer.token(json!({"sub": "jane", "roles": [role], "oid": "7", "tenant": tenant}))
    };
    let jane = who(&plane, &token("t1", "dev")?)?;
    ensure!(jane["username"] == "user:jane" && jane["uid"] == "7", "{jane}");
    ensure!(
        jane["groups"] == json!(["role:dev", "system:authenticated"]),
        "{jane}"
    );
    ensure!(jane["extra"]["example.com/tenant"] == json!(["t1"]), "{jane}");
    // Whatever curve the issuer's next key is on.
    issuer.rotate("two", Curve::P521)?;
    keelson_tests::process::eventually(
        "a key on P-521 is known",
        std::time::Duration::from_secs(10),
        || {
            ensure!(who(&plane, &token("t1", "dev")?)?["username"] == "user:jane");
            Ok(())
        },
    )?;
    refused(&plane, &token("closed", "dev")?)?;
    refused(&plane, &token("t1", "banned")?)?;
    // Nobody in particular is let in where the configuration says so, and nowhere else.
    ensure!(plane.curl("GET", "/livez", None, &[])?.code == 200);
    ensure!(plane.curl("GET", "/version", None, &[])?.code == 401);

    // The file counts while the server runs: what makes no sense changes nothing, and who is no issuer any more is not
    // believed.
    let file = plane.path("authentication.yaml");
    let mut config: Value = serde_json::from_str(&std::fs::read_to_string(&file)?)?;
    let reload = std::time::Duration::from_secs(30);
    std::fs::write(&file, "jwt: [{issuer: {url: 'http://nowhere'}}]")?;
    keelson_tests::process::eventually("the server says what is wrong", reload, || {
        let log = std::fs::read_to_string(plane.path("apiserver.log"))?;
        ensure!(log.contains("not used: what was there before stays"), "{log}");
        Ok(())
    })?;
    who(&plane, &token("t1", "dev")?)?;
    config["jwt"][0]["claimMappings"]["username"] = json!({"expression": "'again:' + claims.sub"});
    std::fs::write(&file, config.to_string())?;
    keelson_tests::process::eventually("names are made anew", reload, || {
        let jane = who(&plane, &token("t1", "dev")?)?;
        ensure!(jane["username"] == "again:jane", "{jane}");
        Ok(())
    })?;
    let metrics = plane.admin("GET", "/metrics", None)?.body;
    for status in ["success", "failure"] {
        let line = format!(
            "apiserver_authentication_config_controller_automatic_reloads_total{{status=\"{status}\""
        );
        ensure!(metrics.contains(&line), "{line}: {metrics}");
    }
    config["jwt"] = json!([]);
    std::fs::write(&file, config.to_string())?;
    keelson_tests::process::eventually("the issuer is not believed", reload, || {
        refused(&plane, &token("t1", "dev")?)
    })
}

#[test]
fn groups_are_asked_for_where_a_token_says_they_are() -> Result<()> {
    let mut issuers = None;
    let plane = ControlPlane::up(|_, authority| {
        let (own, other) = (Issuer::start(authority)?, Issuer::start(authority)?);
        let flags = vec![
            format!("--oidc-issuer-url={}", own.url),
            "--oidc-client-id=api".into(),
            format!("--oidc-ca-file={}", authority.certificate.display()),
            "--oidc-username-prefix=-".into(),
            "--oidc-groups-claim=groups".into(),
            "--oidc-groups-prefix=g:".into(),
            "--oidc-signing-algs=ES256".into(),
        ];
        issuers = Some((own, other));
        Ok(flags)
    })?;
    let (own, other) = issuers.context("issuers")?;
    let token = |user: &str| {
        let sources = json!({"far": {"endpoint": format!("{}/groups", other.url), "access_token": "secret"}});
        own.token(json!({"sub": user, "_claim_names": {"groups": "far"}, "_claim_sources": sources}))
    };
    other.tell_groups(other.token(json!({"groups": ["dev", "ops"]}))?)?;
    let jane = who(&plane, &token("jane")?)?;
    ensure!(
        jane["groups"] == json!(["g:dev", "g:ops", "system:authenticated"]),
        "{jane}"
    );
    // What nobody vouches for, what is for others, what says nothing: none of it makes anybody.
    let mut forged = other.token(json!({"groups": ["dev"]}))?;
    forged.truncate(forged.len() - 8);
    forged.push_str("AAAAAAAA");
    let elsewhere = other.token(json!({"groups": ["dev"], "aud": "another"}))?;
    let silent = other.token(json!({"sub": "nothing"}))?;
    for (number, wrong) in [forged, elsewhere, silent, "no token".into()]
        .into_iter()
        .enumerate()
    {
        other.tell_groups(wrong)?;
        refused(&plane, &token(&format!("joe{number}"))?)?;
    }
    // Groups in the token itself are what counts.
    let plain = own.token(json!({"sub": "joe", "groups": "dev", "_claim_names": {"groups": "far"}}))?;
    ensure!(who(&plane, &plain)?["groups"][0] == "g:dev");
    Ok(())
}

#[test]
fn a_machine_that_joins_shows_a_bootstrap_token() -> Result<()> {
    let plane = ControlPlane::up(|_, _| Ok(vec!["--enable-bootstrap-token-auth=true".into()]))?;
    let secret = |id: &str, expiration: &str, usage: &str| {
        json!({
            "apiVersion": "v1", "kind": "Secret", "type": "bootstrap.kubernetes.io/token",
            "metadata": {"name": format!("bootstrap-token-{id}"), "namespace": "kube-system"},
            "stringData": {
                "token-id": id, "token-secret": "0123456789abcdef", "expiration": expiration,
                "usage-bootstrap-authentication": usage,
                "auth-extra-groups": "system:bootstrappers:kubeadm:default-node-token",
            },
        })
        .to_string()
    };
    let secrets = "/api/v1/namespaces/kube-system/secrets";
    for (id, expiration, usage) in [
        ("goodie", "2100-01-01T00:00:00Z", "true"),
        ("oldone", "2020-01-01T00:00:00Z", "true"),
        ("signer", "2100-01-01T00:00:00Z", "false"),
    ] {
        let made = plane.admin("POST", secrets, Some(&secret(id, expiration, usage)))?;
        ensure!(made.code == 201, "{made:?}");
    }
    let machine =
        keelson_tests::process::eventually("the token is known", std::time::Duration::from_secs(10), || {
            who(&plane, "goodie.0123456789abcdef")
        })?;
    ensure!(machine["username"] == "system:bootstrap:goodie", "{machine}");
    let groups = json!([
        "system:bootstrappers",
        "system:bootstrappers:kubeadm:default-node-token",
        "system:authenticated"
    ]);
    ensure!(machine["groups"] == groups, "{machine}");
    for wrong in [
        "goodie.0123456789abcdee",
        "oldone.0123456789abcdef",
        "signer.0123456789abcdef",
        "nobody.0123456789abcdef",
    ] {
        refused(&plane, wrong)?;
    }
    let gone = plane.admin("DELETE", &format!("{secrets}/bootstrap-token-goodie"), None)?;
    ensure!(gone.code == 200, "{gone:?}");
    keelson_tests::process::eventually("the token is gone", std::time::Duration::from_secs(10), || {
        refused(&plane, "goodie.0123456789abcdef")
    })
}

#[test]
fn a_proxy_with_a_certificate_of_its_own_vouches_for_users() -> Result<()> {
    let plane = ControlPlane::up(|folder, authority| {
        let front = folder.join("front");
        std::fs::create_dir(&front)?;
        let proxies = Authority::new(&front, "front-ca")?;
        proxies.issue("front-proxy", &[])?;
        proxies.issue("another-proxy", &[])?;
        // The same name from an authority that is not asked about proxies.
        authority.issue("front-proxy", &[])?;
        Ok(vec![
            format!("--requestheader-client-ca-file={}", proxies.certificate.display()),
            "--requestheader-allowed-names=front-proxy".into(),
            "--requestheader-username-headers=X-Remote-User".into(),
            "--requestheader-group-headers=X-Remote-Group".into(),
            "--requestheader-extra-headers-prefix=X-Remote-Extra-".into(),
            "--requestheader-uid-headers=X-Remote-Uid".into(),
        ])
    })?;
    let ask = |certificate: &str| {
        let mut args = plane.certificate(certificate);
        for header in [
            "X-Remote-User: jane",
            "X-Remote-Group: dev",
            "X-Remote-Uid: 7",
            "X-Remote-Extra-Scopes: view",
        ] {
            args.extend(["-H".to_owned(), header.to_owned()]);
        }
        plane.curl("POST", WHO, Some(ME), &args)
    };
    let jane = user(&ask("front/front-proxy")?)?;
    ensure!(jane["username"] == "jane" && jane["uid"] == "7", "{jane}");
    ensure!(jane["groups"] == json!(["dev", "system:authenticated"]), "{jane}");
    ensure!(jane["extra"]["scopes"] == json!(["view"]), "{jane}");
    // A proxy nobody allowed is nobody; a client of that name is a client, whatever headers it sends.
    ensure!(ask("front/another-proxy")?.code == 401);
    ensure!(user(&ask("front-proxy")?)?["username"] == "front-proxy");
    Ok(())
}

#[test]
fn a_webhook_is_asked_about_tokens_nobody_else_knows() -> Result<()> {
    let asked = Arc::new(std::sync::Mutex::new(0));
    let counter = asked.clone();
    let port = http(Arc::new(move |_, body| {
        let review: Value = serde_json::from_str(body).ok()?;
        *counter.lock().ok()? += 1;
        let status = match review["spec"]["token"].as_str()? {
            "opaque" => json!({"authenticated": true, "user": {"username": "jane", "groups": ["dev"]}}),
            _ => json!({"authenticated": false}),
        };
        Some(json!({"kind": "TokenReview", "apiVersion": review["apiVersion"], "status": status}).to_string())
    }))?;
    let plane = ControlPlane::up(|folder, _| {
        let config = folder.join("webhook.yaml");
        std::fs::write(
            &config,
            webhook_config(&format!("http://127.0.0.1:{port}/authenticate")),
        )?;
        Ok(vec![
            format!("--authentication-token-webhook-config-file={}", config.display()),
            "--authentication-token-webhook-version=v1".into(),
        ])
    })?;
    for _ in 0..3 {
        ensure!(who(&plane, "opaque")?["username"] == "jane");
    }
    refused(&plane, "unknown")?;
    let asked = *asked.lock().map_err(|_| anyhow::anyhow!("poisoned"))?;
    ensure!(asked == 2, "answers are kept: asked {asked} times");
    Ok(())
}
