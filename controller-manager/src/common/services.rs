//! Services and the pods behind them.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{ObjectReference, Pod, Service, ServicePort};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use keelson_api::object::{Object as _, ObjectKey};
use keelson_api::pods::is_sidecar;
use keelson_api::selector::LabelSelector;
use keelson_client::{Event, Informer, WorkQueue};

use super::pods;

/// Pods of one service that change within this time share one write.
const PODS_WINDOW: Duration = Duration::from_millis(20);

/// The selector of a service that has one; a service without is somebody else's to fill.
#[must_use]
pub fn selector(service: &Service) -> Option<LabelSelector> {
    let labels = service
        .spec
        .as_ref()?
        .selector
        .as_ref()
        .filter(|labels| !labels.is_empty())?;
    Some(LabelSelector::from_map(labels))
}

/// The pods that a service selects.
#[must_use]
pub fn pods_of(service: &Service, selector: &LabelSelector, pods: &Informer<Pod>) -> Vec<Arc<Pod>> {
    let mut pods = pods.store().namespace(service.namespace());
    pods.retain(|pod| selector.matches(pod.labels()));
    pods
}

/// Whether a service has no cluster IP by choice.
#[must_use]
pub fn is_headless(service: &Service) -> bool {
    service.spec.as_ref().and_then(|spec| spec.cluster_ip.as_deref()) == Some("None")
}

/// Whether pods that are not ready count as ready for this service.
#[must_use]
pub fn publishes_not_ready(service: &Service) -> bool {
    service
        .spec
        .as_ref()
        .and_then(|spec| spec.publish_not_ready_addresses)
        .unwrap_or_default()
}

/// An address family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// The family of an address.
    #[must_use]
    pub fn of(address: &str) -> Self {
        if address.contains(':') { Self::V6 } else { Self::V4 }
    }

    /// As written in `spec.ipFamilies` and in `addressType`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        }
    }
}

/// The families a service has, the primary one first.
#[must_use]
pub fn families(service: &Service) -> Vec<Family> {
    let spec = service.spec.as_ref();
    let named = spec
        .and_then(|spec| spec.ip_families.as_deref())
        .unwrap_or_default();
    let mut families: Vec<Family> = named
        .iter()
        .map(|name| if name == "IPv6" { Family::V6 } else { Family::V4 })
        .collect();
    if families.is_empty() {
        let ip = spec
            .and_then(|spec| spec.cluster_ip.as_deref())
            .unwrap_or_default();
        families.push(Family::of(ip));
    }
    families
}

/// The pod's address of a family.
#[must_use]
pub fn address(pod: &Pod, family: Family) -> Option<&str> {
    pods::addresses(pod).find(|address| Family::of(address) == family)
}

/// The number of the port in the pod that a service's port leads to; `None` if the pod has no port of that name.
#[must_use]
pub fn target_port(pod: &Pod, port: &ServicePort) -> Option<i32> {
    let name = match &port.target_port {
        None => return Some(port.port),
        Some(IntOrString::Int(0)) => return Some(port.port),
        Some(IntOrString::Int(number)) => return Some(*number),
        Some(IntOrString::String(name)) if name.is_empty() => return Some(port.port),
        Some(IntOrString::String(name)) => name,
    };
    let protocol = port.protocol.as_deref().unwrap_or("TCP");
    let spec = pod.spec.as_ref()?;
    let sidecars = spec.init_containers.as_deref().unwrap_or_default().iter();
    let sidecars = sidecars.filter(|container| is_sidecar(container));
    spec.containers
        .iter()
        .chain(sidecars)
        .flat_map(|container| container.ports.as_deref().unwrap_or_default())
        .find(|own| own.name.as_ref() == Some(name) && own.protocol.as_deref().unwrap_or("TCP") == protocol)
        .map(|own| own.container_port)
}

/// The name under which DNS finds the pod below the service, if it has one.
#[must_use]
pub fn hostname(pod: &Pod, service: &Service) -> Option<String> {
    let spec = pod.spec.as_ref()?;
    let under_service = spec.subdomain.as_deref() == Some(service.name());
    spec.hostname
        .clone()
        .filter(|name| under_service && !name.is_empty())
}

/// How endpoints refer to their pod.
#[must_use]
pub fn reference(pod: &Pod) -> ObjectReference {
    ObjectReference {
        kind: Some("Pod".into()),
        namespace: pod.metadata.namespace.clone(),
        name: pod.metadata.name.clone(),
        uid: pod.metadata.uid.clone(),
        ..ObjectReference::default()
    }
}

/// Puts the services concerned by changes of pods into a queue.
pub fn enqueue_for_pods(pods: &Informer<Pod>, services: Informer<Service>, queue: WorkQueue<ObjectKey>) {
    pods.subscribe(move |event| {
        let (pod, before) = match event {
            Event::Added(pod) | Event::Deleted(pod) => (pod, None),
            Event::Updated { old, new } => {
                if !differs(old, new) {
                    return;
                }
                (
                    new,
                    Some(old).filter(|old| old.metadata.labels != new.metadata.labels),
                )
            }
        };
        // Without an address it is in no endpoints, and never was.
        if !matches!(event, Event::Updated { .. }) && pods::addresses(pod).next().is_none() {
            return;
        }
        for service in services.store().namespace(pod.namespace()) {
            let concerned = selector(&service).is_some_and(|selector| {
                selector.matches(pod.labels())
                    || before.is_some_and(|before| selector.matches(before.labels()))
            });
            if concerned {
                queue.add_after(service.key(), PODS_WINDOW);
            }
        }
    });
}

/// Whether an update of a pod can change endpoints.
fn differs(old: &Pod, new: &Pod) -> bool {
    old.uid() != new.uid()
        || pods::is_ready(old) != pods::is_ready(new)
        || pods::is_terminal(old) != pods::is_terminal(new)
        || old.metadata.deletion_timestamp.is_some() != new.metadata.deletion_timestamp.is_some()
        || old.metadata.labels != new.metadata.labels
        || !pods::addresses(old).eq(pods::addresses(new))
        || (pods::node_name(old) != pods::node_name(new) && pods::addresses(new).next().is_some())
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::{Container, ContainerPort};

    #[test]
    fn ports_are_found_by_name_and_protocol() {
        let mut pod = pods::testing::pod("a", "Running", true);
        pod.spec.get_or_insert_default().containers = vec![Container {
            ports: Some(vec![ContainerPort {
                name: Some("web".into()),
                container_port: 8080,
                ..ContainerPort::default()
            }]),
            ..Container::default()
        }];
        let port = |target: Option<IntOrString>, protocol: &str| ServicePort {
            port: 80,
            target_port: target,
            protocol: Some(protocol.into()),
            ..ServicePort::default()
        };
        assert_eq!(
            target_port(&pod, &port(Some(IntOrString::String("web".into())), "TCP")),
            Some(8080)
        );
        assert_eq!(
            target_port(&pod, &port(Some(IntOrString::String("web".into())), "UDP")),
            None
        );
        assert_eq!(
            target_port(&pod, &port(Some(IntOrString::Int(9)), "TCP")),
            Some(9)
        );
        assert_eq!(target_port(&pod, &port(None, "TCP")), Some(80));
    }
}
