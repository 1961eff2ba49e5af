//! A change of what the containers of a pod may use: `pods/resize`.
//!
//! Source: KEP-1287 and core validation's `ValidatePodResize`.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    Container, ContainerStatus, Pod, PodSpec, ResourceClaim, ResourceRequirements,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use keelson_api::field::Errors;
use keelson_api::pods::{is_mirror, is_sidecar, qos_class};

use crate::registry::common::loc::Loc;

/// Resources as they are to be, and as they are.
type Change<'r> = (Option<&'r ResourceRequirements>, Option<&'r ResourceRequirements>);

/// The pod with other resources, against what it is.
pub fn pod(new: &Pod, old: &Pod) -> Errors {
    let (Some(new_spec), Some(old_spec)) = (&new.spec, &old.spec) else {
        return Errors::new();
    };
    let object = Loc::new("");
    if is_mirror(old) {
        return vec![object.forbidden("static pods cannot be resized")];
    }
    if old_spec.os.as_ref().is_some_and(|os| os.name == "windows") {
        return vec![object.forbidden("windows pods cannot be resized")];
    }
    let mut errors = Errors::new();
    let at = Loc::new("spec");
    super::pod_spec(&mut errors, &at, new_spec);
    if class(old) != qos_class(new).as_str() {
        errors.push(at.invalid(class(new), "Pod QOS Class may not change as a result of resizing"));
    }
    if !is_supported(old) {
        errors.push(at.forbidden("Pod running on node without support for resize"));
    }
    whole_pod(&mut errors, &at, new_spec, old_spec);
    if !same_containers(&mut errors, &at, new_spec, old_spec) {
        return errors;
    }
    let [containers, init] = lists(new_spec, old_spec);
    for (list, new, old) in [init, containers] {
        let list = at.child(list);
        for (i, (new, old)) in new.iter().zip(old).enumerate() {
            let one = list.index(i);
            let resources = (new.resources.as_ref(), old.resources.as_ref());
            nothing_removed(&mut errors, &one.child("resources"), "resource", resources);
        }
    }
    for (new, old) in containers.1.iter().zip(containers.2) {
        if !is_resized(new, old) {
            errors.push(at.forbidden("only cpu and memory resources are mutable"));
        }
    }
    let list = at.child(init.0);
    for (i, (new, old)) in init.1.iter().zip(init.2).enumerate() {
        init_container(&mut errors, &list.index(i), new, old);
    }
    errors
}

/// The class the pod is said to be in, or the one it is in.
fn class(pod: &Pod) -> &str {
    let said = pod.status.as_ref().and_then(|status| status.qos_class.as_deref());
    said.unwrap_or_else(|| qos_class(pod).as_str())
}

/// Whether the pod's node gives running containers more or less: it says then what it has given them. One that runs
/// nothing of the pod yet is taken to do so.
fn is_supported(pod: &Pod) -> bool {
    let statuses = pod.status.as_ref().and_then(|s| s.container_statuses.as_ref());
    let is_running =
        |status: &&ContainerStatus| status.state.as_ref().is_some_and(|state| state.running.is_some());
    let first = statuses.into_iter().flatten().find(is_running);
    first.is_none_or(|status| status.resources.is_some())
}

/// Both lists of containers, as they are to be and as they are.
fn lists<'p>(new: &'p PodSpec, old: &'p PodSpec) -> [(&'static str, &'p [Container], &'p [Container]); 2] {
    let init = |spec: &'p PodSpec| spec.init_containers.as_deref().unwrap_or_default();
    [
        ("containers", &new.containers, &old.containers),
        ("initContainers", init(new), init(old)),
    ]
}

/// Who gets more or less stays who it is.
fn same_containers(errors: &mut Errors, at: &Loc<'_>, new: &PodSpec, old: &PodSpec) -> bool {
    let before = errors.len();
    for (list, new, old) in lists(new, old) {
        let at = at.child(list);
        if new.len() != old.len() {
            errors.push(at.forbidden(format!("{list} may not be added or removed on resize")));
            continue;
        }
        for (i, (new, old)) in new.iter().zip(old).enumerate() {
            if new.name != old.name {
                let name = at.index(i);
                let detail = format!("{list} may not be renamed or reordered on resize");
                errors.push(name.child("name").forbidden(detail));
            }
        }
    }
    errors.len() == before
}

/// The resources that all containers of the pod share.
fn whole_pod(errors: &mut Errors, at: &Loc<'_>, new: &PodSpec, old: &PodSpec) {
    let (new, old) = (new.resources.as_ref(), old.resources.as_ref());
    let says_something = |resources| amounts(resources).iter().any(|(_, list)| !list.is_empty());
    if !says_something(new) && !says_something(old) {
        return;
    }
    let resources = at.child("resources");
    if old.is_some() && new.is_none() {
        errors.push(resources.forbidden("pod-level resources cannot be removed"));
        return;
    }
    nothing_removed(errors, &resources, "pod-level resource", (new, old));
    if !only_resizable((new, old)) {
        errors.push(at.forbidden("only cpu and memory resources are mutable at pod-level"));
    }
}

