//! Service ports → table.
//!
//! A packet to a service address costs one look-up in `service-ips` or `node-ports`, however many services there
//! are, and one random choice in the service's chain. Chains, by name:
//!
//! | chain | does |
//! | --- | --- |
//! | `svc/NS/NAME/PROTO/PORT` | chooses among all of the cluster's endpoints |
//! | `loc/…` | chooses among this node's endpoints |
//! | `ext/…` | traffic from outside: asks for a rewritten source address, or keeps to local endpoints |
//! | `ep/…/ADDRESS/PORT` | with session affinity: remembers the client and goes to the endpoint |
//! | `fw/…` | drops what the load balancer's source ranges do not allow |

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;

use super::services::{Endpoint, Policy, ServicePort};
use super::table::{Chain, Family, Set, Table};

/// What is the same for all services.
#[derive(Debug, Clone)]
pub struct Options {
    /// The table's name.
    pub table: String,
    /// Pod addresses of the whole cluster.
    pub cluster_cidrs: Vec<IpNet>,
    /// Addresses that answer on node ports; empty: all of the node's.
    pub nodeport_addresses: Vec<IpNet>,
    /// Rewrite the source address of all traffic through services.
    pub masquerade_all: bool,
    /// The bit of the packet mark that asks for it.
    pub masquerade_mark: u32,
}

/// The table of one family.
#[must_use]
pub fn build(options: &Options, family: Family, services: &[ServicePort]) -> Table {
    let mut builder = Builder {
        table: Table {
            family,
            name: options.table.clone(),
            sets: Default::default(),
            chains: Default::default(),
        },
        options,
    };
    builder.frame();
    for service in services {
        builder.service(service);
    }
    builder.table
}

struct Builder<'a> {
    table: Table,
    options: &'a Options,
}

