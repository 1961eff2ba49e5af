//! The client against servers of its contract: TLS, tokens, errors, failover, resumed watches.

mod server;

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::ConfigMap;
use keelson_api::object::{Object, ObjectKey};
use keelson_client::{
    Client, ClientConfig, EventKind, EventRecorder, Informer, InformerOptions, LeaderConfig, TokenSource,
    Write, run_as_leader,
};
use keelson_daemon::tls::PemSource;
use server::{Authority, Server, config_map};
use tokio_util::sync::CancellationToken;

fn config(authority: &Authority, servers: Vec<String>) -> ClientConfig {
    ClientConfig {
        servers,
        ca: Some(PemSource::Inline(authority.pem())),
        identity: None,
        token: Some(TokenSource::Token("secret".into())),
        insecure: false,
    }
}

/// Waits until it is so, or fails the test.
async fn until(what: &str, so: impl Fn() -> bool) {
    for _ in 0..500 {
        if so() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("not {what} within 5 s");
}

#[tokio::test]
async fn verbs_errors_and_tokens() {
    let authority = Authority::new();
    let server = Server::start(&authority).await;
    let client = Client::new(config(&authority, vec![server.url()])).unwrap();
    let maps = client.resource::<ConfigMap>();

    let made = maps.create(&config_map("a", "1")).await.unwrap();
    assert!(!made.resource_version().is_empty());
    assert_eq!(
        maps.get("default", "a").await.unwrap().data,
        config_map("a", "1").data
    );
    assert_eq!(server.state.last_token().as_deref(), Some("Bearer secret"));

    let error = maps.get("default", "none").await.unwrap_err();
    assert!(error.is_not_found());
    assert_eq!(error.message(), "configmaps \"none\" not found");

    let writes = vec![
        Write::Create(config_map("b", "1")),
        Write::Create(config_map("a", "2")),
    ];
    let results = maps.batch(writes).await.unwrap();
    assert_eq!(results[0].as_ref().unwrap()["metadata"]["name"], "b");
    assert!(results[1].as_ref().unwrap_err().is_already_exists());

    let list = maps.list("default", &Default::default()).await.unwrap();
    assert_eq!(list.items.len(), 2);
    maps.delete(&ObjectKey::new("default", "a"), &Default::default())
        .await
        .unwrap();
    assert_eq!(
        maps.list("default", &Default::default())
            .await
            .unwrap()
            .items
            .len(),
        1
    );
}

#[tokio::test]
async fn a_server_of_another_authority_is_not_talked_to() {
    let server = Server::start(&Authority::new()).await;
    let client = Client::new(config(&Authority::new(), vec![server.url()])).unwrap();
    let error = client
        .resource::<ConfigMap>()
        .get("default", "a")
        .await
        .unwrap_err();
    assert_eq!(error.reason(), "ServiceUnavailable");
    assert!(error.message().contains("connecting to"), "{error}");
    assert!(server.state.last_token().is_none());
}

#[tokio::test]
async fn watches_move_to_another_server_and_miss_nothing() {
    let authority = Authority::new();
    let (first, second) = (Server::start(&authority).await, Server::start(&authority).await);
    // Two servers of one store.
    second.share(&first);
    let client = Client::new(config(&authority, vec![first.url(), second.url()])).unwrap();
    let shutdown = CancellationToken::new();
    let informer = Informer::<ConfigMap>::start(&client, InformerOptions::default(), Vec::new(), &shutdown);
    informer.synced().await;

    let state = first.state.clone();
    state.create(config_map("before", "1"));
    let store = informer.store();
    until("seen", || store.len() == 1).await;

    first.stop().await;
    state.create(config_map("during", "1"));
    until("seen through the other server", || store.len() == 2).await;
    assert_eq!(
        state.lists(),
        1,
        "the watch was resumed, nothing was listed again"
    );
    shutdown.cancel();
}

#[tokio::test]
async fn an_expired_watch_lists_again() {
    let authority = Authority::new();
    let server = Server::start(&authority).await;
    let client = Client::new(config(&authority, vec![server.url()])).unwrap();
    let shutdown = CancellationToken::new();
    let informer = Informer::<ConfigMap>::start(&client, InformerOptions::default(), Vec::new(), &shutdown);
    informer.synced().await;
    server.state.create(config_map("a", "1"));
    until("seen", || informer.store().len() == 1).await;
    server.state.compact_and_break_watches();
    server.state.create(config_map("b", "1"));
    until("listed again", || informer.store().len() == 2).await;
    assert_eq!(server.state.lists(), 2);
    shutdown.cancel();
}

#[tokio::test]
async fn one_leads_and_the_next_takes_over_at_once() {
    let authority = Authority::new();
    let server = Server::start(&authority).await;
    let leading = Arc::new(parking_lot::Mutex::new(Vec::new()));
    let mut stops = Vec::new();
    let mut tasks = Vec::new();
    for name in ["one", "two"] {
        let client = Client::new(config(&authority, vec![server.url()])).unwrap();
        let stop = CancellationToken::new();
        let lease = LeaderConfig {
            identity: name.into(),
            ..LeaderConfig::new("kube-system", "test")
        };
        let leading = leading.clone();
        tasks.push(tokio::spawn(run_as_leader(
            client,
            lease,
            stop.clone(),
            move |token| async move {
                leading.lock().push(name);
                token.cancelled().await;
            },
        )));
        stops.push(stop);
        until("led by the first", || leading_first(&server)).await;
    }
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(*leading.lock(), ["one"]);
    stops[0].cancel();
    until("led by the second", || leading.lock().len() == 2).await;
    stops[1].cancel();
    for task in tasks {
        task.await.unwrap().unwrap();
    }
}

fn leading_first(server: &Server) -> bool {
    server.state.holder("test").is_some()
}

#[tokio::test]
async fn events_are_written_and_counted() {
    let authority = Authority::new();
    let server = Server::start(&authority).await;
    let client = Client::new(config(&authority, vec![server.url()])).unwrap();
    let shutdown = CancellationToken::new();
    let recorder = EventRecorder::new(&client, "tester", "host", &shutdown);
    let about = config_map("a", "1");
    recorder.event(&about, EventKind::Warning, "Odd", "something odd");
    until("written", || server.state.events().len() == 1).await;
    recorder.event(&about, EventKind::Warning, "Odd", "something odd");
    until("counted", || server.state.events()[0]["count"] == 2).await;
    let event = &server.state.events()[0];
    assert_eq!(
        (&event["reason"], &event["source"]["component"]),
        (&"Odd".into(), &"tester".into())
    );
    assert_eq!(event["involvedObject"]["kind"], "ConfigMap");
    shutdown.cancel();
}
