//! A lease lives for as long as it was promised to, through changes of the leader and members that stand still; and
//! when nobody renews it any more, it ends.

use crate::leases::{Promises, lease_of};
use crate::world::World;

/// Looks at the end of a key as it happens.
pub fn ended(promises: &Promises, key: &str, now: u64) -> Result<(), String> {
    let promised = lease_of(key)
        .and_then(|lease| promises.get(&lease))
        .copied()
        .unwrap_or(0);
    if now < promised {
        return Err(format!("{key} was promised until {promised} and ended at {now}"));
    }
    Ok(())
}

/// Long after everything healed and the last renewal.
pub fn all_gone(world: &World) -> Result<(), String> {
    let mut left = std::collections::BTreeMap::new();
    for events in world.history.truth.values() {
        for event in events {
            if lease_of(&event.key).is_some() {
                left.insert(event.key.clone(), event.value != 0);
            }
        }
    }
    let left: Vec<_> = left
        .into_iter()
        .filter(|(_, there)| *there)
        .map(|(key, _)| key)
        .collect();
    if !left.is_empty() {
        return Err(format!("nobody renews them, but they are there: {left:?}"));
    }
    Ok(())
}
