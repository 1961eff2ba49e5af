//! From the endpoints that should be there and the slices that are, to the slices to write.
//!
//! Every write reaches every node, so few slices are touched: endpoints stay in the slice they are in, new ones go
//! into slices that are written anyway, then into one that has room for all of them, then into new slices.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, Pod, Service};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use keelson_api::labels::{ENDPOINT_SLICE_MANAGED_BY, HEADLESS, SERVICE_NAME};
use keelson_api::object::Object as _;
use keelson_api::owners::{is_controlled_by, new_controller_ref};

use super::desired::{self, Ports, identity};
use super::slices::Plan;
use crate::common::services::{self, Family};

/// The value of the label `endpointslice.kubernetes.io/managed-by` on this controller's slices.
pub(super) const MANAGER: &str = "endpointslice-controller.k8s.io";

/// Plans for one service. `existing` are the slices of this controller for it; `capacity` is how many endpoints go
/// into a slice.
#[must_use]
pub(super) fn plan(
    service: &Service,
    pods: &[Arc<Pod>],
    existing: &[Arc<EndpointSlice>],
    capacity: usize,
    node: impl Fn(&str) -> Option<Arc<Node>>,
) -> Plan {
    let families = services::families(service);
    let mut plan = Plan::default();
    let is_of = |slice: &EndpointSlice, family: Family| slice.address_type == family.name();
    for family in &families {
        let own: Vec<_> = existing
            .iter()
            .filter(|slice| is_of(slice, *family))
            .cloned()
            .collect();
        let wanted = desired::endpoints(service, pods, *family, &node);
        let mut part = Planner {
            service,
            family: *family,
            capacity,
            plan: Plan::default(),
        };
        part.run(wanted, own);
        plan.create.append(&mut part.plan.create);
        plan.update.append(&mut part.plan.update);
        plan.delete.append(&mut part.plan.delete);
    }
    let orphaned = existing
        .iter()
        .filter(|slice| !families.iter().any(|family| is_of(slice, *family)));
    plan.delete.extend(orphaned.cloned());
    plan
}

struct Planner<'a> {
    service: &'a Service,
    family: Family,
    capacity: usize,
    plan: Plan,
}

/// A slice being worked on.
struct Draft {
    /// What it is now; `None` for a new one.
    origin: Option<Arc<EndpointSlice>>,
    endpoints: Vec<Endpoint>,
    changed: bool,
}

