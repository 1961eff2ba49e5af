//! What callers say about who they are, and what they call over gRPC.

use http::{HeaderMap, HeaderName, HeaderValue};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use keelson_apiserver::authentication::impersonation::act_as;
use keelson_apiserver::authentication::{
    AUTHENTICATED, MASTERS, UNAUTHENTICATED, User, bearer_token, bootstrap_token,
};
use keelson_apiserver::authorization::Authorizer;
use keelson_apiserver::authorization::config::Step;
use keelson_apiserver::grpc::writes::{Change, Wanted};
use keelson_apiserver::handlers::options::parse_delete_options;
use keelson_fuzz::bounded;
use keelson_proto::resources as proto;
use prost::Message as _;
use proto::batch_item::Write;

use super::{fuzz, text};

/// Lines as headers: what may not be in one is left out.
fn headers(lines: &str) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for line in lines.lines() {
        let (name, value) = line.split_once(": ").unwrap_or((line, ""));
        if let (Ok(name), Ok(value)) = (
            HeaderName::from_bytes(name.as_bytes()),
            HeaderValue::from_bytes(value.as_bytes()),
        ) {
            headers.append(name, value);
        }
    }
    headers
}

/// Whoever may act as anybody is somebody with a name and a place among the known or the unknown.
#[test]
fn headers_of_impersonation() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .expect("a runtime");
    let authorizer = Authorizer::new(vec![Step::Node]);
    let admin = User::named("admin", [MASTERS.to_owned()]);
    let nobody = User::named("jane", []);
    let read = |input: &[u8]| {
        let headers = headers(&text(input));
        let acting = runtime.block_on(act_as(&authorizer, &headers, &admin));
        if let Ok(Some(user)) = &acting {
            assert!(!user.name.is_empty(), "{user:?}");
            assert!(
                user.in_group(AUTHENTICATED) || user.in_group(UNAUTHENTICATED),
                "{user:?}"
            );
        }
        let refused = runtime.block_on(act_as(&authorizer, &headers, &nobody));
        assert_eq!(refused.is_ok(), matches!(acting, Ok(None)));
    };
    let examples = [
        "impersonate-user: jane\nimpersonate-group: dev\nimpersonate-group: ops\nimpersonate-uid: 7",
        "impersonate-user: system:serviceaccount:a:b\nimpersonate-extra-example.com%2fscopes: view",
        "impersonate-user: system:anonymous\nimpersonate-extra-%e2%82%ac: a\nimpersonate-extra-: b",
        "impersonate-group: dev",
    ];
    let words = [
        "\n",
        ": ",
        "impersonate-user",
        "impersonate-group",
        "impersonate-uid",
        "impersonate-extra-",
        "system:serviceaccount:",
        "system:anonymous",
        "system:masters",
        "%2f",
        "%",
        "\u{e9}",
    ];
    fuzz("impersonation")
        .examples(examples.map(|example| example.as_bytes().to_vec()))
        .words(&words)
        .rounds(2_000)
        .run(bounded(read));
}

/// A first line with credentials, the others with what is in the secret they name.
#[test]
fn bootstrap_tokens() {
    let now: jiff::Timestamp = "2026-01-01T00:00:00Z".parse().expect("a time");
    let read = |input: &[u8]| {
        let input = text(input);
        let (first, rest) = input.split_once('\n').unwrap_or((&input, ""));
        let headers = headers(&format!("authorization: {first}"));
        let Some(token) = bearer_token(&headers) else {
            return;
        };
        let data = rest.lines().filter_map(|line| line.split_once(": "));
        let secret = Secret {
            type_: Some("bootstrap.kubernetes.io/token".into()),
            data: Some(
                data.map(|(key, value)| (key.to_owned(), ByteString(value.as_bytes().to_vec())))
                    .collect(),
            ),
            ..Secret::default()
        };
        let found = bootstrap_token::owner(token, |_| Some(Box::new(secret)), now);
        let Some(Ok(user)) = found else { return };
        // Its owner is nobody but a machine that joins.
        let (id, _) = token.split_once('.').expect("two parts");
        assert_eq!(user.name, format!("system:bootstrap:{id}"));
        let joins = |group: &String| {
            group == AUTHENTICATED
                || group == "system:bootstrappers"
                || group.starts_with("system:bootstrappers:")
        };
        assert!(user.groups.iter().all(joins), "{user:?}");
    };
    let good = "Bearer abcdef.0123456789abcdef\ntoken-id: abcdef\ntoken-secret: 0123456789abcdef\n\
                usage-bootstrap-authentication: true\n";
    let examples = [
        good.to_owned(),
        format!("{good}auth-extra-groups: system:bootstrappers:a,system:bootstrappers:b:c-d\n"),
        format!("{good}expiration: 2026-01-01T00:00:01Z\n"),
        format!("{good}expiration: 2030-06-30T23:59:60.999999999+14:00\n"),
    ];
    let words = [
        "\n",
        "Bearer ",
        "bearer  ",
        ".",
        "expiration: ",
        "auth-extra-groups: ",
        "system:bootstrappers:",
        "system:masters",
        ",",
        "2026-01-01T00:00:00",
        "+00:00",
        "[UTC]",
        "Z",
        "-999999",
    ];
    fuzz("bootstrap-token")
        .examples(examples.map(String::into_bytes))
        .words(&words)
        .run(bounded(read));
}

