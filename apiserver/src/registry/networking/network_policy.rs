//! NetworkPolicies.

use std::net::IpAddr;

use ipnet::IpNet;
use jiff::Timestamp;
use k8s_openapi::api::networking::v1::{
    IPBlock, NetworkPolicy, NetworkPolicyPeer, NetworkPolicyPort, NetworkPolicySpec,
};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use keelson_api::field::Errors;
use keelson_api::validation;
use serde_json::Value;

use crate::registry::common::loc::Loc;
use crate::registry::common::meta::{self, Spec};
use crate::registry::common::{cells, rules, selectors};
use crate::registry::strategy::{Column, RequestContext, ResourceInfo, Strategy};

/// The kind's strategy.
pub struct NetworkPolicyKind;

static INFO: ResourceInfo = ResourceInfo {
    group: "networking.k8s.io",
    kind: "NetworkPolicy",
    plural: "networkpolicies",
    singular: "networkpolicy",
    short_names: &["netpol"],
    storage_prefix: "networkpolicies",
    ..ResourceInfo::base()
};

impl Strategy for NetworkPolicyKind {
    type Object = NetworkPolicy;

    fn info(&self) -> &'static ResourceInfo {
        &INFO
    }

    fn default(&self, policy: &mut NetworkPolicy) {
        let spec = policy.spec.get_or_insert_default();
        spec.pod_selector.get_or_insert_default();
        if spec.policy_types.as_ref().is_none_or(Vec::is_empty) {
            // Ingress always, and egress if there is something to say about it.
            let mut types = vec!["Ingress".to_owned()];
            if spec.egress.as_ref().is_some_and(|rules| !rules.is_empty()) {
                types.push("Egress".to_owned());
            }
            spec.policy_types = Some(types);
        }
        let ingress = spec
            .ingress
            .iter_mut()
            .flatten()
            .flat_map(|r| r.ports.iter_mut().flatten());
        let egress = spec
            .egress
            .iter_mut()
            .flatten()
            .flat_map(|r| r.ports.iter_mut().flatten());
        for port in ingress.chain(egress) {
            port.protocol.get_or_insert_with(|| "TCP".to_owned());
        }
    }

    fn prepare_create(&self, _ctx: &RequestContext<'_>, policy: &mut NetworkPolicy) {
        meta::first_generation(&mut policy.metadata);
    }

    fn prepare_update(&self, _ctx: &RequestContext<'_>, new: &mut NetworkPolicy, old: &NetworkPolicy) {
        meta::next_generation(
            &mut new.metadata,
            &old.metadata,
            Spec::compare(&new.spec, &old.spec),
        );
    }

    fn validate_create(&self, _ctx: &RequestContext<'_>, policy: &NetworkPolicy) -> Errors {
        validate(policy)
    }

    fn validate_update(
        &self,
        _ctx: &RequestContext<'_>,
        new: &NetworkPolicy,
        _old: &NetworkPolicy,
    ) -> Errors {
        validate(new)
    }

    fn columns(&self) -> &'static [Column] {
        const COLUMNS: &[Column] = &[
            Column::name(),
            Column::new("Pod-Selector", "The labels of the pods the policy is about."),
            Column::new("Age", "Time since the object was created."),
        ];
        COLUMNS
    }

    fn cells(&self, policy: &NetworkPolicy, now: Timestamp) -> Vec<Value> {
        let selector = policy.spec.as_ref().and_then(|s| s.pod_selector.as_ref());
        vec![
            cells::name(&policy.metadata),
            cells::selector(selector).into(),
            cells::age(&policy.metadata, now),
        ]
    }
}

