use jiff::Timestamp;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod, ResourceQuota, Service};
use serde_json::{Value, json};

use super::*;

fn read<T: serde::de::DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).expect("an object")
}

fn shown(amounts: &Amounts) -> Value {
    json!(quantities(amounts))
}

fn pod() -> Pod {
    read(json!({"spec": {"containers": [
        {"name": "a", "resources": {"requests": {"cpu": "500m", "memory": "1Gi", "example.com/gpu": "1"}, "limits": {"cpu": "1"}}},
        {"name": "b"}]}}))
}

#[test]
fn pods_are_measured_by_what_they_ask_for() {
    let pods = GroupResource::core("pods");
    let usage = usage(&pods, Counted::Pod(&pod()), Timestamp::UNIX_EPOCH);
    assert_eq!(
        shown(&usage),
        json!({"count/pods": "1", "pods": "1", "cpu": "500m", "requests.cpu": "500m", "memory": "1Gi",
               "requests.memory": "1Gi", "limits.cpu": "1", "requests.example.com/gpu": "1"})
    );
    let mut ended = pod();
    ended.status.get_or_insert_default().phase = Some("Succeeded".into());
    let usage = super::usage(&pods, Counted::Pod(&ended), Timestamp::UNIX_EPOCH);
    assert_eq!(shown(&usage), json!({"count/pods": "1"}));
}

#[test]
fn what_a_quota_limits_has_to_be_said() {
    let pod = pod();
    let pod = Counted::Pod(&pod);
    assert_eq!(unsaid(&["pods", "cpu"], pod).as_deref(), Some("cpu for: b"));
    assert_eq!(
        unsaid(&["limits.memory", "requests.cpu"], pod).as_deref(),
        Some("limits.memory for: a,b; requests.cpu for: b")
    );
    assert_eq!(unsaid(&["pods"], pod), None);
}

#[test]
fn services_and_claims_are_measured() {
    let service: Service =
        read(json!({"spec": {"type": "LoadBalancer", "ports": [{"port": 1}, {"port": 2}]}}));
    let of = |service: &Service| {
        shown(&usage(
            &GroupResource::core("services"),
            Counted::Service(service),
            Timestamp::UNIX_EPOCH,
        ))
    };
    assert_eq!(
        of(&service),
        json!({"count/services": "1", "services": "1", "services.loadbalancers": "1", "services.nodeports": "2"})
    );
    let claim: PersistentVolumeClaim =
        read(json!({"spec": {"storageClassName": "gold", "resources": {"requests": {"storage": "5Gi"}}}}));
    let usage = usage(
        &GroupResource::core("persistentvolumeclaims"),
        Counted::Claim(&claim),
        Timestamp::UNIX_EPOCH,
    );
    assert_eq!(
        shown(&usage),
        json!({"count/persistentvolumeclaims": "1", "persistentvolumeclaims": "1", "requests.storage": "5Gi",
               "gold.storageclass.storage.k8s.io/persistentvolumeclaims": "1",
               "gold.storageclass.storage.k8s.io/requests.storage": "5Gi"})
    );
}

#[test]
fn names_belong_to_resources() {
    let names: Vec<String> = [
        "pods",
        "services",
        "requests.example.com/gpu",
        "requests.storage",
        "count/pods",
    ]
    .map(str::to_owned)
    .to_vec();
    let pod = pod();
    let of_pods = limited(&GroupResource::core("pods"), Counted::Pod(&pod), names.iter());
    assert_eq!(of_pods, ["pods", "requests.example.com/gpu", "count/pods"]);
    assert_eq!(
        counted_resource("count/deployments.apps"),
        Some(GroupResource::new("apps", "deployments"))
    );
    assert_eq!(counted_resource("secrets"), Some(GroupResource::core("secrets")));
    assert_eq!(counted_resource("cpu"), None);
}

#[test]
fn scopes_choose_pods() {
    let quota = |spec: Value| -> ResourceQuota { read(json!({"spec": spec})) };
    let mut best_effort = pod();
    best_effort.spec = read(json!({"priorityClassName": "high", "containers": [{"name": "a"}]}));
    let best_effort = Counted::Pod(&best_effort);
    assert!(in_scope(
        &quota(json!({"scopes": ["BestEffort", "NotTerminating"]})),
        best_effort
    ));
    assert!(!in_scope(
        &quota(json!({"scopes": ["NotBestEffort"]})),
        best_effort
    ));
    let class = |operator: &str| {
        quota(json!({"scopeSelector": {"matchExpressions":
            [{"scopeName": "PriorityClass", "operator": operator, "values": ["high"]}]}}))
    };
    assert!(in_scope(&class("In"), best_effort) && !in_scope(&class("NotIn"), best_effort));
    assert!(!in_scope(
        &quota(json!({"scopes": ["BestEffort"]})),
        Counted::Other
    ));
}
