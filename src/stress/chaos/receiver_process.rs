//! A receiver in a process of its own, so that it can be killed with SIGKILL: the child's side.
//!
//! Runs in one thread; a second one reads stdin, on which the scenario says where the server is. It writes a
//! chat to its log before it confirms it, and ends when stdin does.

use std::io::{BufRead, stdin};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, TryRecvError, channel};
use std::thread;
use std::time::{Duration, Instant};

use super::chat_key;
use super::checker::Arrival;
use super::receiver_log::{LogEntry, LogWriter};
use crate::Common;
use crate::client::{self, ReceivedChat, ServerMessage};
use crate::client_pool::{ClientEvent, ClientPool, CloseMode, EventKind};
use crate::error::StressError;
use crate::rng::Rng;

/// The only client of the pool.
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

    /// The file for what it receives.
    #[arg(long)]
    log: PathBuf,

    /// The longest pause before a confirmation.
    #[arg(long)]
    slow_ms: usize,
}

/// What the scenario says on stdin: in which run the server is, and where.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct ServerAddress {
    pub(super) server_run: u32,
    pub(super) target: SocketAddr,
}

impl ServerAddress {
    /// The line on stdin.
    pub(super) fn line(&self) -> String {
        format!("{} {}\n", self.server_run, self.target)
    }

    fn parse(line: &str) -> Option<Self> {
        let (server_run, target) = line.split_once(' ')?;
        Some(Self { server_run: server_run.parse().ok()?, target: target.parse().ok()? })
    }
}

struct ReceiverProcess<'a> {
    args: &'a ReceiveArgs,
    pool: ClientPool,
    server: ServerAddress,
    log: LogWriter,
    rng: Rng,
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
    let servers = servers();
    let Ok(server) = servers.recv() else { return Ok(()) };
    let log = LogWriter::resume(&args.log).map_err(StressError::io("cannot open the log"))?;
    let connection = log.connection;
    let mut receiver = ReceiverProcess {
        args,
        pool: ClientPool::new(server.target, 1)?,
        server,
        log,
        rng: Rng(args.common.seed),
        connection,
        server_run: server.server_run,
        back_at: Some(Instant::now()),
        login_until: None,
        confirm_at: None,
    };
    let mut events = Vec::new();
    loop {
        match servers.try_recv() {
            Ok(server) => {
                receiver.server = server;
                receiver.pool.set_target(server.target);
            }
            Err(TryRecvError::Empty) => {}
            Err(TryRecvError::Disconnected) => {
                receiver.confirm();
                receiver.pool.turn(TURN, &mut events)?;
                receiver.pool.close(ME, CloseMode::Fin);
                return Ok(());
            }
        }
        receiver.act()?;
        receiver.pool.turn(TURN, &mut events)?;
        receiver.handle(&mut events)?;
    }
}

fn servers() -> Receiver<ServerAddress> {
    let (give, take) = channel();
    thread::spawn(move || {
        for line in stdin().lock().lines().map_while(Result::ok) {
            let Some(server) = ServerAddress::parse(&line) else { return };
            if give.send(server).is_err() {
                return;
            }
        }
    });
    take
}

impl ReceiverProcess<'_> {
    /// Does what is due.
    fn act(&mut self) -> Result<(), StressError> {
        let now = Instant::now();
        if self.login_until.is_some_and(|until| until <= now) {
            self.pool.close(ME, CloseMode::Rst);
            self.disconnected();
        }
        if self.back_at.take_if(|at| *at <= now).is_some() {
            self.connection += 1;
            self.server_run = self.server.server_run;
            self.pool.connect(ME)?;
            self.pool.send(ME, &client::login_confirming(&self.args.name));
            self.login_until = Some(now + LOGIN_WITHIN);
        }
        if self.confirm_at.take_if(|at| *at <= now).is_some() {
            self.confirm();
        }
        Ok(())
    }

    fn handle(&mut self, events: &mut Vec<ClientEvent>) -> Result<(), StressError> {
        let mut entries = Vec::new();
        for ClientEvent { kind, .. } in events.drain(..) {
            match kind {
                EventKind::Message(ServerMessage::LoggedIn { kept, .. }) => {
                    self.login_until = None;
                    entries.extend(kept.iter().filter_map(|letter| self.line(letter)));
                }
                EventKind::Message(ServerMessage::Chat(letter)) => entries.extend(self.line(&letter)),
                EventKind::Message(ServerMessage::LoginRefused { .. }) => {
                    self.pool.close(ME, CloseMode::Fin);
                    self.disconnected();
                }
                EventKind::Closed(_) => self.disconnected(),
                _ => {}
            }
        }
        if entries.is_empty() {
            return Ok(());
        }
        self.log.append(&entries).map_err(StressError::io("cannot write the log"))?;
        let pause = Duration::from_millis(self.rng.below(self.args.slow_ms + 1) as u64);
        self.confirm_at.get_or_insert(Instant::now() + pause);
        Ok(())
    }

    fn line(&self, letter: &ReceivedChat) -> Option<LogEntry> {
        let arrival =
            Arrival { connection: self.connection, opened: self.connection, server_run: self.server_run };
        let origin = chat_key::read(&self.args.run, &letter.msg);
        Some(LogEntry { arrival, mid: letter.mid?, again: letter.again, origin })
    }

    fn confirm(&mut self) {
        if self.login_until.is_none() {
            self.pool.send(ME, &client::confirmation(self.log.last));
        }
    }

    fn disconnected(&mut self) {
        self.login_until = None;
        self.confirm_at = None;
        self.back_at = Some(Instant::now() + Duration::from_millis(self.rng.below(AWAY_MS) as u64));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_the_server_is_is_read_back() {
        let server = ServerAddress { server_run: 3, target: "127.0.0.1:99".parse().unwrap() };
        assert_eq!(ServerAddress::parse(server.line().trim_end()), Some(server));
        assert_eq!(ServerAddress::parse("3"), None);
    }
}
