//! Services.
//!
//! | module | what lives there |
//! | --- | --- |
//! | [`defaults`] | what is filled in, and what a change of type drops or keeps |
//! | [`validation`] | what is refused |
//! | [`allocation`] | cluster addresses and node ports |

pub mod allocation;
pub mod defaults;
pub mod validation;

#[cfg(test)]
mod tests;

use async_trait::async_trait;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Service, ServiceSpec, ServiceStatus};
use keelson_api::field::Errors;
use keelson_api::status::ApiResult;
use serde_json::Value;

use super::pod::PROXY;
use crate::registry::common::cells;
use crate::registry::strategy::{
    Column, Fields, NameRule, OtherFields, RequestContext, Reservation, ResourceInfo, Strategy,
    SubresourceForm, SubresourceInfo, Verb,
};
use allocation::Allocations;

/// The kind's strategy.
pub struct ServiceStrategy {
    allocations: Allocations,
}

impl ServiceStrategy {
    /// A strategy that has not yet looked at what is allocated.
    #[allow(
        clippy::new_without_default,
        reason = "`default` is what strategies do to objects"
    )]
    pub fn new() -> Self {
        Self {
            allocations: Allocations::default(),
        }
    }
}

static INFO: ResourceInfo = ResourceInfo {
    kind: "Service",
    plural: "services",
    singular: "service",
    short_names: &["svc"],
    categories: &["all"],
    storage_prefix: "services/specs",
    name_rule: NameRule::ServiceLabel,
    verbs: Verb::ALL,
    selectable_fields: &["spec.clusterIP", "spec.type"],
    other_fields: OtherFields::NotSupported,
    subresources: &[
        SubresourceInfo {
            name: "proxy",
            kind: "ServiceProxyOptions",
            group: "",
            version: "v1",
            verbs: PROXY,
            form: SubresourceForm::Connect,
        },
        SubresourceInfo::status("", "v1", "Service"),
    ],
    ..ResourceInfo::base()
};

#[async_trait]
impl Strategy for ServiceStrategy {
    type Object = Service;

