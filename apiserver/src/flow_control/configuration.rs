//! The levels and schemas in force, made of what is stored.

use std::collections::HashMap;
use std::sync::Arc;

use arc_swap::{ArcSwap, Guard};
use k8s_openapi::api::flowcontrol::v1::{FlowSchema, PriorityLevelConfiguration};
use parking_lot::Mutex;

use super::cost;
use super::level::{Level, Queuing, Shape};
use super::schema::{LevelOf, Schema};
use super::sharing::{self, Wants};
use crate::authentication::User;
use crate::authorization::attributes::Attributes;
use crate::metrics::flows::FlowMetrics;
use crate::registry::flowcontrol::{CATCH_ALL, EXEMPT, bootstrap};

/// Shares of a limited level that names none.
const SHARES: i32 = 30;
/// Queues, how many of them a flow is dealt, and what each holds, where a level does not say.
const QUEUES: usize = 64;
const HAND: usize = 8;
const LENGTH: usize = 50;

/// Every schema, in the order they are asked.
#[derive(Default)]
pub struct Configuration {
    schemas: Vec<Arc<Schema>>,
}

impl Configuration {
    /// The schema that covers a request.
    pub fn of(&self, user: &User, attributes: &Attributes<'_>) -> Option<&Arc<Schema>> {
        self.schemas.iter().find(|schema| schema.covers(user, attributes))
    }

    /// What a cluster begins with.
    #[cfg(test)]
    pub fn suggested(seats: u32) -> Arc<Self> {
        Levels::new(seats, FlowMetrics::default())
            .configuration
            .load_full()
    }
}

struct Known {
    level: Arc<Level>,
    /// See [`sharing::smoothed`].
    smoothed: f64,
}

/// The levels and schemas in force.
pub struct Levels {
    configuration: ArcSwap<Configuration>,
    known: Mutex<HashMap<String, Known>>,
    /// Seats of all levels together.
    total: u32,
    metrics: FlowMetrics,
}

impl Levels {
    /// Begins with what every cluster begins with. All levels share `total` seats.
    pub fn new(total: u32, metrics: FlowMetrics) -> Self {
        let levels = Self {
            configuration: ArcSwap::default(),
            known: Mutex::default(),
            total,
            metrics,
        };
        levels.configure(&bootstrap::priority_levels(), &bootstrap::flow_schemas());
        levels
    }

    /// Every schema.
    pub fn configuration(&self) -> Guard<Arc<Configuration>> {
        self.configuration.load()
    }

    /// Does as these say from now on. The two levels and schemas that no cluster is without hold even if they are missing.
    pub fn configure(&self, levels: &[PriorityLevelConfiguration], schemas: &[FlowSchema]) {
        let mandatory = bootstrap::priority_levels();
        let levels: Vec<_> = levels
            .iter()
            .chain(missing(&mandatory, levels, |level| &level.metadata.name))
            .collect();
        let mandatory = bootstrap::flow_schemas();
        let schemas = schemas
            .iter()
            .chain(missing(&mandatory, schemas, |schema| &schema.metadata.name));
        let all: i64 = levels.iter().map(|level| i64::from(shares(level))).sum();
        let mut known = self.known.lock();
        known.retain(|name, _| {
            levels
                .iter()
                .any(|level| level.metadata.name.as_ref() == Some(name))
        });
        let mut in_force = HashMap::new();
        for level in levels {
            let name = level.metadata.name.clone().unwrap_or_default();
            let shape = shape(level, self.total, all);
            let most_seats = cost::most(&shape);
            let of = known.entry(name.clone()).or_insert_with(|| Known {
                level: Level::new(&name, shape.clone(), self.metrics.gauges(&name)),
                smoothed: 0.0,
            });
            of.level.reshape(shape);
            let of = LevelOf {
                level: of.level.clone(),
                uid: super::uid(&level.metadata),
                most_seats,
            };
            in_force.insert(name, of);
        }
        let compiled = schemas.filter_map(|schema| {
            let level = schema.spec.as_ref()?.priority_level_configuration.name.as_str();
            let name = schema.metadata.name.as_deref().unwrap_or_default();
            let figures = self.metrics.of(level, name);
            Some(Arc::new(Schema::new(
                schema,
                in_force.get(level)?.clone(),
                figures,
            )))
        });
        let mut compiled: Vec<_> = compiled.collect();
        compiled.sort_by(|a, b| a.rank().cmp(&b.rank()));
        let configuration = Configuration { schemas: compiled };
        self.configuration.store(Arc::new(configuration));
    }

