//! `keep`: users write with `seq` to users who are away. An answer means that the message is on the disk.
//!
//! Runs in one thread. Each chat carries a serial of its own as `seq`. Bad when one is not answered, is answered by an error, or
//! is not in the database although it was answered.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::KeepArgs;
use super::client::{self, ServerMessage};
use super::client_pool::{ClientEvent, ClientPool, CloseMode, EventKind};
use super::error::{Failure, StressError};
use super::login::{self, Names, told};
use super::postconditions;
use super::probe::Probe;
use super::progress::Progress;
use super::report::{Latencies, Report};
use super::rng::first_seq;

/// How long the last answers are waited for.
const LAST_ANSWERS: Duration = Duration::from_secs(if cfg!(test) { 2 } else { 10 });

/// How long the receivers may take to be offline.
const RECEIVERS_AWAY: Duration = Duration::from_secs(if cfg!(test) { 2 } else { 10 });

/// A turn's longest wait.
const TURN: Duration = Duration::from_millis(20);

/// What has been counted so far.
#[derive(Debug)]
struct Tally {
    /// By sender: when each chat without an answer was sent, oldest first.
    waiting: Vec<VecDeque<(u64, Instant)>>,
    sent: u64,
    answered: u64,
    errors: u64,
    example: String,
    latency: Latencies,
}

pub(super) fn run(
    args: &KeepArgs,
    probe: &Probe,
    names: &Names,
    progress: &mut Progress,
    report: &mut Report,
) -> Result<(), StressError> {
    let senders = args.common.clients(100);
    let mut pool = ClientPool::new(args.common.target, senders * 2)?;
    let mark = probe.mark()?;
    let ids = login::log_all_in(&mut pool, names, progress)?;
    let receivers = &ids[senders..];
    (senders..senders * 2).for_each(|who| pool.close(who, CloseMode::Fin));
    let gone = Instant::now();
    // What an earlier run left in their boxes is gone with the account of their sessions.
    while probe.settled_after(mark)? < senders && gone.elapsed() < RECEIVERS_AWAY {
        pool.turn(TURN, &mut Vec::new())?;
    }

    let before = probe.kept(receivers)?;
    let mark = probe.mark()?;
    let mut tally = Tally::new(senders);
    let took = keep(args, &mut pool, receivers, progress, &mut tally)?;
    let after = probe.kept(receivers)?;
    (0..senders).for_each(|who| pool.close(who, CloseMode::Fin));
    let left = Instant::now();

    report.count("senders", senders as u64);
    report.count("under_way_each", args.window.get() as u64);
    report.count("answered", tally.answered);
    report.rate("answered", tally.answered, took);
    report.latencies("answer", tally.latency);
    let kept = after.saturating_sub(before);
    if kept < tally.answered {
        report.fail(Failure::NotKept { answered: tally.answered, kept });
    }
    if tally.errors > 0 {
        report.fail(Failure::Errors { count: tally.errors, example: tally.example });
    } else if tally.sent > tally.answered {
        report.fail(Failure::Unanswered(tally.sent - tally.answered));
    } else if tally.answered == 0 {
        report.fail(Failure::Nothing);
    }
    postconditions::wait_until_offline(
        &mut pool,
        &mut Vec::new(),
        probe,
        left,
        (mark, senders as u64),
        report,
    )
}

/// Sends for as long as asked, then waits for the last answers; tells from the first chat to the last answer.
fn keep(
    args: &KeepArgs,
    pool: &mut ClientPool,
    receivers: &[i64],
    progress: &mut Progress,
    tally: &mut Tally,
) -> Result<Duration, StressError> {
    let (start, time) = (Instant::now(), Duration::from_secs(args.seconds));
    let mut serial = first_seq();
    let mut last = start;
    let mut events = Vec::new();
    let mut refill: Vec<usize> = (0..receivers.len()).collect();
    let text = "x".repeat(args.size);
    progress.phase("keep, seconds", args.seconds);
    loop {
        let is_over = start.elapsed() >= time;
        for who in refill.drain(..) {
            while !is_over && tally.waiting[who].len() < args.window.get() {
                serial += 1;
                pool.send(who, &client::chat_with_seq(receivers[who], &text, serial));
                tally.waiting[who].push_back((serial, Instant::now()));
                tally.sent += 1;
            }
        }
        let all_answered = tally.waiting.iter().all(VecDeque::is_empty);
        if is_over && (all_answered || start.elapsed() > time + LAST_ANSWERS) {
            progress.done();
            return Ok(last.saturating_duration_since(start));
        }
        pool.turn(TURN, &mut events)?;
        for ClientEvent { who, at, kind } in events.drain(..) {
            match kind {
                EventKind::Message(ServerMessage::Done { seq }) if who < receivers.len() => {
                    tally.answer(who, seq, at);
                    refill.push(who);
                    last = at;
                }
                EventKind::Connected | EventKind::Message(ServerMessage::Other) => {}
                other => tally.error(who, &told(&other)),
            }
        }
        progress.set(start.elapsed().as_secs());
    }
}

impl Tally {
    fn new(senders: usize) -> Self {
        Self {
            waiting: vec![VecDeque::new(); senders],
            sent: 0,
            answered: 0,
            errors: 0,
            example: String::new(),
            latency: Latencies::new(),
        }
    }

    /// Answers may come in another order than the requests.
    fn answer(&mut self, who: usize, seq: u64, now: Instant) {
        let waiting = &mut self.waiting[who];
        if let Some(at) = waiting.iter().position(|(serial, _)| *serial == seq)
            && let Some((_, sent)) = waiting.remove(at)
        {
            self.answered += 1;
            self.latency.record(now.saturating_duration_since(sent));
        }
    }

    /// An error, or the end of a connection: nothing more is sent there.
    fn error(&mut self, who: usize, told: &str) {
        self.errors += 1;
        if let Some(waiting) = self.waiting.get_mut(who) {
            waiting.clear();
        }
        if self.example.is_empty() {
            told.clone_into(&mut self.example);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_answer_counts_once_in_whatever_order() {
        let now = Instant::now();
        let mut tally = Tally::new(1);
        tally.waiting[0].extend([(1, now), (2, now)]);
        for seq in [2, 2, 1, 7] {
            tally.answer(0, seq, now);
        }
        assert_eq!((tally.answered, tally.waiting[0].len()), (2, 0));
    }
}
