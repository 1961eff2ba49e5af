//! Containers, init containers and ephemeral containers.

use k8s_openapi::api::core::v1::{
    Container, ContainerPort, ContainerResizePolicy, EnvFromSource, EnvVar, EphemeralContainer,
    PodResourceClaim, PodSpec, ResourceRequirements, SecurityContext, Volume, VolumeDevice, VolumeMount,
};
use keelson_api::field::Errors;
use keelson_api::pods::is_sidecar;
use keelson_api::validation;

use super::probes::{self, Purpose};
use super::{environment, inner_name, resources, security};
use crate::registry::common::loc::Loc;
use crate::registry::common::rules;

const EPHEMERAL: &str = "cannot be set for an Ephemeral Container";
const NOT_SIDECAR: &str = "may not be set for init containers without restartPolicy=Always";

/// What the containers of a pod refer to.
pub struct PodScope<'a> {
    /// The pod's volumes.
    pub volumes: &'a [Volume],
    /// The pod's resource claims.
    pub claims: &'a [PodResourceClaim],
    /// Seconds the pod gets to stop.
    pub grace: i64,
    /// Whether the pod shares the node's users.
    pub host_users: bool,
}

/// The fields all sorts of containers have.
pub struct Common<'a> {
    name: &'a str,
    image: Option<&'a str>,
    termination_message_policy: Option<&'a str>,
    image_pull_policy: Option<&'a str>,
    ports: &'a [ContainerPort],
    env: &'a [EnvVar],
    env_from: &'a [EnvFromSource],
    mounts: &'a [VolumeMount],
    devices: &'a [VolumeDevice],
    resources: Option<&'a ResourceRequirements>,
    resize_policy: &'a [ContainerResizePolicy],
    security: Option<&'a SecurityContext>,
}

macro_rules! common {
    ($type:ty) => {
        impl<'a> From<&'a $type> for Common<'a> {
            fn from(c: &'a $type) -> Self {
                Self {
                    name: &c.name,
                    image: c.image.as_deref(),
                    termination_message_policy: c.termination_message_policy.as_deref(),
                    image_pull_policy: c.image_pull_policy.as_deref(),
                    ports: c.ports.as_deref().unwrap_or(&[]),
                    env: c.env.as_deref().unwrap_or(&[]),
                    env_from: c.env_from.as_deref().unwrap_or(&[]),
                    mounts: c.volume_mounts.as_deref().unwrap_or(&[]),
                    devices: c.volume_devices.as_deref().unwrap_or(&[]),
                    resources: c.resources.as_ref(),
                    resize_policy: c.resize_policy.as_deref().unwrap_or(&[]),
                    security: c.security_context.as_ref(),
                }
            }
        }
    };
}
common!(Container);
common!(EphemeralContainer);

/// All containers of a pod.
pub fn all(errors: &mut Errors, at: &Loc<'_>, spec: &PodSpec, scope: &PodScope<'_>) {
    regular(errors, &at.child("containers"), &spec.containers, scope);
    let init = spec.init_containers.as_deref().unwrap_or(&[]);
    self::init(errors, &at.child("initContainers"), init, &spec.containers, scope);
    ephemeral(errors, &at.child("ephemeralContainers"), spec, scope);
}

fn regular(errors: &mut Errors, at: &Loc<'_>, containers: &[Container], scope: &PodScope<'_>) {
    if containers.is_empty() {
        errors.push(at.required(""));
        return;
    }
    for (i, container) in containers.iter().enumerate() {
        let at = at.index(i);
        common(errors, &at, &container.into(), scope);
        if containers[..i].iter().any(|c| c.name == container.name) {
            errors.push(at.child("name").duplicate(container.name.as_str()));
        }
        probes_and_hooks(errors, &at, container, scope);
        restart_rules(errors, &at, container);
    }
    host_port_conflicts(errors, at, containers);
}

fn init(
    errors: &mut Errors,
    at: &Loc<'_>,
    containers: &[Container],
    regular: &[Container],
    scope: &PodScope<'_>,
) {
    for (i, container) in containers.iter().enumerate() {
        let one = at.index(i);
        common(errors, &one, &container.into(), scope);
        if containers[..i]
            .iter()
            .chain(regular)
            .any(|c| c.name == container.name)
            && !container.name.is_empty()
        {
            errors.push(one.child("name").duplicate(container.name.as_str()));
        }
        // They run one after the other: only the ports of one container can be in each other's way.
        host_port_conflicts(errors, at, std::slice::from_ref(container));
        restart_rules(errors, &one, container);
        if is_sidecar(container) {
            probes_and_hooks(errors, &one, container, scope);
            continue;
        }
        for (field, set) in [
            ("lifecycle", container.lifecycle.is_some()),
            ("livenessProbe", container.liveness_probe.is_some()),
            ("readinessProbe", container.readiness_probe.is_some()),
            ("startupProbe", container.startup_probe.is_some()),
        ] {
            if set {
                errors.push(one.child(field).forbidden(NOT_SIDECAR));
            }
        }
    }
}

