//! A whole server and its clients in one thread, in an order that a seed decides.
//!
//! | file | duty |
//! |---|---|
//! | `world` | the scheduler: workers, main, auth, control, time, crashes, one small step at a time |
//! | `people` | what clients do, and what becomes of the disk |
//! | `hearing` | what the server writes, passed on to those who keep account of it |
//! | `line` | a client's end of a connection, with a network that delays and cuts |
//! | `shadow` | what was said, answered and written, and what follows from it |
//! | `sight` | who was online when, and what watchers were told of it |
//! | `checks` | what must hold after each step, after each commit, at rest and at the end |
//! | `story` | what happened, for whoever replays a seed |
//! | `chance` | the generator |
//!
//! How to run it, and what it has found out, is in `docs/testing.md`.

mod chance;
mod checks;
mod hearing;
mod line;
mod people;
mod shadow;
mod sight;
mod story;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};
use world::World;

/// Seeds of every test run.
const SEEDS: u64 = 150;
/// Steps of one seed, and then the end.
const STEPS: u64 = 3000;
/// The last lines of a story that are shown at once.
const LINES_SHOWN: usize = 120;

/// What came of some seeds.
#[derive(Default, Debug)]
struct Sum {
    seeds: u64,
    steps: u64,
    simulated_us: u64,
    promises: u64,
}

/// Runs one seed to its end. The world is left as it was where something does not hold.
fn live(seed: u64, is_told: bool) -> (World, Result<(), String>) {
    let mut world = World::new(seed, is_told);
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        for _ in 0..STEPS {
            world.step();
        }
        world.end();
    }));
    let fault = outcome.map_err(|payload| {
        let text = payload.downcast_ref::<String>().cloned();
        text.or_else(|| payload.downcast_ref::<&str>().map(|text| (*text).into())).unwrap_or_default()
    });
    (world, fault)
}

/// Runs a seed, and tells its story where something does not hold.
fn holds(seed: u64, sum: &mut Sum) {
    let (world, outcome) = live(seed, false);
    sum.seeds += 1;
    sum.steps += world.steps;
    sum.simulated_us += world.at_us();
    sum.promises += world.shadow.promises();
    if let Err(fault) = outcome {
        let (world, _) = live(seed, true);
        let lines = world.story.lines();
        let shown = lines[lines.len().saturating_sub(LINES_SHOWN)..].join("\n");
        panic!(
            "seed {seed}, after {} seeds, step {}: {fault}\n{shown}\nThe whole story: LINGER_SIM_SEED={seed} scripts/simulate.sh",
            sum.seeds, world.steps
        );
    }
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{variable}: a number")))
}

#[test]
#[allow(clippy::print_stdout, reason = "whoever replays a seed wants to read it")]
fn whatever_happens_in_whatever_order_nobody_is_lost_and_nothing_promised_is() {
    let began = Instant::now();
    if let Some(seed) = number("LINGER_SIM_SEED") {
        let (world, outcome) = live(seed, true);
        println!("{}", world.story.lines().join("\n"));
        assert_eq!(outcome, Ok(()), "seed {seed}, step {}", world.steps);
        return;
    }
    let first = number("LINGER_SIM_FIRST").unwrap_or(1);
    let limit = number("LINGER_SIM_SECONDS").map(Duration::from_secs);
    let seeds = number("LINGER_SIM_SEEDS").unwrap_or(SEEDS);
    let mut sum = Sum::default();
    let mut seed = first;
    while limit.map_or(seed < first + seeds, |limit| began.elapsed() < limit) {
        holds(seed, &mut sum);
        seed += 1;
    }
    let minutes = began.elapsed().as_secs_f64() / 60.0;
    println!(
        "seeds {first} to {}: {} steps ({:.0} a second), {:.1} simulated hours ({:.0} in a minute), {} promises",
        seed - 1,
        sum.steps,
        sum.steps as f64 / minutes / 60.0,
        sum.simulated_us as f64 / 3.6e9,
        sum.simulated_us as f64 / 3.6e9 / minutes,
        sum.promises
    );
    assert!(sum.promises > 0, "somebody was promised something");
}

#[test]
fn a_seed_tells_the_same_story_twice() {
    for seed in 1..4 {
        let [first, second] = [(); 2].map(|()| live(seed, true).0);
        assert!(first.story.lines() == second.story.lines(), "seed {seed}");
    }
}
