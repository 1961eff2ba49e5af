use serde_json::{Value, json};

use super::claims::Mapping;
use super::config::{AuthenticationConfiguration, OidcArgs};
use super::keys::{Algorithm, Key};

fn config(jwt: &str) -> Result<AuthenticationConfiguration, String> {
    let text = format!("apiVersion: apiserver.config.k8s.io/v1\nkind: AuthenticationConfiguration\n{jwt}");
    AuthenticationConfiguration::parse(&text).map_err(|error| format!("{error:#}"))
}

const ISSUER: &str = "issuer: {url: 'https://issuer', audiences: [api]}";

fn user(rest: &str, claims: Value) -> Result<crate::authentication::User, String> {
    let config = config(&format!("jwt:\n- {ISSUER}\n{rest}"))?;
    let Value::Object(claims) = claims else {
        panic!("claims are an object")
    };
    Mapping::new(&config.jwt[0])?.user(claims)
}

#[test]
fn claims_become_users() {
    let rest = "  claimMappings: {username: {claim: email, prefix: 'oidc:'}, groups: {claim: roles, prefix: 'g:'}}\n";
    let jane = user(
        rest,
        json!({"email": "j@x", "email_verified": true, "roles": ["a", "b"]}),
    )
    .expect("jane");
    assert_eq!(jane.name, "oidc:j@x");
    assert_eq!(jane.groups, ["g:a", "g:b", "system:authenticated"]);
    let one = user(rest, json!({"email": "j@x", "roles": "a"})).expect("jane");
    assert_eq!(one.groups, ["g:a", "system:authenticated"]);
    assert_eq!(
        user(rest, json!({"email": "j@x", "email_verified": false})),
        Err("oidc: email not verified".into())
    );
    assert!(user(rest, json!({"sub": "j"})).is_err());
    assert!(user(rest, json!({"email": "j", "roles": 7})).is_err());
}

#[test]
fn expressions_map_and_judge() {
    let rest = "  claimMappings:\n    username: {expression: \"'u:' + claims.sub\"}\n    \
                groups: {expression: 'claims.roles.filter(r, r != \"secret\")'}\n    \
                uid: {claim: id}\n    extra: [{key: example.com/tenant, valueExpression: 'claims.?tenant.orValue(\"\")'}]\n  \
                claimValidationRules:\n  - {claim: hd, requiredValue: example.com}\n  \
                - {expression: 'claims.exp - claims.iat <= 3600', message: too long}\n  \
                userValidationRules:\n  - {expression: \"!user.username.startsWith('u:system:')\", message: reserved}\n";
    let claims = |sub: &str, exp: i64| json!({"sub": sub, "roles": ["dev", "secret"], "id": "7", "hd": "example.com", "iat": 0, "exp": exp});
    let jane = user(rest, claims("jane", 3600)).expect("jane");
    assert_eq!((jane.name.as_str(), jane.uid.as_str()), ("u:jane", "7"));
    assert_eq!(jane.groups, ["dev", "system:authenticated"]);
    assert!(jane.extra.is_empty());
    let mut of_tenant = claims("jane", 3600);
    of_tenant["tenant"] = json!("t1");
    assert_eq!(
        user(rest, of_tenant).expect("jane").extra["example.com/tenant"],
        ["t1"]
    );
    assert!(
        user(rest, claims("jane", 3601))
            .expect_err("too long")
            .ends_with("failed: too long")
    );
    assert!(
        user(rest, claims("system:x", 1))
            .expect_err("reserved")
            .ends_with("failed: reserved")
    );
    let mut elsewhere = claims("jane", 1);
    elsewhere["hd"] = json!("other.com");
    assert_eq!(
        user(rest, elsewhere),
        Err("oidc: required claim hd value does not match. Got = other.com, want = example.com".into())
    );
}

