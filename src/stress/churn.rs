//! `churn`: lanes that connect, log in and leave, again and again, each under one name.
//!
//! Runs in one thread. Bad when any login is refused, one is never answered, anybody is left online at the end, or
//! sessions and departures differ.

use std::time::{Duration, Instant};

use super::aftermath;
use super::client::{self, Heard};
use super::fault::{Failure, StressError};
use super::fleet::{Fleet, Leave, News, What};
use super::login::{self, Names, told};
use super::progress::Progress;
use super::report::{Latencies, Report};
use super::seed::Seed;
use super::view::View;
use super::{ChurnArgs, How};

/// How long the last logins are waited for.
const LAST_ANSWERS: Duration = Duration::from_secs(if cfg!(test) { 2 } else { 10 });

/// After so many refusals the point is made.
const MAX_REFUSALS: u64 = 1_000;

/// A turn's longest wait.
const TURN: Duration = Duration::from_millis(20);

/// What has been counted so far.
#[derive(Debug)]
struct Tally {
    sessions: u64,
    refused: u64,
    example: String,
    /// From the beginning of the connect to the answer.
    login: Latencies,
    /// When each lane began to connect; `None` between two cycles and after the last.
    began: Vec<Option<Instant>>,
}

pub(super) fn run(
    args: &ChurnArgs,
    view: &View,
    names: &Names,
    progress: &mut Progress,
    report: &mut Report,
) -> Result<(), StressError> {
    let lanes = args.common.clients(50);
    let mut fleet = Fleet::new(args.common.target, lanes)?;
    let mark = view.mark()?;
    // Once for all, so that the users exist and their hashing does not count.
    login::log_all_in(&mut fleet, names, progress)?;
    (0..lanes).for_each(|who| fleet.leave(who, Leave::Fin));

    let mut tally = Tally::new(lanes);
    let took = churn(args, &mut fleet, names, progress, &mut tally)?;
    // Those that still wait for an answer; the others have left.
    (0..lanes).for_each(|who| fleet.leave(who, Leave::Fin));
    let left = Instant::now();

    report.count("lanes", lanes as u64);
    report.count("cycles", tally.sessions);
    report.rate("cycles", tally.sessions, took);
    report.latencies("connect_and_log_in", tally.login);
    report.count("refused", tally.refused);
    if tally.refused > 0 {
        report.fail(Failure::Refused { count: tally.refused, example: tally.example });
    } else if tally.sessions == 0 {
        report.fail(Failure::Nothing);
    }
    let unanswered = tally.began.iter().flatten().count();
    if unanswered > 0 {
        report.fail(Failure::NoAnswer(unanswered));
    }
    let sessions = tally.sessions + lanes as u64;
    aftermath::all_offline(&mut fleet, &mut Vec::new(), view, left, (mark, sessions), report)?;
    aftermath::history(view, mark, report)
}

/// Runs the lanes; answers for how long new cycles began.
fn churn(
    args: &ChurnArgs,
    fleet: &mut Fleet,
    names: &Names,
    progress: &mut Progress,
    tally: &mut Tally,
) -> Result<Duration, StressError> {
    let (start, time) = (Instant::now(), Duration::from_secs(args.seconds));
    let mut seed = Seed(args.common.seed);
    let mut news = Vec::new();
    let mut again: Vec<usize> = (0..fleet.size()).collect();
    let mut took = None;
    progress.phase("churn, seconds", args.seconds);
    loop {
        let is_over = start.elapsed() >= time || tally.refused >= MAX_REFUSALS;
        for who in again.drain(..) {
            tally.began[who] = (!is_over).then(Instant::now);
            if !is_over {
                fleet.connect(who)?;
                fleet.send(who, &client::login(&names.name(who)));
            }
        }
        if is_over {
            let took = *took.get_or_insert_with(|| start.elapsed());
            if tally.began.iter().all(Option::is_none) || start.elapsed() > took + LAST_ANSWERS {
                progress.done();
                return Ok(took);
            }
        }
        fleet.turn(TURN, &mut news)?;
        for News { who, at, what } in news.drain(..) {
            // What else came in the same turn for a lane that has left.
            let Some(began) = tally.began[who] else { continue };
            match what {
                What::Connected | What::Heard(Heard::Other | Heard::Chat(_)) => continue,
                What::Heard(Heard::LoggedIn { .. }) => tally.succeeded(at.saturating_duration_since(began)),
                other => tally.refused(told(&other)),
            }
            tally.began[who] = None;
            fleet.leave(who, way(args.how, &mut seed));
            again.push(who);
        }
        progress.set(start.elapsed().as_secs());
    }
}

fn way(how: How, seed: &mut Seed) -> Leave {
    match how {
        How::Fin | How::Half => Leave::Fin,
        How::Rst => Leave::Rst,
        How::Mix => [Leave::Fin, Leave::Rst][seed.below(2)],
    }
}

impl Tally {
    fn new(lanes: usize) -> Self {
        Self {
            sessions: 0,
            refused: 0,
            example: String::new(),
            login: Latencies::new(),
            began: vec![None; lanes],
        }
    }

    fn succeeded(&mut self, took: Duration) {
        self.sessions += 1;
        self.login.record(took);
    }

    fn refused(&mut self, told: String) {
        self.refused += 1;
        if self.example.is_empty() {
            self.example = told;
        }
    }
}
