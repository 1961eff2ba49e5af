//! Cluster addresses and node ports of services.

use std::sync::Arc;

use ipnet::IpNet;
use k8s_openapi::api::core::v1::{Service, ServiceSpec};
use k8s_openapi::api::networking::v1::ServiceCIDR;
use keelson_api::conditions;
use keelson_api::field::Error;
use keelson_api::names::GroupKind;
use keelson_api::object::Object;
use keelson_api::status::{ApiError, ApiResult};

use super::defaults::{is_headless, needs_cluster_ip, needs_health_check, needs_node_port};
use crate::registry::allocators::{Allocator, Range, Record, Records, Refusal};
use crate::registry::common::loc::Loc;
use crate::registry::common::rules;
use crate::registry::strategy::{RequestContext, Reservation};

/// Both kinds of numbers that services have.
pub struct Allocations {
    addresses: Arc<Allocator>,
    ports: Arc<Allocator>,
}

impl Default for Allocations {
    fn default() -> Self {
        Self {
            addresses: Arc::new(Allocator::new("ipaddresses", Records::Addresses)),
            ports: Arc::new(Allocator::new("ranges/servicenodeports", Records::Plain)),
        }
    }
}

/// One request for numbers: what it has taken so far goes back when the write fails.
struct Request<'a> {
    ctx: &'a RequestContext<'a>,
    allocations: &'a Allocations,
    /// The range the server was started with, then those of ready `ServiceCIDR`s.
    addresses: Vec<Range>,
    ports: Range,
    owner: String,
    service: String,
    reservation: Reservation,
}

/// Which of the two a number is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Sort {
    Address,
    Port,
}

impl Allocations {
    /// What a new service needs.
    pub async fn create(&self, ctx: &RequestContext<'_>, service: &mut Service) -> ApiResult<Reservation> {
        let mut request = self.request(ctx, service).await?;
        let outcome = request.fill(service, None).await;
        request.finish(outcome)
    }

    /// What a changed service needs in addition.
    pub async fn update(
        &self,
        ctx: &RequestContext<'_>,
        new: &mut Service,
        old: &Service,
    ) -> ApiResult<Reservation> {
        let before = old.spec.as_ref();
        if new.spec.as_ref().map(held) == before.map(held) && new.spec.as_ref().is_some_and(is_complete) {
            return Ok(Reservation::none());
        }
        let mut request = self.request(ctx, new).await?;
        let outcome = request.fill(new, before).await;
        request.finish(outcome)
    }

    /// Gives back what `old` had and `new` has not.
    pub async fn release(&self, ctx: &RequestContext<'_>, old: &Service, new: Option<&Service>) {
        if ctx.dry_run {
            return;
        }
        let (Some(before), owner) = (old.spec.as_ref().map(held), owner(old)) else {
            return;
        };
        let kept = new.and_then(|n| n.spec.as_ref()).map(held).unwrap_or_default();
        let (addresses, ports) = own_ranges(ctx);
        for (sort, text) in before {
            if kept.contains(&(sort, text.clone())) {
                continue;
            }
            let (allocator, range) = match sort {
                Sort::Address => (&self.addresses, &addresses),
                Sort::Port => (&self.ports, &ports),
            };
            let Some(number) = range.number(&text) else {
                continue;
            };
            if let Err(error) = allocator.release(&ctx.server.store, range, number, &owner).await {
                // A record without a service is removed when somebody asks for its number, or at the next start.
                tracing::warn!(service = owner, number = text, %error, "could not give a number back");
            }
        }
    }

