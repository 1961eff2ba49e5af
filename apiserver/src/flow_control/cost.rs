//! How many seats a request takes: one, but for lists, which take as many as what they read is worth.
//!
//! Upstream also bills a write for the watchers that are told of it. Here an event is made once for all of them, and what
//! is left of it for each is too little to be counted in seats.

use super::level::Shape;
use crate::authorization::attributes::{Attributes, Target};
use crate::handlers::options::Query;
use crate::registry::info::Verb;
use crate::state::Server;

/// Objects a list reads for each seat it takes.
const OBJECTS_PER_SEAT: usize = 100;
/// Seats a request takes at most.
pub const MOST: u32 = 10;
/// Part of a level's seats that one list may take.
const SHARE: f64 = 0.15;

/// Seats a request takes, were its level large.
pub fn seats(
    server: &Server,
    attributes: &Attributes<'_>,
    verb: Option<Verb>,
    query: &[(String, String)],
) -> u32 {
    let lists = match verb {
        Some(Verb::List | Verb::DeleteCollection) => true,
        Some(Verb::Watch) => Query(query).flag("sendInitialEvents"),
        _ => false,
    };
    if !lists {
        return 1;
    }
    of_list(
        server,
        attributes,
        Query(query).text("limit").parse().unwrap_or_default(),
    )
}

/// Seats a list takes that wants `limit` objects (0: all).
pub fn of_list(server: &Server, attributes: &Attributes<'_>, limit: usize) -> u32 {
    match attributes.target {
        Target::Resource {
            group,
            version,
            resource,
            name: "",
            ..
        } => {
            let served = server.catalog.find(group, version, resource);
            of_objects(served.map_or(0, |served| served.cache.sizes().0), limit)
        }
        _ => 1,
    }
}

fn of_objects(objects: usize, limit: usize) -> u32 {
    let read = if limit == 0 { objects } else { objects.min(limit) };
    let seats = u32::try_from(read.div_ceil(OBJECTS_PER_SEAT)).unwrap_or(MOST);
    seats.clamp(1, MOST)
}

/// The most seats one request of a level takes: a level's few seats are not all one list's.
pub fn most(shape: &Shape) -> u32 {
    let nominal = f64::from(shape.nominal);
    let hand = shape.queuing.map_or(1, |queuing| queuing.hand.max(1));
    let most = (SHARE * nominal).min(nominal / hand as f64).floor();
    (most as u32).clamp(1, MOST)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow_control::level::Queuing;

    #[test]
    fn long_lists_take_more_seats() {
        assert_eq!(of_objects(0, 0), 1);
        assert_eq!(of_objects(10_000, 0), 10);
        assert_eq!(of_objects(10_000, 500), 5);
        assert_eq!(of_objects(120, 500), 2);
    }

    #[test]
    fn but_not_all_a_level_has() {
        let shape = |nominal, hand| Shape {
            exempt: false,
            nominal,
            least: nominal,
            most: nominal,
            queuing: Some(Queuing {
                queues: 64,
                hand,
                length: 50,
            }),
        };
        assert_eq!(most(&shape(245, 6)), 10);
        assert_eq!(most(&shape(49, 6)), 7);
        assert_eq!(most(&shape(49, 10)), 4);
        assert_eq!(most(&shape(3, 6)), 1);
    }
}
