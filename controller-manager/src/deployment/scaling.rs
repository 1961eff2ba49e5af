//! How big each ReplicaSet of a Deployment should be.

use keelson_api::labels;

use super::limits;
use super::plan::Planner;
use super::replica_sets::{self as sets, available, wanted};

/// The size the ReplicaSet `new` may grow to now, given what the others take up.
pub(super) fn size_of_new(planner: &Planner<'_>, new: usize) -> i32 {
    let replicas = limits::replicas(&planner.deployment);
    if !limits::is_rolling(&planner.deployment) {
        return replicas;
    }
    let current = wanted(&planner.sets[new]);
    let room = replicas + limits::max_surge(&planner.deployment) - planner.total_wanted();
    if room <= 0 {
        current
    } else {
        current + room.min(replicas - current)
    }
}

/// Brings the newest ReplicaSet nearer to its size. Returns whether that changed it.
pub(super) fn scale_up_new(planner: &mut Planner<'_>) -> bool {
    let Some(new) = planner.new else { return false };
    let replicas = limits::replicas(&planner.deployment);
    let current = wanted(&planner.sets[new]);
    if current == replicas {
        return false;
    }
    let size = if current > replicas {
        replicas
    } else {
        size_of_new(planner, new)
    };
    planner.scale(new, size)
}

/// Takes pods from old ReplicaSets, as many as availability allows: first such as do not work anyway.
/// Returns whether that changed any.
pub(super) fn scale_down_old(planner: &mut Planner<'_>) -> bool {
    let Some(new) = planner.new else { return false };
    let old = planner.active_old();
    if old.is_empty() {
        return false;
    }
    let min_available = limits::replicas(&planner.deployment) - limits::max_unavailable(&planner.deployment);
    let new_unavailable = wanted(&planner.sets[new]) - available(&planner.sets[new]);
    let may_go = planner.total_wanted() - min_available - new_unavailable;
    if may_go <= 0 {
        return false;
    }
    let mut moved = false;
    let mut gone = 0;
    for index in &old {
        let set = &planner.sets[*index];
        let unhealthy = wanted(set) - available(set);
        let share = unhealthy.min(may_go - gone);
        if share > 0 {
            let size = wanted(set) - share;
            moved |= planner.scale(*index, size);
            gone += share;
        }
    }
    let mut to_go = planner.total_available() - min_available;
    for index in &old {
        let share = wanted(&planner.sets[*index]).min(to_go);
        if share > 0 {
            let size = wanted(&planner.sets[*index]) - share;
            moved |= planner.scale(*index, size);
            to_go -= share;
        }
    }
    moved
}

/// Spreads a change of `spec.replicas` outside of or in the middle of a rollout.
pub(super) fn scale(planner: &mut Planner<'_>) {
    let replicas = limits::replicas(&planner.deployment);
    if let Some(only) = active_or_latest(planner) {
        planner.scale(only, replicas);
        return;
    }
    if let Some(new) = planner.new
        && is_saturated(planner, new)
    {
        for index in planner.active_old() {
            planner.scale(index, 0);
        }
        return;
    }
    if limits::is_rolling(&planner.deployment) {
        scale_in_proportion(planner);
    }
}

/// The one ReplicaSet that has pods, or the latest if none has; `None` if several have.
fn active_or_latest(planner: &Planner<'_>) -> Option<usize> {
    let mut active = (0..planner.sets.len()).filter(|index| wanted(&planner.sets[*index]) > 0);
    match (active.next(), active.next()) {
        (Some(only), None) => Some(only),
        (Some(_), Some(_)) => None,
        // Sets are in order of age.
        (None, _) => planner.new.or_else(|| planner.old().pop()),
    }
}

fn is_saturated(planner: &Planner<'_>, new: usize) -> bool {
    let replicas = limits::replicas(&planner.deployment);
    let set = &planner.sets[new];
    wanted(set) == replicas
        && sets::number(set, labels::DESIRED_REPLICAS) == Some(replicas)
        && available(set) == replicas
}

fn scale_in_proportion(planner: &mut Planner<'_>) {
    let replicas = limits::replicas(&planner.deployment);
    let allowed = if replicas > 0 {
        replicas + limits::max_surge(&planner.deployment)
    } else {
        0
    };
    let mut active: Vec<usize> = (0..planner.sets.len())
        .filter(|index| wanted(&planner.sets[*index]) > 0)
        .collect();
    let to_add = allowed
        - active
            .iter()
            .map(|index| wanted(&planner.sets[*index]))
            .sum::<i32>();
    // The largest first: it takes what rounding leaves over. Of equal ones the newer gains first and the older loses first.
    active.sort_by(|a, b| {
        let (a, b) = (&planner.sets[*a], &planner.sets[*b]);
        let age = sets::age_order(a, b);
        wanted(b)
            .cmp(&wanted(a))
            .then(if to_add > 0 { age.reverse() } else { age })
    });
    let mut added = 0;
    let mut sizes: Vec<i32> = Vec::with_capacity(active.len());
    for index in &active {
        let share = if to_add == 0 {
            0
        } else {
            proportion(planner, *index, to_add, added)
        };
        sizes.push(wanted(&planner.sets[*index]) + share);
        added += share;
    }
    if to_add != 0
        && let Some(first) = sizes.first_mut()
    {
        *first = (*first + to_add - added).max(0);
    }
    for (index, size) in active.into_iter().zip(sizes) {
        planner.scale(index, size);
    }
}

fn proportion(planner: &Planner<'_>, index: usize, to_add: i32, added: i32) -> i32 {
    let left = to_add - added;
    if left == 0 {
        return 0;
    }
    let fraction = fraction(planner, index);
    if to_add > 0 {
        fraction.min(left)
    } else {
        fraction.max(left)
    }
}

fn fraction(planner: &Planner<'_>, index: usize) -> i32 {
    let deployment = &planner.deployment;
    let set = &planner.sets[index];
    let size = wanted(set);
    if limits::replicas(deployment) == 0 {
        return -size;
    }
    let before = sets::number(set, labels::MAX_REPLICAS)
        .filter(|before| *before != 0)
        .or_else(|| deployment.status.as_ref()?.replicas)
        .unwrap_or_default();
    if before == 0 {
        return 0;
    }
    let now = limits::replicas(deployment) + limits::max_surge(deployment);
    let scaled = (f64::from(size) * f64::from(now) / f64::from(before)).round();
    #[expect(clippy::cast_possible_truncation, reason = "casting saturates")]
    let scaled = scaled as i32;
    scaled - size
}