fn validate(policy: &NetworkPolicy) -> Errors {
    let mut errors = Errors::new();
    let at = Loc::new("spec");
    let none = NetworkPolicySpec::default();
    let spec = policy.spec.as_ref().unwrap_or(&none);
    if let Some(selector) = &spec.pod_selector {
        selectors::label_selector(&mut errors, &at.child("podSelector"), selector);
    }
    let all = at.child("ingress");
    for (i, rule) in spec.ingress.iter().flatten().enumerate() {
        let at = all.index(i);
        ports(
            &mut errors,
            &at.child("ports"),
            rule.ports.as_deref().unwrap_or(&[]),
        );
        peers(
            &mut errors,
            &at.child("from"),
            rule.from.as_deref().unwrap_or(&[]),
        );
    }
    let all = at.child("egress");
    for (i, rule) in spec.egress.iter().flatten().enumerate() {
        let at = all.index(i);
        ports(
            &mut errors,
            &at.child("ports"),
            rule.ports.as_deref().unwrap_or(&[]),
        );
        peers(&mut errors, &at.child("to"), rule.to.as_deref().unwrap_or(&[]));
    }
    let types = spec.policy_types.as_deref().unwrap_or(&[]);
    let at_types = at.child("policyTypes");
    if types.len() > 2 {
        errors.push(at_types.invalid(rules::shown(&types), "may not specify more than two policyTypes"));
    } else {
        for (i, kind) in types.iter().enumerate() {
            rules::optional_one_of(
                &mut errors,
                &at_types.index(i),
                Some(kind),
                &["Egress", "Ingress"],
            );
        }
    }
    errors
}

fn ports(errors: &mut Errors, at: &Loc<'_>, ports: &[NetworkPolicyPort]) {
    for (i, port) in ports.iter().enumerate() {
        let at = at.index(i);
        rules::optional_one_of(
            errors,
            &at.child("protocol"),
            port.protocol.as_deref(),
            &["SCTP", "TCP", "UDP"],
        );
        let at_end = at.child("endPort");
        match (&port.port, port.end_port) {
            (Some(IntOrString::Int(first)), end) => {
                rules::port(errors, &at.child("port"), *first);
                if let Some(end) = end {
                    if end < *first {
                        errors.push(at_end.invalid(end, "must be greater than or equal to `port`"));
                    }
                    rules::port(errors, &at_end, end);
                }
            }
            (Some(IntOrString::String(name)), end) => {
                if let Some(end) = end {
                    errors.push(at_end.invalid(end, "may not be specified when `port` is non-numeric"));
                }
                rules::complain(errors, &at.child("port"), name, validation::port_name(name));
            }
            (None, Some(end)) => {
                errors.push(at_end.invalid(end, "may not be specified when `port` is not specified"));
            }
            (None, None) => {}
        }
    }
}

fn peers(errors: &mut Errors, at: &Loc<'_>, peers: &[NetworkPolicyPeer]) {
    for (i, peer) in peers.iter().enumerate() {
        let at = at.index(i);
        let selects = peer.pod_selector.is_some() || peer.namespace_selector.is_some();
        for (field, selector) in [
            ("podSelector", &peer.pod_selector),
            ("namespaceSelector", &peer.namespace_selector),
        ] {
            if let Some(selector) = selector {
                selectors::label_selector(errors, &at.child(field), selector);
            }
        }
        if let Some(block) = &peer.ip_block {
            self::block(errors, &at.child("ipBlock"), block);
            if selects {
                errors.push(at.forbidden("may not specify both ipBlock and another peer"));
            }
        } else if !selects {
            errors.push(at.required("must specify a peer"));
        }
    }
}

fn block(errors: &mut Errors, at: &Loc<'_>, block: &IPBlock) {
    const DETAIL: &str = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)";
    let at_cidr = at.child("cidr");
    if block.cidr.is_empty() {
        errors.push(at_cidr.required(""));
        return;
    }
    let Some(outer) = network(&block.cidr) else {
        errors.push(at_cidr.invalid(block.cidr.as_str(), DETAIL));
        return;
    };
    let at_except = at.child("except");
    for (i, text) in block.except.iter().flatten().enumerate() {
        let at = at_except.index(i);
        match network(text) {
            None => errors.push(at.invalid(text.as_str(), DETAIL)),
            Some(inner) if !outer.contains(&inner) || inner.prefix_len() <= outer.prefix_len() => {
                errors.push(at.invalid(
                    text.as_str(),
                    format!("must be a strict subset of `cidr` {}", block.cidr),
                ));
            }
            Some(_) => {}
        }
    }
}

fn network(text: &str) -> Option<IpNet> {
    let (address, length): (IpAddr, u8) = validation::parse_cidr(text)?;
    IpNet::new(address, length).ok()
}
