//! `churn`: lanes that connect, log in and leave, again and again, each under one name.
//!
//! Runs in one thread. Bad when any login is refused, one is never answered, anybody is left online at the end, or
//! sessions and departures differ.

use std::time::{Duration, Instant};

use super::client::{self, ServerMessage};
use super::client_pool::{ClientEvent, ClientPool, CloseMode, EventKind};
use super::error::{Failure, StressError};
use super::login::{self, Names, told};
use super::postconditions;
use super::probe::Probe;
use super::progress::Progress;
use super::report::{Latencies, Report};
use super::rng::Rng;
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
    probe: &Probe,
    names: &Names,
    progress: &mut Progress,
    report: &mut Report,
) -> Result<(), StressError> {
    let lanes = args.common.clients(50);
    let mut pool = ClientPool::new(args.common.target, lanes)?;
    let mark = probe.mark()?;
    // Once for all, so that the users exist and their hashing does not count.
    login::log_all_in(&mut pool, names, progress)?;
    (0..lanes).for_each(|who| pool.close(who, CloseMode::Fin));

    let mut tally = Tally::new(lanes);
    let took = churn(args, &mut pool, names, progress, &mut tally)?;
    // Those that still wait for an answer; the others have left.
    (0..lanes).for_each(|who| pool.close(who, CloseMode::Fin));
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
    postconditions::wait_until_offline(&mut pool, &mut Vec::new(), probe, left, (mark, sessions), report)?;
    postconditions::report_departures(probe, mark, report)
}

/// Runs the lanes; answers for how long new cycles began.
fn churn(
    args: &ChurnArgs,
    pool: &mut ClientPool,
    names: &Names,
    progress: &mut Progress,
    tally: &mut Tally,
) -> Result<Duration, StressError> {
    let (start, time) = (Instant::now(), Duration::from_secs(args.seconds));
    let mut rng = Rng(args.common.seed);
    let mut events = Vec::new();
    let mut again: Vec<usize> = (0..pool.size()).collect();
    let mut took = None;
    progress.phase("churn, seconds", args.seconds);
    loop {
        let is_over = start.elapsed() >= time || tally.refused >= MAX_REFUSALS;
        for who in again.drain(..) {
            tally.began[who] = (!is_over).then(Instant::now);
            if !is_over {
                pool.connect(who)?;
                pool.send(who, &client::login(&names.name(who)));
            }
        }
        if is_over {
            let took = *took.get_or_insert_with(|| start.elapsed());
            if tally.began.iter().all(Option::is_none) || start.elapsed() > took + LAST_ANSWERS {
                progress.done();
                return Ok(took);
            }
        }
        pool.turn(TURN, &mut events)?;
        for ClientEvent { who, at, kind } in events.drain(..) {
            // What else came in the same turn for a lane that has left.
            let Some(began) = tally.began[who] else { continue };
            match kind {
                EventKind::Connected | EventKind::Message(ServerMessage::Other | ServerMessage::Chat(_)) => {
                    continue;
                }
                EventKind::Message(ServerMessage::LoggedIn { .. }) => {
                    tally.succeeded(at.saturating_duration_since(began));
                }
                other => tally.refused(told(&other)),
            }
            tally.began[who] = None;
            pool.close(who, way(args.how, &mut rng));
            again.push(who);
        }
        progress.set(start.elapsed().as_secs());
    }
}

fn way(how: How, rng: &mut Rng) -> CloseMode {
    match how {
        How::Fin | How::Half => CloseMode::Fin,
        How::Rst => CloseMode::Rst,
        How::Mix => [CloseMode::Fin, CloseMode::Rst][rng.below(2)],
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
