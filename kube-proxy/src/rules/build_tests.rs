//! From Services and EndpointSlices, as the API serves them, to nft's text.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use serde_json::{Value, json};

use super::*;

fn options() -> Options {
    Options {
        table: "keelson".into(),
        cluster_cidrs: vec!["10.244.0.0/16".parse().expect("a range")],
        nodeport_addresses: vec![],
        masquerade_all: false,
        masquerade_mark: 0x4000,
    }
}

fn service(spec: Value) -> Arc<Service> {
    let object = json!({ "apiVersion": "v1", "kind": "Service", "metadata": { "namespace": "ns", "name": "web" }, "spec": spec });
    Arc::new(serde_json::from_value(object).expect("a service"))
}

/// `(address, node, ready, draining)` each.
fn slice(endpoints: &[(&str, &str, bool, bool)]) -> Arc<EndpointSlice> {
    let endpoints: Vec<Value> = endpoints
        .iter()
        .map(|(address, node, ready, draining)| {
            json!({
                "addresses": [address],
                "nodeName": node,
                "conditions": { "ready": ready, "serving": ready | draining, "terminating": draining },
            })
        })
        .collect();
    let object = json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": { "namespace": "ns", "name": "web-x", "labels": { "kubernetes.io/service-name": "web" } },
        "ports": [{ "name": "http", "port": 8080, "protocol": "TCP" }],
        "endpoints": endpoints,
    });
    Arc::new(serde_json::from_value(object).expect("a slice"))
}

fn table(services: &[Arc<Service>], slices: &[Arc<EndpointSlice>]) -> Table {
    build(&options(), Family::V4, &service_ports(services, slices, "here"))
}

fn port(more: Value) -> Value {
    let mut port = json!({ "name": "http", "port": 80, "targetPort": "http", "protocol": "TCP" });
    if let (Some(port), Some(more)) = (port.as_object_mut(), more.as_object()) {
        port.extend(more.clone());
    }
    port
}

fn cluster_ip(more: Value) -> Arc<Service> {
    let mut spec =
        json!({ "clusterIP": "10.96.0.7", "clusterIPs": ["10.96.0.7"], "ports": [port(json!({}))] });
    if let (Some(spec), Some(more)) = (spec.as_object_mut(), more.as_object()) {
        spec.extend(more.clone());
    }
    service(spec)
}

fn rules<'a>(table: &'a Table, chain: &str) -> Vec<&'a str> {
    table
        .chains
        .get(chain)
        .map(|chain| chain.rules.iter().map(String::as_str).collect())
        .unwrap_or_default()
}

fn elements<'a>(table: &'a Table, set: &str) -> Vec<(&'a str, &'a str)> {
    table.sets[set]
        .elements
        .iter()
        .map(|(key, value)| (key.as_str(), value.as_str()))
        .collect()
}

#[test]
fn a_cluster_ip_is_one_element_and_one_choice() {
    let endpoints = slice(&[
        ("10.244.0.5", "here", true, false),
        ("10.244.1.9", "there", true, false),
    ]);
    let table = table(&[cluster_ip(json!({}))], &[endpoints]);
    assert_eq!(
        elements(&table, "service-ips"),
        [("10.96.0.7 . tcp . 80", "goto svc/ns/web/tcp/80")]
    );
    assert_eq!(
        rules(&table, "svc/ns/web/tcp/80"),
        [
            "meta l4proto tcp dnat ip to numgen random mod 2 map { 0 : 10.244.0.5 . 8080, 1 : 10.244.1.9 . 8080 }"
        ]
    );
    assert_eq!(
        elements(&table, "hairpin"),
        [("10.244.0.5 . 10.244.0.5", "")],
        "only what runs here"
    );
    assert!(elements(&table, "node-ports").is_empty());
}

#[test]
fn without_endpoints_the_client_is_refused_at_once() {
    let table = table(
        &[cluster_ip(json!({}))],
        &[slice(&[("10.244.0.5", "here", false, false)])],
    );
    assert_eq!(
        elements(&table, "no-endpoints"),
        [("10.96.0.7 . tcp . 80", "goto refuse")]
    );
    assert!(elements(&table, "service-ips").is_empty());
}

#[test]
fn what_drains_answers_only_when_nothing_is_ready() {
    let draining = ("10.244.0.5", "here", false, true);
    let alone = table(&[cluster_ip(json!({}))], &[slice(&[draining])]);
    assert_eq!(
        rules(&alone, "svc/ns/web/tcp/80"),
        ["meta l4proto tcp dnat to 10.244.0.5:8080"]
    );
    let both = table(
        &[cluster_ip(json!({}))],
        &[slice(&[draining, ("10.244.0.6", "here", true, false)])],
    );
    assert_eq!(
        rules(&both, "svc/ns/web/tcp/80"),
        ["meta l4proto tcp dnat to 10.244.0.6:8080"]
    );
}

