//! A whole server and its clients in one thread, in an order that a seed decides.
//!
//! | file | duty |
//! |---|---|
//! | `scheduler` | who acts next: workers, main, auth, admin, time, crashes, one small step at a time |
//! | `client_state` | what a client knows |
//! | `clients` | what clients do, and what happens to the disk |
//! | `sim_link` | a client's end of a connection, with a network that delays and cuts |
//! | `recorder` | passes what the server writes on to the oracles |
//! | `oracle` | what was sent, answered and written, and what must follow from it |
//! | `presence_oracle` | who was online when, and what watchers were told of it |
//! | `invariants` | what must hold after each step, after each commit, at rest and at the end |
//! | `trace` | what happened, for replaying a seed |
//! | `rng` | random numbers from a seed |
//!
//! How to run it, and what it has found out, is in `docs/testing.md`.

mod client_state;
mod clients;
mod invariants;
mod oracle;
mod presence_oracle;
mod recorder;
mod rng;
mod scheduler;
mod sim_link;
mod trace;

use scheduler::Simulation;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

/// Seeds of every test run.
const SEEDS: u64 = 150;
/// Steps of one seed, and then the end.
const STEPS: u64 = 3000;
/// The last lines of a trace that a failure shows.
const LINES_SHOWN: usize = 120;

/// The sums of some seeds.
#[derive(Default, Debug)]
struct Sum {
    seeds: u64,
    steps: u64,
    simulated_us: u64,
    promises: u64,
}

/// Runs one seed to its end. After a failure the simulation is left as it was.
fn run_seed(seed: u64, is_traced: bool) -> (Simulation, Result<(), String>) {
    let mut simulation = Simulation::new(seed, is_traced);
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        for _ in 0..STEPS {
            simulation.step();
        }
        simulation.end();
    }));
    let fault = outcome.map_err(|payload| {
        let text = payload.downcast_ref::<String>().cloned();
        text.or_else(|| payload.downcast_ref::<&str>().map(|text| (*text).into())).unwrap_or_default()
    });
    (simulation, fault)
}

/// Runs a seed. Where something does not hold, runs it again and shows its trace.
fn holds(seed: u64, sum: &mut Sum) {
    let (simulation, outcome) = run_seed(seed, false);
    sum.seeds += 1;
    sum.steps += simulation.steps;
    sum.simulated_us += simulation.at_us();
    sum.promises += simulation.oracle.promises();
    if let Err(fault) = outcome {
        let (simulation, _) = run_seed(seed, true);
        let lines = simulation.trace.lines();
        let shown = lines[lines.len().saturating_sub(LINES_SHOWN)..].join("\n");
        panic!(
            "seed {seed}, after {} seeds, step {}: {fault}\n{shown}\nThe whole trace: LINGER_SIM_SEED={seed} scripts/simulate.sh",
            sum.seeds, simulation.steps
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
        let (simulation, outcome) = run_seed(seed, true);
        println!("{}", simulation.trace.lines().join("\n"));
        assert_eq!(outcome, Ok(()), "seed {seed}, step {}", simulation.steps);
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
fn a_seed_makes_the_same_trace_twice() {
    for seed in 1..4 {
        let [first, second] = [(); 2].map(|()| run_seed(seed, true).0);
        assert!(first.trace.lines() == second.trace.lines(), "seed {seed}");
    }
}
