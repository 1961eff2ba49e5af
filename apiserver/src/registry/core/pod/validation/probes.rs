//! Probes, lifecycle hooks and what carries them out.

use k8s_openapi::api::core::v1::{
    ExecAction, GRPCAction, HTTPGetAction, Lifecycle, LifecycleHandler, Probe, SleepAction, TCPSocketAction,
};
use keelson_api::field::Errors;
use keelson_api::validation;

use crate::registry::common::loc::Loc;
use crate::registry::common::rules;

/// What a probe is for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// A failing container is restarted.
    Liveness,
    /// A failing container gets no traffic.
    Readiness,
    /// The other two wait for it.
    Startup,
}

/// A probe of a container.
pub fn probe(errors: &mut Errors, at: &Loc<'_>, probe: &Probe, purpose: Purpose) {
    let handlers = Handlers {
        exec: probe.exec.as_ref(),
        http_get: probe.http_get.as_ref(),
        tcp_socket: probe.tcp_socket.as_ref(),
        grpc: probe.grpc.as_ref(),
        sleep: None,
    };
    handlers.check(errors, at, 0);
    for (field, value) in [
        ("initialDelaySeconds", probe.initial_delay_seconds),
        ("timeoutSeconds", probe.timeout_seconds),
        ("periodSeconds", probe.period_seconds),
        ("successThreshold", probe.success_threshold),
        ("failureThreshold", probe.failure_threshold),
    ] {
        rules::not_negative(errors, &at.child(field), value);
    }
    if let Some(seconds) = probe.termination_grace_period_seconds {
        let at = at.child("terminationGracePeriodSeconds");
        if seconds <= 0 {
            errors.push(at.invalid(seconds, "must be greater than 0"));
        }
        if purpose == Purpose::Readiness {
            errors.push(at.invalid(seconds, "must not be set for readinessProbes"));
        }
    }
    let successes = probe.success_threshold.unwrap_or(0);
    if purpose != Purpose::Readiness && successes != 1 {
        errors.push(at.child("successThreshold").invalid(successes, "must be 1"));
    }
}

/// The hooks of a container. `grace` is the pod's termination grace period in seconds.
pub fn lifecycle(errors: &mut Errors, at: &Loc<'_>, lifecycle: &Lifecycle, grace: i64) {
    if let Some(handler) = &lifecycle.post_start {
        hook(errors, &at.child("postStart"), handler, grace);
    }
    if let Some(handler) = &lifecycle.pre_stop {
        hook(errors, &at.child("preStop"), handler, grace);
    }
}

fn hook(errors: &mut Errors, at: &Loc<'_>, handler: &LifecycleHandler, grace: i64) {
    let handlers = Handlers {
        exec: handler.exec.as_ref(),
        http_get: handler.http_get.as_ref(),
        tcp_socket: handler.tcp_socket.as_ref(),
        grpc: None,
        sleep: handler.sleep.as_ref(),
    };
    handlers.check(errors, at, grace);
}

/// The ways a probe or hook may be carried out: exactly one must be set.
struct Handlers<'a> {
    exec: Option<&'a ExecAction>,
    http_get: Option<&'a HTTPGetAction>,
    tcp_socket: Option<&'a TCPSocketAction>,
    grpc: Option<&'a GRPCAction>,
    sleep: Option<&'a SleepAction>,
}

impl Handlers<'_> {
    fn check(&self, errors: &mut Errors, at: &Loc<'_>, grace: i64) {
        let mut taken = false;
        // The first one counts; each further one is one too many and is not looked at.
        let mut first = |errors: &mut Errors, at: &Loc<'_>| {
            if taken {
                errors.push(at.forbidden("may not specify more than 1 handler type"));
                return false;
            }
            taken = true;
            true
        };
        if let Some(exec) = self.exec {
            let at = at.child("exec");
            if first(errors, &at) && exec.command.as_ref().is_none_or(Vec::is_empty) {
                errors.push(at.child("command").required(""));
            }
        }
        if let Some(http) = self.http_get {
            let at = at.child("httpGet");
            if first(errors, &at) {
                http_get(errors, &at, http);
            }
        }
        if let Some(tcp) = self.tcp_socket {
            let at = at.child("tcpSocket");
            if first(errors, &at) {
                rules::port_or_name(errors, &at.child("port"), &tcp.port);
            }
        }
        if let Some(grpc) = self.grpc {
            let at = at.child("grpc");
            if first(errors, &at) {
                rules::port(errors, &at.child("port"), grpc.port);
            }
        }
        if let Some(sleep) = self.sleep {
            let at = at.child("sleep");
            if first(errors, &at) && !(0..=grace).contains(&sleep.seconds) {
                let detail =
                    format!("must be non-negative and less than terminationGracePeriodSeconds ({grace})");
                errors.push(at.invalid(sleep.seconds, detail));
            }
        }
        if !taken {
            errors.push(at.required("must specify a handler type"));
        }
    }
}

fn http_get(errors: &mut Errors, at: &Loc<'_>, http: &HTTPGetAction) {
    rules::not_empty(errors, &at.child("path"), http.path.as_deref());
    rules::port_or_name(errors, &at.child("port"), &http.port);
    let scheme = http.scheme.as_deref().unwrap_or("");
    if !matches!(scheme, "HTTP" | "HTTPS") {
        errors.push(at.child("scheme").not_supported(scheme, &["HTTP", "HTTPS"]));
    }
    for header in http.http_headers.iter().flatten() {
        let complaints = validation::http_header_name(&header.name);
        rules::complain(errors, &at.child("httpHeaders"), &header.name, complaints);
    }
}
