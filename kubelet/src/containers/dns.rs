//! Names: a pod's resolver configuration, its own name, and its `/etc/hosts`.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::Path;

use k8s_openapi::api::core::v1::{HostAlias, Pod};
use keelson_proto::cri;

use crate::objects::PodExt;

/// The kernel's limit on host names.
const HOSTNAME_LIMIT: usize = 63;
/// How many dots make a name absolute, in a cluster.
const NDOTS: &str = "ndots:5";

/// What names are resolved with on this node.
#[derive(Debug, Clone, Default)]
pub struct ClusterDns {
    /// The cluster's DNS servers.
    pub servers: Vec<IpAddr>,
    /// The cluster's domain; may be empty.
    pub domain: String,
}

/// A pod's resolver configuration, from the cluster's and the node's (`resolv.conf`).
pub fn config(pod: &Pod, cluster: &ClusterDns, resolv_conf: &str) -> cri::DnsConfig {
    let node = parse(resolv_conf);
    let policy = pod.spec().dns_policy.as_deref().unwrap_or("ClusterFirst");
    let with_cluster = match policy {
        "ClusterFirst" => !pod.host_network(),
        "ClusterFirstWithHostNet" => true,
        _ => false,
    };
    let mut config = if policy == "None" {
        cri::DnsConfig::default()
    } else if with_cluster && !cluster.servers.is_empty() {
        in_cluster(pod.namespace(), cluster, node)
    } else {
        node
    };
    if let Some(own) = &pod.spec().dns_config {
        append_new(&mut config.servers, own.nameservers.iter().flatten());
        append_new(&mut config.searches, own.searches.iter().flatten());
        let mut options: BTreeMap<String, Option<String>> = BTreeMap::new();
        let mut order = Vec::new();
        let given = config.options.iter().map(|option| match option.split_once(':') {
            Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
            None => (option.clone(), None),
        });
        let own = own
            .options
            .iter()
            .flatten()
            .map(|option| (option.name.clone().unwrap_or_default(), option.value.clone()));
        for (name, value) in given.chain(own) {
            if options
                .insert(name.clone(), value.filter(|value| !value.is_empty()))
                .is_none()
                && !order.contains(&name)
            {
                order.push(name);
            }
        }
        config.options = order
            .into_iter()
            .map(|name| match options.get(&name) {
                Some(Some(value)) => format!("{name}:{value}"),
                _ => name,
            })
            .collect();
    }
    config
}

fn in_cluster(namespace: &str, cluster: &ClusterDns, node: cri::DnsConfig) -> cri::DnsConfig {
    let mut searches = Vec::new();
    if !cluster.domain.is_empty() {
        let domain = &cluster.domain;
        searches = vec![
            format!("{namespace}.svc.{domain}"),
            format!("svc.{domain}"),
            domain.clone(),
        ];
    }
    append_new(&mut searches, &node.searches);
    cri::DnsConfig {
        servers: cluster.servers.iter().map(ToString::to_string).collect(),
        searches,
        options: vec![NDOTS.into()],
    }
}

fn append_new<'a>(list: &mut Vec<String>, more: impl IntoIterator<Item = &'a String>) {
    for item in more {
        if !list.contains(item) {
            list.push(item.clone());
        }
    }
}

fn parse(resolv_conf: &str) -> cri::DnsConfig {
    let mut config = cri::DnsConfig::default();
    for line in resolv_conf.lines() {
        let mut words = line.split_whitespace().map(str::to_owned);
        match words.next().as_deref() {
            Some("nameserver") => config.servers.extend(words.next()),
            // The last line of these kinds counts.
            Some("search" | "domain") => config.searches = words.filter(|word| word != ".").collect(),
            Some("options") => config.options = words.collect(),
            _ => {}
        }
    }
    config
}

/// A pod's own host name and domain.
pub fn host_name(pod: &Pod, cluster_domain: &str) -> (String, String) {
    let spec = pod.spec();
    let name = spec
        .hostname
        .as_deref()
        .filter(|name| !name.is_empty())
        .unwrap_or(pod.name());
    let mut name: String = name.chars().take(HOSTNAME_LIMIT).collect();
    while name.ends_with(['-', '.']) {
        name.pop();
    }
    let domain = match spec.subdomain.as_deref().filter(|domain| !domain.is_empty()) {
        Some(subdomain) => format!("{subdomain}.{}.svc.{cluster_domain}", pod.namespace()),
        None => String::new(),
    };
    if spec.set_hostname_as_fqdn == Some(true) && !domain.is_empty() {
        return (format!("{name}.{domain}"), domain);
    }
    (name, domain)
}