#[test]
fn a_node_port_with_local_policy_keeps_clients_addresses_and_is_silent_elsewhere() {
    let web = || {
        cluster_ip(json!({
            "type": "NodePort", "externalTrafficPolicy": "Local", "ports": [port(json!({ "nodePort": 30080 }))],
        }))
    };
    let here = table(
        &[web()],
        &[slice(&[
            ("10.244.0.5", "here", true, false),
            ("10.244.1.9", "there", true, false),
        ])],
    );
    assert_eq!(
        elements(&here, "node-ports"),
        [("tcp . 30080", "goto ext/ns/web/tcp/80")]
    );
    assert_eq!(
        rules(&here, "ext/ns/web/tcp/80"),
        [
            "ip saddr 10.244.0.0/16 goto svc/ns/web/tcp/80",
            "fib saddr type local jump mark-for-masquerade",
            "fib saddr type local goto svc/ns/web/tcp/80",
            "goto loc/ns/web/tcp/80",
        ]
    );
    assert_eq!(
        rules(&here, "loc/ns/web/tcp/80"),
        ["meta l4proto tcp dnat to 10.244.0.5:8080"]
    );
    let elsewhere = table(&[web()], &[slice(&[("10.244.1.9", "there", true, false)])]);
    assert_eq!(
        elements(&elsewhere, "no-endpoint-node-ports"),
        [("tcp . 30080", "drop")]
    );
    assert!(!elsewhere.chains.contains_key("loc/ns/web/tcp/80"));
}

#[test]
fn affinity_remembers_clients_for_the_given_time() {
    let sticky = cluster_ip(json!({
        "sessionAffinity": "ClientIP", "sessionAffinityConfig": { "clientIP": { "timeoutSeconds": 60 } },
    }));
    let table = table(&[sticky], &[slice(&[("10.244.0.5", "here", true, false)])]);
    assert_eq!(
        table.sets["aff/ns/web/tcp/80/10.244.0.5/8080"].declaration,
        "type ipv4_addr; flags dynamic,timeout; timeout 60s;"
    );
    assert_eq!(
        rules(&table, "svc/ns/web/tcp/80"),
        [
            "ip saddr @aff/ns/web/tcp/80/10.244.0.5/8080 goto ep/ns/web/tcp/80/10.244.0.5/8080",
            "numgen random mod 1 vmap { 0 : goto ep/ns/web/tcp/80/10.244.0.5/8080 }",
        ]
    );
}

#[test]
fn headless_external_and_foreign_services_are_left_alone() {
    let headless = service(json!({ "clusterIP": "None", "ports": [port(json!({}))] }));
    let external = service(json!({ "type": "ExternalName", "externalName": "x.example" }));
    let mut foreign = (*cluster_ip(json!({}))).clone();
    foreign.metadata.labels = Some(
        [(
            "service.kubernetes.io/service-proxy-name".to_owned(),
            "x".to_owned(),
        )]
        .into(),
    );
    assert!(service_ports(&[headless, external, Arc::new(foreign)], &[], "here").is_empty());
}

#[test]
fn the_difference_is_only_what_changed() {
    let before = table(
        &[cluster_ip(json!({}))],
        &[slice(&[("10.244.0.5", "here", true, false)])],
    );
    let after = table(
        &[cluster_ip(json!({}))],
        &[slice(&[("10.244.0.6", "here", true, false)])],
    );
    assert_eq!(difference(&before, &before).as_deref(), Some(""));
    assert_eq!(
        difference(&before, &after).as_deref(),
        Some(
            "flush chain ip keelson svc/ns/web/tcp/80\n\
             add rule ip keelson svc/ns/web/tcp/80 meta l4proto tcp dnat to 10.244.0.6:8080\n\
             delete element ip keelson hairpin { 10.244.0.5 . 10.244.0.5 }\n\
             add element ip keelson hairpin { 10.244.0.6 . 10.244.0.6 }\n"
        )
    );
    let none = table(&[], &[]);
    assert_eq!(
        difference(&after, &none).as_deref(),
        Some(
            "delete element ip keelson cluster-ips { 10.96.0.7 }\n\
             delete element ip keelson hairpin { 10.244.0.6 . 10.244.0.6 }\n\
             delete element ip keelson service-ips { 10.96.0.7 . tcp . 80 : goto svc/ns/web/tcp/80 }\n\
             flush chain ip keelson svc/ns/web/tcp/80\n\
             delete chain ip keelson svc/ns/web/tcp/80\n"
        )
    );
}

#[test]
fn a_changed_affinity_time_needs_the_whole_table() {
    let sticky = |seconds: i32| {
        let service = cluster_ip(json!({
            "sessionAffinity": "ClientIP", "sessionAffinityConfig": { "clientIP": { "timeoutSeconds": seconds } },
        }));
        table(&[service], &[slice(&[("10.244.0.5", "here", true, false)])])
    };
    assert_eq!(difference(&sticky(60), &sticky(90)), None);
}