    async fn request<'a>(&'a self, ctx: &'a RequestContext<'a>, service: &Service) -> ApiResult<Request<'a>> {
        let (addresses, ports) = own_ranges(ctx);
        self.load(ctx, &addresses, &ports).await?;
        Ok(Request {
            ctx,
            allocations: self,
            addresses: address_ranges(ctx),
            ports,
            owner: owner(service),
            service: service.name().to_owned(),
            reservation: Reservation::none(),
        })
    }

    async fn load(&self, ctx: &RequestContext<'_>, addresses: &Range, ports: &Range) -> ApiResult<()> {
        if self.addresses.is_loaded() && self.ports.is_loaded() {
            return Ok(());
        }
        let (mut used_addresses, mut used_ports) = (Vec::new(), Vec::new());
        for service in ctx.server.fresh_list::<Service>("").await? {
            let owner = owner(&service);
            for (sort, text) in service.spec.as_ref().map(held).unwrap_or_default() {
                let (list, range) = match sort {
                    Sort::Address => (&mut used_addresses, addresses),
                    Sort::Port => (&mut used_ports, ports),
                };
                list.extend(range.number(&text).map(|number| (number, owner.clone())));
            }
        }
        let (store, now) = (&ctx.server.store, ctx.now.as_second());
        self.addresses
            .load(store, addresses, &used_addresses, now)
            .await?;
        self.ports.load(store, ports, &used_ports, now).await
    }
}

/// The ranges that addresses may come from now, those of the cluster's family.
fn address_ranges(ctx: &RequestContext<'_>) -> Vec<Range> {
    let own = ctx.server.config.service_cluster_ip_range;
    let is_ready = |range: &ServiceCIDR| {
        let conditions = range
            .status
            .as_ref()
            .and_then(|status| status.conditions.as_ref());
        conditions::is_true(conditions, "Ready") && range.metadata.deletion_timestamp.is_none()
    };
    let ready = ctx.server.cached_list::<ServiceCIDR>("");
    let more = ready
        .iter()
        .filter(|range| is_ready(range))
        .flat_map(|range| range.spec.iter().flat_map(|spec| spec.cidrs.iter().flatten()))
        .filter_map(|cidr| cidr.parse::<IpNet>().ok())
        .filter(|network| *network != own && network.addr().is_ipv4() == own.addr().is_ipv4());
    std::iter::once(own).chain(more).map(Range::Addresses).collect()
}

/// What the server was started with.
fn own_ranges(ctx: &RequestContext<'_>) -> (Range, Range) {
    let config = &ctx.server.config;
    let ports = config.service_node_port_range;
    (
        Range::Addresses(config.service_cluster_ip_range),
        Range::Ports(ports.first, ports.last),
    )
}

fn owner(service: &Service) -> String {
    format!("{}/{}/{}", service.namespace(), service.name(), service.uid())
}

/// The cluster addresses a service has.
pub fn addresses(service: &Service) -> Vec<String> {
    let held = service.spec.as_ref().map(held).unwrap_or_default();
    held.into_iter()
        .filter(|(sort, _)| *sort == Sort::Address)
        .map(|(_, text)| text)
        .collect()
}

/// The numbers a service has, as they are written. A port that is used for several protocols counts once.
fn held(spec: &ServiceSpec) -> Vec<(Sort, String)> {
    let mut held: Vec<(Sort, String)> = Vec::new();
    let mut add = |one: (Sort, String)| {
        if !held.contains(&one) {
            held.push(one);
        }
    };
    if needs_cluster_ip(spec) && !is_headless(spec) {
        spec.cluster_ips
            .iter()
            .flatten()
            .for_each(|ip| add((Sort::Address, ip.clone())));
    }
    for port in spec
        .ports
        .iter()
        .flatten()
        .filter_map(|p| p.node_port)
        .filter(|p| *p != 0)
    {
        add((Sort::Port, port.to_string()));
    }
    if let Some(port) = spec.health_check_node_port.filter(|p| *p != 0) {
        add((Sort::Port, port.to_string()));
    }
    held
}

/// Whether the service has every number it needs.
fn is_complete(spec: &ServiceSpec) -> bool {
    let address = !needs_cluster_ip(spec) || spec.cluster_ip.as_deref().is_some_and(|ip| !ip.is_empty());
    let ports = !needs_node_port(spec) || spec.ports.iter().flatten().all(|p| p.node_port.unwrap_or(0) != 0);
    let check = !needs_health_check(spec) || spec.health_check_node_port.unwrap_or(0) != 0;
    address && ports && check
}

