//! Clients that must not be affected by what else happens: pairs that chat at a steady rate, and visitors that log in and are
//! kicked.
//!
//! Runs on the scenario's thread. The scenario's work runs in a second thread, the kicks in a third. A measurement belongs
//! to the phase in which it began.

pub(crate) mod kicker;
pub(crate) mod phase;

use std::collections::HashMap;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use super::client::{self, ReceivedChat, ServerMessage};
use super::client_pool::{ClientEvent, ClientPool, EventKind};
use super::error::{Failure, StressError};
use super::login::{Names, told};
use super::payload::{read_payload, write_payload};
use super::probe::Probe;
use super::report::{Latencies, Report};
use super::rng::first_seq;
use kicker::{KickOrder, KickResult, Kicker};
use phase::{Phase, Timeline};

/// Clients that log in and are kicked, again and again.
pub(crate) const VISITORS: usize = 4;

/// The interval between two chats of a talker.
const CHAT_EVERY: Duration = Duration::from_millis(4);

/// Bytes of a chat's text.
const CHAT_BYTES: usize = 64;

/// How long a visitor stays, and stays away.
const VISIT: Duration = Duration::from_millis(50);

/// How long to wait at the end for what is under way.
const LAST_ANSWERS: Duration = Duration::from_secs(if cfg!(test) { 2 } else { 10 });

/// Bounds that 99 of 100 must stay within during and after the work. `None` where there is no bound.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Bounds {
    pub(crate) chat: Option<Duration>,
    pub(crate) login: Option<Duration>,
    pub(crate) kick: Option<Duration>,
}

/// Runs the steady load with the pool's clients, which are logged in, while `work` runs in another thread. The first are
/// talkers, in pairs, the last [`VISITORS`] visitors. `probe` is for the kicks.
///
/// # Errors
/// Those of `work`, and when the load cannot go on.
pub(crate) fn run_beside<T: Send>(
    pool: &mut ClientPool,
    ids: &[i64],
    names: &Names,
    timeline: &Timeline,
    probe: Probe,
    work: impl FnOnce() -> Result<T, StressError> + Send,
) -> Result<(Measurements, T), StressError> {
    let (order, orders) = channel();
    let (results, answers) = channel();
    let kicker = Kicker { probe, orders, results };
    let talkers = pool.size() - VISITORS;
    let live = SteadyLoad::new(pool, ids, talkers, names, timeline, (order, answers));
    thread::scope(|scope| {
        let work = scope.spawn(move || {
            let done = work();
            // However it went: the bystanders must not wait for ever.
            timeline.offline.get_or_init(Instant::now);
            timeline.over.get_or_init(Instant::now);
            done
        });
        scope.spawn(move || kicker.run());
        let measured = live.run();
        // Where the bystanders cannot go on, the work is not waited for longer than it has to finish by itself.
        let done = work.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        Ok((measured?, done?))
    })
}

/// What was measured in one phase.
#[derive(Debug)]
struct Figures {
    chat: Latencies,
    seq_chat: Latencies,
    seq_answer: Latencies,
    login: Latencies,
    goodbye: Latencies,
    kick: Latencies,
}

/// All measurements.
#[derive(Debug)]
pub(crate) struct Measurements {
    phases: [Figures; 3],
    sent: u64,
    received: u64,
    reordered: u64,
    unanswered: u64,
    errors: u64,
    refused: u64,
    example: String,
    /// Logins of visitors.
    pub(crate) logins: u64,
    /// Talkers that lost their connection.
    touched: usize,
    not_kicked: usize,
    told_nothing: usize,
    online_after_wait: usize,
    no_end: usize,
    no_answer: usize,
}

#[derive(Debug)]
struct Talker {
    due: Instant,
    sent: u64,
    received: u64,
    /// When each chat with `seq` that is not answered was due.
    unanswered: HashMap<u64, Instant>,
}

