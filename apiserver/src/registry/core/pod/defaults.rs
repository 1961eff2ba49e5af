//! What a pod, and a pod template, becomes when its author leaves things out.
//!
//! Templates get the defaults of [`pod_spec`] only; the further ones of [`pod`] (service links, requests taken
//! from limits) are given when a pod is made from the template, so that a change of them needs no rollout.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    Container, EnvVar, EphemeralContainer, HTTPGetAction, LifecycleHandler, Pod, PodSpec, PodTemplateSpec,
    Probe, ResourceRequirements, Volume,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use keelson_api::{pods, quota};

use crate::registry::common::defaults::{drop_empty, drop_false, fill, quantities};

const TERMINATION_MESSAGE_PATH: &str = "/dev/termination-log";
const TERMINATION_GRACE_SECONDS: i64 = 30;
/// rw-r--r--: what files of configMap, secret, downwardAPI and projected volumes are created with.
const VOLUME_FILE_MODE: i32 = 0o644;
const TOKEN_SECONDS: i64 = 60 * 60;

/// Defaults of a pod: those of its spec, and those that a template does not get.
pub fn pod(pod: &mut Pod) {
    let spec = pod.spec.get_or_insert_with(PodSpec::default);
    pod_spec(spec);
    spec.enable_service_links.get_or_insert(true);
    for container in spec
        .containers
        .iter_mut()
        .chain(spec.init_containers.iter_mut().flatten())
    {
        if let Some(resources) = &mut container.resources {
            requests_from_limits(resources);
        }
    }
    if spec.host_network == Some(true) {
        for container in spec
            .containers
            .iter_mut()
            .chain(spec.init_containers.iter_mut().flatten())
        {
            for port in container.ports.iter_mut().flatten() {
                if port.host_port.unwrap_or(0) == 0 {
                    port.host_port = Some(port.container_port);
                }
            }
        }
    }
    pod_level_requests(spec);
    if let Some(status) = &mut pod.status {
        drop_empty(&mut status.phase);
    }
}

/// Defaults of a pod template.
pub fn pod_template(template: &mut PodTemplateSpec) {
    template.metadata.get_or_insert_with(Default::default);
    pod_spec(template.spec.get_or_insert_with(PodSpec::default));
}

/// Defaults of a pod's spec, in a pod or in a template.
pub fn pod_spec(spec: &mut PodSpec) {
    fill(&mut spec.dns_policy, "ClusterFirst");
    fill(&mut spec.restart_policy, "Always");
    fill(&mut spec.scheduler_name, "default-scheduler");
    spec.security_context.get_or_insert_with(Default::default);
    spec.termination_grace_period_seconds
        .get_or_insert(TERMINATION_GRACE_SECONDS);

    // The two spellings of the service account's name always agree; the longer one decides.
    drop_empty(&mut spec.service_account_name);
    drop_empty(&mut spec.service_account);
    match (&spec.service_account_name, &spec.service_account) {
        (None, Some(old)) => spec.service_account_name = Some(old.clone()),
        (name, old) if name != old => spec.service_account = name.clone(),
        _ => {}
    }
    for flag in [&mut spec.host_network, &mut spec.host_pid, &mut spec.host_ipc] {
        drop_false(flag);
    }
    for text in [
        &mut spec.node_name,
        &mut spec.hostname,
        &mut spec.subdomain,
        &mut spec.priority_class_name,
    ] {
        drop_empty(text);
    }

    for volume in spec.volumes.iter_mut().flatten() {
        self::volume(volume);
    }
    for container in spec
        .init_containers
        .iter_mut()
        .flatten()
        .chain(spec.containers.iter_mut())
    {
        self::container(container);
    }
    for container in spec.ephemeral_containers.iter_mut().flatten() {
        ephemeral_container(container);
    }
    if let Some(overhead) = &mut spec.overhead {
        quantities(overhead);
    }
    if let Some(resources) = &mut spec.resources {
        self::resources(resources);
    }
    for constraint in spec.topology_spread_constraints.iter_mut().flatten() {
        drop_empty(&mut constraint.node_affinity_policy);
        drop_empty(&mut constraint.node_taints_policy);
    }
}

