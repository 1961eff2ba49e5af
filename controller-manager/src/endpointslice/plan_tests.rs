use super::*;
use crate::common::pods::testing;
use k8s_openapi::api::core::v1::{ServicePort, ServiceSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

fn service() -> Service {
    Service {
        metadata: ObjectMeta {
            name: Some("web".into()),
            namespace: Some("default".into()),
            uid: Some("service".into()),
            ..ObjectMeta::default()
        },
        spec: Some(ServiceSpec {
            cluster_ip: Some("10.96.0.9".into()),
            ports: Some(vec![ServicePort {
                port: 80,
                ..ServicePort::default()
            }]),
            ..ServiceSpec::default()
        }),
        ..Service::default()
    }
}

fn pods(range: std::ops::Range<usize>) -> Vec<Arc<Pod>> {
    range
        .map(|n| {
            let mut pod = testing::pod(&format!("p{n}"), "Running", true);
            pod.status.get_or_insert_default().pod_ip = Some(format!("10.244.{}.{}", n / 200, n % 200));
            Arc::new(pod)
        })
        .collect()
}

/// Carries a plan out in memory.
fn apply(existing: &[Arc<EndpointSlice>], plan: Plan) -> Vec<Arc<EndpointSlice>> {
    let mut slices: Vec<Arc<EndpointSlice>> = existing
        .iter()
        .filter(|slice| !plan.delete.iter().any(|gone| gone.name() == slice.name()))
        .filter(|slice| !plan.update.iter().any(|new| new.name() == slice.name()))
        .cloned()
        .collect();
    slices.extend(plan.update.into_iter().map(Arc::new));
    for mut new in plan.create {
        new.metadata.name = Some(format!("web-{}", slices.len() + 1000));
        slices.push(Arc::new(new));
    }
    slices
}

fn sizes(slices: &[Arc<EndpointSlice>]) -> Vec<usize> {
    let mut sizes: Vec<usize> = slices
        .iter()
        .map(|slice| slice.endpoints.as_ref().map_or(0, Vec::len))
        .collect();
    sizes.sort_unstable();
    sizes
}

fn planned(pods: &[Arc<Pod>], existing: &[Arc<EndpointSlice>]) -> Plan {
    plan(&service(), pods, existing, 100, |_| None)
}

#[test]
fn slices_hold_a_hundred() {
    let slices = apply(&[], planned(&pods(0..250), &[]));
    assert_eq!(sizes(&slices), [50, 100, 100]);
    let again = planned(&pods(0..250), &slices);
    assert!(again.create.is_empty() && again.update.is_empty() && again.delete.is_empty());
}

#[test]
fn a_few_new_pods_touch_one_slice() {
    let slices = apply(&[], planned(&pods(0..250), &[]));
    let more = planned(&pods(0..260), &slices);
    assert_eq!(
        (more.create.len(), more.update.len(), more.delete.len()),
        (0, 1, 0)
    );
    assert_eq!(sizes(&apply(&slices, more)), [60, 100, 100]);
}

#[test]
fn a_change_of_one_pod_touches_its_slice() {
    let slices = apply(&[], planned(&pods(0..250), &[]));
    let mut all = pods(0..250);
    let mut going = (*all[3]).clone();
    going.metadata.deletion_timestamp = Some(Time(jiff::Timestamp::UNIX_EPOCH));
    all[3] = Arc::new(going);
    let change = planned(&all, &slices);
    assert_eq!(
        (change.create.len(), change.update.len(), change.delete.len()),
        (0, 1, 0)
    );
    let conditions = change.update[0]
        .endpoints
        .iter()
        .flatten()
        .find(|endpoint| identity(endpoint) == "uid-p3")
        .and_then(|endpoint| endpoint.conditions.clone())
        .expect("the endpoint");
    assert_eq!(
        (conditions.ready, conditions.serving, conditions.terminating),
        (Some(false), Some(true), Some(true))
    );
}

#[test]
fn no_endpoints_leave_one_empty_slice() {
    let slices = apply(&[], planned(&[], &[]));
    assert_eq!(sizes(&slices), [0]);
    let again = planned(&[], &slices);
    assert!(again.create.is_empty() && again.update.is_empty() && again.delete.is_empty());
    // The placeholder becomes the first real slice, and the last one the placeholder.
    let filled = planned(&pods(0..5), &slices);
    assert_eq!(
        (filled.create.len(), filled.update.len(), filled.delete.len()),
        (0, 1, 0)
    );
    let slices = apply(&slices, filled);
    assert_eq!(sizes(&slices), [5]);
    let emptied = planned(&[], &slices);
    assert_eq!(
        (emptied.create.len(), emptied.update.len(), emptied.delete.len()),
        (0, 1, 0)
    );
}