    fn info(&self) -> &'static ResourceInfo {
        &INFO
    }

    fn default(&self, service: &mut Service) {
        defaults::service(service);
    }

    fn prepare_create(&self, ctx: &RequestContext<'_>, service: &mut Service) {
        service.status = Some(ServiceStatus {
            load_balancer: Some(Default::default()),
            ..ServiceStatus::default()
        });
        defaults::address_families(
            service,
            None,
            defaults::family(ctx.server.config.service_cluster_ip_range),
        );
    }

    fn prepare_update(&self, ctx: &RequestContext<'_>, new: &mut Service, old: &Service) {
        new.status.clone_from(&old.status);
        defaults::patch_allocated(new, old);
        defaults::drop_for_type(new, old);
        let balanced = |s: &Service| s.spec.as_ref().and_then(|s| s.type_.as_deref()) == Some("LoadBalancer");
        if balanced(old) && !balanced(new) {
            new.status.get_or_insert_default().load_balancer = Some(Default::default());
        }
        defaults::address_families(
            new,
            Some(old),
            defaults::family(ctx.server.config.service_cluster_ip_range),
        );
    }

    fn prepare_subresource_update(&self, _ctx: &RequestContext<'_>, new: &mut Service, old: &Service) {
        new.spec.clone_from(&old.spec);
        for ingress in new
            .status
            .iter_mut()
            .flat_map(|s| s.load_balancer.iter_mut())
            .flat_map(|b| b.ingress.iter_mut().flatten())
        {
            if ingress.ip.as_ref().is_some_and(|ip| !ip.is_empty()) && ingress.ip_mode.is_none() {
                ingress.ip_mode = Some("VIP".to_owned());
            }
        }
    }

    fn validate_create(&self, _ctx: &RequestContext<'_>, service: &Service) -> Errors {
        validation::service(service)
    }

    fn validate_update(&self, _ctx: &RequestContext<'_>, new: &Service, old: &Service) -> Errors {
        validation::update(new, old)
    }

    fn validate_subresource_update(
        &self,
        _ctx: &RequestContext<'_>,
        new: &Service,
        _old: &Service,
    ) -> Errors {
        validation::status(new)
    }

    fn warnings(&self, service: &Service, old: Option<&Service>) -> Vec<String> {
        let Some(spec) = &service.spec else {
            return Vec::new();
        };
        let mut out = Vec::new();
        if spec.cluster_ip.as_deref() == Some("None") && old.is_none() {
            if spec.load_balancer_ip.as_ref().is_some_and(|ip| !ip.is_empty()) {
                out.push("spec.loadBalancerIP is ignored when spec.clusterIP is \"None\"".to_owned());
            }
            if spec.external_ips.as_ref().is_some_and(|ips| !ips.is_empty()) {
                out.push("spec.externalIPs is ignored when spec.clusterIP is \"None\"".to_owned());
            }
            if spec.session_affinity.as_deref() == Some("ClientIP") {
                out.push("spec.SessionAffinity is ignored for headless services".to_owned());
            }
        }
        out
    }

    fn selectable_fields(&self, service: &Service) -> Fields {
        let spec = service.spec.as_ref();
        vec![
            (
                "spec.clusterIP",
                spec.and_then(|s| s.cluster_ip.clone()).unwrap_or_default(),
            ),
            (
                "spec.type",
                spec.and_then(|s| s.type_.clone()).unwrap_or_default(),
            ),
        ]
    }

    fn columns(&self) -> &'static [Column] {
        const COLUMNS: &[Column] = &[
            Column::name(),
            Column::new("Type", "How the service is exposed."),
            Column::new("Cluster-IP", "The address of the service inside the cluster."),
            Column::new(
                "External-IP",
                "The addresses of the service outside of the cluster.",
            ),
            Column::new("Port(s)", "The ports the service exposes."),
            Column::new("Age", "Time since the object was created."),
            Column::new("Selector", "The labels of the pods traffic is routed to.").wide(),
        ];
        COLUMNS
    }

    fn cells(&self, service: &Service, now: Timestamp) -> Vec<Value> {
        let none = ServiceSpec::default();
        let spec = service.spec.as_ref().unwrap_or(&none);
        let addresses = spec.cluster_ips.as_deref().unwrap_or(&[]);
        vec![
            cells::name(&service.metadata),
            spec.type_.as_deref().unwrap_or("").into(),
            cells::or_none(addresses.first().map(String::as_str)),
            external_addresses(service, spec).into(),
            ports(spec).into(),
            cells::age(&service.metadata, now),
            cells::labels(spec.selector.as_ref()).into(),
        ]
    }

    async fn begin_create(&self, ctx: &RequestContext<'_>, service: &mut Service) -> ApiResult<Reservation> {
        if !validation::service(service).is_empty() {
            return Ok(Reservation::none());
        }
        self.allocations.create(ctx, service).await
    }

    async fn begin_update(
        &self,
        ctx: &RequestContext<'_>,
        new: &mut Service,
        old: &Service,
    ) -> ApiResult<Reservation> {
        if !ctx.subresource.is_empty() || !validation::update(new, old).is_empty() {
            return Ok(Reservation::none());
        }
        self.allocations.update(ctx, new, old).await
    }

    async fn after_update(&self, ctx: &RequestContext<'_>, new: &Service, old: &Service) {
        self.allocations.release(ctx, old, Some(new)).await;
    }

    async fn after_delete(&self, ctx: &RequestContext<'_>, service: &Service) {
        self.allocations.release(ctx, service, None).await;
    }
}

fn external_addresses(service: &Service, spec: &ServiceSpec) -> String {
    let given = spec.external_ips.as_deref().unwrap_or(&[]);
    match spec.type_.as_deref() {
        Some("ExternalName") => spec.external_name.clone().unwrap_or_default(),
        Some("LoadBalancer") => {
            let balancer = service.status.as_ref().and_then(|s| s.load_balancer.as_ref());
            let ingress = balancer.and_then(|b| b.ingress.as_deref()).unwrap_or(&[]);
            let mut all: Vec<&str> = ingress
                .iter()
                .filter_map(|i| {
                    i.ip.as_deref()
                        .filter(|ip| !ip.is_empty())
                        .or(i.hostname.as_deref())
                })
                .collect();
            all.sort_unstable();
            all.dedup();
            all.extend(given.iter().map(String::as_str));
            if all.is_empty() {
                "<pending>".to_owned()
            } else {
                all.join(",")
            }
        }
        _ if given.is_empty() => cells::NONE.to_owned(),
        _ => given.join(","),
    }
}

fn ports(spec: &ServiceSpec) -> String {
    let ports: Vec<String> = spec
        .ports
        .iter()
        .flatten()
        .map(|port| {
            let protocol = port.protocol.as_deref().unwrap_or("");
            match port.node_port.unwrap_or(0) {
                0 => format!("{}/{protocol}", port.port),
                node => format!("{}:{node}/{protocol}", port.port),
            }
        })
        .collect();
    if ports.is_empty() {
        cells::NONE.to_owned()
    } else {
        ports.join(",")
    }
}
