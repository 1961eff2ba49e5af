//! What each level forbids, and in which words.
//!
//! <https://kubernetes.io/docs/concepts/security/pod-security-standards/>

use k8s_openapi::api::core::v1::{PodSecurityContext, PodSpec, Volume};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::containers::{self, One};
use super::policy::{Bar, Level, Version};

const APPARMOR_ANNOTATION: &str = "container.apparmor.security.beta.kubernetes.io/";
/// Sysctls of the pod alone, each with the release since which it is allowed.
const SYSCTLS: &[(&str, u32)] = &[
    ("kernel.shm_rmid_forced", 0),
    ("net.ipv4.ip_local_port_range", 0),
    ("net.ipv4.tcp_syncookies", 0),
    ("net.ipv4.ping_group_range", 0),
    ("net.ipv4.ip_unprivileged_port_start", 0),
    ("net.ipv4.ip_local_reserved_ports", 27),
    ("net.ipv4.tcp_keepalive_time", 29),
    ("net.ipv4.tcp_fin_timeout", 29),
    ("net.ipv4.tcp_keepalive_intvl", 29),
    ("net.ipv4.tcp_keepalive_probes", 29),
    ("net.ipv4.tcp_rmem", 32),
    ("net.ipv4.tcp_wmem", 32),
];
/// Since this release a user namespace makes some checks needless.
const USER_NAMESPACES: u32 = 35;

/// A pod, or a template of pods, as checks see it.
pub struct Subject<'a> {
    /// Its metadata.
    pub metadata: &'a ObjectMeta,
    /// Its spec.
    pub spec: &'a PodSpec,
    /// Settings for all containers.
    pub context: PodSecurityContext,
    /// Init containers, containers, ephemeral containers.
    pub containers: Vec<One<'a>>,
}

impl<'a> Subject<'a> {
    /// `None` for what has no spec.
    pub fn of(metadata: &'a ObjectMeta, spec: Option<&'a PodSpec>) -> Option<Self> {
        let spec = spec?;
        Some(Self {
            metadata,
            spec,
            context: spec.security_context.clone().unwrap_or_default(),
            containers: containers::all(spec),
        })
    }

    fn on_windows(&self) -> bool {
        self.spec.os.as_ref().is_some_and(|os| os.name == "windows")
    }

    fn in_user_namespace(&self, version: Version) -> bool {
        version.since(USER_NAMESPACES) && self.spec.host_users == Some(false)
    }
}

/// What is wrong with a subject.
#[derive(Debug, Default)]
pub struct Violations(Vec<(String, String)>);

impl Violations {
    /// Whether nothing is.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// In short.
    pub fn reasons(&self) -> String {
        let reasons: Vec<&str> = self.0.iter().map(|(reason, _)| reason.as_str()).collect();
        reasons.join(", ")
    }

    /// In full.
    pub fn details(&self) -> String {
        let details: Vec<String> = self
            .0
            .iter()
            .map(|(reason, detail)| format!("{reason} ({detail})"))
            .collect();
        details.join(", ")
    }

    /// Puts a violation on record.
    pub fn add(&mut self, reason: impl Into<String>, detail: String) {
        self.0.push((reason.into(), detail));
    }
}

/// Everything that is wrong, in the order of upstream's names for the checks.
pub fn evaluate(bar: Bar, subject: &Subject<'_>) -> Violations {
    let mut found = Violations::default();
    if bar.level == Level::Privileged {
        return found;
    }
    let restricted = bar.level == Level::Restricted;
    baseline(&mut found, bar, subject);
    if restricted {
        restrict(&mut found, bar.version, subject);
    }
    found
}

fn baseline(found: &mut Violations, bar: Bar, subject: &Subject<'_>) {
    let (version, restricted) = (bar.version, bar.level == Level::Restricted);
    app_armor(found, subject);
    // The stricter level looks at these itself.
    if !(restricted && version.since(22)) {
        containers::default_capabilities(found, subject);
    }
    host_namespaces(found, subject);
    if !restricted {
        host_paths(found, subject);
    }
    containers::host_ports(found, subject);
    if version.since(34) {
        containers::probe_hosts(found, subject);
    }
    containers::privileged(found, subject);
    if restricted || !subject.in_user_namespace(version) {
        containers::proc_mount(found, subject);
    }
    se_linux(found, version, subject);
    if !(restricted && version.since(19)) {
        containers::seccomp_not_unconfined(found, subject);
    }
    sysctls(found, version, subject);
    host_process(found, subject);
}