#[derive(Debug)]
enum Visitor {
    /// Not connected; comes at that time.
    Away(Instant),
    /// Has begun to connect and is not logged in.
    Entering(Instant),
    /// Is logged in, and is to be kicked at that time.
    Present(Instant),
    /// The kick is asked for.
    Doomed { kicked: Option<KickResult>, goodbye: Option<Instant>, ended: bool },
    /// Went wrong; does nothing more.
    Stuck,
}

/// The thread's state. The first clients are talkers, in pairs, the rest visitors.
struct SteadyLoad<'a> {
    pool: &'a mut ClientPool,
    ids: &'a [i64],
    names: &'a Names,
    timeline: &'a Timeline,
    order: Sender<KickOrder>,
    answers: Receiver<Result<KickResult, StressError>>,
    start: Instant,
    first_seq: u64,
    talkers: Vec<Talker>,
    visitors: Vec<Visitor>,
    measured: Measurements,
}

impl<'a> SteadyLoad<'a> {
    fn new(
        pool: &'a mut ClientPool,
        ids: &'a [i64],
        talkers: usize,
        names: &'a Names,
        timeline: &'a Timeline,
        (order, answers): (Sender<KickOrder>, Receiver<Result<KickResult, StressError>>),
    ) -> Self {
        let start = Instant::now();
        // Not all at once, or each would wait for the others.
        let due = |who: usize| start + CHAT_EVERY * who as u32 / talkers as u32;
        let talker = |who| Talker { due: due(who), sent: 0, received: 0, unanswered: HashMap::new() };
        let visitors = (talkers..pool.size()).map(|_| Visitor::Present(start)).collect();
        SteadyLoad {
            pool,
            ids,
            names,
            timeline,
            order,
            answers,
            start,
            first_seq: first_seq(),
            talkers: (0..talkers).map(talker).collect(),
            visitors,
            measured: Measurements::new(),
        }
    }

    fn run(mut self) -> Result<Measurements, StressError> {
        let mut events = Vec::new();
        let mut over = None;
        loop {
            let now = Instant::now();
            if self.timeline.is_over() {
                let over = *over.get_or_insert(now);
                if self.is_quiet() || now > over + LAST_ANSWERS {
                    return Ok(self.finish());
                }
            } else {
                self.chat(now);
            }
            self.move_visitors(now, over.is_some())?;
            let next = self.talkers.iter().map(|talker| talker.due).min().unwrap_or(now);
            let wait = next.saturating_duration_since(Instant::now());
            self.pool.turn(if over.is_some() { CHAT_EVERY } else { wait }, &mut events)?;
            for one in events.drain(..) {
                self.handle(one);
            }
        }
    }

    /// Sends what is due. One that comes late is stamped with the time at which it was due.
    fn chat(&mut self, now: Instant) {
        let mut msg = String::new();
        for (who, talker) in self.talkers.iter_mut().enumerate() {
            while talker.due <= now {
                write_payload(
                    &mut msg,
                    talker.sent,
                    talker.due.saturating_duration_since(self.start),
                    CHAT_BYTES,
                );
                let to = self.ids[who ^ 1];
                if asks_for_answers(who) {
                    let seq = self.first_seq + talker.sent;
                    self.pool.send(who, &client::chat_with_seq(to, &msg, seq));
                    talker.unanswered.insert(seq, talker.due);
                } else {
                    self.pool.send(who, &client::chat(to, &msg));
                }
                talker.sent += 1;
                talker.due += CHAT_EVERY;
            }
        }
    }

