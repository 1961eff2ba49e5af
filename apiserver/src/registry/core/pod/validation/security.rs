//! Security contexts of pods and containers.

use k8s_openapi::api::core::v1::{AppArmorProfile, PodSpec, SeccompProfile, SecurityContext, Sysctl};
use keelson_api::field::Errors;

use crate::registry::common::loc::Loc;
use crate::registry::common::rules;

const SYSCTL_FORMAT: &str = "[a-z0-9]([-_a-z0-9]*[a-z0-9])?([\\./][a-z0-9]([-_a-z0-9]*[a-z0-9])?)*";
const SYSCTL_MAX: usize = 253;

/// The pod's own context, and what of the spec belongs to it.
pub fn pod(errors: &mut Errors, at: &Loc<'_>, spec: &PodSpec) {
    if spec.host_pid == Some(true) && spec.share_process_namespace == Some(true) {
        let detail = "ShareProcessNamespace and HostPID cannot both be enabled";
        errors.push(at.child("shareProcessNamespace").invalid(true, detail));
    }
    if spec.host_users == Some(false) {
        for (field, set) in [
            ("hostNetwork", spec.host_network == Some(true)),
            ("HostPID", spec.host_pid == Some(true)),
            ("HostIPC", spec.host_ipc == Some(true)),
        ] {
            if set {
                errors.push(at.child(field).forbidden("when `hostUsers` is false"));
            }
        }
    }
    let Some(context) = &spec.security_context else {
        return;
    };
    rules::id(errors, &at.child("runAsUser"), context.run_as_user);
    rules::id(errors, &at.child("runAsGroup"), context.run_as_group);
    rules::id(errors, &at.child("fsGroup"), context.fs_group);
    for (i, group) in context.supplemental_groups.iter().flatten().enumerate() {
        let at = at.child("supplementalGroups");
        rules::id(errors, &at.index(i), Some(*group));
    }
    if let Some(list) = &context.sysctls {
        sysctls(errors, &at.child("sysctls"), list, spec);
    }
    for (field, value, supported) in [
        (
            "fsGroupChangePolicy",
            &context.fs_group_change_policy,
            ["Always", "OnRootMismatch"],
        ),
        (
            "supplementalGroupsPolicy",
            &context.supplemental_groups_policy,
            ["Merge", "Strict"],
        ),
        (
            "seLinuxChangePolicy",
            &context.se_linux_change_policy,
            ["MountOption", "Recursive"],
        ),
    ] {
        rules::optional_one_of(errors, &at.child(field), value.as_deref(), &supported);
    }
    if let Some(profile) = &context.seccomp_profile {
        seccomp(errors, &at.child("seccompProfile"), profile);
    }
    if let Some(profile) = &context.app_armor_profile {
        app_armor(errors, &at.child("appArmorProfile"), profile);
    }
    if let Some(options) = &context.windows_options
        && spec.os.as_ref().is_some_and(|os| os.name == "linux")
    {
        let _ = options;
        let detail = "windows options cannot be set for a linux pod";
        errors.push(at.child("windowsOptions").forbidden(detail));
    }
}

/// A container's context.
pub fn container(errors: &mut Errors, at: &Loc<'_>, context: &SecurityContext, host_users: bool) {
    rules::id(errors, &at.child("runAsUser"), context.run_as_user);
    rules::id(errors, &at.child("runAsGroup"), context.run_as_group);
    if let Some(mount) = context.proc_mount.as_deref()
        && !mount.is_empty()
    {
        let at = at.child("procMount");
        rules::optional_one_of(errors, &at, Some(mount), &["Default", "Unmasked"]);
        if mount == "Unmasked" && host_users {
            errors.push(at.invalid(mount, "`hostUsers` must be false to use `Unmasked`"));
        }
    }
    if let Some(profile) = &context.seccomp_profile {
        seccomp(errors, &at.child("seccompProfile"), profile);
    }
    if context.allow_privilege_escalation == Some(false) {
        if context.privileged == Some(true) {
            let detail = "cannot set `allowPrivilegeEscalation` to false and `privileged` to true";
            errors.push(at.invalid(rules::shown(context), detail));
        }
        let added = context.capabilities.iter().flat_map(|c| c.add.iter().flatten());
        if added.into_iter().any(|c| c == "CAP_SYS_ADMIN") {
            let detail =
                "cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN";
            errors.push(at.invalid(rules::shown(context), detail));
        }
    }
    if let Some(profile) = &context.app_armor_profile {
        app_armor(errors, &at.child("appArmorProfile"), profile);
    }
}