/// An init container: one that runs to its end is not started anew for more.
fn init_container(errors: &mut Errors, at: &Loc<'_>, new: &Container, old: &Container) {
    if !is_resized(new, old) {
        errors.push(at.forbidden("only cpu and memory resources for init or sidecar containers are mutable"));
    }
    let restarts = new
        .resize_policy
        .iter()
        .flatten()
        .any(|p| p.restart_policy == "RestartContainer");
    if new != old && !is_sidecar(new) && restarts {
        let detail = "non-sidecar init containers with a resize policy of RestartContainer cannot be resized";
        errors.push(at.forbidden(detail));
    }
}

/// Whether nothing but CPU and memory is different.
fn is_resized(new: &Container, old: &Container) -> bool {
    let mut rest = new.clone();
    rest.resources.clone_from(&old.resources);
    let says_nothing = |container: &Container| container.resize_policy.as_ref().is_none_or(Vec::is_empty);
    if says_nothing(new) && says_nothing(old) {
        rest.resize_policy.clone_from(&old.resize_policy);
    }
    rest == *old && only_resizable((new.resources.as_ref(), old.resources.as_ref()))
}

type Amounts = BTreeMap<String, Quantity>;

/// Requests and limits, by the names of their fields.
fn amounts(resources: Option<&ResourceRequirements>) -> [(&'static str, &Amounts); 2] {
    static NOTHING: Amounts = Amounts::new();
    let requests = resources.and_then(|resources| resources.requests.as_ref());
    let limits = resources.and_then(|resources| resources.limits.as_ref());
    [
        ("requests", requests.unwrap_or(&NOTHING)),
        ("limits", limits.unwrap_or(&NOTHING)),
    ]
}

/// What was asked for may become more or less, but not nothing.
fn nothing_removed(errors: &mut Errors, at: &Loc<'_>, what: &str, (new, old): Change<'_>) {
    for ((field, new), (_, old)) in amounts(new).into_iter().zip(amounts(old)) {
        if old.keys().any(|name| !new.contains_key(name)) {
            errors.push(
                at.child(field)
                    .forbidden(format!("{what} {field} cannot be removed")),
            );
        }
    }
}

/// Whether no other resource than CPU and memory is different.
fn only_resizable((new, old): Change<'_>) -> bool {
    fn others(amounts: &Amounts) -> impl Iterator<Item = (&String, &Quantity)> {
        amounts
            .iter()
            .filter(|(name, _)| !matches!(name.as_str(), "cpu" | "memory"))
    }
    fn claims(resources: Option<&ResourceRequirements>) -> &[ResourceClaim] {
        resources
            .and_then(|resources| resources.claims.as_deref())
            .unwrap_or_default()
    }
    let mut lists = amounts(new).into_iter().zip(amounts(old));
    lists.all(|((_, new), (_, old))| others(new).eq(others(old))) && claims(new) == claims(old)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::registry::core::pod::defaults;

    fn pod_of(spec: Value, status: Value) -> Pod {
        let pod = json!({"metadata": {"name": "p"}, "spec": spec, "status": status});
        let mut pod = serde_json::from_value(pod).expect("a pod");
        defaults::pod(&mut pod);
        pod
    }

    fn container(name: &str, resources: Value) -> Value {
        json!({"name": name, "image": "i", "resources": resources})
    }

    fn spec() -> Value {
        let sidecar = json!({"requests": {"cpu": "1m"}});
        let mut init = container("s", sidecar.clone());
        init["restartPolicy"] = "Always".into();
        json!({"initContainers": [container("i", sidecar), init],
            "containers": [container("a", json!({"requests": {"cpu": "10m", "memory": "1Mi"}, "limits": {"cpu": "20m"}}))]})
    }

    fn refused(old: Value, status: Value, change: impl FnOnce(&mut Value)) -> Vec<String> {
        let mut wanted = old.clone();
        change(&mut wanted);
        let (new, old) = (pod_of(wanted, status.clone()), pod_of(old, status));
        pod(&new, &old).iter().map(ToString::to_string).collect()
    }

    fn changed(change: impl FnOnce(&mut Value)) -> Vec<String> {
        refused(spec(), json!({"qosClass": "Burstable"}), change)
    }

    #[test]
    fn cpu_and_memory_become_more_or_less() {
        let nothing: [String; 0] = [];
        assert_eq!(changed(|_| {}), nothing);
        assert_eq!(
            changed(|spec| {
                spec["containers"][0]["resources"] = json!({"requests": {"cpu": "5m", "memory": "2Mi"}, "limits": {"cpu": "1", "memory": "3Mi"}});
                spec["initContainers"][0]["resources"]["requests"]["cpu"] = "2m".into();
                spec["initContainers"][1]["resources"]["requests"]["cpu"] = "2m".into();
            }),
            nothing
        );
    }

    #[test]
    fn everything_else_stays() {
        let other = "spec: Forbidden: only cpu and memory resources are mutable";
        assert_eq!(
            changed(|spec| spec["containers"][0]["resources"]["limits"]["ephemeral-storage"] = "1Gi".into()),
            [other]
        );
        let policy = json!([{"resourceName": "cpu", "restartPolicy": "RestartContainer"}]);
        assert_eq!(
            changed(|spec| spec["containers"][0]["resizePolicy"] = policy.clone()),
            [other]
        );
        assert_eq!(
            changed(|spec| spec["initContainers"][0]["resizePolicy"] = policy),
            [
                "spec.initContainers[0]: Forbidden: only cpu and memory resources for init or sidecar containers are \
                 mutable",
                "spec.initContainers[0]: Forbidden: non-sidecar init containers with a resize policy of \
                 RestartContainer cannot be resized",
            ]
        );
        assert_eq!(
            changed(|spec| spec["initContainers"][1]["resources"] = json!({"requests": {"memory": "1Mi"}})),
            ["spec.initContainers[1].resources.requests: Forbidden: resource requests cannot be removed"]
        );
        assert_eq!(
            changed(|spec| {
                spec["initContainers"].as_array_mut().expect("a list").swap(0, 1);
                spec["containers"] = json!([]);
            })[1..],
            [
                "spec.containers: Forbidden: containers may not be added or removed on resize",
                "spec.initContainers[0].name: Forbidden: initContainers may not be renamed or reordered on resize",
                "spec.initContainers[1].name: Forbidden: initContainers may not be renamed or reordered on resize",
            ]
        );
    }

    #[test]
    fn the_class_stays() {
        assert_eq!(
            refused(
                json!({"containers": [container("a", json!({}))]}),
                json!({"qosClass": "BestEffort"}),
                |spec| spec["containers"][0]["resources"] = json!({"requests": {"cpu": "1m"}})
            ),
            ["spec: Invalid value: \"BestEffort\": Pod QOS Class may not change as a result of resizing"]
        );
    }

    #[test]
    fn nodes_say_what_they_have_given() {
        let status = |resources: Value| {
            json!({"qosClass": "Burstable", "containerStatuses": [
                {"name": "b", "image": "", "imageID": "", "ready": false, "restartCount": 0, "state": {"waiting": {}}},
                {"name": "a", "image": "", "imageID": "", "ready": true, "restartCount": 0, "state": {"running": {}},
                 "resources": resources}]})
        };
        let nothing: [String; 0] = [];
        assert_eq!(refused(spec(), status(json!({})), |_| {}), nothing);
        assert_eq!(
            refused(spec(), status(Value::Null), |_| {}),
            ["spec: Forbidden: Pod running on node without support for resize"]
        );
    }

    #[test]
    fn what_the_pod_shares_is_resized_as_well() {
        let shared = || {
            let mut spec = spec();
            spec["resources"] = json!({"requests": {"cpu": "50m", "memory": "5Mi"}});
            spec
        };
        let refused = |change: fn(&mut Value)| refused(shared(), json!({"qosClass": "Burstable"}), change);
        let nothing: [String; 0] = [];
        assert_eq!(
            refused(|spec| spec["resources"]["requests"]["cpu"] = "60m".into()),
            nothing
        );
        assert_eq!(
            refused(|spec| spec["resources"] = Value::Null),
            ["spec.resources: Forbidden: pod-level resources cannot be removed"]
        );
        assert_eq!(
            refused(|spec| spec["resources"]["requests"] = json!({"cpu": "60m"})),
            ["spec.resources.requests: Forbidden: pod-level resource requests cannot be removed"]
        );
    }

    #[test]
    fn mirrors_and_pods_of_windows_are_not_resized() {
        let old = pod_of(spec(), Value::Null);
        let mut mirror = old.clone();
        mirror.metadata.annotations =
            Some([("kubernetes.io/config.mirror".to_owned(), "x".to_owned())].into());
        let causes = |old: &Pod| -> Vec<String> { pod(old, old).iter().map(ToString::to_string).collect() };
        assert_eq!(causes(&mirror), [": Forbidden: static pods cannot be resized"]);
        let mut windows = spec();
        windows["os"] = json!({"name": "windows"});
        assert_eq!(
            causes(&pod_of(windows, Value::Null)),
            [": Forbidden: windows pods cannot be resized"]
        );
    }
}