#[test]
fn configurations_that_make_no_sense_are_refused() {
    let username = "claimMappings: {username: {claim: sub, prefix: ''}}";
    for (jwt, why) in [
        (
            "jwt: [{issuer: {url: 'http://a', audiences: [b]}}]".to_owned(),
            "URL scheme must be https",
        ),
        (
            format!("jwt: [{{issuer: {{url: 'https://a'}}, {username}}}]"),
            "at least one jwt.issuer.audiences",
        ),
        (
            format!("jwt: [{{issuer: {{url: 'https://a', audiences: [a, b]}}, {username}}}]"),
            "audienceMatchPolicy must be MatchAny",
        ),
        (format!("jwt: [{{{ISSUER}}}]"), "claim or expression is required"),
        (
            format!("jwt: [{{{ISSUER}, claimMappings: {{username: {{claim: sub}}}}}}]"),
            "prefix is required when claim is set",
        ),
        (
            format!("jwt: [{{{ISSUER}, claimMappings: {{username: {{expression: '1 + 1'}}}}}}]"),
            "must evaluate to string",
        ),
        (
            format!("jwt: [{{{ISSUER}, claimMappings: {{username: {{expression: 'nothing.sub'}}}}}}]"),
            "undeclared reference",
        ),
        (
            format!("jwt: [{{{ISSUER}, claimMappings: {{username: {{expression: claims.email}}}}}}]"),
            "claims.email_verified must be used",
        ),
        (
            format!("jwt: [{{{ISSUER}, {username}}}, {{{ISSUER}, {username}}}]"),
            "Duplicate value",
        ),
        (
            format!(
                "jwt: [{{issuer: {{url: 'https://a', audiences: [a, a], audienceMatchPolicy: MatchAny}}, {username}}}]"
            ),
            "audiences[1]: Duplicate value",
        ),
        (
            format!(
                "jwt: [{{issuer: {{url: 'https://a', audiences: [a], audienceMatchPolicy: MatchAll}}, {username}}}]"
            ),
            "must be empty or MatchAny for single audience",
        ),
        (
            format!(
                "jwt: [{{issuer: {{url: 'https://a', audiences: [a], egressSelectorType: etcd}}, {username}}}]"
            ),
            "egress selector must be either controlplane or cluster",
        ),
        (
            format!(
                "jwt: [{{issuer: {{url: 'https://a', audiences: [a], certificateAuthority: x}}, {username}}}]"
            ),
            "certificateAuthority: Invalid value: \"<omitted>\"",
        ),
        (
            format!(
                "jwt: [{{issuer: {{url: 'https://a', audiences: [a], discoveryURL: 'https://a/'}}, {username}}}]"
            ),
            "discoveryURL must be different from URL",
        ),
        (
            format!(
                "jwt: [{{issuer: {{url: 'https://a', audiences: [a], discoveryURL: 'https://c/d'}}, {username}}}, \
                 {{issuer: {{url: 'https://b', audiences: [a], discoveryURL: 'https://c/d'}}, {username}}}]"
            ),
            "jwt[1].issuer.discoveryURL: Duplicate value",
        ),
        (
            format!("jwt: [{{{ISSUER}, {username}, claimValidationRules: [{{claim: a, message: no}}]}}]"),
            "may not be specified when claim is set",
        ),
        (
            format!(
                "jwt: [{{{ISSUER}, {username}, claimValidationRules: [{{expression: 'true', requiredValue: a}}]}}]"
            ),
            "may not be specified when expression is set",
        ),
        (
            format!("jwt: [{{{ISSUER}, {username}, claimValidationRules: [{{claim: a}}, {{claim: a}}]}}]"),
            "claimValidationRules[1].claim: Duplicate value",
        ),
        (
            format!(
                "jwt: [{{{ISSUER}, {username}, userValidationRules: [{{expression: 'true'}}, {{expression: 'true'}}]}}]"
            ),
            "userValidationRules[1].expression: Duplicate value",
        ),
        (
            format!(
                "jwt: [{}]",
                vec![format!("{{{ISSUER}, {username}}}"); 65].join(", ")
            ),
            "must have at most 64 items",
        ),
        (
            "anonymous: {enabled: false, conditions: [{path: /livez}]}".to_owned(),
            "enabled should be set to true",
        ),
    ] {
        let error = config(&jwt).expect_err(&jwt);
        assert!(error.contains(why), "{jwt}: {error}");
    }
}