fn seccomp(errors: &mut Errors, at: &Loc<'_>, profile: &SeccompProfile) {
    let local = profile.localhost_profile.as_deref();
    match profile.type_.as_str() {
        "Localhost" => match local {
            None => {
                let detail = "must be set when seccomp type is Localhost";
                errors.push(at.child("localhostProfile").required(detail));
            }
            Some(path) => rules::descending_path(errors, &at.child("localhostProfile"), path),
        },
        "RuntimeDefault" | "Unconfined" => {
            if let Some(path) = local {
                let detail = "can only be set when seccomp type is Localhost";
                errors.push(at.child("localhostProfile").invalid(path, detail));
            }
        }
        "" => errors.push(
            at.child("type")
                .required("type is required when seccompProfile is set"),
        ),
        other => {
            errors.push(
                at.child("type")
                    .not_supported(other, &["Localhost", "RuntimeDefault", "Unconfined"]),
            );
        }
    }
}

fn app_armor(errors: &mut Errors, at: &Loc<'_>, profile: &AppArmorProfile) {
    let local = profile.localhost_profile.as_deref();
    match profile.type_.as_str() {
        "Localhost" => match local {
            None => {
                let detail = "must be set when AppArmor type is Localhost";
                errors.push(at.child("localhostProfile").required(detail));
            }
            Some(name) if name.trim() != name => {
                errors.push(
                    at.child("localhostProfile")
                        .invalid(name, "must not be padded with whitespace"),
                );
            }
            Some("") => errors.push(
                at.child("localhostProfile")
                    .required("must be set when AppArmor type is Localhost"),
            ),
            Some(_) => {}
        },
        "RuntimeDefault" | "Unconfined" => {
            if let Some(name) = local {
                let detail = "can only be set when AppArmor type is Localhost";
                errors.push(at.child("localhostProfile").invalid(name, detail));
            }
        }
        "" => errors.push(
            at.child("type")
                .required("type is required when appArmorProfile is set"),
        ),
        other => {
            errors.push(
                at.child("type")
                    .not_supported(other, &["Localhost", "RuntimeDefault", "Unconfined"]),
            );
        }
    }
}

fn sysctls(errors: &mut Errors, at: &Loc<'_>, sysctls: &[Sysctl], spec: &PodSpec) {
    for (i, sysctl) in sysctls.iter().enumerate() {
        let at = at.index(i);
        let name = sysctl.name.as_str();
        if name.is_empty() {
            errors.push(at.child("name").required(""));
        } else if !is_sysctl_name(name) {
            let detail = format!("must have at most {SYSCTL_MAX} characters and match regex {SYSCTL_FORMAT}");
            errors.push(at.child("name").invalid(name, detail));
        } else if sysctls[..i]
            .iter()
            .any(|s| s.name.replace('/', ".") == name.replace('/', "."))
        {
            errors.push(at.child("name").duplicate(name));
        }
        let dotted = name.replace('/', ".");
        if spec.host_network == Some(true) && dotted.starts_with("net.") {
            let detail = "may not be specified when 'hostNetwork' is true";
            errors.push(at.child("name").invalid(name, detail));
        }
        if spec.host_ipc == Some(true)
            && (dotted.starts_with("kernel.shm")
                || dotted.starts_with("kernel.msg")
                || dotted.starts_with("kernel.sem")
                || dotted.starts_with("fs.mqueue."))
        {
            errors.push(
                at.child("name")
                    .invalid(name, "may not be specified when 'hostIPC' is true"),
            );
        }
    }
}

fn is_sysctl_name(name: &str) -> bool {
    let end = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    name.len() <= SYSCTL_MAX
        && name.split(['.', '/']).all(|part| {
            let bytes = part.as_bytes();
            matches!((bytes.first(), bytes.last()), (Some(&first), Some(&last)) if end(first) && end(last))
                && bytes.iter().all(|&b| end(b) || b == b'-' || b == b'_')
        })
}