fn target() -> Option<proto::Target> {
    Some(proto::Target {
        version: "v1".into(),
        resource: "pods".into(),
        namespace: "default".into(),
        name: "web".into(),
        ..proto::Target::default()
    })
}

/// Messages of the project's own service: what is taken in has the verb it says, and applies name their manager.
#[test]
fn calls_over_grpc() {
    let taken = |write: Write| {
        let apply = matches!(&write, Write::Patch(patch) if patch.content_type.contains("apply"));
        let (_, _, wanted) = Wanted::of(write);
        match wanted {
            Ok(Wanted::Change(Change::Patch(_), _, options)) => {
                assert!(!apply || !options.field_manager.is_empty())
            }
            Ok(_) => {}
            Err(error) => assert!((400..500).contains(&error.code()), "{error:?}"),
        }
    };
    let read = |input: &[u8]| {
        let items = proto::BatchRequest::decode(input).unwrap_or_default().items;
        items.into_iter().filter_map(|item| item.write).for_each(taken);
        if let Ok(create) = proto::CreateRequest::decode(input) {
            taken(Write::Create(create));
        }
        if let Ok(update) = proto::UpdateRequest::decode(input) {
            taken(Write::Update(update));
        }
        if let Ok(patch) = proto::PatchRequest::decode(input) {
            taken(Write::Patch(patch));
        }
        if let Ok(delete) = proto::DeleteRequest::decode(input) {
            taken(Write::Delete(delete));
        }
        if let Ok(collection) = proto::DeleteCollectionRequest::decode(input) {
            let _ = parse_delete_options(&collection.options);
        }
        let _ = (
            proto::GetRequest::decode(input),
            proto::ListRequest::decode(input),
            proto::WatchRequest::decode(input),
        );
    };
    let writes = [
        Write::Create(proto::CreateRequest {
            target: target(),
            json: r#"{"metadata":{"name":"web"}}"#.into(),
            options: Some(proto::WriteOptions {
                dry_run: true,
                field_manager: "me".into(),
                field_validation: "Strict".into(),
                ..proto::WriteOptions::default()
            }),
        }),
        Write::Patch(proto::PatchRequest {
            target: target(),
            content_type: "application/apply-patch+yaml".into(),
            body: "metadata: {name: web}".into(),
            options: Some(proto::WriteOptions {
                field_manager: "me".into(),
                force: true,
                ..proto::WriteOptions::default()
            }),
        }),
        Write::Delete(proto::DeleteRequest {
            target: target(),
            options: r#"{"propagationPolicy":"Foreground","preconditions":{"uid":"1"}}"#.into(),
        }),
    ];
    let alone = writes.iter().map(|write| match write.clone() {
        Write::Create(create) => create.encode_to_vec(),
        Write::Update(update) => update.encode_to_vec(),
        Write::Patch(patch) => patch.encode_to_vec(),
        Write::Delete(delete) => delete.encode_to_vec(),
    });
    let batch = proto::BatchRequest {
        items: writes
            .iter()
            .map(|write| proto::BatchItem {
                write: Some(write.clone()),
            })
            .collect(),
    };
    let words = [
        "application/apply-patch+yaml",
        "application/json-patch+json",
        "Strict",
        "Ignore",
        "{\"gracePeriodSeconds\":-1}",
        "{\"dryRun\":[\"All\"]}",
        "\x0a",
        "\x12",
        "\x1a",
    ];
    fuzz("grpc-call")
        .examples(alone.chain([batch.encode_to_vec()]).collect::<Vec<_>>())
        .words(&words)
        .run(bounded(read));
}
