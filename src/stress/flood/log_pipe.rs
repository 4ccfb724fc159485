//! A log that nobody reads: the server's stderr is a pipe, and logins fill it.
//!
//! Lanes log in and leave, again and again. The server must go on when the pipe is full, and end in order at the end.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::super::client::{self, ServerMessage};
use super::super::client_pool::{ClientEvent, ClientPool, CloseMode, EventKind};
use super::super::error::{Failure, StressError};
use super::super::login::{self, Names, told};
use super::super::managed_server::ManagedServer;
use super::super::progress::Progress;
use super::super::report::Report;
use super::args::FloodArgs;

/// Who log in and leave.
const LANES: usize = 16;

/// Without any login for so long there is no point in waiting on.
const STUCK_AFTER: Duration = Duration::from_secs(10);

/// A turn's longest wait.
const TURN: Duration = Duration::from_millis(5);

/// A pipe holds 64 KiB; with so many bytes in it the next lines do not fit, or soon will not.
const FULL_BYTES: u64 = 48 * 1024;

pub(super) struct LogPipe {
    pool: ClientPool,
    names: Names,
    logins: usize,
    is_stuck: bool,
    refused: u64,
    example: String,
}

impl LogPipe {
    pub(super) fn prepare(
        _: &FloodArgs,
        target: SocketAddr,
        names: &Names,
        progress: &mut Progress,
    ) -> Result<Self, StressError> {
        let names = Names(format!("{}lane-", names.0));
        let mut pool = ClientPool::new(target, LANES)?;
        login::log_all_in(&mut pool, &names, progress)?;
        (0..LANES).for_each(|who| pool.close(who, CloseMode::Fin));
        Ok(Self { pool, names, logins: 0, is_stuck: false, refused: 0, example: String::new() })
    }

    pub(super) fn send(&mut self, args: &FloodArgs) -> Result<(), StressError> {
        let mut free: Vec<usize> = (0..LANES).collect();
        let mut events = Vec::new();
        let mut last = Instant::now();
        while self.logins < args.logins {
            for who in free.drain(..) {
                self.pool.connect(who)?;
                self.pool.send(who, &client::login(&self.names.name(who)));
            }
            self.pool.turn(TURN, &mut events)?;
            for ClientEvent { who, at, kind } in events.drain(..) {
                match kind {
                    EventKind::Connected
                    | EventKind::Message(ServerMessage::Other | ServerMessage::Chat(_)) => continue,
                    EventKind::Message(ServerMessage::LoggedIn { .. }) => self.logins += 1,
                    other => {
                        self.refused += 1;
                        self.example = told(&other);
                    }
                }
                last = at;
                self.pool.close(who, CloseMode::Fin);
                free.push(who);
            }
            if last.elapsed() > STUCK_AFTER {
                self.is_stuck = true;
                return Ok(());
            }
        }
        Ok(())
    }

    pub(super) fn judge(self, own: Option<&ManagedServer>, report: &mut Report) -> Result<(), StressError> {
        report.count("log_pipe_logins", self.logins as u64);
        let waiting = own.map_or(Ok(0), ManagedServer::unread)?;
        report.count("log_pipe_bytes", waiting);
        if self.is_stuck {
            report.fail(Failure::NoAnswer(LANES));
        }
        if self.refused > 0 {
            report.fail(Failure::Refused { count: self.refused, example: self.example });
        }
        if waiting < FULL_BYTES {
            report.fail(Failure::PipeNotFull(waiting));
        }
        Ok(())
    }
}
