//! Security contexts: whom a container runs as and what it may do.

use k8s_openapi::api::core::v1::{AppArmorProfile, Container, Pod, SELinuxOptions, SeccompProfile};
use keelson_proto::cri;
use std::path::Path;

use crate::objects::{ContainerKind, PodExt};

/// Paths of /proc and /sys that the default `procMount` hides.
const MASKED: [&str; 11] = [
    "/proc/asound",
    "/proc/acpi",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
];

/// Paths of /proc that the default `procMount` makes read-only.
const READ_ONLY: [&str; 5] = [
    "/proc/bus",
    "/proc/fs",
    "/proc/irq",
    "/proc/sys",
    "/proc/sysrq-trigger",
];

/// A container that may not run as its image wants.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SecurityError {
    /// `runAsNonRoot`, and the user is root.
    #[error("container has runAsNonRoot and image will run as root (pod: \"{pod}\", container: {container})")]
    ImageRunsAsRoot {
        /// As messages name pods.
        pod: String,
        /// Its name.
        container: String,
    },
    /// `runAsNonRoot` and `runAsUser: 0`.
    #[error("container's runAsUser breaks non-root policy (pod: \"{pod}\", container: {container})")]
    UserIsRoot {
        /// As messages name pods.
        pod: String,
        /// Its name.
        container: String,
    },
    /// `runAsNonRoot`, and only the image knows who its user is.
    #[error(
        "container has runAsNonRoot and image has non-numeric user ({user}), cannot verify user is non-root (pod: \"{pod}\", container: {container})"
    )]
    UserIsName {
        /// The image's user.
        user: String,
        /// As messages name pods.
        pod: String,
        /// Its name.
        container: String,
    },
}

/// Checks `runAsNonRoot` against the user that the container would run as.
///
/// # Errors
/// See [`SecurityError`].
pub fn verify_non_root(pod: &Pod, container: &Container, image: &cri::Image) -> Result<(), SecurityError> {
    let of_pod = pod.spec().security_context.as_ref();
    let own = container.security_context.as_ref();
    let wanted = own
        .and_then(|own| own.run_as_non_root)
        .or(of_pod.and_then(|of_pod| of_pod.run_as_non_root));
    if wanted != Some(true) {
        return Ok(());
    }
    let (pod_name, name) = (pod.full_name(), container.name.clone());
    let user = own
        .and_then(|own| own.run_as_user)
        .or(of_pod.and_then(|of_pod| of_pod.run_as_user));
    match user {
        Some(0) => Err(SecurityError::UserIsRoot {
            pod: pod_name,
            container: name,
        }),
        Some(_) => Ok(()),
        None => match (&image.uid, image.username.as_str()) {
            (Some(uid), _) if uid.value == 0 => Err(SecurityError::ImageRunsAsRoot {
                pod: pod_name,
                container: name,
            }),
            (Some(_), _) => Ok(()),
            (None, "") => Err(SecurityError::ImageRunsAsRoot {
                pod: pod_name,
                container: name,
            }),
            (None, user) => Err(SecurityError::UserIsName {
                user: user.into(),
                pod: pod_name,
                container: name,
            }),
        },
    }
}

fn value(value: i64) -> Option<cri::Int64Value> {
    Some(cri::Int64Value { value })
}

fn profile(kind: &str, localhost: Option<&str>) -> cri::SecurityProfile {
    use cri::security_profile::ProfileType;
    let (profile_type, localhost_ref) = match kind {
        "RuntimeDefault" => (ProfileType::RuntimeDefault, String::new()),
        "Localhost" => (ProfileType::Localhost, localhost.unwrap_or_default().to_owned()),
        _ => (ProfileType::Unconfined, String::new()),
    };
    cri::SecurityProfile {
        profile_type: profile_type.into(),
        localhost_ref,
    }
}

fn seccomp(wanted: Option<&SeccompProfile>, seccomp_dir: &Path) -> cri::SecurityProfile {
    let Some(wanted) = wanted else {
        return profile("Unconfined", None);
    };
    let path = wanted
        .localhost_profile
        .as_ref()
        .map(|file| seccomp_dir.join(file).display().to_string());
    profile(&wanted.type_, path.as_deref())
}

fn apparmor(wanted: Option<&AppArmorProfile>) -> Option<cri::SecurityProfile> {
    wanted.map(|wanted| profile(&wanted.type_, wanted.localhost_profile.as_deref()))
}