/// What a pod limits as a whole it asks for as a whole: as much as its containers do, or else all that it may have.
fn pod_level_requests(spec: &mut PodSpec) {
    let containers = match &spec.resources {
        Some(resources) if resources.limits.is_some() || resources.requests.is_some() => {
            quota::quantities(&pods::requests_of_containers(spec))
        }
        _ => return,
    };
    let Some(resources) = &mut spec.resources else {
        return;
    };
    let mut limits = resources.limits.take().unwrap_or_default();
    // Of huge pages, nothing can be had beyond what is asked for.
    for (name, quantity) in containers
        .iter()
        .filter(|(name, _)| name.starts_with("hugepages-"))
    {
        limits.entry(name.clone()).or_insert_with(|| quantity.clone());
    }
    if limits.is_empty() {
        return;
    }
    resources.limits = Some(limits.clone());
    let mut requests = resources.requests.take().unwrap_or_default();
    for (name, quantity) in containers.into_iter().chain(limits) {
        if pods::may_be_pod_level(&name) {
            requests.entry(name).or_insert(quantity);
        }
    }
    resources.requests = Some(requests).filter(|all| !all.is_empty());
}

/// A container without a request for what it limits asks for as much as it may have.
fn requests_from_limits(resources: &mut ResourceRequirements) {
    let Some(limits) = &resources.limits else { return };
    if limits.is_empty() {
        return;
    }
    let requests = resources.requests.get_or_insert_with(BTreeMap::new);
    for (name, limit) in limits {
        if !requests.contains_key(name) {
            requests.insert(name.clone(), limit.clone());
        }
    }
}

fn resources(resources: &mut ResourceRequirements) {
    if let Some(limits) = &mut resources.limits {
        quantities(limits);
    }
    if let Some(requests) = &mut resources.requests {
        quantities(requests);
    }
}

/// `Always` for an image whose tag may move, `IfNotPresent` for one that is pinned.
fn pull_policy(image: &str) -> &'static str {
    match image_tag(image) {
        Some("latest") => "Always",
        None if !image.contains('@') => "Always",
        _ => "IfNotPresent",
    }
}

/// The tag of an image reference: what follows the last colon of its last path element.
fn image_tag(image: &str) -> Option<&str> {
    let name = image.split_once('@').map_or(image, |(name, _digest)| name);
    let last = name.rsplit_once('/').map_or(name, |(_, last)| last);
    last.split_once(':').map(|(_, tag)| tag)
}

/// Containers and ephemeral containers share these fields without sharing a type.
macro_rules! container_defaults {
    ($container:ident) => {
        if $container.image_pull_policy.as_deref().unwrap_or("").is_empty() {
            let policy = pull_policy($container.image.as_deref().unwrap_or(""));
            $container.image_pull_policy = Some(policy.to_owned());
        }
        fill(&mut $container.termination_message_path, TERMINATION_MESSAGE_PATH);
        fill(&mut $container.termination_message_policy, "File");
        self::resources($container.resources.get_or_insert_with(Default::default));
        for port in $container.ports.iter_mut().flatten() {
            fill(&mut port.protocol, "TCP");
        }
        for variable in $container.env.iter_mut().flatten() {
            self::variable(variable);
        }
        for probe in [
            &mut $container.liveness_probe,
            &mut $container.readiness_probe,
            &mut $container.startup_probe,
        ] {
            if let Some(probe) = probe {
                self::probe(probe);
            }
        }
        if let Some(lifecycle) = &mut $container.lifecycle {
            for handler in [&mut lifecycle.post_start, &mut lifecycle.pre_stop] {
                if let Some(handler) = handler {
                    self::handler(handler);
                }
            }
        }
        if let Some(context) = &mut $container.security_context {
            drop_empty(&mut context.proc_mount);
        }
        for flag in [
            &mut $container.stdin,
            &mut $container.stdin_once,
            &mut $container.tty,
        ] {
            drop_false(flag);
        }
        for mount in $container.volume_mounts.iter_mut().flatten() {
            drop_false(&mut mount.read_only);
        }
    };
}

fn container(container: &mut Container) {
    container_defaults!(container);
}