fn ephemeral(errors: &mut Errors, at: &Loc<'_>, spec: &PodSpec, scope: &PodScope<'_>) {
    let containers = spec.ephemeral_containers.as_deref().unwrap_or(&[]);
    for (i, container) in containers.iter().enumerate() {
        let at = at.index(i);
        common(errors, &at, &container.into(), scope);
        let others = spec
            .containers
            .iter()
            .chain(spec.init_containers.iter().flatten());
        let mut names = others
            .map(|c| c.name.as_str())
            .chain(containers[..i].iter().map(|c| c.name.as_str()));
        if !container.name.is_empty() && names.any(|name| name == container.name) {
            errors.push(at.child("name").duplicate(container.name.as_str()));
        }
        if let Some(target) = container.target_container_name.as_deref()
            && !target.is_empty()
        {
            let mut known = spec
                .containers
                .iter()
                .chain(spec.init_containers.iter().flatten());
            if !known.any(|c| c.name == target) {
                errors.push(at.child("targetContainerName").not_found(target));
            }
        }
        let resources = container.resources.as_ref();
        for (field, set) in [
            ("lifecycle", container.lifecycle.is_some()),
            ("livenessProbe", container.liveness_probe.is_some()),
            ("ports", container.ports.as_ref().is_some_and(|p| !p.is_empty())),
            ("readinessProbe", container.readiness_probe.is_some()),
            (
                "resizePolicy",
                container.resize_policy.as_ref().is_some_and(|p| !p.is_empty()),
            ),
            (
                "resources",
                resources.is_some_and(|r| *r != ResourceRequirements::default()),
            ),
            ("restartPolicy", container.restart_policy.is_some()),
            ("startupProbe", container.startup_probe.is_some()),
        ] {
            if set {
                errors.push(at.child(field).forbidden(EPHEMERAL));
            }
        }
        let mounts = at.child("volumeMounts");
        for (j, mount) in container.volume_mounts.iter().flatten().enumerate() {
            let given = |text: &Option<String>| text.as_deref().is_some_and(|t| !t.is_empty());
            if given(&mount.sub_path) {
                errors.push(mounts.index(j).child("subPath").forbidden(EPHEMERAL));
            }
            if given(&mount.sub_path_expr) {
                errors.push(mounts.index(j).child("subPathExpr").forbidden(EPHEMERAL));
            }
        }
    }
}

fn common(errors: &mut Errors, at: &Loc<'_>, container: &Common<'_>, scope: &PodScope<'_>) {
    inner_name(errors, &at.child("name"), container.name);
    let image = container.image.unwrap_or("");
    if image.is_empty() {
        errors.push(at.child("image").required(""));
    } else if image.trim() != image {
        errors.push(
            at.child("image")
                .invalid(image, "must not have leading or trailing whitespace"),
        );
    }
    rules::one_of(
        errors,
        &at.child("terminationMessagePolicy"),
        container.termination_message_policy,
        &["File", "FallbackToLogsOnError"],
    );
    ports(errors, &at.child("ports"), container.ports);
    environment::variables(errors, &at.child("env"), container.env);
    environment::from_sources(errors, &at.child("envFrom"), container.env_from);
    mounts(errors, &at.child("volumeMounts"), container, scope);
    devices(errors, &at.child("volumeDevices"), container, scope);
    rules::one_of(
        errors,
        &at.child("imagePullPolicy"),
        container.image_pull_policy,
        &["Always", "IfNotPresent", "Never"],
    );
    if let Some(own) = container.resources {
        resources::container(errors, &at.child("resources"), own, scope.claims);
    }
    resize_policy(errors, &at.child("resizePolicy"), container.resize_policy);
    if let Some(context) = container.security {
        security::container(errors, &at.child("securityContext"), context, scope.host_users);
    }
}

