//! When nothing goes wrong any more, the group works again, and all its members come to the same state.

use crate::faults;
use crate::world::World;

const SECOND: u64 = 1_000_000;
/// Elections, snapshots and what waits take this long at most.
const RECOVERY: u64 = 40 * SECOND;
const QUIET: u64 = 15 * SECOND;

/// Heals the world and waits for it.
pub fn check(world: &mut World) -> Result<(), String> {
    faults::heal(world);
    let before: Vec<u64> = world.clients.iter().map(|client| client.answered).collect();
    let end = world.now + RECOVERY;
    world.run_until(end);
    for (number, answered) in before.iter().enumerate() {
        if world.clients[number].answered == *answered {
            return Err(format!(
                "client {number} was not answered again after everything healed"
            ));
        }
    }
    world.quiet = true;
    let end = world.now + QUIET;
    world.run_until(end);
    super::leases::all_gone(world)?;
    let mut states = Vec::new();
    for machine in world.machines.values() {
        let Some(running) = &machine.running else {
            if machine.removed {
                continue;
            }
            return Err(format!("member {} does not run", machine.member));
        };
        let hash = running.state.hash(0);
        let (is_member, applied) = running.state.read(|inner| {
            (
                inner.shared.membership.members.contains_key(&machine.member),
                inner.shared.applied,
            )
        });
        states.push((machine.member, is_member, applied, hash));
    }
    let newest = states.iter().map(|(_, _, applied, _)| applied.index).max();
    let current: Vec<_> = states
        .iter()
        .filter(|state| Some(state.2.index) == newest)
        .collect();
    let members = current
        .first()
        .and_then(|(id, ..)| world.machines[id].running.as_ref())
        .map(|running| {
            running.state.read(|inner| {
                inner
                    .shared
                    .membership
                    .members
                    .keys()
                    .copied()
                    .collect::<Vec<_>>()
            })
        })
        .unwrap_or_default();
    for id in &members {
        let Some(state) = states.iter().find(|state| state.0 == *id) else {
            // It was added, but the one who asked for it never learned that; it was never started.
            continue;
        };
        let first = current[0];
        if state.2 != first.2 || state.3 != first.3 {
            return Err(format!(
                "members {id} and {} end differently: {state:?}, {first:?}",
                first.0
            ));
        }
    }
    Ok(())
}
