//! Calls, actors and refs inside values from a seed: the real head, and a model of workers and of the program.
//!
//! What `simulation` is for graphs this is for what is beside them. Whoever can do something is picked at random, one after
//! the other. After every event the head's tables are checked from scratch. What is expected besides: calls of one
//! caller to one actor begin in the order of submission; a task begins once, unless its worker died or it may be run
//! again; nothing is let go that the program holds or that a value names that it holds; every question is answered, and
//! well, if nothing was done that could make something fail; and when all was released nothing is left.
//!
//! `SEED=n` replays one seed, `SEEDS=n` sets how many are tried, `FROM=n` the first of them.

mod program;
#[path = "../simulation/rng.rs"]
mod rng;
mod work;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use crate::world::World;

/// Steps after which a simulation has gone on for ever.
const MOST_STEPS: u32 = 200_000;

fn variable(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|value| value.parse().ok())
}

#[allow(clippy::print_stderr, reason = "the seed must be seen next to the panic's message")]
fn simulate(seed: u64, trace: bool) -> World {
    let mut world = World::new(seed);
    let end = catch_unwind(AssertUnwindSafe(|| {
        for _ in 0..MOST_STEPS {
            if !world.step() {
                world.check_end();
                return;
            }
        }
        panic!("it does not end");
    }));
    if let Err(panic) = end {
        if trace {
            for line in &world.trace {
                eprintln!("{line}");
            }
        }
        eprintln!("{:?}; replay: SEED={seed} cargo test -p eagleray-core --test beside", world.faults);
        resume_unwind(panic);
    }
    world
}

#[test]
#[allow(clippy::print_stdout, reason = "how much was tried is worth knowing")]
fn every_seed_ends_well() {
    if let Some(seed) = variable("SEED") {
        simulate(seed, true);
        return;
    }
    let (first, seeds) = (variable("FROM").unwrap_or(0), variable("SEEDS").unwrap_or(300));
    let mut totals = [0; 6];
    for seed in first..first + seeds {
        let counts = simulate(seed, false).counts();
        for (total, count) in totals.iter_mut().zip(counts) {
            *total += count;
        }
    }
    let [begun, calls, deferred, deaths, interrupts, failed] = totals;
    println!(
        "{begun} tasks, {calls} of them calls, {deferred} deferred; {deaths} deaths, {interrupts} interrupts, {failed} failed"
    );
}