impl Planner<'_> {
    fn run(&mut self, wanted: BTreeMap<Ports, Vec<Endpoint>>, existing: Vec<Arc<EndpointSlice>>) {
        let count = existing.len();
        let mut by_ports: BTreeMap<Ports, Vec<Arc<EndpointSlice>>> = BTreeMap::new();
        for slice in existing {
            by_ports
                .entry(desired::key_of(slice.ports.as_deref()))
                .or_default()
                .push(slice);
        }
        for (ports, endpoints) in wanted {
            let slices = by_ports.remove(&ports).unwrap_or_default();
            self.fill(&ports, endpoints, slices);
        }
        self.plan.delete.extend(by_ports.into_values().flatten());
        if self.plan.create.is_empty() && self.plan.delete.len() == count {
            self.keep_placeholder();
        }
        self.recycle();
    }

    /// Distributes the endpoints with the same ports.
    fn fill(&mut self, ports: &Ports, endpoints: Vec<Endpoint>, slices: Vec<Arc<EndpointSlice>>) {
        let mut missing: HashMap<String, Endpoint> = endpoints
            .iter()
            .map(|endpoint| (identity(endpoint).to_owned(), endpoint.clone()))
            .collect();
        let mut drafts: Vec<Draft> = slices
            .into_iter()
            .map(|slice| self.retain(slice, &mut missing))
            .collect();
        // In their own order, so that the same input gives the same slices.
        let mut missing: Vec<Endpoint> = endpoints
            .into_iter()
            .filter(|endpoint| missing.contains_key(identity(endpoint)))
            .collect();
        // Fullest first, to end with few slices.
        drafts.sort_by_key(|draft| std::cmp::Reverse(draft.endpoints.len()));
        for draft in drafts.iter_mut().filter(|draft| draft.changed) {
            top_up(draft, &mut missing, self.capacity);
        }
        while !missing.is_empty() {
            let room_for_all = drafts
                .iter_mut()
                .filter(|draft| !draft.changed && draft.endpoints.len() + missing.len() <= self.capacity)
                .max_by_key(|draft| draft.endpoints.len());
            if let Some(draft) = room_for_all {
                top_up(draft, &mut missing, self.capacity);
            } else {
                let mut draft = Draft {
                    origin: None,
                    endpoints: Vec::new(),
                    changed: true,
                };
                top_up(&mut draft, &mut missing, self.capacity);
                drafts.push(draft);
            }
        }
        for draft in drafts {
            self.file(ports, draft);
        }
    }

    /// What of a slice stays, taken out of `missing`.
    fn retain(&self, slice: Arc<EndpointSlice>, missing: &mut HashMap<String, Endpoint>) -> Draft {
        let mut changed =
            *slice.labels() != self.labels() || !is_controlled_by(&slice.metadata, self.service.uid());
        let mut endpoints = Vec::new();
        for old in slice.endpoints.as_deref().unwrap_or_default() {
            if endpoints.len() >= self.capacity {
                changed = true;
                break;
            }
            match missing.remove(identity(old)) {
                Some(new) => {
                    changed |= *old != new;
                    endpoints.push(new);
                }
                None => changed = true,
            }
        }
        Draft {
            origin: Some(slice),
            endpoints,
            changed,
        }
    }

    fn file(&mut self, ports: &Ports, draft: Draft) {
        match draft.origin {
            Some(slice) if draft.endpoints.is_empty() => self.plan.delete.push(slice),
            Some(slice) if draft.changed => {
                let metadata = self.metadata(Some(&slice.metadata));
                self.plan
                    .update
                    .push(self.slice(metadata, ports, draft.endpoints));
            }
            Some(_) => {}
            None => {
                let metadata = self.metadata(None);
                self.plan
                    .create
                    .push(self.slice(metadata, ports, draft.endpoints));
            }
        }
    }

    /// A service without endpoints has one empty slice, which tells "none" from "not known yet".
    fn keep_placeholder(&mut self) {
        let is_placeholder = |slice: &EndpointSlice| {
            slice.endpoints.as_deref().unwrap_or_default().is_empty()
                && slice.ports.as_deref().unwrap_or_default().is_empty()
                && *slice.labels() == self.labels()
                && is_controlled_by(&slice.metadata, self.service.uid())
        };
        if let Some(index) = self.plan.delete.iter().position(|slice| is_placeholder(slice)) {
            self.plan.delete.remove(index);
        } else {
            let metadata = self.metadata(None);
            self.plan
                .create
                .push(self.slice(metadata, &Ports::new(), Vec::new()));
        }
    }

    /// Rewrites slices that would go instead of creating new ones.
    fn recycle(&mut self) {
        while !self.plan.create.is_empty()
            && let Some(old) = self.plan.delete.pop()
            && let Some(mut new) = self.plan.create.pop()
        {
            new.metadata = self.metadata(Some(&old.metadata));
            self.plan.update.push(new);
        }
    }

    fn slice(&self, metadata: ObjectMeta, ports: &Ports, endpoints: Vec<Endpoint>) -> EndpointSlice {
        EndpointSlice {
            metadata,
            address_type: self.family.name().into(),
            endpoints: Some(endpoints),
            ports: Some(desired::ports_from(ports)),
        }
    }

    fn metadata(&self, old: Option<&ObjectMeta>) -> ObjectMeta {
        let mut metadata = old.cloned().unwrap_or_else(|| ObjectMeta {
            generate_name: Some(format!("{}-", self.service.name())),
            namespace: self.service.metadata.namespace.clone(),
            ..ObjectMeta::default()
        });
        metadata.labels = Some(self.labels());
        metadata.owner_references = Some(vec![new_controller_ref(self.service)]);
        metadata
    }

    fn labels(&self) -> BTreeMap<String, String> {
        let mut labels = self.service.labels().clone();
        labels.insert(SERVICE_NAME.into(), self.service.name().into());
        labels.insert(ENDPOINT_SLICE_MANAGED_BY.into(), MANAGER.into());
        if services::is_headless(self.service) {
            labels.insert(HEADLESS.into(), String::new());
        } else {
            labels.remove(HEADLESS);
        }
        labels
    }
}

fn top_up(draft: &mut Draft, missing: &mut Vec<Endpoint>, capacity: usize) {
    let room = capacity.saturating_sub(draft.endpoints.len()).min(missing.len());
    if room > 0 {
        draft.changed = true;
        draft.endpoints.extend(missing.drain(..room));
    }
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