fn selinux(wanted: Option<&SELinuxOptions>) -> Option<cri::SeLinuxOption> {
    wanted.map(|wanted| cri::SeLinuxOption {
        user: wanted.user.clone().unwrap_or_default(),
        role: wanted.role.clone().unwrap_or_default(),
        r#type: wanted.type_.clone().unwrap_or_default(),
        level: wanted.level.clone().unwrap_or_default(),
    })
}

/// The namespaces of a pod, seen from a container or from the sandbox.
pub fn namespaces(pod: &Pod, target: Option<String>) -> cri::NamespaceOption {
    let spec = pod.spec();
    let mode = |host: Option<bool>| {
        if host == Some(true) {
            cri::NamespaceMode::Node
        } else {
            cri::NamespaceMode::Pod
        }
    };
    let pid = match (spec.host_pid, spec.share_process_namespace, &target) {
        (Some(true), ..) => cri::NamespaceMode::Node,
        (_, Some(true), _) => cri::NamespaceMode::Pod,
        (_, _, Some(_)) => cri::NamespaceMode::Target,
        _ => cri::NamespaceMode::Container,
    };
    cri::NamespaceOption {
        network: mode(spec.host_network).into(),
        ipc: mode(spec.host_ipc).into(),
        pid: pid.into(),
        target_id: if pid == cri::NamespaceMode::Target {
            target.unwrap_or_default()
        } else {
            String::new()
        },
        userns_options: None,
    }
}

fn groups(pod: &Pod) -> Vec<i64> {
    let Some(context) = &pod.spec().security_context else {
        return Vec::new();
    };
    context
        .fs_group
        .into_iter()
        .chain(context.supplemental_groups.iter().flatten().copied())
        .collect()
}

fn groups_policy(pod: &Pod) -> i32 {
    let strict = pod
        .spec()
        .security_context
        .as_ref()
        .and_then(|context| context.supplemental_groups_policy.as_deref())
        == Some("Strict");
    (if strict {
        cri::SupplementalGroupsPolicy::Strict
    } else {
        cri::SupplementalGroupsPolicy::Merge
    })
    .into()
}

/// The security context of a pod's sandbox.
pub fn of_sandbox(pod: &Pod, seccomp_dir: &Path) -> cri::LinuxSandboxSecurityContext {
    let of_pod = pod.spec().security_context.as_ref();
    let privileged = pod
        .all_containers()
        .iter()
        .any(|(container, _)| is_privileged(container));
    cri::LinuxSandboxSecurityContext {
        namespace_options: Some(namespaces(pod, None)),
        privileged,
        // The sandbox runs only the pause program: the default profile never hurts it.
        seccomp: Some(match of_pod.and_then(|of_pod| of_pod.seccomp_profile.as_ref()) {
            Some(wanted) => seccomp(Some(wanted), seccomp_dir),
            None => profile("RuntimeDefault", None),
        }),
        run_as_user: of_pod.and_then(|of_pod| of_pod.run_as_user).and_then(value),
        run_as_group: of_pod
            .filter(|of_pod| of_pod.run_as_user.is_some())
            .and_then(|of_pod| of_pod.run_as_group)
            .and_then(value),
        selinux_options: selinux(of_pod.and_then(|of_pod| of_pod.se_linux_options.as_ref())),
        supplemental_groups: groups(pod),
        supplemental_groups_policy: groups_policy(pod),
        ..Default::default()
    }
}

/// Does the container ask for everything?
pub fn is_privileged(container: &Container) -> bool {
    container
        .security_context
        .as_ref()
        .and_then(|own| own.privileged)
        .unwrap_or(false)
}