impl Request<'_> {
    /// On success the reservation goes to the caller, else everything goes back at once.
    fn finish(self, outcome: ApiResult<()>) -> ApiResult<Reservation> {
        match outcome {
            Ok(()) => Ok(self.reservation),
            Err(error) => {
                self.reservation.undo();
                Err(error)
            }
        }
    }

    fn invalid(&self, error: Error) -> ApiError {
        ApiError::invalid(&GroupKind::new("", "Service"), &self.service, &[error])
    }

    async fn fill(&mut self, service: &mut Service, old: Option<&ServiceSpec>) -> ApiResult<()> {
        let Some(spec) = &mut service.spec else {
            return Ok(());
        };
        let before = old.map(held).unwrap_or_default();
        if needs_cluster_ip(spec) && !is_headless(spec) {
            self.address(spec, &before).await?;
        }
        if needs_node_port(spec) {
            self.node_ports(spec, &before).await?;
        }
        if needs_health_check(spec) {
            let at = Loc::new("spec.healthCheckNodePort");
            let port = self
                .port(&at, spec.health_check_node_port.unwrap_or(0), &before)
                .await?;
            spec.health_check_node_port = Some(port);
        }
        Ok(())
    }

    async fn address(&mut self, spec: &mut ServiceSpec, before: &[(Sort, String)]) -> ApiResult<()> {
        let at = Loc::new("spec.clusterIPs");
        let given = spec.cluster_ips.clone().unwrap_or_default();
        let families = spec.ip_families.as_deref().unwrap_or(&[]);
        let cluster = super::defaults::family(self.ctx.server.config.service_cluster_ip_range);
        if let Some(i) = families.iter().position(|family| family != cluster) {
            let error = Loc::new("spec.ipFamilies")
                .index(i)
                .invalid(families[i].as_str(), "not configured on this cluster");
            return Err(self.invalid(error));
        }
        if spec.ip_family_policy.as_deref() == Some("RequireDualStack") {
            let detail = "this cluster is not configured for dual-stack services";
            return Err(self.invalid(Loc::new("spec.ipFamilyPolicy").invalid("RequireDualStack", detail)));
        }
        match given.first() {
            Some(ip)
                if before
                    .iter()
                    .any(|(sort, text)| *sort == Sort::Address && text == ip) => {}
            Some(ip) => {
                let refuse = |why: String| {
                    let detail = format!("failed to allocate IP {ip}: {why}");
                    at.invalid(rules::shown(&given), detail)
                };
                let within = |number: &u128| self.addresses.iter().any(|range| range.contains(*number));
                let number = self.own().number(ip).filter(within);
                let Some(number) = number else {
                    let network = self.ctx.server.config.service_cluster_ip_range;
                    let why = format!(
                        "the provided IP ({ip}) is not in the valid range. The range of valid IPs is {network}"
                    );
                    return Err(self.invalid(refuse(why)));
                };
                if self.take(Sort::Address, number).await?.is_err() {
                    return Err(self.invalid(refuse("provided IP is already allocated".to_owned())));
                }
            }
            None => {
                let number = self
                    .take_any(Sort::Address)
                    .await?
                    .map_err(|_| ApiError::internal("failed to allocate a serviceIP: range is full"))?;
                let text = self.own().text(number);
                spec.cluster_ips = Some(vec![text.clone()]);
                spec.cluster_ip = Some(text);
            }
        }
        Ok(())
    }

    async fn node_ports(&mut self, spec: &mut ServiceSpec, before: &[(Sort, String)]) -> ApiResult<()> {
        let ports = spec.ports.get_or_insert_default();
        let mut mine: Vec<(Sort, String)> = before.to_vec();
        // Ports that were asked for come first, so that none of them is given away to another port meanwhile.
        for asked in [true, false] {
            for i in 0..ports.len() {
                let wanted = ports[i].node_port.unwrap_or(0);
                if (wanted != 0) != asked {
                    continue;
                }
                // The same port for another protocol gets the same number.
                let twin = (!asked)
                    .then(|| {
                        ports.iter().enumerate().find_map(|(j, p)| {
                            let same = j != i && p.port == ports[i].port && p.protocol != ports[i].protocol;
                            p.node_port.filter(|n| same && *n != 0)
                        })
                    })
                    .flatten();
                let all = Loc::new("spec.ports");
                let at = all.index(i);
                let port = self
                    .port(&at.child("nodePort"), twin.unwrap_or(wanted), &mine)
                    .await?;
                mine.push((Sort::Port, port.to_string()));
                ports[i].node_port = Some(port);
            }
        }
        Ok(())
    }

    async fn port(&mut self, at: &Loc<'_>, wanted: i32, mine: &[(Sort, String)]) -> ApiResult<i32> {
        if wanted == 0 {
            let number = self
                .take_any(Sort::Port)
                .await?
                .map_err(|_| ApiError::internal("failed to allocate a nodePort: range is full"))?;
            return i32::try_from(number).map_err(ApiError::internal);
        }
        let text = wanted.to_string();
        if mine.iter().any(|(sort, one)| *sort == Sort::Port && *one == text) {
            return Ok(wanted);
        }
        let range = self.ports;
        let Some(number) = range.number(&text).filter(|number| range.contains(*number)) else {
            let ports = self.ctx.server.config.service_node_port_range;
            let detail = format!(
                "provided port is not in the valid range. The range of valid ports is {}-{}",
                ports.first, ports.last
            );
            return Err(self.invalid(at.invalid(wanted, detail)));
        };
        if self.take(Sort::Port, number).await?.is_err() {
            return Err(self.invalid(at.invalid(wanted, "provided port is already allocated")));
        }
        Ok(wanted)
    }

    /// The range the server was started with: it says how addresses are written.
    fn own(&self) -> Range {
        own_ranges(self.ctx).0
    }

    fn allocator(&self, sort: Sort) -> (&Arc<Allocator>, Range) {
        match sort {
            Sort::Address => (&self.allocations.addresses, self.own()),
            Sort::Port => (&self.allocations.ports, self.ports),
        }
    }

    fn record(&self) -> Record {
        Record {
            owner: self.owner.clone(),
            since: self.ctx.now.as_second(),
        }
    }

    async fn take(&mut self, sort: Sort, number: u128) -> ApiResult<Result<(), Refusal>> {
        let (allocator, range) = self.allocator(sort);
        let (store, server) = (&self.ctx.server.store, self.ctx.server);
        if self.ctx.dry_run {
            let free = allocator.is_free(store, &range, number).await?;
            return Ok(if free { Ok(()) } else { Err(Refusal::Taken) });
        }
        let record = self.record();
        let mut outcome = allocator.take(store, &range, number, &record).await?;
        if let Err(Refusal::Old { owner, revision }) = &outcome {
            let mut parts = owner.split('/');
            let (namespace, name) = (parts.next().unwrap_or(""), parts.next().unwrap_or(""));
            // An owner that cannot be looked up is taken to exist: a number given twice is worse than one not given.
            let used = match server.fresh::<Service>(namespace, name).await {
                Ok(service) => service
                    .spec
                    .as_ref()
                    .map(held)
                    .unwrap_or_default()
                    .contains(&(sort, range.text(number))),
                Err(error) => !error.is_not_found(),
            };
            outcome = if used {
                Err(Refusal::Taken)
            } else {
                allocator
                    .take_over(store, &range, number, *revision, &record)
                    .await?
            };
        }
        if outcome.is_ok() {
            self.remember(sort, number);
        }
        Ok(outcome)
    }

    async fn take_any(&mut self, sort: Sort) -> ApiResult<Result<u128, Refusal>> {
        let (allocator, own) = self.allocator(sort);
        let ranges = match sort {
            Sort::Address => self.addresses.clone(),
            Sort::Port => vec![own],
        };
        if self.ctx.dry_run {
            return Ok(ranges
                .iter()
                .find_map(|range| allocator.candidate(range))
                .ok_or(Refusal::Full));
        }
        for range in &ranges {
            let outcome = allocator
                .take_any(&self.ctx.server.store, range, &self.record())
                .await?;
            if let Ok(number) = outcome {
                self.remember(sort, number);
                return Ok(Ok(number));
            }
        }
        Ok(Err(Refusal::Full))
    }

    fn remember(&mut self, sort: Sort, number: u128) {
        let (allocator, range) = self.allocator(sort);
        let (allocator, store, owner) = (
            allocator.clone(),
            self.ctx.server.store.clone(),
            self.owner.clone(),
        );
        self.reservation.on_failure(move || {
            tokio::spawn(async move {
                if let Err(error) = allocator.release(&store, &range, number, &owner).await {
                    tracing::warn!(service = owner, number = range.text(number), %error, "could not give a number back");
                }
            });
        });
    }
}
