//! Checks of each container.

use k8s_openapi::api::core::v1::{
    Container, ContainerPort, HTTPGetAction, Lifecycle, LifecycleHandler, PodSpec, Probe, SecurityContext,
    TCPSocketAction,
};

use super::checks::{Subject, Violations, named, plural, quoted, setters, sorted};

/// What a container may add without more rights than it has by default.
const DEFAULT_CAPABILITIES: &[&str] = &[
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "MKNOD",
    "NET_BIND_SERVICE",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
];

/// A container of whichever sort, as checks see it.
pub struct One<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its own settings.
    pub context: Option<&'a SecurityContext>,
    ports: &'a [ContainerPort],
    probes: [Option<&'a Probe>; 3],
    lifecycle: Option<&'a Lifecycle>,
}

fn of(container: &Container) -> One<'_> {
    One {
        name: &container.name,
        context: container.security_context.as_ref(),
        ports: container.ports.as_deref().unwrap_or(&[]),
        probes: [
            container.liveness_probe.as_ref(),
            container.readiness_probe.as_ref(),
            container.startup_probe.as_ref(),
        ],
        lifecycle: container.lifecycle.as_ref(),
    }
}

/// Init containers, containers, ephemeral containers.
pub fn all(spec: &PodSpec) -> Vec<One<'_>> {
    let ephemeral = spec.ephemeral_containers.iter().flatten().map(|container| One {
        name: &container.name,
        context: container.security_context.as_ref(),
        ports: container.ports.as_deref().unwrap_or(&[]),
        probes: [None; 3],
        lifecycle: None,
    });
    let init = spec.init_containers.iter().flatten().map(of);
    init.chain(spec.containers.iter().map(of))
        .chain(ephemeral)
        .collect()
}

impl Subject<'_> {
    /// Names of the containers of which something is true.
    pub(super) fn names(&self, bad: impl Fn(&One<'_>) -> bool) -> Vec<&str> {
        self.containers
            .iter()
            .filter(|one| bad(one))
            .map(|one| one.name)
            .collect()
    }
}

pub(super) fn privileged(found: &mut Violations, subject: &Subject<'_>) {
    let names = subject.names(|one| one.context.and_then(|c| c.privileged) == Some(true));
    if !names.is_empty() {
        let detail = format!("{} must not set securityContext.privileged=true", named(&names));
        found.add("privileged", detail);
    }
}

fn added<'a>(one: &One<'a>) -> &'a [String] {
    let capabilities = one.context.and_then(|c| c.capabilities.as_ref());
    capabilities.and_then(|c| c.add.as_deref()).unwrap_or(&[])
}

/// Containers that add capabilities they may not, and those capabilities.
fn forbidden_additions<'a>(subject: &'a Subject<'_>, allowed: &[&str]) -> (Vec<&'a str>, Vec<&'a str>) {
    let (mut names, mut capabilities) = (Vec::new(), Vec::new());
    for one in &subject.containers {
        let before = capabilities.len();
        let bad = added(one)
            .iter()
            .map(String::as_str)
            .filter(|c| !allowed.contains(c));
        capabilities.extend(bad);
        if capabilities.len() > before {
            names.push(one.name);
        }
    }
    (names, sorted(capabilities))
}

fn must_not_add(names: &[&str], capabilities: &[&str]) -> String {
    format!(
        "{} must not include {} in securityContext.capabilities.add",
        named(names),
        quoted(capabilities)
    )
}

pub(super) fn default_capabilities(found: &mut Violations, subject: &Subject<'_>) {
    let (names, capabilities) = forbidden_additions(subject, DEFAULT_CAPABILITIES);
    if !names.is_empty() {
        found.add("non-default capabilities", must_not_add(&names, &capabilities));
    }
}

pub(super) fn dropped_capabilities(found: &mut Violations, subject: &Subject<'_>) {
    let drops_all = |one: &One<'_>| {
        let capabilities = one.context.and_then(|c| c.capabilities.as_ref());
        capabilities.is_some_and(|c| c.drop.iter().flatten().any(|dropped| dropped == "ALL"))
    };
    let missing = subject.names(|one| !drops_all(one));
    let (adding, capabilities) = forbidden_additions(subject, &["NET_BIND_SERVICE"]);
    let mut details = Vec::new();
    if !missing.is_empty() {
        details.push(format!(
            "{} must set securityContext.capabilities.drop=[\"ALL\"]",
            named(&missing)
        ));
    }
    if !adding.is_empty() {
        details.push(must_not_add(&adding, &capabilities));
    }
    if !details.is_empty() {
        found.add("unrestricted capabilities", details.join("; "));
    }
}

pub(super) fn host_ports(found: &mut Violations, subject: &Subject<'_>) {
    let ports = |one: &One<'_>| -> Vec<i32> {
        let ports = one.ports.iter().filter_map(|port| port.host_port);
        ports.filter(|port| *port != 0).collect()
    };
    let names = subject.names(|one| !ports(one).is_empty());
    if names.is_empty() {
        return;
    }
    // Sorted as texts, as upstream does.
    let numbers = subject
        .containers
        .iter()
        .flat_map(ports)
        .map(|port| port.to_string());
    let numbers = sorted(numbers.collect());
    let detail = format!(
        "{} {} {} {}",
        named(&names),
        plural("uses", "use", names.len()),
        plural("hostPort", "hostPorts", numbers.len()),
        numbers.join(", ")
    );
    found.add("hostPort", detail);
}