    /// Deals the seats anew, by what the levels wanted lately.
    pub fn share(&self) {
        let mut known = self.known.lock();
        let wants: Vec<(Arc<Level>, Wants)> = known
            .values_mut()
            .filter_map(|known| {
                let (shape, demand) = known.level.demand();
                known.smoothed = sharing::smoothed(known.smoothed, demand);
                let wants = Wants {
                    nominal: shape.nominal,
                    least: shape.least,
                    most: shape.most,
                    demand,
                    smoothed: known.smoothed,
                };
                (!shape.exempt).then(|| (known.level.clone(), wants))
            })
            .collect();
        let asked: Vec<_> = wants.iter().map(|(_, wants)| *wants).collect();
        for ((level, _), seats) in wants.iter().zip(sharing::deal(self.total, &asked)) {
            level.set_limit(seats);
        }
    }
}

/// The mandatory ones of `all` that are not among those there are.
fn missing<'a, T>(
    all: &'a [T],
    there: &'a [T],
    name: impl Fn(&T) -> &Option<String> + 'a,
) -> impl Iterator<Item = &'a T> {
    all.iter().filter(move |one| {
        let wanted = name(one);
        let mandatory = matches!(wanted.as_deref(), Some(EXEMPT | CATCH_ALL));
        mandatory && !there.iter().any(|there| name(there) == wanted)
    })
}

fn shares(level: &PriorityLevelConfiguration) -> i32 {
    let spec = level.spec.as_ref();
    let limited = spec.and_then(|spec| spec.limited.as_ref());
    let exempt = spec.and_then(|spec| spec.exempt.as_ref());
    match (limited, exempt) {
        (Some(limited), _) => limited.nominal_concurrency_shares.unwrap_or(SHARES),
        (None, Some(exempt)) => exempt.nominal_concurrency_shares.unwrap_or_default(),
        (None, None) => 0,
    }
}

fn shape(level: &PriorityLevelConfiguration, total: u32, all_shares: i64) -> Shape {
    let spec = level.spec.as_ref();
    let limited = spec.and_then(|spec| spec.limited.as_ref());
    let part = |percent: i32, of: u32| -> u32 {
        let seats = f64::from(percent.max(0)) / 100.0 * f64::from(of);
        seats.round() as u32
    };
    let nominal = f64::from(total) * f64::from(shares(level).max(0)) / (all_shares.max(1) as f64);
    let nominal = nominal.ceil() as u32;
    let queuing = limited
        .and_then(|limited| limited.limit_response.as_ref())
        .filter(|response| response.type_ == "Queue")
        .map(|response| {
            let queuing = response.queuing.clone().unwrap_or_default();
            let number = |given: Option<i32>, default: usize| {
                let given = given.and_then(|given| usize::try_from(given).ok());
                given.filter(|given| *given > 0).unwrap_or(default)
            };
            Queuing {
                queues: number(queuing.queues, QUEUES),
                hand: number(queuing.hand_size, HAND),
                length: number(queuing.queue_length_limit, LENGTH),
            }
        });
    let lendable = limited.and_then(|limited| limited.lendable_percent);
    let borrowing = limited.and_then(|limited| limited.borrowing_limit_percent);
    Shape {
        exempt: spec.is_some_and(|spec| spec.type_ == "Exempt"),
        nominal,
        least: nominal.saturating_sub(part(lendable.unwrap_or_default(), nominal)),
        most: match borrowing {
            Some(percent) => nominal.saturating_add(part(percent, nominal)),
            None => total.max(nominal),
        },
        queuing,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_have_their_part_of_the_seats() {
        let levels = bootstrap::priority_levels();
        let all: i64 = levels.iter().map(|level| i64::from(shares(level))).sum();
        assert_eq!(all, 245);
        let of = |name: &str| {
            let level = levels.iter().find(|l| l.metadata.name.as_deref() == Some(name));
            shape(level.expect("a level"), 600, all)
        };
        let high = of("node-high");
        assert_eq!((high.nominal, high.least, high.most), (98, 73, 600));
        let rest = of(CATCH_ALL);
        assert_eq!((rest.nominal, rest.least, rest.queuing), (13, 13, None));
        assert!(of(EXEMPT).exempt);
    }

    #[test]
    fn without_anything_stored_everybody_still_has_a_place() {
        let levels = Levels::new(600, FlowMetrics::default());
        levels.configure(&[], &[]);
        let (jane, path) = (User::named("jane", []), Attributes::path("get", "/version"));
        let configuration = levels.configuration();
        assert_eq!(configuration.of(&jane, &path).expect("a schema").name, CATCH_ALL);
        let master = configuration.of(&User::loopback(), &path).expect("a schema");
        assert_eq!(master.name, EXEMPT);
    }
}