fn restrict(found: &mut Violations, version: Version, subject: &Subject<'_>) {
    let exempt = version.since(25) && subject.on_windows();
    if version.since(8) && !exempt {
        containers::privilege_escalation(found, subject);
    }
    if version.since(22) && !exempt {
        containers::dropped_capabilities(found, subject);
    }
    volumes(found, subject);
    if !subject.in_user_namespace(version) {
        containers::non_root(found, subject);
        if version.since(23) {
            containers::not_user_zero(found, subject);
        }
    }
    if version.since(19) && !exempt {
        containers::seccomp_required(found, subject);
    }
}

/// `"a", "b"`
pub fn quoted<S: AsRef<str>>(names: &[S]) -> String {
    let names: Vec<String> = names.iter().map(|name| format!("{:?}", name.as_ref())).collect();
    names.join(", ")
}

/// One word for one thing, another for several.
pub fn plural<'a>(one: &'a str, several: &'a str, count: usize) -> &'a str {
    if count == 1 { one } else { several }
}

/// `container "a"`, `containers "a", "b"`
pub fn named(names: &[&str]) -> String {
    format!(
        "{} {}",
        plural("container", "containers", names.len()),
        quoted(names)
    )
}

/// Who has set something: the pod, some containers, or both. `None` for nobody.
pub fn setters(pod: bool, containers: &[&str]) -> Option<String> {
    match (pod, containers.is_empty()) {
        (false, true) => None,
        (true, true) => Some("pod".to_owned()),
        (false, false) => Some(named(containers)),
        (true, false) => Some(format!("pod and {}", named(containers))),
    }
}

/// Without repetitions, in order.
pub fn sorted<T: Ord>(mut list: Vec<T>) -> Vec<T> {
    list.sort();
    list.dedup();
    list
}

fn app_armor(found: &mut Violations, subject: &Subject<'_>) {
    const REASON: (&str, &str) = ("forbidden AppArmor profile", "forbidden AppArmor profiles");
    let allowed = |profile: &str| {
        profile.is_empty() || profile == "runtime/default" || profile.starts_with("localhost/")
    };
    let annotations = subject.metadata.annotations.iter().flatten();
    let annotated: Vec<String> = annotations
        .filter(|(key, profile)| key.starts_with(APPARMOR_ANNOTATION) && !allowed(profile))
        .map(|(key, profile)| format!("{key}={profile:?}"))
        .collect();
    if !annotated.is_empty() {
        let reason = plural(REASON.0, REASON.1, annotated.len());
        found.add(reason, annotated.join(", "));
        return;
    }
    let bad = |kind: &str| !matches!(kind, "RuntimeDefault" | "Localhost");
    let of_pod = subject
        .context
        .app_armor_profile
        .as_ref()
        .filter(|p| bad(&p.type_));
    let mut values: Vec<&str> = of_pod.iter().map(|p| p.type_.as_str()).collect();
    let mut names = Vec::new();
    for one in &subject.containers {
        let profile = one.context.and_then(|c| c.app_armor_profile.as_ref());
        if let Some(profile) = profile.filter(|p| bad(&p.type_)) {
            names.push(one.name);
            values.push(&profile.type_);
        }
    }
    if let Some(setters) = setters(of_pod.is_some(), &names) {
        let values = sorted(values);
        let detail = format!(
            "{setters} must not set AppArmor profile type to {}",
            quoted(&values)
        );
        found.add(plural(REASON.0, REASON.1, values.len()), detail);
    }
}

fn host_namespaces(found: &mut Violations, subject: &Subject<'_>) {
    let spec = subject.spec;
    let set: Vec<&str> = [
        ("hostNetwork=true", spec.host_network),
        ("hostPID=true", spec.host_pid),
        ("hostIPC=true", spec.host_ipc),
    ]
    .into_iter()
    .filter(|(_, set)| *set == Some(true))
    .map(|(text, _)| text)
    .collect();
    if !set.is_empty() {
        found.add("host namespaces", set.join(", "));
    }
}

fn host_paths(found: &mut Violations, subject: &Subject<'_>) {
    let volumes = subject.spec.volumes.iter().flatten();
    let names: Vec<&str> = volumes
        .filter(|v| v.host_path.is_some())
        .map(|v| v.name.as_str())
        .collect();
    if !names.is_empty() {
        let detail = format!("{} {}", plural("volume", "volumes", names.len()), quoted(&names));
        found.add("hostPath volumes", detail);
    }
}