#[test]
fn there_is_one_way_out_whatever_it_is_called() {
    for way in [
        "",
        "egressSelectorType: controlplane",
        "egressSelectorType: cluster",
    ] {
        let issuer = format!("issuer: {{url: 'https://a', audiences: [a], {way}}}");
        let rest = "claimMappings: {username: {claim: sub, prefix: ''}}";
        assert!(config(&format!("jwt: [{{{issuer}, {rest}}}]")).is_ok(), "{way}");
    }
}

#[test]
fn flags_say_the_same_as_a_file_would() {
    let args = OidcArgs {
        oidc_issuer_url: Some("https://issuer".into()),
        oidc_client_id: Some("api".into()),
        oidc_username_claim: "sub".into(),
        oidc_required_claim: vec!["hd=x".into()],
        oidc_signing_algs: vec!["ES256".into()],
        ..OidcArgs::default()
    };
    let (issuers, algorithms, anonymous) = args.configured().expect("configured");
    assert_eq!(algorithms, [Algorithm::Es256]);
    assert!(anonymous.is_none());
    let mapping = Mapping::new(&issuers[0]).expect("a mapping");
    let claims = json!({"sub": "jane", "hd": "x"});
    let jane = mapping
        .user(claims.as_object().cloned().unwrap_or_default())
        .expect("jane");
    assert_eq!(jane.name, "https://issuer#jane");
    let half = OidcArgs {
        oidc_issuer_url: Some("https://issuer".into()),
        ..OidcArgs::default()
    };
    assert!(half.configured().is_err());
}

/// RFC 7515, A.2 and A.3, and a signature that OpenSSL made on P-521.
#[test]
fn signatures_of_the_standard_are_verified() {
    let rsa = json!({"kty": "RSA", "e": "AQAB", "n": "ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yRT-SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ"});
    let ec = json!({"kty": "EC", "crv": "P-256", "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU", "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"});
    let p521 = json!({"kty": "EC", "crv": "P-521", "x": "AYqExFdN7JT53NSwsYwJWiMvKkWXFo_hU7gpgYnsK2MBi6XhPCnZnQ0hsH_LGOMt_Hrnz2ZvPhcQQWmL08eOubTP", "y": "ART8m0QdPWpPjrlA8FSpRO4E5rHCjjMLD1pQ2kW4sGKckPwCjzVSDLgfwz_CQsa9Zmu2zzIowe1Fa2o231Srihtb"});
    let claims =
        "eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ";
    for (jwk, algorithm, header, payload, signature) in [
        (
            &rsa,
            Algorithm::Rs256,
            "eyJhbGciOiJSUzI1NiJ9",
            claims,
            "cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF5YKt_O8W2Fp5jujGbds9uJdbF9CUAr7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBMHlb1L07Qe7K0GarZRmB_eSN9383LcOLn6_dO--xi12jzDwusC-eOkHWEsqtFZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5AXLIhWkWywlVmtVrBp0igcN_IoypGlUPQGe77Rw",
        ),
        (
            &ec,
            Algorithm::Es256,
            "eyJhbGciOiJFUzI1NiJ9",
            claims,
            "DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q",
        ),
        (
            &p521,
            Algorithm::Es512,
            "eyJhbGciOiJFUzUxMiJ9",
            "UGF5bG9hZA",
            "ANr9zYfcyntKncbYComo2VbPfnbSWbztAoj_eyc1-A16-_uaCeOFomjtqHiwoTtESfAanyuXyGLujlfekSJZx1euAAZoKRf8oH8UbE5lgiTgLtV1_37nb0sVu7ovlI1W0XxreAIwupXeYsNGrdhwTpKQn_naHu9-n5c6Oju0SZfbrJSr",
        ),
    ] {
        use base64::Engine as _;
        let key = Key::parse(jwk).expect("a key");
        let message = format!("{header}.{payload}");
        let signature = super::B64.decode(signature).expect("base64");
        assert!(
            key.verifies(algorithm, message.as_bytes(), &signature),
            "{algorithm:?}"
        );
        assert!(!key.verifies(algorithm, b"another message", &signature));
        assert!(!key.verifies(Algorithm::Ps256, message.as_bytes(), &signature));
    }
    assert!(Key::parse(&json!({"kty": "oct", "k": "AA"})).is_none());
    assert!(Key::parse(&json!({"kty": "EC", "crv": "P-256", "x": "AA", "y": "AA", "use": "enc"})).is_none());
}