/// The security context of a container: its own settings, then its pod's, then what its image says.
pub fn of_container(
    pod: &Pod,
    container: &Container,
    kind: ContainerKind,
    target: Option<String>,
    image: &cri::Image,
    seccomp_dir: &Path,
) -> cri::LinuxContainerSecurityContext {
    debug_assert!(target.is_none() || kind == ContainerKind::Ephemeral);
    let of_pod = pod.spec().security_context.as_ref();
    let own = container.security_context.as_ref();
    let privileged = is_privileged(container);
    let user = own
        .and_then(|own| own.run_as_user)
        .or(of_pod.and_then(|of_pod| of_pod.run_as_user));
    let group = own
        .and_then(|own| own.run_as_group)
        .or(of_pod.and_then(|of_pod| of_pod.run_as_group));
    let wanted_seccomp = own
        .and_then(|own| own.seccomp_profile.as_ref())
        .or(of_pod.and_then(|of_pod| of_pod.seccomp_profile.as_ref()));
    let wanted_apparmor = own
        .and_then(|own| own.app_armor_profile.as_ref())
        .or(of_pod.and_then(|of_pod| of_pod.app_armor_profile.as_ref()));
    let wanted_selinux = own
        .and_then(|own| own.se_linux_options.as_ref())
        .or(of_pod.and_then(|of_pod| of_pod.se_linux_options.as_ref()));
    let capabilities = own.and_then(|own| own.capabilities.as_ref());
    let hides = own.and_then(|own| own.proc_mount.as_deref()) != Some("Unmasked") && !privileged;
    let paths = |all: &[&str]| {
        if hides {
            all.iter().map(|path| (*path).to_owned()).collect()
        } else {
            Vec::new()
        }
    };
    // A group goes only with a user. Without one of our own, the image's user is named explicitly.
    let run_as_user = user.or(group.and(image.uid.as_ref().map(|uid| uid.value)));
    let run_as_username = if user.is_none() && group.is_some() && image.uid.is_none() {
        image.username.clone()
    } else {
        String::new()
    };
    let run_as_group = group.filter(|_| run_as_user.is_some() || !run_as_username.is_empty());
    cri::LinuxContainerSecurityContext {
        capabilities: Some(cri::Capability {
            add_capabilities: capabilities.and_then(|all| all.add.clone()).unwrap_or_default(),
            drop_capabilities: capabilities.and_then(|all| all.drop.clone()).unwrap_or_default(),
            ..Default::default()
        }),
        privileged,
        namespace_options: Some(namespaces(pod, target)),
        selinux_options: selinux(wanted_selinux),
        run_as_user: run_as_user.and_then(value),
        run_as_group: run_as_group.and_then(value),
        run_as_username,
        readonly_rootfs: own.and_then(|own| own.read_only_root_filesystem).unwrap_or(false),
        supplemental_groups: groups(pod),
        supplemental_groups_policy: groups_policy(pod),
        no_new_privs: own.and_then(|own| own.allow_privilege_escalation) == Some(false),
        masked_paths: paths(&MASKED),
        readonly_paths: paths(&READ_ONLY),
        seccomp: Some(if privileged {
            profile("Unconfined", None)
        } else {
            seccomp(wanted_seccomp, seccomp_dir)
        }),
        apparmor: apparmor(wanted_apparmor),
        ..Default::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(of_pod: serde_json::Value, own: serde_json::Value) -> Pod {
        serde_json::from_value(json!({"spec": {"securityContext": of_pod, "containers": [{"name": "c", "securityContext": own}]}})).expect("a pod")
    }

    #[test]
    fn root_is_refused_where_it_must_not_be() {
        let check = |pod: Pod, image: cri::Image| verify_non_root(&pod, &pod.containers()[0], &image);
        let root = cri::Image {
            uid: value(0),
            ..Default::default()
        };
        let named = cri::Image {
            username: "web".into(),
            ..Default::default()
        };
        let strict = || pod(json!({"runAsNonRoot": true}), json!({}));
        assert!(matches!(
            check(strict(), root.clone()),
            Err(SecurityError::ImageRunsAsRoot { .. })
        ));
        assert!(matches!(
            check(strict(), named),
            Err(SecurityError::UserIsName { .. })
        ));
        assert_eq!(
            check(
                pod(json!({"runAsNonRoot": true}), json!({"runAsUser": 7})),
                root.clone()
            ),
            Ok(())
        );
        assert_eq!(check(pod(json!({}), json!({})), root), Ok(()));
    }

    #[test]
    fn a_container_overrides_its_pod() {
        let pod = pod(
            json!({"runAsUser": 1, "runAsGroup": 2, "fsGroup": 3}),
            json!({"runAsUser": 4, "allowPrivilegeEscalation": false}),
        );
        let made = of_container(
            &pod,
            &pod.containers()[0],
            ContainerKind::Regular,
            None,
            &cri::Image::default(),
            Path::new("/s"),
        );
        assert_eq!(made.run_as_user, value(4));
        assert_eq!(made.run_as_group, value(2));
        assert_eq!(made.supplemental_groups, [3]);
        assert!(made.no_new_privs && !made.masked_paths.is_empty());
    }
}