fn se_linux(found: &mut Violations, version: Version, subject: &Subject<'_>) {
    let allowed = |kind: &str| match kind {
        "" | "container_t" | "container_init_t" | "container_kvm_t" => true,
        "container_engine_t" => version.since(31),
        _ => false,
    };
    let (mut types, mut user, mut role) = (Vec::new(), false, false);
    let mut bad = |options: &k8s_openapi::api::core::v1::SELinuxOptions| {
        let is_set = |text: &Option<String>| text.as_ref().is_some_and(|text| !text.is_empty());
        let kind = options.type_.clone().unwrap_or_default();
        let wrong_type = !allowed(&kind);
        if wrong_type {
            types.push(kind);
        }
        user |= is_set(&options.user);
        role |= is_set(&options.role);
        wrong_type || is_set(&options.user) || is_set(&options.role)
    };
    let pod = subject.context.se_linux_options.as_ref().is_some_and(&mut bad);
    let mut names = Vec::new();
    for one in &subject.containers {
        if one
            .context
            .and_then(|c| c.se_linux_options.as_ref())
            .is_some_and(&mut bad)
        {
            names.push(one.name);
        }
    }
    let Some(setters) = setters(pod, &names) else {
        return;
    };
    let types = sorted(types);
    let mut data = Vec::new();
    if !types.is_empty() {
        data.push(format!(
            "{} {}",
            plural("type", "types", types.len()),
            quoted(&types)
        ));
    }
    if user {
        data.push("user may not be set".to_owned());
    }
    if role {
        data.push("role may not be set".to_owned());
    }
    let detail = format!(
        "{setters} set forbidden securityContext.seLinuxOptions: {}",
        data.join("; ")
    );
    found.add("seLinuxOptions", detail);
}

fn sysctls(found: &mut Violations, version: Version, subject: &Subject<'_>) {
    let allowed = |name: &str| {
        SYSCTLS
            .iter()
            .any(|(known, since)| *known == name && version.since(*since))
    };
    let sysctls = subject.context.sysctls.iter().flatten();
    let names: Vec<&str> = sysctls
        .map(|s| s.name.as_str())
        .filter(|name| !allowed(name))
        .collect();
    if !names.is_empty() {
        found.add("forbidden sysctls", names.join(", "));
    }
}

fn host_process(found: &mut Violations, subject: &Subject<'_>) {
    let set = |options: Option<&k8s_openapi::api::core::v1::WindowsSecurityContextOptions>| {
        options.and_then(|o| o.host_process) == Some(true)
    };
    let pod = set(subject.context.windows_options.as_ref());
    let names = subject.names(|one| set(one.context.and_then(|c| c.windows_options.as_ref())));
    if let Some(setters) = setters(pod, &names) {
        let detail = format!("{setters} must not set securityContext.windowsOptions.hostProcess=true");
        found.add("hostProcess", detail);
    }
}

/// The type of a volume that only hardened pods may not have.
fn restricted_type(volume: &Volume) -> Option<&'static str> {
    let allowed = volume.config_map.is_some()
        || volume.csi.is_some()
        || volume.downward_api.is_some()
        || volume.empty_dir.is_some()
        || volume.ephemeral.is_some()
        || volume.image.is_some()
        || volume.persistent_volume_claim.is_some()
        || volume.projected.is_some()
        || volume.secret.is_some();
    if allowed {
        return None;
    }
    let types = [
        (volume.host_path.is_some(), "hostPath"),
        (volume.gce_persistent_disk.is_some(), "gcePersistentDisk"),
        (volume.aws_elastic_block_store.is_some(), "awsElasticBlockStore"),
        (volume.git_repo.is_some(), "gitRepo"),
        (volume.nfs.is_some(), "nfs"),
        (volume.iscsi.is_some(), "iscsi"),
        (volume.glusterfs.is_some(), "glusterfs"),
        (volume.rbd.is_some(), "rbd"),
        (volume.flex_volume.is_some(), "flexVolume"),
        (volume.cinder.is_some(), "cinder"),
        (volume.cephfs.is_some(), "cephfs"),
        (volume.flocker.is_some(), "flocker"),
        (volume.fc.is_some(), "fc"),
        (volume.azure_file.is_some(), "azureFile"),
        (volume.azure_disk.is_some(), "azureDisk"),
        (volume.vsphere_volume.is_some(), "vsphereVolume"),
        (volume.quobyte.is_some(), "quobyte"),
        (volume.portworx_volume.is_some(), "portworxVolume"),
        (volume.scale_io.is_some(), "scaleIO"),
        (volume.storageos.is_some(), "storageos"),
    ];
    let found = types.into_iter().find(|(set, _)| *set);
    Some(found.map_or("unknown", |(_, name)| name))
}

fn volumes(found: &mut Violations, subject: &Subject<'_>) {
    let (mut names, mut types) = (Vec::new(), Vec::new());
    for volume in subject.spec.volumes.iter().flatten() {
        if let Some(kind) = restricted_type(volume) {
            names.push(volume.name.as_str());
            types.push(kind);
        }
    }
    if names.is_empty() {
        return;
    }
    let types = sorted(types);
    let detail = format!(
        "{} {} {} {} {}",
        plural("volume", "volumes", names.len()),
        quoted(&names),
        plural("uses", "use", names.len()),
        plural("restricted volume type", "restricted volume types", types.len()),
        quoted(&types)
    );
    found.add("restricted volume types", detail);
}
