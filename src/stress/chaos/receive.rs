//! A receiver in a process of its own, so that it can be killed with SIGKILL: the child's side.
//!
//! Runs in one thread; a second one reads stdin, on which the scenario says where the server is. It writes down what
//! it hears before it confirms it, and ends when stdin does.

use std::io::{BufRead, stdin};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, TryRecvError, channel};
use std::thread;
use std::time::{Duration, Instant};

use super::diary::{Line, Writer};
use super::ledger::Hearing;
use super::text;
use crate::Common;
use crate::client::{self, Heard, Letter};
use crate::fault::StressError;
use crate::fleet::{Fleet, Leave, News, What};
use crate::seed::Seed;

/// The only client of this fleet.
const ME: usize = 0;

/// A turn's longest wait.
const TURN: Duration = Duration::from_millis(5);

/// The longest pause before it connects again, in milliseconds.
const AWAY_MS: usize = 60;

/// A login is answered within this, else it connects anew.
const LOGIN_WITHIN: Duration = Duration::from_secs(10);

/// What the scenario tells its child.
#[derive(Clone, Debug, clap::Args)]
pub struct ReceiveArgs {
    #[command(flatten)]
    #[expect(missing_docs, reason = "clap would show it as the help of the scenario")]
    pub common: Common,

    /// The user's name.
    #[arg(long)]
    name: String,

    /// What the texts of this run begin with.
    #[arg(long)]
    run: String,

    /// Where it writes down what it hears.
    #[arg(long)]
    diary: PathBuf,

    /// The longest pause before a confirmation.
    #[arg(long)]
    slow_ms: usize,
}

/// What the scenario says on stdin: in which run the server is, and where.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Where {
    pub(super) server_run: u32,
    pub(super) target: SocketAddr,
}

impl Where {
    /// The line on stdin.
    pub(super) fn line(&self) -> String {
        format!("{} {}\n", self.server_run, self.target)
    }

    fn parse(line: &str) -> Option<Self> {
        let (server_run, target) = line.split_once(' ')?;
        Some(Self { server_run: server_run.parse().ok()?, target: target.parse().ok()? })
    }
}

struct Child<'a> {
    args: &'a ReceiveArgs,
    fleet: Fleet,
    place: Where,
    diary: Writer,
    seed: Seed,
    connection: u64,
    /// In which run of the server the connection began.
    server_run: u32,
    back_at: Option<Instant>,
    login_until: Option<Instant>,
    confirm_at: Option<Instant>,
}

/// Receives until stdin ends.
///
/// # Errors
/// When this process's own sockets, or its file, fail.
pub(crate) fn run(args: &ReceiveArgs) -> Result<(), StressError> {
    let places = places();
    let Ok(place) = places.recv() else { return Ok(()) };
    let diary = Writer::go_on(&args.diary).map_err(StressError::io("cannot open the diary"))?;
    let connection = diary.connection;
    let mut child = Child {
        args,
        fleet: Fleet::new(place.target, 1)?,
        place,
        diary,
        seed: Seed(args.common.seed),
        connection,
        server_run: place.server_run,
        back_at: Some(Instant::now()),
        login_until: None,
        confirm_at: None,
    };
    let mut news = Vec::new();
    loop {
        match places.try_recv() {
            Ok(place) => {
                child.place = place;
                child.fleet.retarget(place.target);
            }
            Err(TryRecvError::Empty) => {}
            Err(TryRecvError::Disconnected) => {
                child.confirm();
                child.fleet.turn(TURN, &mut news)?;
                child.fleet.leave(ME, Leave::Fin);
                return Ok(());
            }
        }
        child.act()?;
        child.fleet.turn(TURN, &mut news)?;
        child.listen(&mut news)?;
    }
}

fn places() -> Receiver<Where> {
    let (give, take) = channel();
    thread::spawn(move || {
        for line in stdin().lock().lines().map_while(Result::ok) {
            let Some(place) = Where::parse(&line) else { return };
            if give.send(place).is_err() {
                return;
            }
        }
    });
    take
}

impl Child<'_> {
    /// Does what is due.
    fn act(&mut self) -> Result<(), StressError> {
        let now = Instant::now();
        if self.login_until.is_some_and(|until| until <= now) {
            self.fleet.leave(ME, Leave::Rst);
            self.gone();
        }
        if self.back_at.take_if(|at| *at <= now).is_some() {
            self.connection += 1;
            self.server_run = self.place.server_run;
            self.fleet.connect(ME)?;
            self.fleet.send(ME, &client::login_confirming(&self.args.name));
            self.login_until = Some(now + LOGIN_WITHIN);
        }
        if self.confirm_at.take_if(|at| *at <= now).is_some() {
            self.confirm();
        }
        Ok(())
    }

    fn listen(&mut self, news: &mut Vec<News>) -> Result<(), StressError> {
        let mut lines = Vec::new();
        for News { what, .. } in news.drain(..) {
            match what {
                What::Heard(Heard::LoggedIn { kept, .. }) => {
                    self.login_until = None;
                    lines.extend(kept.iter().filter_map(|letter| self.line(letter)));
                }
                What::Heard(Heard::Chat(letter)) => lines.extend(self.line(&letter)),
                What::Heard(Heard::LoginRefused { .. }) => {
                    self.fleet.leave(ME, Leave::Fin);
                    self.gone();
                }
                What::Ended(_) => self.gone(),
                _ => {}
            }
        }
        if lines.is_empty() {
            return Ok(());
        }
        self.diary.append(&lines).map_err(StressError::io("cannot write the diary"))?;
        let pause = Duration::from_millis(self.seed.below(self.args.slow_ms + 1) as u64);
        self.confirm_at.get_or_insert(Instant::now() + pause);
        Ok(())
    }

    fn line(&self, letter: &Letter) -> Option<Line> {
        let heard =
            Hearing { connection: self.connection, opened: self.connection, server_run: self.server_run };
        let told = text::read(&self.args.run, &letter.msg);
        Some(Line { heard, mid: letter.mid?, again: letter.again, told })
    }

    fn confirm(&mut self) {
        if self.login_until.is_none() {
            self.fleet.send(ME, &client::confirmation(self.diary.last));
        }
    }

    fn gone(&mut self) {
        self.login_until = None;
        self.confirm_at = None;
        self.back_at = Some(Instant::now() + Duration::from_millis(self.seed.below(AWAY_MS) as u64));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_the_server_is_is_read_back() {
        let place = Where { server_run: 3, target: "127.0.0.1:99".parse().unwrap() };
        assert_eq!(Where::parse(place.line().trim_end()), Some(place));
        assert_eq!(Where::parse("3"), None);
    }
}
