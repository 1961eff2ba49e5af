//! Amounts of what nodes have and pods ask for.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, Pod};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use keelson_api::Amount;
use keelson_api::pods::{self, Amounts};

/// What a container that asks for no CPU counts as when nodes are compared: without it, any number of such pods would
/// look like none. (Upstream's figure, as is the next.)
const DEFAULT_MILLI_CPU: i64 = 100;
/// What a container that asks for no memory counts as when nodes are compared.
const DEFAULT_MEMORY: i64 = 200 << 20;

/// CPU in thousandths of a core; memory and storage in bytes; everything else in units.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resources {
    /// `cpu`, in thousandths.
    pub milli_cpu: i64,
    /// `memory`, in bytes.
    pub memory: i64,
    /// `ephemeral-storage`, in bytes.
    pub ephemeral_storage: i64,
    /// `pods`: how many a node takes. Pods do not ask for it.
    pub pods: i64,
    /// Extended resources and huge pages.
    pub scalar: BTreeMap<String, i64>,
}

impl Resources {
    /// What a node offers.
    pub fn allocatable(quantities: Option<&BTreeMap<String, Quantity>>) -> Self {
        let mut all = Resources::default();
        for (name, quantity) in quantities.into_iter().flatten() {
            all.set(name, Amount::of(quantity));
        }
        all
    }

    /// What a pod holds on its node, a resize under way included.
    pub fn requested(pod: &Pod) -> Self {
        Self::from(&pods::requests_in_force(pod))
    }

    fn from(amounts: &Amounts) -> Self {
        let mut all = Resources::default();
        for (name, amount) in amounts {
            all.set(name, *amount);
        }
        all
    }

    fn set(&mut self, name: &str, amount: Amount) {
        match name {
            "cpu" => self.milli_cpu = amount.milli_value(),
            "memory" => self.memory = amount.value(),
            "ephemeral-storage" => self.ephemeral_storage = amount.value(),
            "pods" => self.pods = amount.value(),
            _ => {
                self.scalar.insert(name.to_owned(), amount.value());
            }
        }
    }

    /// Adds what `other` has.
    pub fn add(&mut self, other: &Resources) {
        self.milli_cpu += other.milli_cpu;
        self.memory += other.memory;
        self.ephemeral_storage += other.ephemeral_storage;
        for (name, amount) in &other.scalar {
            *self.scalar.entry(name.clone()).or_default() += amount;
        }
    }

    /// Takes away what `other` has.
    pub fn subtract(&mut self, other: &Resources) {
        self.milli_cpu -= other.milli_cpu;
        self.memory -= other.memory;
        self.ephemeral_storage -= other.ephemeral_storage;
        for (name, amount) in &other.scalar {
            *self.scalar.entry(name.clone()).or_default() -= amount;
        }
    }

    /// The amount of an extended resource.
    pub fn scalar(&self, name: &str) -> i64 {
        self.scalar.get(name).copied().unwrap_or_default()
    }

    /// Whether nothing is asked for.
    pub fn is_zero(&self) -> bool {
        self.milli_cpu == 0
            && self.memory == 0
            && self.ephemeral_storage == 0
            && self.scalar.values().all(|amount| *amount == 0)
    }
}

/// CPU and memory where a container that asks for none counts as a small one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NonZero {
    /// In thousandths of a core.
    pub milli_cpu: i64,
    /// In bytes.
    pub memory: i64,
}

impl NonZero {
    /// Of a pod whose requests are known.
    pub fn of(pod: &Pod, requests: &Resources) -> Self {
        let mut sum = NonZero {
            milli_cpu: requests.milli_cpu,
            memory: requests.memory,
        };
        let Some(spec) = &pod.spec else { return sum };
        let at_pod_level = |name: &str| {
            let requests = spec
                .resources
                .as_ref()
                .and_then(|resources| resources.requests.as_ref());
            requests.is_some_and(|requests| requests.contains_key(name))
        };
        let asking_for_none = |name: &str| {
            spec.containers
                .iter()
                .filter(|container| !asks_for(container, name))
                .count() as i64
        };
        if !at_pod_level("cpu") {
            sum.milli_cpu += DEFAULT_MILLI_CPU * asking_for_none("cpu");
        }
        if !at_pod_level("memory") {
            sum.memory += DEFAULT_MEMORY * asking_for_none("memory");
        }
        sum
    }

    /// Adds another.
    pub fn add(&mut self, other: NonZero) {
        self.milli_cpu += other.milli_cpu;
        self.memory += other.memory;
    }

    /// Takes another away.
    pub fn subtract(&mut self, other: NonZero) {
        self.milli_cpu -= other.milli_cpu;
        self.memory -= other.memory;
    }
}

fn asks_for(container: &Container, name: &str) -> bool {
    let requests = container
        .resources
        .as_ref()
        .and_then(|resources| resources.requests.as_ref());
    requests.is_some_and(|requests| requests.contains_key(name))
}