    fn move_visitors(&mut self, now: Instant, is_over: bool) -> Result<(), StressError> {
        while let Ok(kicked) = self.answers.try_recv() {
            let kicked = kicked?;
            self.measured.phases[self.timeline.phase(kicked.at) as usize].kick.record(kicked.answered);
            self.measured.not_kicked += usize::from(!kicked.is_listed);
            self.measured.online_after_wait += usize::from(kicked.is_online);
            let at = kicked.who - self.talkers.len();
            if let Visitor::Doomed { kicked: known, .. } = &mut self.visitors[at] {
                *known = Some(kicked);
            }
            self.complete(at);
        }
        for at in 0..self.visitors.len() {
            let who = self.talkers.len() + at;
            match self.visitors[at] {
                Visitor::Away(until) if until <= now && !is_over => {
                    self.pool.connect(who)?;
                    self.pool.send(who, &client::login(&self.names.name(who)));
                    self.visitors[at] = Visitor::Entering(now);
                }
                Visitor::Present(until) if until <= now && !is_over => {
                    // The kicker is there as long as this thread has not ended.
                    let _ = self.order.send(KickOrder { who, id: self.ids[who] });
                    self.visitors[at] = Visitor::Doomed { kicked: None, goodbye: None, ended: false };
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn handle(&mut self, ClientEvent { who, at, kind }: ClientEvent) {
        match kind {
            EventKind::Connected | EventKind::Message(ServerMessage::Other) => {}
            kind if who < self.talkers.len() => self.handle_talker(who, at, kind),
            kind => self.handle_visitor(who - self.talkers.len(), at, kind),
        }
    }

    fn handle_talker(&mut self, who: usize, at: Instant, kind: EventKind) {
        match kind {
            EventKind::Message(ServerMessage::Chat(ReceivedChat { msg, .. })) => {
                let (start, expected) = (self.start, self.talkers[who].received);
                self.talkers[who].received += 1;
                let Some((_, sent)) = read_payload(&msg).filter(|(serial, _)| *serial == expected) else {
                    self.measured.reordered += 1;
                    return;
                };
                let figures = &mut self.measured.phases[self.timeline.phase(start + sent) as usize];
                let latencies = if asks_for_answers(who) { &mut figures.seq_chat } else { &mut figures.chat };
                latencies.record(at.saturating_duration_since(start + sent));
            }
            EventKind::Message(ServerMessage::Done { seq }) => {
                if let Some(due) = self.talkers[who].unanswered.remove(&seq) {
                    let figures = &mut self.measured.phases[self.timeline.phase(due) as usize];
                    figures.seq_answer.record(at.saturating_duration_since(due));
                }
            }
            EventKind::Closed(_) => self.measured.touched += 1,
            other => {
                self.measured.errors += 1;
                self.measured.example = told(&other);
            }
        }
    }

    fn handle_visitor(&mut self, at: usize, when: Instant, kind: EventKind) {
        match (&mut self.visitors[at], kind) {
            (Visitor::Entering(began), EventKind::Message(ServerMessage::LoggedIn { .. })) => {
                let figures = &mut self.measured.phases[self.timeline.phase(*began) as usize];
                figures.login.record(when.saturating_duration_since(*began));
                self.measured.logins += 1;
                self.visitors[at] = Visitor::Present(when + VISIT);
            }
            (Visitor::Doomed { goodbye, .. }, EventKind::Message(ServerMessage::Goodbye { .. })) => {
                *goodbye = Some(when);
            }
            (Visitor::Doomed { ended, .. }, EventKind::Closed(_)) => {
                *ended = true;
                self.complete(at);
            }
            (_, other) => {
                self.measured.refused += 1;
                self.measured.example = told(&other);
                self.visitors[at] = Visitor::Stuck;
            }
        }
    }

    /// A kick is over when it is answered and its visitor has seen the end.
    fn complete(&mut self, at: usize) {
        let Visitor::Doomed { kicked: Some(kicked), goodbye, ended: true } = &self.visitors[at] else {
            return;
        };
        match goodbye {
            Some(when) => {
                let figures = &mut self.measured.phases[self.timeline.phase(kicked.at) as usize];
                figures.goodbye.record(when.saturating_duration_since(kicked.at));
            }
            None => self.measured.told_nothing += 1,
        }
        self.visitors[at] = Visitor::Away(Instant::now() + VISIT);
    }

    /// True exactly when nothing is under way.
    fn is_quiet(&self) -> bool {
        let talk = self.talkers.iter().enumerate().all(|(who, talker)| {
            talker.received >= self.talkers[who ^ 1].sent && talker.unanswered.is_empty()
        });
        talk && self
            .visitors
            .iter()
            .all(|visitor| !matches!(visitor, Visitor::Entering(_) | Visitor::Doomed { .. }))
    }

    fn finish(mut self) -> Measurements {
        for talker in &self.talkers {
            self.measured.sent += talker.sent;
            self.measured.received += talker.received;
            self.measured.unanswered += talker.unanswered.len() as u64;
        }
        for visitor in &self.visitors {
            match visitor {
                Visitor::Entering(_) => self.measured.no_answer += 1,
                Visitor::Doomed { .. } => self.measured.no_end += 1,
                Visitor::Away(_) | Visitor::Present(_) | Visitor::Stuck => {}
            }
        }
        self.measured
    }
}

/// Every second pair does.
fn asks_for_answers(who: usize) -> bool {
    who / 2 % 2 == 1
}

impl Figures {
    fn new() -> Self {
        Figures {
            chat: Latencies::new(),
            seq_chat: Latencies::new(),
            seq_answer: Latencies::new(),
            login: Latencies::new(),
            goodbye: Latencies::new(),
            kick: Latencies::new(),
        }
    }
}

impl Measurements {
    /// Reports the measurements, each key behind `prefix`, and what was wrong with them. `words` name the phases.
    pub(crate) fn judge(self, prefix: &str, words: [&str; 3], bounds: Bounds, report: &mut Report) {
        for ((phase, word), figures) in Phase::ALL.into_iter().zip(words).zip(self.phases) {
            for (what, latencies, bound) in [
                ("chat", figures.chat, bounds.chat),
                ("seq_chat", figures.seq_chat, bounds.chat),
                ("seq_answer", figures.seq_answer, None),
                ("login", figures.login, bounds.login),
                ("goodbye", figures.goodbye, None),
                ("kick", figures.kick, bounds.kick),
            ] {
                let key = format!("{prefix}{what}_{word}");
                if let (Some(bound), Some(p99_us)) = (bound, latencies.p99_us())
                    && phase != Phase::Baseline
                    && p99_us > bound.as_micros() as u64
                {
                    let bound_us = bound.as_micros() as u64;
                    report.fail(Failure::Slow { what: key.clone(), p99_us, bound_us });
                }
                report.latencies(key, latencies);
            }
        }
        report.count(format!("{prefix}chats"), self.received);
        if self.sent > self.received {
            report.fail(Failure::Lost(self.sent - self.received));
        }
        if self.reordered > 0 {
            report.fail(Failure::Reordered(self.reordered));
        }
        if self.unanswered > 0 {
            report.fail(Failure::ChatsUnanswered(self.unanswered));
        }
        if self.errors > 0 {
            report.fail(Failure::Errors { count: self.errors, example: self.example.clone() });
        } else if self.received == 0 {
            report.fail(Failure::Nothing);
        }
        if self.touched > 0 {
            report.fail(Failure::Bystanders(self.touched));
        }
        if self.refused > 0 {
            report.fail(Failure::Refused { count: self.refused, example: self.example });
        }
        for (count, failure) in [
            (self.not_kicked, Failure::NotKicked as fn(usize) -> Failure),
            (self.told_nothing, Failure::ToldNothing),
            (self.online_after_wait, Failure::OnlineAfterWait),
            (self.no_end, Failure::NoEnd),
            (self.no_answer, Failure::NoAnswer),
        ] {
            if count > 0 {
                report.fail(failure(count));
            }
        }
    }

    fn new() -> Self {
        Measurements {
            phases: Phase::ALL.map(|_| Figures::new()),
            sent: 0,
            received: 0,
            reordered: 0,
            unanswered: 0,
            errors: 0,
            refused: 0,
            example: String::new(),
            logins: 0,
            touched: 0,
            not_kicked: 0,
            told_nothing: 0,
            online_after_wait: 0,
            no_end: 0,
            no_answer: 0,
        }
    }
}