/// Contents of a pod's `/etc/hosts`; `node_hosts` is the node's own file, for pods that use its network.
pub fn hosts_file(pod: &Pod, ips: &[String], cluster_domain: &str, node_hosts: &str) -> String {
    let mut text = if pod.host_network() {
        format!("# Kubernetes-managed hosts file (host network).\n{node_hosts}")
    } else {
        let (name, domain) = host_name(pod, cluster_domain);
        let mut text = String::from(
            "# Kubernetes-managed hosts file.\n\
             127.0.0.1\tlocalhost\n\
             ::1\tlocalhost ip6-localhost ip6-loopback\n\
             fe00::0\tip6-localnet\n\
             fe00::0\tip6-mcastprefix\n\
             fe00::1\tip6-allnodes\n\
             fe00::2\tip6-allrouters\n",
        );
        for ip in ips {
            if domain.is_empty() {
                text.push_str(&format!("{ip}\t{name}\n"));
            } else {
                text.push_str(&format!("{ip}\t{name}.{domain}\t{name}\n"));
            }
        }
        text
    };
    text.push_str(&aliases(pod.spec().host_aliases.as_deref().unwrap_or_default()));
    text
}

fn aliases(aliases: &[HostAlias]) -> String {
    if aliases.is_empty() {
        return String::new();
    }
    let mut text = String::from("\n# Entries added by HostAliases.\n");
    for alias in aliases {
        text.push_str(&format!(
            "{}\t{}\n",
            alias.ip,
            alias.hostnames.clone().unwrap_or_default().join("\t")
        ));
    }
    text
}

/// Does a container bring a `/etc/hosts` of its own?
pub fn mounts_hosts(container: &k8s_openapi::api::core::v1::Container) -> bool {
    container
        .volume_mounts
        .iter()
        .flatten()
        .any(|mount| Path::new(&mount.mount_path) == Path::new("/etc/hosts"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const NODE: &str = "nameserver 1.1.1.1\nsearch home\noptions rotate\n";

    fn pod(spec: serde_json::Value) -> Pod {
        serde_json::from_value(json!({"metadata": {"name": "a", "namespace": "ns"}, "spec": spec}))
            .expect("a pod")
    }

    fn cluster() -> ClusterDns {
        ClusterDns {
            servers: vec![[10, 96, 0, 10].into()],
            domain: "cluster.local".into(),
        }
    }

    #[test]
    fn policies() {
        let of = |spec| config(&pod(spec), &cluster(), NODE);
        let first = of(json!({"containers": []}));
        assert_eq!(
            first.searches,
            [
                "ns.svc.cluster.local",
                "svc.cluster.local",
                "cluster.local",
                "home"
            ]
        );
        assert_eq!(
            (first.servers, first.options),
            (vec!["10.96.0.10".to_owned()], vec!["ndots:5".to_owned()])
        );
        assert_eq!(
            of(json!({"containers": [], "hostNetwork": true})).servers,
            ["1.1.1.1"]
        );
        let own = of(json!({"containers": [], "dnsPolicy": "None",
            "dnsConfig": {"nameservers": ["9.9.9.9"], "options": [{"name": "ndots", "value": "2"}, {"name": "edns0"}]}}));
        assert_eq!(
            (own.servers, own.options),
            (
                vec!["9.9.9.9".to_owned()],
                vec!["ndots:2".to_owned(), "edns0".to_owned()]
            )
        );
        let over = of(json!({"containers": [], "dnsConfig": {"options": [{"name": "ndots", "value": "2"}]}}));
        assert_eq!(over.options, ["ndots:2"]);
    }

    #[test]
    fn hosts() {
        let pod = pod(
            json!({"containers": [], "hostname": "h", "subdomain": "s", "hostAliases": [{"ip": "1.2.3.4", "hostnames": ["x", "y"]}]}),
        );
        let text = hosts_file(&pod, &["10.0.0.1".into()], "cluster.local", "");
        assert!(text.contains("10.0.0.1\th.s.ns.svc.cluster.local\th\n"), "{text}");
        assert!(
            text.ends_with("\n# Entries added by HostAliases.\n1.2.3.4\tx\ty\n"),
            "{text}"
        );
    }
}
