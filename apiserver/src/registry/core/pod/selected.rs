//! What selectors look at in a pod.

use std::borrow::Cow;

use serde::Deserialize;

use crate::registry::selected::{Metadata, Selected, Text};

#[derive(Deserialize)]
struct Pod<'a> {
    #[serde(default)]
    metadata: Metadata,
    #[serde(borrow)]
    spec: Option<Spec<'a>>,
    #[serde(borrow)]
    status: Option<Status<'a>>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase")]
struct Spec<'a> {
    #[serde(borrow)]
    node_name: Text<'a>,
    #[serde(borrow)]
    restart_policy: Text<'a>,
    #[serde(borrow)]
    scheduler_name: Text<'a>,
    #[serde(borrow)]
    service_account_name: Text<'a>,
    host_network: Option<bool>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase")]
struct Status<'a> {
    #[serde(borrow)]
    phase: Text<'a>,
    #[serde(borrow, rename = "podIP")]
    pod_ip: Text<'a>,
    #[serde(borrow, rename = "podIPs")]
    pod_ips: Option<Vec<Address<'a>>>,
    #[serde(borrow)]
    nominated_node_name: Text<'a>,
}

#[derive(Deserialize)]
struct Address<'a> {
    #[serde(borrow)]
    ip: Text<'a>,
}

/// Labels and selectable fields of a pod in the store.
pub(super) fn pod(json: &[u8]) -> Result<Selected, serde_json::Error> {
    let pod: Pod<'_> = serde_json::from_slice(json)?;
    let (spec, status) = (pod.spec.unwrap_or_default(), pod.status.unwrap_or_default());
    let text = |field: Text<'_>| field.map(Cow::into_owned).unwrap_or_default();
    let address = status.pod_ips.into_iter().flatten().next();
    Ok(Selected {
        labels: pod.metadata.labels.unwrap_or_default(),
        fields: vec![
            ("spec.nodeName", text(spec.node_name)),
            ("spec.restartPolicy", text(spec.restart_policy)),
            ("spec.schedulerName", text(spec.scheduler_name)),
            ("spec.serviceAccountName", text(spec.service_account_name)),
            ("spec.hostNetwork", spec.host_network.unwrap_or(false).to_string()),
            ("status.phase", text(status.phase)),
            (
                "status.podIP",
                text(address.map_or(status.pod_ip, |address| address.ip)),
            ),
            ("status.nominatedNodeName", text(status.nominated_node_name)),
        ],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_is_there_and_nothing_where_it_is_not() {
        let json = br#"{"metadata":{"name":"a","labels":{"l":"m\"n"}},"spec":{"nodeName":"x","hostNetwork":true,
            "containers":[{"name":"c"}]},"status":{"phase":"Running","podIP":"10.0.0.1","podIPs":[{"ip":"fd00::1"}]}}"#;
        let selected = pod(json).expect("a pod");
        assert_eq!(selected.labels.get("l").map(String::as_str), Some("m\"n"));
        let field = |name| {
            let found = selected.fields.iter().find(|(field, _)| *field == name);
            found.map(|(_, value)| value.as_str()).expect("a field")
        };
        assert_eq!((field("spec.nodeName"), field("spec.hostNetwork")), ("x", "true"));
        assert_eq!(
            (field("status.phase"), field("status.podIP")),
            ("Running", "fd00::1")
        );
        assert_eq!(field("spec.restartPolicy"), "");

        let empty = pod(br#"{"metadata":{},"status":{"podIP":"10.0.0.1"}}"#).expect("a pod");
        assert!(empty.labels.is_empty());
        assert!(empty.fields.contains(&("status.podIP", "10.0.0.1".to_owned())));
        let names: Vec<_> = empty.fields.iter().map(|(name, _)| *name).collect();
        assert_eq!(names, super::super::INFO.selectable_fields);
    }
}