fn probes_and_hooks(errors: &mut Errors, at: &Loc<'_>, container: &Container, scope: &PodScope<'_>) {
    if let Some(lifecycle) = &container.lifecycle {
        probes::lifecycle(errors, &at.child("lifecycle"), lifecycle, scope.grace);
    }
    for (field, probe, purpose) in [
        ("livenessProbe", &container.liveness_probe, Purpose::Liveness),
        ("readinessProbe", &container.readiness_probe, Purpose::Readiness),
        ("startupProbe", &container.startup_probe, Purpose::Startup),
    ] {
        if let Some(probe) = probe {
            probes::probe(errors, &at.child(field), probe, purpose);
        }
    }
}

fn restart_rules(errors: &mut Errors, at: &Loc<'_>, container: &Container) {
    let at_rules = at.child("restartPolicyRules");
    rules::optional_one_of(
        errors,
        &at.child("restartPolicy"),
        container.restart_policy.as_deref(),
        &["Always", "Never", "OnFailure"],
    );
    let given = container.restart_policy_rules.as_deref().unwrap_or(&[]);
    if !given.is_empty() && container.restart_policy.is_none() {
        errors.push(
            at.child("restartPolicy")
                .required("must specify restartPolicy when restart rules are used"),
        );
    }
    if given.len() > 20 {
        errors.push(at_rules.too_many(given.len(), 20));
    }
    for (i, rule) in given.iter().enumerate() {
        let at = at_rules.index(i);
        rules::one_of(
            errors,
            &at.child("action"),
            Some(&rule.action),
            &["Restart", "RestartAllContainers"],
        );
        match &rule.exit_codes {
            None => errors.push(at.child("exitCodes").required("must be specified")),
            Some(codes) => {
                let at = at.child("exitCodes");
                rules::one_of(
                    errors,
                    &at.child("operator"),
                    Some(&codes.operator),
                    &["In", "NotIn"],
                );
                let count = codes.values.as_ref().map_or(0, Vec::len);
                if count > 255 {
                    errors.push(at.child("values").too_many(count, 255));
                }
            }
        }
    }
}

fn resize_policy(errors: &mut Errors, at: &Loc<'_>, policies: &[ContainerResizePolicy]) {
    for (i, policy) in policies.iter().enumerate() {
        let one = at.index(i);
        if policies[..i]
            .iter()
            .any(|p| p.resource_name == policy.resource_name)
        {
            errors.push(one.duplicate(policy.resource_name.as_str()));
        }
        rules::one_of(
            errors,
            &one.child("resourceName"),
            Some(&policy.resource_name),
            &["cpu", "memory"],
        );
        rules::one_of(
            errors,
            &one.child("restartPolicy"),
            Some(&policy.restart_policy),
            &["NotRequired", "RestartContainer"],
        );
    }
}

fn ports(errors: &mut Errors, at: &Loc<'_>, ports: &[ContainerPort]) {
    for (i, port) in ports.iter().enumerate() {
        let at = at.index(i);
        if let Some(name) = port.name.as_deref()
            && !name.is_empty()
        {
            let complaints = validation::port_name(name);
            if !complaints.is_empty() {
                rules::complain(errors, &at.child("name"), name, complaints);
            } else if ports[..i].iter().any(|p| p.name.as_deref() == Some(name)) {
                errors.push(at.child("name").duplicate(name));
            }
        }
        if port.container_port == 0 {
            errors.push(at.child("containerPort").required(""));
        } else {
            rules::port(errors, &at.child("containerPort"), port.container_port);
        }
        if let Some(host_port) = port.host_port
            && host_port != 0
        {
            rules::port(errors, &at.child("hostPort"), host_port);
        }
        rules::one_of(
            errors,
            &at.child("protocol"),
            port.protocol.as_deref(),
            &["SCTP", "TCP", "UDP"],
        );
    }
}

fn host_port_conflicts(errors: &mut Errors, at: &Loc<'_>, containers: &[Container]) {
    let mut taken: Vec<(&str, &str, i32)> = Vec::new();
    for (i, container) in containers.iter().enumerate() {
        for (j, port) in container.ports.iter().flatten().enumerate() {
            let host_port = port.host_port.unwrap_or(0);
            if host_port == 0 {
                continue;
            }
            let key = (
                port.protocol.as_deref().unwrap_or(""),
                port.host_ip.as_deref().unwrap_or(""),
                host_port,
            );
            if taken.contains(&key) {
                let container = at.index(i);
                let ports = container.child("ports");
                let shown = format!("{}/{}/{}", key.0, key.1, key.2);
                errors.push(ports.index(j).child("hostPort").duplicate(shown));
            } else {
                taken.push(key);
            }
        }
    }
}

