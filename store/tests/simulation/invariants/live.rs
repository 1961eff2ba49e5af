//! When nothing goes wrong any more, the group works again, and all its members come to the same state.

use crate::faults;
use crate::watcher::Watcher;
use crate::world::World;

const SECOND: u64 = 1_000_000;
/// Elections, snapshots and what waits take this long at most.
const RECOVERY: u64 = 40 * SECOND;
const QUIET: u64 = 15 * SECOND;

/// Heals the world and waits for it.
pub fn check(world: &mut World) -> Result<(), String> {
    faults::heal(world);
    let before: Vec<u64> = world.clients.iter().map(|client| client.answered).collect();
    let answered = |world: &World| {
        let mut clients = world.clients.iter().zip(&before);
        clients.all(|(client, before)| client.answered > before + 2)
    };
    wait(world, RECOVERY, |world| answered(world) && all_run(world));
    for (number, answered) in before.iter().enumerate() {
        if world.clients[number].answered == *answered {
            return Err(format!(
                "client {number} was not answered again after everything healed"
            ));
        }
    }
    world.quiet = true;
    // Whoever has something to say says it.
    let end = world.now + 3 * SECOND;
    world.run_until(end);
    wait(world, QUIET, |world| {
        super::leases::all_gone(world).is_ok() && come_to_one_end(world).is_ok()
    });
    super::leases::all_gone(world)?;
    come_to_one_end(world)?;
    // A member may have come to it just now, and its watches not yet: by a change that nobody has taken from the mailbox,
    // or by a snapshot.
    let end = world.now + SECOND;
    world.run_until(end);
    wait(world, QUIET, |world| world.watchers.iter().all(Watcher::in_step));
    Ok(())
}

/// Waits until something is so, or it has been long enough.
fn wait(world: &mut World, longest: u64, until: impl Fn(&World) -> bool) {
    let end = world.now + longest;
    while world.now < end && world.history.violations.is_empty() && !until(world) {
        let next = world.now + SECOND;
        world.run_until(next);
    }
}

fn all_run(world: &World) -> bool {
    world
        .machines
        .values()
        .all(|machine| machine.removed || machine.running.is_some())
}

/// All members have the same state.
fn come_to_one_end(world: &World) -> Result<(), String> {
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
