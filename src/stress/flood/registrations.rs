//! Registrations whose connections are reset at once, and first logins of others beside them.
//!
//! A registration costs a password hash. One whose client has gone is worth nothing, so it must not keep anybody else
//! waiting. Each of the others logs in once, the first when half of the registrations are sent.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::super::client::{self, ServerMessage, errno};
use super::super::client_pool::{ClientEvent, ClientPool, CloseMode, EventKind};
use super::super::error::{Failure, StressError};
use super::super::login::{Names, told};
use super::super::probe::Probe;
use super::super::report::{Latencies, Report};
use super::super::rng::first_seq;
use super::args::FloodArgs;

/// Those who log in for the first time.
const FRESH: usize = 5;

/// How long their logins are waited for, and their registrations before.
const FRESH_WITHIN: Duration = Duration::from_secs(if cfg!(test) { 10 } else { 120 });

/// The pause before asking again a server that is busy.
const RETRY_AFTER: Duration = Duration::from_millis(20);

/// A turn's longest wait.
const TURN: Duration = Duration::from_millis(5);

pub(super) struct Registrations {
    /// The first are the lanes of the registrations, the last those who log in.
    pool: ClientPool,
    lanes: usize,
    probe: Probe,
    before: u64,
    /// Nobody of an earlier run has a name of this one.
    fresh: Names,
    names: Names,
    sent: usize,
    first_login: Latencies,
    answered: usize,
    refused: Option<String>,
}

impl Registrations {
    pub(super) fn prepare(
        args: &FloodArgs,
        target: SocketAddr,
        probe: &Probe,
        names: &Names,
    ) -> Result<Self, StressError> {
        let lanes = args.common.clients(64);
        let run = first_seq();
        let names = Names(format!("{}{run}-", names.0));
        let fresh = Names(format!("{}first-", names.0));
        let mut pool = ClientPool::new(target, lanes + FRESH)?;
        for at in 0..FRESH {
            let answer = ask(&mut pool, lanes + at, &client::register(&fresh.name(at)))?;
            if !matches!(answer, EventKind::Message(ServerMessage::Registered)) {
                return Err(StressError::Login { name: fresh.name(at), target, why: told(&answer) });
            }
            pool.close(lanes + at, CloseMode::Fin);
        }
        Ok(Self {
            pool,
            lanes,
            probe: probe.again()?,
            before: probe.users()?,
            fresh,
            names,
            sent: 0,
            first_login: Latencies::new(),
            answered: 0,
            refused: None,
        })
    }

    pub(super) fn send(&mut self, args: &FloodArgs) -> Result<(), StressError> {
        let mut free: Vec<usize> = (0..self.lanes).collect();
        let mut events = Vec::new();
        let (mut asked, mut waits, mut again) = (None, false, None);
        let mut begun = 0;
        while self.sent < args.registrations || self.answered < FRESH {
            let now = Instant::now();
            while begun < args.registrations
                && let Some(who) = free.pop()
            {
                self.pool.connect(who)?;
                self.pool.send(who, &client::register(&self.names.name(begun)));
                begun += 1;
            }
            let who = self.lanes + self.answered;
            if !waits && 2 * self.sent >= args.registrations && self.answered < FRESH {
                self.pool.connect(who)?;
                (asked, waits, again) = (Some(now), true, Some(now));
            }
            if again.take_if(|at| *at <= now).is_some() {
                self.pool.send(who, &client::login(&self.fresh.name(self.answered)));
            }
            if asked.is_some_and(|at: Instant| at.elapsed() > FRESH_WITHIN) {
                return Ok(());
            }
            self.pool.turn(TURN, &mut events)?;
            for ClientEvent { who, at, kind } in events.drain(..) {
                match kind {
                    EventKind::Connected if who < self.lanes => {
                        // What was said is in the kernel: it writes when it connects.
                        self.pool.close(who, CloseMode::Rst);
                        self.sent += 1;
                        free.push(who);
                    }
                    EventKind::Closed(_) if who < self.lanes => {
                        self.sent += 1;
                        free.push(who);
                    }
                    EventKind::Connected | EventKind::Message(ServerMessage::Other) => {}
                    _ if who < self.lanes => {}
                    EventKind::Message(ServerMessage::LoggedIn { .. }) => {
                        let began = asked.take().unwrap_or(at);
                        self.first_login.record(at.saturating_duration_since(began));
                        self.answered += 1;
                        waits = false;
                        self.pool.close(who, CloseMode::Fin);
                    }
                    EventKind::Message(ServerMessage::LoginRefused { errno: errno::BUSY, .. }) => {
                        again = Some(at + RETRY_AFTER);
                    }
                    other => {
                        self.refused = Some(told(&other));
                        return Ok(());
                    }
                }
            }
        }
        Ok(())
    }

    pub(super) fn judge(self, args: &FloodArgs, report: &mut Report) {
        report.count("registrations", self.sent as u64);
        // How many the server has taken all the same; those of clients who have gone need not be.
        match self.probe.users() {
            Ok(users) => report.count("registered", users.saturating_sub(self.before)),
            Err(error) => report.detail(error.to_string()),
        }
        if let Some(max_us) = self.first_login.max_us()
            && max_us > args.first_login.as_micros() as u64
        {
            let bound_us = args.first_login.as_micros() as u64;
            report.fail(Failure::Slow { what: "first_login".to_owned(), p99_us: max_us, bound_us });
        }
        report.latencies("first_login", self.first_login);
        match self.refused {
            Some(example) => report.fail(Failure::Refused { count: 1, example }),
            None if self.answered < FRESH => report.fail(Failure::NoAnswer(FRESH - self.answered)),
            None => {}
        }
    }
}

/// Connects, asks and waits for the first answer.
fn ask(pool: &mut ClientPool, who: usize, request: &str) -> Result<EventKind, StressError> {
    let asked = Instant::now();
    let mut events = Vec::new();
    pool.connect(who)?;
    pool.send(who, request);
    while asked.elapsed() < FRESH_WITHIN {
        pool.turn(TURN, &mut events)?;
        if let Some(answer) = events.drain(..).find(|one| !matches!(one.kind, EventKind::Connected)) {
            return Ok(answer.kind);
        }
    }
    Err(StressError::Stuck(0, FRESH, FRESH_WITHIN))
}
