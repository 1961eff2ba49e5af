//! The store in simulated time: real Raft core, log, state, persister and watches on simulated disks and a
//! simulated network, in one thread. A seed makes the same run again, to the last message.
//!
//! - [`plan`]: what a seed makes of a run; [`world`], [`observe`]: time and everything that happens in it
//! - [`member`]: a member on its machine; [`disk`], [`engine`], [`network`]: what the members run on
//! - [`faults`]: what goes wrong
//! - [`users`], [`client`], [`leases`], [`watcher`]: who uses the store; [`history`]: what they saw
//! - [`invariants`]: what must hold, one file each; [`linearizable`]: the checker behind one of them
//!
//! ```sh
//! cargo test -p keelson-store --test simulation                          # a fixed number of seeds
//! KEELSON_SIM_SEED=7 cargo test -p keelson-store --test simulation one_seed -- --ignored --nocapture
//! KEELSON_SIM_FIRST=1000 KEELSON_SIM_SECONDS=3600 \
//!   cargo test -p keelson-store --test simulation long -- --ignored --nocapture
//! ```

mod client;
mod disk;
mod engine;
mod faults;
mod history;
mod invariants;
mod leases;
mod linearizable;
mod member;
mod network;
mod observe;
mod plan;
mod users;
mod watcher;
mod world;

use std::time::{Duration, Instant};

use faults::Counts;
use plan::Plan;
use world::World;

/// What a run came to.
struct Report {
    wrong: Vec<String>,
    digest: u64,
    simulated: Duration,
    counts: Counts,
    answered: u64,
    changes: usize,
    steps: u64,
}

/// A whole run: trouble, healing, and the judgement.
fn run(seed: u64) -> Report {
    let plan = Plan::draw(seed);
    let trouble = plan.trouble_micros;
    let mut world = World::new(plan);
    world.run_until(trouble);
    let alive = if world.history.violations.is_empty() {
        invariants::live::check(&mut world)
    } else {
        Ok(())
    };
    let watched = world.watchers.iter().map(|watcher| watcher.watched(true));
    world.history.watches.extend(watched);
    let mut wrong = Vec::new();
    if !world.history.violations.is_empty() {
        wrong.clone_from(&world.history.violations);
    } else if let Err(error) = alive {
        wrong.push(format!("liveness: {error}"));
    } else {
        wrong = invariants::check(&world.history);
    }
    Report {
        wrong,
        digest: world.digest(),
        simulated: Duration::from_micros(world.now),
        counts: world.counts(),
        answered: world.clients.iter().map(|client| client.answered).sum(),
        changes: world.history.truth.len(),
        steps: world.steps,
    }
}

/// Runs seeds until one fails or the time is over, and says what was run.
fn run_all(seeds: impl Iterator<Item = u64>, until: Instant) {
    let mut total = Counts::default();
    let mut simulated = Duration::ZERO;
    let (mut runs, mut answered, mut changes, mut steps) = (0, 0, 0, 0);
    for seed in seeds {
        let report = std::panic::catch_unwind(|| run(seed));
        let Ok(report) = report else {
            panic!("seed {seed} made the store panic");
        };
        assert!(report.wrong.is_empty(), "seed {seed}: {:#?}", report.wrong);
        runs += 1;
        simulated += report.simulated;
        answered += report.answered;
        changes += report.changes;
        steps += report.steps;
        total += report.counts;
        if Instant::now() > until {
            break;
        }
    }
    println!(
        "{runs} runs, {:.2} simulated hours, {} faults, {answered} operations answered, {changes} revisions, {steps} steps\n{total:#?}",
        simulated.as_secs_f64() / 3600.0,
        total.faults(),
    );
}

fn number(name: &str, otherwise: u64) -> u64 {
    std::env::var(name)
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(otherwise)
}

/// Seeds of the ordinary test run; each takes about half a second in a debug build.
const SEEDS: std::ops::Range<u64> = 0..56;

#[test]
fn fixed_seeds_hold_every_invariant() {
    run_all(SEEDS, Instant::now() + Duration::from_secs(3600));
}

/// A seed whose run has a bit of everything.
const SWARM: u64 = 5;

#[test]
fn a_seed_makes_the_same_run_again() {
    let (first, second) = (run(SWARM), run(SWARM));
    assert_eq!((first.digest, first.steps), (second.digest, second.steps));
    assert_ne!(first.digest, run(SWARM + 8).digest);
}

#[test]
#[ignore = "one run by hand: KEELSON_SIM_SEED"]
fn one_seed() {
    let seed = number("KEELSON_SIM_SEED", 0);
    run_all(std::iter::once(seed), Instant::now());
}

#[test]
#[ignore = "a long run by hand: KEELSON_SIM_FIRST, KEELSON_SIM_SECONDS"]
fn long() {
    let first = number("KEELSON_SIM_FIRST", 1000);
    let seconds = number("KEELSON_SIM_SECONDS", 600);
    run_all(first.., Instant::now() + Duration::from_secs(seconds));
}
