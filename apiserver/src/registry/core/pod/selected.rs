//! What selectors look at in a pod.

use keelson_api::scan::Scan;
use serde_json::Result;

use crate::registry::selected::{Selected, labels_in, read, text, texts};

/// Where the values of what selectors look at stand; empty where there is none.
#[derive(Default)]
struct Found<'j> {
    labels: &'j [u8],
    node_name: &'j [u8],
    restart_policy: &'j [u8],
    scheduler_name: &'j [u8],
    service_account_name: &'j [u8],
    host_network: &'j [u8],
    phase: &'j [u8],
    pod_ip: &'j [u8],
    /// That of the first of all addresses.
    first_ip: Option<&'j [u8]>,
    nominated_node_name: &'j [u8],
}

impl<'j> Found<'j> {
    fn spec(&mut self, spec: &mut Scan<'j>) -> Option<()> {
        spec.members(|name, value| {
            let place = match name {
                b"nodeName" => &mut self.node_name,
                b"restartPolicy" => &mut self.restart_policy,
                b"schedulerName" => &mut self.scheduler_name,
                b"serviceAccountName" => &mut self.service_account_name,
                b"hostNetwork" => &mut self.host_network,
                _ => return Some(()),
            };
            *place = value.text()?;
            Some(())
        })
    }

    fn status(&mut self, status: &mut Scan<'j>) -> Option<()> {
        status.members(|name, value| {
            let place = match name {
                b"phase" => &mut self.phase,
                b"podIP" => &mut self.pod_ip,
                b"podIPs" => return value.elements(|address| self.address(address)),
                b"nominatedNodeName" => &mut self.nominated_node_name,
                _ => return Some(()),
            };
            *place = value.text()?;
            Some(())
        })
    }

    fn address(&mut self, address: &mut Scan<'j>) -> Option<()> {
        let mut ip = &b""[..];
        address.members(|name, value| {
            if name == b"ip" {
                ip = value.text()?;
            }
            Some(())
        })?;
        self.first_ip.get_or_insert(ip);
        Some(())
    }
}

/// Labels and selectable fields of a pod in the store.
pub(super) fn pod(json: &[u8]) -> Result<Selected> {
    let mut found = Found::default();
    read(json, |name, value| match name {
        b"metadata" => labels_in(value, &mut found.labels),
        b"spec" => found.spec(value),
        b"status" => found.status(value),
        _ => Some(()),
    })?;
    Ok(Selected {
        labels: texts(found.labels)?,
        fields: vec![
            ("spec.nodeName", text(found.node_name)?),
            ("spec.restartPolicy", text(found.restart_policy)?),
            ("spec.schedulerName", text(found.scheduler_name)?),
            ("spec.serviceAccountName", text(found.service_account_name)?),
            ("spec.hostNetwork", (found.host_network == b"true").to_string()),
            ("status.phase", text(found.phase)?),
            ("status.podIP", text(found.first_ip.unwrap_or(found.pod_ip))?),
            ("status.nominatedNodeName", text(found.nominated_node_name)?),
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