/// Defaults of a container added to a running pod.
pub fn ephemeral_container(container: &mut EphemeralContainer) {
    container_defaults!(container);
}

fn variable(variable: &mut EnvVar) {
    let Some(source) = &mut variable.value_from else {
        return;
    };
    if let Some(field) = &mut source.field_ref {
        fill(&mut field.api_version, "v1");
    }
    if let Some(resource) = &mut source.resource_field_ref {
        resource.divisor.get_or_insert_with(|| Quantity("0".to_owned()));
    }
    if let Some(file) = &mut source.file_key_ref {
        file.optional.get_or_insert(false);
    }
}

fn probe(probe: &mut Probe) {
    for (value, default) in [
        (&mut probe.timeout_seconds, 1),
        (&mut probe.period_seconds, 10),
        (&mut probe.success_threshold, 1),
        (&mut probe.failure_threshold, 3),
    ] {
        if value.unwrap_or(0) == 0 {
            *value = Some(default);
        }
    }
    if probe.initial_delay_seconds == Some(0) {
        probe.initial_delay_seconds = None;
    }
    if let Some(http) = &mut probe.http_get {
        http_get(http);
    }
    if let Some(grpc) = &mut probe.grpc {
        grpc.service.get_or_insert_with(String::new);
    }
}

fn handler(handler: &mut LifecycleHandler) {
    if let Some(http) = &mut handler.http_get {
        http_get(http);
    }
}

fn http_get(http: &mut HTTPGetAction) {
    fill(&mut http.path, "/");
    fill(&mut http.scheme, "HTTP");
}

/// Defaults of a volume; one that names no source is an empty directory.
fn volume(volume: &mut Volume) {
    if !has_source(volume) {
        volume.empty_dir = Some(Default::default());
    }
    if let Some(empty_dir) = &mut volume.empty_dir {
        drop_empty(&mut empty_dir.medium);
        if let Some(limit) = &mut empty_dir.size_limit {
            crate::registry::common::defaults::quantity(limit);
        }
    }
    if let Some(secret) = &mut volume.secret {
        secret.default_mode.get_or_insert(VOLUME_FILE_MODE);
    }
    if let Some(config_map) = &mut volume.config_map {
        config_map.default_mode.get_or_insert(VOLUME_FILE_MODE);
    }
    if let Some(host_path) = &mut volume.host_path {
        host_path.type_.get_or_insert_with(String::new);
    }
    if let Some(downward) = &mut volume.downward_api {
        downward.default_mode.get_or_insert(VOLUME_FILE_MODE);
        for file in downward.items.iter_mut().flatten() {
            downward_file(file);
        }
    }
    if let Some(image) = &mut volume.image
        && image.pull_policy.as_deref().unwrap_or("").is_empty()
    {
        let policy = pull_policy(image.reference.as_deref().unwrap_or(""));
        image.pull_policy = Some(policy.to_owned());
    }
    if let Some(projected) = &mut volume.projected {
        projected.default_mode.get_or_insert(VOLUME_FILE_MODE);
        for source in projected.sources.iter_mut().flatten() {
            if let Some(token) = &mut source.service_account_token {
                token.expiration_seconds.get_or_insert(TOKEN_SECONDS);
            }
            for file in source
                .downward_api
                .iter_mut()
                .flat_map(|d| d.items.iter_mut().flatten())
            {
                downward_file(file);
            }
            if let Some(certificate) = &mut source.pod_certificate {
                certificate.max_expiration_seconds.get_or_insert(24 * 60 * 60);
            }
        }
    }
    if let Some(claim) = volume
        .ephemeral
        .as_mut()
        .and_then(|e| e.volume_claim_template.as_mut())
    {
        fill(&mut claim.spec.volume_mode, "Filesystem");
        if let Some(resources) = &mut claim.spec.resources {
            for list in [&mut resources.requests, &mut resources.limits]
                .into_iter()
                .flatten()
            {
                quantities(list);
            }
        }
    }
    if let Some(iscsi) = &mut volume.iscsi {
        fill(&mut iscsi.iscsi_interface, "default");
    }
    if let Some(rbd) = &mut volume.rbd {
        fill(&mut rbd.pool, "rbd");
        fill(&mut rbd.user, "admin");
        fill(&mut rbd.keyring, "/etc/ceph/keyring");
    }
    if let Some(disk) = &mut volume.azure_disk {
        disk.caching_mode.get_or_insert_with(|| "ReadWrite".to_owned());
        disk.kind.get_or_insert_with(|| "Shared".to_owned());
        disk.fs_type.get_or_insert_with(|| "ext4".to_owned());
        disk.read_only.get_or_insert(false);
    }
    if let Some(scale_io) = &mut volume.scale_io {
        fill(&mut scale_io.storage_mode, "ThinProvisioned");
        fill(&mut scale_io.fs_type, "xfs");
    }
}