pub(super) fn probe_hosts(found: &mut Violations, subject: &Subject<'_>) {
    fn hosts<'a>(
        http: Option<&'a HTTPGetAction>,
        tcp: Option<&'a TCPSocketAction>,
    ) -> impl Iterator<Item = &'a str> {
        let http = http.and_then(|action| action.host.as_deref());
        let tcp = tcp.and_then(|action| action.host.as_deref());
        [http, tcp].into_iter().flatten().filter(|host| !host.is_empty())
    }
    fn all_hosts<'a>(one: &One<'a>) -> Vec<&'a str> {
        let probes = one.probes.iter().flatten();
        let mut all: Vec<&str> = probes
            .flat_map(|probe| hosts(probe.http_get.as_ref(), probe.tcp_socket.as_ref()))
            .collect();
        let handlers = one
            .lifecycle
            .iter()
            .flat_map(|l| [l.post_start.as_ref(), l.pre_stop.as_ref()]);
        for handler in handlers.flatten() {
            let handler: &LifecycleHandler = handler;
            all.extend(hosts(handler.http_get.as_ref(), handler.tcp_socket.as_ref()));
        }
        all
    }
    let names = sorted(subject.names(|one| !all_hosts(one).is_empty()));
    if names.is_empty() {
        return;
    }
    let hosts = sorted(subject.containers.iter().flat_map(all_hosts).collect());
    let detail = format!(
        "{} {} {} {}",
        named(&names),
        plural("uses", "use", names.len()),
        plural("probe or lifecycle host", "probe or lifecycle hosts", hosts.len()),
        quoted(&hosts)
    );
    found.add("probe or lifecycle host", detail);
}

pub(super) fn proc_mount(found: &mut Violations, subject: &Subject<'_>) {
    fn mount<'a>(one: &One<'a>) -> Option<&'a str> {
        let mount = one.context.and_then(|c| c.proc_mount.as_deref());
        mount.filter(|mount| *mount != "Default")
    }
    let names = subject.names(|one| mount(one).is_some());
    if !names.is_empty() {
        let values = sorted(subject.containers.iter().filter_map(mount).collect());
        let detail = format!(
            "{} must not set securityContext.procMount to {}",
            named(&names),
            quoted(&values)
        );
        found.add("procMount", detail);
    }
}

/// Who sets a seccomp profile that is none: everybody's values, and the setters.
fn bad_seccomp(subject: &Subject<'_>) -> Option<String> {
    let bad = |kind: &&str| !matches!(*kind, "RuntimeDefault" | "Localhost");
    let of_pod = subject
        .context
        .seccomp_profile
        .as_ref()
        .map(|p| p.type_.as_str())
        .filter(bad);
    fn of_one<'a>(one: &One<'a>) -> Option<&'a str> {
        one.context
            .and_then(|c| c.seccomp_profile.as_ref())
            .map(|p| p.type_.as_str())
    }
    let names = subject.names(|one| of_one(one).as_ref().is_some_and(bad));
    let setters = setters(of_pod.is_some(), &names)?;
    let values = subject
        .containers
        .iter()
        .filter_map(of_one)
        .filter(bad)
        .chain(of_pod);
    let values = sorted(values.collect());
    Some(format!(
        "{setters} must not set securityContext.seccompProfile.type to {}",
        quoted(&values)
    ))
}

pub(super) fn seccomp_not_unconfined(found: &mut Violations, subject: &Subject<'_>) {
    if let Some(detail) = bad_seccomp(subject) {
        found.add("seccompProfile", detail);
    }
}

pub(super) fn seccomp_required(found: &mut Violations, subject: &Subject<'_>) {
    if let Some(detail) = bad_seccomp(subject) {
        found.add("seccompProfile", detail);
        return;
    }
    if subject.context.seccomp_profile.is_some() {
        return;
    }
    let missing = subject.names(|one| one.context.is_none_or(|c| c.seccomp_profile.is_none()));
    if !missing.is_empty() {
        let detail = format!(
            "pod or {} must set securityContext.seccompProfile.type to \"RuntimeDefault\" or \"Localhost\"",
            named(&missing)
        );
        found.add("seccompProfile", detail);
    }
}

pub(super) fn privilege_escalation(found: &mut Violations, subject: &Subject<'_>) {
    let names = subject.names(|one| one.context.and_then(|c| c.allow_privilege_escalation) != Some(false));
    if !names.is_empty() {
        let detail = format!(
            "{} must set securityContext.allowPrivilegeEscalation=false",
            named(&names)
        );
        found.add("allowPrivilegeEscalation != false", detail);
    }
}

pub(super) fn non_root(found: &mut Violations, subject: &Subject<'_>) {
    const REASON: &str = "runAsNonRoot != true";
    let of_pod = subject.context.run_as_non_root;
    let of_one = |one: &One<'_>| one.context.and_then(|c| c.run_as_non_root);
    let explicit = subject.names(|one| of_one(one) == Some(false));
    if let Some(setters) = setters(of_pod == Some(false), &explicit) {
        let detail = format!("{setters} must not set securityContext.runAsNonRoot=false");
        found.add(REASON, detail);
        return;
    }
    let missing = subject.names(|one| of_one(one).is_none());
    if of_pod != Some(true) && !missing.is_empty() {
        let detail = format!(
            "pod or {} must set securityContext.runAsNonRoot=true",
            named(&missing)
        );
        found.add(REASON, detail);
    }
}

pub(super) fn not_user_zero(found: &mut Violations, subject: &Subject<'_>) {
    let names = subject.names(|one| one.context.and_then(|c| c.run_as_user) == Some(0));
    if let Some(setters) = setters(subject.context.run_as_user == Some(0), &names) {
        found.add("runAsUser=0", format!("{setters} must not set runAsUser=0"));
    }
}