impl Builder<'_> {
    /// What is there without any service.
    fn frame(&mut self) {
        let family = self.table.family;
        let (ip, address) = (family.name(), family.address_type());
        let by_address = format!("type {address} . inet_proto . inet_service : verdict;");
        let by_port = "type inet_proto . inet_service : verdict;";
        for (name, set) in [
            ("cluster-ips", Set::keys(format!("type {address};"))),
            ("hairpin", Set::keys(format!("type {address} . {address};"))),
            ("service-ips", Set::map(by_address.clone())),
            ("node-ports", Set::map(by_port)),
            ("no-endpoints", Set::map(by_address.clone())),
            ("no-endpoint-node-ports", Set::map(by_port)),
            ("firewall", Set::map(by_address)),
        ] {
            self.table.sets.insert(name.into(), set);
        }

        let port = "meta l4proto . th dport";
        let mark = self.options.masquerade_mark;
        let nodes = self.node_address_match();
        let mut services = Vec::new();
        if self.options.masquerade_all {
            services.push(format!("{ip} daddr @cluster-ips jump mark-for-masquerade"));
        } else if let Some(pods) = self.pods() {
            services.push(format!(
                "{ip} daddr @cluster-ips {ip} saddr != {pods} jump mark-for-masquerade"
            ));
        }
        services.push(format!("{ip} daddr . {port} vmap @service-ips"));
        services.push(format!("{nodes} {port} vmap @node-ports"));
        self.chain("services", services);
        self.chain(
            "mark-for-masquerade",
            vec![format!("meta mark set meta mark or {mark:#x}")],
        );
        self.chain("refuse", vec!["reject".into()]);
        self.chain(
            "check-endpoints",
            vec![
                format!("{ip} daddr . {port} vmap @no-endpoints"),
                format!("{nodes} {port} vmap @no-endpoint-node-ports"),
                // A port that the service does not have: nobody else will ever answer at a service's address.
                format!("{ip} daddr @cluster-ips reject"),
            ],
        );

        self.hook(
            "nat-prerouting",
            "type nat hook prerouting priority dstnat;",
            vec!["jump services".into()],
        );
        // Output has no name for this priority; it is dstnat's number.
        self.hook(
            "nat-output",
            "type nat hook output priority -100;",
            vec!["jump services".into()],
        );
        let mut postrouting = vec![
            // A pod that reaches itself through a service must see somebody else's address, or it drops the answer.
            format!("ct status dnat {ip} saddr . {ip} daddr @hairpin masquerade fully-random"),
        ];
        if let Some(pods) = self.pods() {
            // Nobody outside the cluster knows the way back to a pod.
            postrouting.push(format!(
                "{ip} saddr {pods} {ip} daddr != {pods} masquerade fully-random"
            ));
        }
        postrouting.push(format!("meta mark & {mark:#x} == 0 return"));
        postrouting.push(format!("meta mark set meta mark xor {mark:#x}"));
        postrouting.push("masquerade fully-random".into());
        self.hook(
            "nat-postrouting",
            "type nat hook postrouting priority srcnat;",
            postrouting,
        );

        // After the address was rewritten: what still has a service's address has nobody to go to.
        for hook in ["input", "forward", "output"] {
            self.hook(
                &format!("filter-{hook}"),
                &format!("type filter hook {hook} priority filter;"),
                vec!["ct state new jump check-endpoints".into()],
            );
        }
        // Before: the load balancer's address must still be there.
        self.hook(
            "filter-prerouting",
            "type filter hook prerouting priority -110;",
            vec![format!("ct state new {ip} daddr . {port} vmap @firewall")],
        );
        if family == Family::V4 {
            // Node ports answer on loopback, for which the kernel must route it (route_localnet). Nobody outside
            // may come in by that way.
            self.hook(
                "raw-prerouting",
                "type filter hook prerouting priority raw;",
                vec!["iifname != \"lo\" ip daddr 127.0.0.0/8 drop".into()],
            );
        }
    }

    fn service(&mut self, service: &ServicePort) {
        let v6 = self.table.family.is_v6();
        let family = self.table.family;
        let mine = |addresses: &[IpAddr]| -> Vec<IpAddr> {
            addresses
                .iter()
                .copied()
                .filter(|address| family.has(*address))
                .collect()
        };
        let cluster_ips = mine(&service.cluster_ips);
        if cluster_ips.is_empty() {
            return;
        }
        let external_ips = mine(&service.external_ips);
        let balancer_ips = mine(&service.load_balancer_ips);
        let id = format!(
            "{}/{}/{}/{}",
            service.namespace,
            service.name,
            service.protocol.name(),
            service.port
        );
        let everywhere = service.usable(Policy::Cluster, v6);
        let here = service.usable(Policy::Local, v6);

        for endpoint in everywhere.iter().chain(&here).filter(|endpoint| endpoint.local) {
            let ip = endpoint.address.ip();
            self.element("hairpin", format!("{ip} . {ip}"), String::new());
        }
        let has_outside = service.node_port.is_some() || !external_ips.is_empty() || !balancer_ips.is_empty();
        let needs_local =
            service.internal == Policy::Local || (has_outside && service.external == Policy::Local);
        if !everywhere.is_empty() {
            self.choice(&format!("svc/{id}"), &id, service, &everywhere);
        }
        if needs_local && !here.is_empty() {
            self.choice(&format!("loc/{id}"), &id, service, &here);
        }

        let inside = match (service.internal, everywhere.is_empty(), here.is_empty()) {
            (_, true, _) => Target::Nobody("goto refuse"),
            (Policy::Cluster, ..) => Target::Chain(format!("svc/{id}")),
            (Policy::Local, _, false) => Target::Chain(format!("loc/{id}")),
            (Policy::Local, _, true) => Target::Nobody("drop"),
        };
        for ip in cluster_ips {
            self.element("cluster-ips", ip.to_string(), String::new());
            self.at_address(ip, service, &inside);
        }
        if !has_outside {
            return;
        }
        let outside = if everywhere.is_empty() {
            Target::Nobody("goto refuse")
        } else {
            self.outside(&id, service, here.is_empty());
            Target::Chain(format!("ext/{id}"))
        };
        // Only another node can answer: silence lets the client's balancer find it.
        let elsewhere = service.external == Policy::Local && here.is_empty() && !everywhere.is_empty();
        for ip in external_ips.iter().chain(&balancer_ips) {
            self.at_address(*ip, service, &outside);
            if elsewhere {
                self.at_address(*ip, service, &Target::Nobody("drop"));
            }
        }
        if let Some(port) = service.node_port {
            let key = format!("{} . {port}", service.protocol.name());
            self.at("node-ports", "no-endpoint-node-ports", key.clone(), &outside);
            if elsewhere {
                self.at(
                    "node-ports",
                    "no-endpoint-node-ports",
                    key,
                    &Target::Nobody("drop"),
                );
            }
        }
        self.firewall(&id, service, &balancer_ips);
    }

    /// The chain for traffic from outside.
    fn outside(&mut self, id: &str, service: &ServicePort, nobody_here: bool) {
        let ip = self.table.family.name();
        let mut rules = Vec::new();
        match service.external {
            Policy::Cluster => {
                rules.push("jump mark-for-masquerade".into());
                rules.push(format!("goto svc/{id}"));
            }
            Policy::Local => {
                // Pods and the node itself are not outside: they may use any endpoint.
                if let Some(pods) = self.pods() {
                    rules.push(format!("{ip} saddr {pods} goto svc/{id}"));
                }
                rules.push("fib saddr type local jump mark-for-masquerade".into());
                rules.push(format!("fib saddr type local goto svc/{id}"));
                if !nobody_here {
                    rules.push(format!("goto loc/{id}"));
                }
            }
        }
        self.chain(&format!("ext/{id}"), rules);
    }

    /// The chain that chooses one of `endpoints`.
    fn choice(&mut self, name: &str, id: &str, service: &ServicePort, endpoints: &[Endpoint]) {
        let protocol = service.protocol.name();
        let ip = self.table.family.name();
        let count = endpoints.len();
        let Some(affinity) = service.affinity else {
            let targets: Vec<String> = endpoints
                .iter()
                .enumerate()
                .map(|(index, endpoint)| {
                    format!(
                        "{index} : {} . {}",
                        endpoint.address.ip(),
                        endpoint.address.port()
                    )
                })
                .collect();
            let rule = match endpoints {
                [only] => format!("meta l4proto {protocol} dnat to {}", only.address),
                _ => format!(
                    "meta l4proto {protocol} dnat {ip} to numgen random mod {count} map {{ {} }}",
                    targets.join(", ")
                ),
            };
            self.chain(name, vec![rule]);
            return;
        };
        let mut rules = Vec::new();
        let mut targets = Vec::new();
        for (index, endpoint) in endpoints.iter().enumerate() {
            let (chain, set) = self.remembering(id, service, endpoint.address, affinity.as_secs());
            rules.push(format!("{ip} saddr @{set} goto {chain}"));
            targets.push(format!("{index} : goto {chain}"));
        }
        rules.push(format!(
            "numgen random mod {count} vmap {{ {} }}",
            targets.join(", ")
        ));
        self.chain(name, rules);
    }

    /// The chain of one endpoint of a service with session affinity, and the set of its clients.
    fn remembering(
        &mut self,
        id: &str,
        service: &ServicePort,
        address: SocketAddr,
        seconds: u64,
    ) -> (String, String) {
        let family = self.table.family;
        // Colons end a name.
        let place = format!(
            "{}/{}",
            address.ip().to_string().replace(':', "_"),
            address.port()
        );
        let (chain, set) = (format!("ep/{id}/{place}"), format!("aff/{id}/{place}"));
        let declaration = format!(
            "type {}; flags dynamic,timeout; timeout {seconds}s;",
            family.address_type()
        );
        self.table.sets.insert(set.clone(), Set::keys(declaration));
        self.chain(
            &chain,
            vec![
                format!("update @{set} {{ {} saddr }}", family.name()),
                format!("meta l4proto {} dnat to {address}", service.protocol.name()),
            ],
        );
        (chain, set)
    }

    fn firewall(&mut self, id: &str, service: &ServicePort, balancer_ips: &[IpAddr]) {
        if service.source_ranges.is_empty() || balancer_ips.is_empty() {
            return;
        }
        let family = self.table.family;
        let ranges: Vec<String> = service
            .source_ranges
            .iter()
            .filter(|range| family.has(range.addr()))
            .map(|range| range.trunc().to_string())
            .collect();
        let chain = format!("fw/{id}");
        let rule = if ranges.is_empty() {
            "drop".into()
        } else {
            format!("{} saddr != {{ {} }} drop", family.name(), ranges.join(", "))
        };
        self.chain(&chain, vec![rule]);
        for ip in balancer_ips {
            let key = format!("{ip} . {} . {}", service.protocol.name(), service.port);
            self.element("firewall", key, format!("goto {chain}"));
        }
    }

    fn at_address(&mut self, ip: IpAddr, service: &ServicePort, target: &Target) {
        let key = format!("{ip} . {} . {}", service.protocol.name(), service.port);
        self.at("service-ips", "no-endpoints", key, target);
    }

    fn at(&mut self, map: &str, nobody: &str, key: String, target: &Target) {
        match target {
            Target::Chain(chain) => self.element(map, key, format!("goto {chain}")),
            Target::Nobody(verdict) => self.element(nobody, key, (*verdict).into()),
        }
    }

    fn element(&mut self, set: &str, key: String, value: String) {
        if let Some(set) = self.table.sets.get_mut(set) {
            set.elements.insert(key, value);
        }
    }

    fn chain(&mut self, name: &str, rules: Vec<String>) {
        self.table.chains.insert(
            name.into(),
            Chain {
                hook: String::new(),
                rules,
            },
        );
    }

    fn hook(&mut self, name: &str, hook: &str, rules: Vec<String>) {
        self.table.chains.insert(
            name.into(),
            Chain {
                hook: hook.into(),
                rules,
            },
        );
    }

    /// The pods' addresses as nft's right-hand side.
    fn pods(&self) -> Option<String> {
        ranges(&self.options.cluster_cidrs, self.table.family)
    }

    /// Matches the node's addresses that answer on node ports.
    fn node_address_match(&self) -> String {
        let own = "fib daddr type local";
        match ranges(&self.options.nodeport_addresses, self.table.family) {
            Some(ranges) => format!("{} daddr {ranges} {own}", self.table.family.name()),
            None => own.into(),
        }
    }
}

/// Where traffic to one address goes.
enum Target {
    Chain(String),
    /// The verdict for what nobody answers.
    Nobody(&'static str),
}

fn ranges(ranges: &[IpNet], family: Family) -> Option<String> {
    let texts: Vec<String> = ranges
        .iter()
        .filter(|range| family.has(range.addr()))
        .map(|range| range.trunc().to_string())
        .collect();
    match texts.as_slice() {
        [] => None,
        [one] => Some(one.clone()),
        _ => Some(format!("{{ {} }}", texts.join(", "))),
    }
}
