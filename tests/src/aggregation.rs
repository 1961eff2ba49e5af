//! An API server behind another: a control plane of its own that believes what the first says of its callers.

use std::path::Path;
use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use crate::authority::Authority;
use crate::control_plane::ControlPlane;
use crate::process::eventually;

/// A server is asked again after half a minute, on a machine that has much to do.
pub const PATIENCE: Duration = Duration::from_secs(90);

/// Where group versions are registered.
pub const REGISTRATIONS: &str = "/apis/apiregistration.k8s.io/v1/apiservices";

/// The second server, and the flags with which a first shows it who it is.
///
/// # Errors
/// When it does not become ready.
pub fn second_server() -> Result<(ControlPlane, Vec<String>)> {
    let mut shown = Vec::new();
    let second = ControlPlane::up(|directory: &Path, _| {
        let front = Authority::new(directory, "front")?;
        let (certificate, key) = front.issue("front-proxy", &[])?;
        shown = vec![
            format!("--proxy-client-cert-file={}", certificate.display()),
            format!("--proxy-client-key-file={}", key.display()),
        ];
        Ok(vec![
            format!("--requestheader-client-ca-file={}", front.certificate.display()),
            "--requestheader-allowed-names=front-proxy".to_owned(),
        ])
    })?;
    Ok((second, shown))
}

/// Has the first server carry requests for version `v1` of a group to the second, and waits until it does.
///
/// # Errors
/// When it does not.
pub fn register(first: &ControlPlane, second: &ControlPlane, group: &str) -> Result<()> {
    let served = format!("/apis/{group}/v1");
    eventually("the second server's group version", PATIENCE, || {
        second.read(&served).map(drop)
    })?;
    let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "second"},
        "spec": {"type": "ExternalName", "externalName": "localhost"}});
    first.create("/api/v1/namespaces/default/services", &service)?;
    let registration = json!({"apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService",
        "metadata": {"name": format!("v1.{group}")},
        "spec": {"group": group, "version": "v1", "groupPriorityMinimum": 1000, "versionPriority": 15,
            "insecureSkipTLSVerify": true,
            "service": {"namespace": "default", "name": "second", "port": second.port}}});
    first.create(REGISTRATIONS, &registration)?;
    eventually("the second server is available", PATIENCE, || {
        let condition = available(first, group)?;
        ensure!(
            condition["reason"] == "Passed" && condition["message"] == "all checks passed",
            "{condition}"
        );
        Ok(())
    })
}

/// What the first server says of the second.
///
/// # Errors
/// When it says nothing.
pub fn available(first: &ControlPlane, group: &str) -> Result<Value> {
    let service = first.read(&format!("{REGISTRATIONS}/v1.{group}"))?;
    let condition = &service["status"]["conditions"][0];
    ensure!(condition["type"] == "Available", "{service}");
    Ok(condition.clone())
}