fn mounts(errors: &mut Errors, at: &Loc<'_>, container: &Common<'_>, scope: &PodScope<'_>) {
    let privileged = container.security.and_then(|c| c.privileged) == Some(true);
    for (i, mount) in container.mounts.iter().enumerate() {
        let at = at.index(i);
        if mount.name.is_empty() {
            errors.push(at.child("name").required(""));
        }
        if !scope.volumes.iter().any(|v| v.name == mount.name) {
            errors.push(at.child("name").not_found(mount.name.as_str()));
        }
        if mount.mount_path.is_empty() {
            errors.push(at.child("mountPath").required(""));
        }
        if container.mounts[..i]
            .iter()
            .any(|m| m.mount_path == mount.mount_path)
        {
            errors.push(
                at.child("mountPath")
                    .invalid(mount.mount_path.as_str(), "must be unique"),
            );
        }
        if container
            .devices
            .iter()
            .any(|d| d.device_path == mount.mount_path)
        {
            let detail = "must not already exist in volumeDevices";
            errors.push(at.child("mountPath").invalid(mount.mount_path.as_str(), detail));
        }
        let sub_path = mount.sub_path.as_deref().unwrap_or("");
        let expression = mount.sub_path_expr.as_deref().unwrap_or("");
        if !sub_path.is_empty() {
            rules::descending_path(errors, &at.child("subPath"), sub_path);
        }
        if !expression.is_empty() {
            let at = at.child("subPathExpr");
            if !sub_path.is_empty() {
                errors.push(at.invalid(expression, "subPathExpr and subPath are mutually exclusive"));
            }
            rules::descending_path(errors, &at, expression);
        }
        propagation(errors, &at, mount, privileged);
        if let Some(volume) = scope.volumes.iter().find(|v| v.name == mount.name)
            && volume.image.is_some()
            && !expression.is_empty()
        {
            errors.push(
                at.child("subPathExpr")
                    .invalid(expression, "not allowed in image volume sources"),
            );
        }
    }
}

fn propagation(errors: &mut Errors, at: &Loc<'_>, mount: &VolumeMount, privileged: bool) {
    let mode = mount.mount_propagation.as_deref();
    if mode.is_some() {
        let at = at.child("mountPropagation");
        rules::optional_one_of(errors, &at, mode, &["Bidirectional", "HostToContainer", "None"]);
        if mode == Some("Bidirectional") && !privileged {
            let detail = "Bidirectional mount propagation is available only to privileged containers";
            errors.push(at.forbidden(detail));
        }
    }
    let at = at.child("recursiveReadOnly");
    match mount.recursive_read_only.as_deref() {
        None | Some("Disabled") => {}
        Some("Enabled" | "IfPossible") => {
            if mount.read_only != Some(true) {
                errors.push(at.forbidden("may only be specified when readOnly is true"));
            }
            if mode.is_some_and(|m| m != "None") {
                errors.push(
                    at.forbidden("may only be specified when mountPropagation is None or not specified"),
                );
            }
        }
        Some(other) => errors.push(at.not_supported(other, &["Disabled", "Enabled", "IfPossible"])),
    }
}

fn devices(errors: &mut Errors, at: &Loc<'_>, container: &Common<'_>, scope: &PodScope<'_>) {
    for (i, device) in container.devices.iter().enumerate() {
        let at = at.index(i);
        let path = device.device_path.as_str();
        if device.name.is_empty() {
            errors.push(at.child("name").required(""));
        }
        match scope.volumes.iter().find(|v| v.name == device.name) {
            None => errors.push(at.child("name").not_found(device.name.as_str())),
            Some(volume) if volume.persistent_volume_claim.is_none() && volume.ephemeral.is_none() => {
                let detail =
                    "can only use volume source type of PersistentVolumeClaim or Ephemeral for block mode";
                errors.push(at.child("name").invalid(device.name.as_str(), detail));
            }
            Some(_) => {}
        }
        if path.is_empty() {
            errors.push(at.child("devicePath").required(""));
        } else if path.split('/').any(|part| part == "..") {
            errors.push(
                at.child("devicePath")
                    .invalid(path, "can not contain backsteps ('..')"),
            );
        }
        if container.devices[..i].iter().any(|d| d.device_path == path) {
            errors.push(at.child("devicePath").invalid(path, "must be unique"));
        }
        if container.mounts.iter().any(|m| m.mount_path == path) {
            errors.push(
                at.child("devicePath")
                    .invalid(path, "must not already exist in volumeMounts"),
            );
        }
    }
}