fn downward_file(file: &mut k8s_openapi::api::core::v1::DownwardAPIVolumeFile) {
    if let Some(field) = &mut file.field_ref {
        fill(&mut field.api_version, "v1");
    }
    if let Some(resource) = &mut file.resource_field_ref {
        resource.divisor.get_or_insert_with(|| Quantity("0".to_owned()));
    }
}

/// Whether any of the volume's sources is set.
pub fn has_source(volume: &Volume) -> bool {
    volume_sources(volume).next().is_some()
}

/// The names of the sources that are set, in the order in which they are documented.
pub fn volume_sources(volume: &Volume) -> impl Iterator<Item = &'static str> {
    [
        ("hostPath", volume.host_path.is_some()),
        ("emptyDir", volume.empty_dir.is_some()),
        ("gcePersistentDisk", volume.gce_persistent_disk.is_some()),
        ("awsElasticBlockStore", volume.aws_elastic_block_store.is_some()),
        ("gitRepo", volume.git_repo.is_some()),
        ("secret", volume.secret.is_some()),
        ("nfs", volume.nfs.is_some()),
        ("iscsi", volume.iscsi.is_some()),
        ("glusterfs", volume.glusterfs.is_some()),
        ("persistentVolumeClaim", volume.persistent_volume_claim.is_some()),
        ("rbd", volume.rbd.is_some()),
        ("quobyte", volume.quobyte.is_some()),
        ("flexVolume", volume.flex_volume.is_some()),
        ("cinder", volume.cinder.is_some()),
        ("cephFS", volume.cephfs.is_some()),
        ("flocker", volume.flocker.is_some()),
        ("downwardAPI", volume.downward_api.is_some()),
        ("fc", volume.fc.is_some()),
        ("azureFile", volume.azure_file.is_some()),
        ("configMap", volume.config_map.is_some()),
        ("vsphereVolume", volume.vsphere_volume.is_some()),
        ("azureDisk", volume.azure_disk.is_some()),
        ("photonPersistentDisk", volume.photon_persistent_disk.is_some()),
        ("projected", volume.projected.is_some()),
        ("portworxVolume", volume.portworx_volume.is_some()),
        ("scaleIO", volume.scale_io.is_some()),
        ("storageos", volume.storageos.is_some()),
        ("csi", volume.csi.is_some()),
        ("ephemeral", volume.ephemeral.is_some()),
        ("image", volume.image.is_some()),
    ]
    .into_iter()
    .filter_map(|(name, set)| set.then_some(name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn pull_policy_follows_the_tag() {
        for (image, policy) in [
            ("nginx", "Always"),
            ("nginx:latest", "Always"),
            ("nginx:1.27", "IfNotPresent"),
            ("registry:5000/nginx", "Always"),
            ("registry:5000/nginx:1", "IfNotPresent"),
            ("nginx@sha256:aa", "IfNotPresent"),
            ("nginx:latest@sha256:aa", "Always"),
        ] {
            assert_eq!(pull_policy(image), policy, "{image}");
        }
    }

    /// KEP-2837: what the containers ask for comes before what the pod is limited to.
    #[test]
    fn requests_of_a_pod_follow_from_its_containers_and_limits() {
        for (resources, containers, requests) in [
            (
                json!({"limits": {"cpu": "2", "memory": "1Gi"}}),
                json!([{"name": "a", "resources": {"requests": {"cpu": "500m"}}}, {"name": "b"}]),
                json!({"cpu": "500m", "memory": "1Gi"}),
            ),
            (
                json!({"limits": {"cpu": "2"}}),
                json!([{"name": "a", "resources": {"requests": {"memory": "1Gi", "example.com/d": "1"}}}]),
                json!({"cpu": "2", "memory": "1Gi"}),
            ),
            (
                json!({"limits": {"cpu": "2"}, "requests": {"cpu": "2"}}),
                json!([{"name": "a", "resources": {"limits": {"cpu": "1", "hugepages-2Mi": "2Mi"}}}]),
                json!({"cpu": "2", "hugepages-2Mi": "2Mi"}),
            ),
            (
                json!({"requests": {"cpu": "1"}}),
                json!([{"name": "a"}]),
                json!({"cpu": "1"}),
            ),
            (
                json!({}),
                json!([{"name": "a", "resources": {"requests": {"cpu": "1"}}}]),
                json!(null),
            ),
        ] {
            let spec = json!({"containers": containers, "resources": resources});
            let mut object: Pod = serde_json::from_value(json!({"spec": spec})).expect("a pod");
            pod(&mut object);
            let got = serde_json::to_value(object.spec.and_then(|spec| spec.resources)).expect("json");
            assert_eq!(got["requests"], requests, "{spec}");
        }
    }

    #[test]
    fn the_tutorial_pod_is_completed() -> Result<(), serde_json::Error> {
        let mut object: Pod = serde_json::from_value(json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": "hello-node", "labels": {"app": "hello-node"}},
            "spec": {"containers": [{"name": "hello-node", "image": "hello-node:v1", "ports": [{"containerPort": 8080}]}]}
        }))?;
        pod(&mut object);
        assert_eq!(
            serde_json::to_value(&object.spec)?,
            json!({
                "containers": [{
                    "name": "hello-node", "image": "hello-node:v1", "imagePullPolicy": "IfNotPresent",
                    "ports": [{"containerPort": 8080, "protocol": "TCP"}], "resources": {},
                    "terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "File"
                }],
                "dnsPolicy": "ClusterFirst", "enableServiceLinks": true, "restartPolicy": "Always",
                "schedulerName": "default-scheduler", "securityContext": {}, "terminationGracePeriodSeconds": 30
            })
        );
        Ok(())
    }

    #[test]
    fn limits_volumes_and_probes_are_completed() -> Result<(), serde_json::Error> {
        let mut object: Pod = serde_json::from_value(json!({
            "metadata": {"name": "a"},
            "spec": {
                "hostNetwork": true, "serviceAccount": "robot",
                "volumes": [{"name": "plain"}, {"name": "conf", "configMap": {"name": "c"}}, {"name": "h", "hostPath": {"path": "/tmp"}}],
                "containers": [{
                    "name": "a", "image": "a", "ports": [{"containerPort": 80}],
                    "resources": {"limits": {"cpu": "0.5", "memory": "1024Mi"}, "requests": {"cpu": "100m"}},
                    "readinessProbe": {"httpGet": {"port": 80}},
                    "env": [{"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}]
                }]
            }
        }))?;
        pod(&mut object);
        let spec = serde_json::to_value(&object.spec)?;
        let container = &spec["containers"][0];
        assert_eq!(
            container["resources"],
            json!({"limits": {"cpu": "500m", "memory": "1Gi"}, "requests": {"cpu": "100m", "memory": "1Gi"}})
        );
        assert_eq!(
            container["readinessProbe"],
            json!({"httpGet": {"path": "/", "port": 80, "scheme": "HTTP"}, "timeoutSeconds": 1, "periodSeconds": 10, "successThreshold": 1, "failureThreshold": 3})
        );
        assert_eq!(container["ports"][0]["hostPort"], 80);
        assert_eq!(container["env"][0]["valueFrom"]["fieldRef"]["apiVersion"], "v1");
        assert_eq!(spec["serviceAccountName"], "robot");
        assert_eq!(spec["volumes"][0], json!({"name": "plain", "emptyDir": {}}));
        assert_eq!(spec["volumes"][1]["configMap"]["defaultMode"], 420);
        assert_eq!(spec["volumes"][2]["hostPath"]["type"], "");
        Ok(())
    }
}
