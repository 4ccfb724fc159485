//! `flood`: many expensive requests are sent at once, and must not delay the steady load.
//!
//! There are four floods, one after another. During each, pairs chat, and visitors log in and are kicked; the server's
//! memory is looked at all the time. Bad when 99 of 100 of the bystanders' chats, logins or kicks take too long, when
//! memory grows too much, or when a flood's own work is not done right.
//!
//! | module | flood |
//! |---|---|
//! | `registrations` | connections that register somebody and are reset at once |
//! | `receivers` | lines to thousands of receivers |
//! | `groups` | large chats to a group of absent members, and small ones to a larger group |
//! | `log_pipe` | logins without end, each with lines of the log that nobody reads |
//! | `memory` | what the server's process holds |

mod args;
mod groups;
mod log_pipe;
mod memory;
mod receivers;
mod registrations;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use super::client_pool::{ClientPool, CloseMode};
use super::error::{Failure, StressError};
use super::login::{self, Names};
use super::managed_server::{ManagedServer, Ready};
use super::probe::Probe;
use super::progress::Progress;
use super::report::Report;
use super::steady_load::phase::Timeline;
use super::steady_load::{Bounds, VISITORS, run_beside};
pub use args::FloodArgs;
use args::Kind;
use groups::Groups;
use log_pipe::LogPipe;
use memory::Memory;
use receivers::Receivers;
use registrations::Registrations;

/// Bystanders who chat: two pairs, the second of which asks for answers.
const TALKERS: usize = 4;

/// How long the bystanders are alone before a flood, and behind it.
const ALONE: Duration = Duration::from_millis(if cfg!(test) { 200 } else { 1_000 });

/// How the report names the phases.
const PHASES: [&str; 3] = ["before", "flood", "after"];

/// Where the server is.
struct Server {
    target: SocketAddr,
    data: PathBuf,
    line: Option<SocketAddr>,
}

/// A flood that is ready to begin.
enum Flood {
    Registrations(Registrations),
    Receivers(Receivers),
    Groups(Groups),
    LogPipe(LogPipe),
}

pub(super) fn run(
    args: &FloodArgs,
    names: &Names,
    progress: &mut Progress,
    report: &mut Report,
) -> Result<(), StressError> {
    let mut own = (!args.serve.is_empty()).then(|| ManagedServer::start_unread(&args.serve)).transpose()?;
    let server = match &mut own {
        Some(server) => {
            let Ready { target, data, line } = server.wait_until_ready()?;
            Server { target, data, line }
        }
        None => Server { target: args.common.target, data: args.common.data.clone(), line: args.line },
    };
    let probe = Probe::open(&server.data, &names.0)?;
    let memory = Memory::of(&probe.control())?;
    let kinds = args.kinds(server.line.is_some(), own.is_some());
    if kinds.is_empty() {
        report.fail(Failure::Nothing);
    }
    for kind in kinds {
        let flood = Flood::prepare(kind, args, &server, &probe, names, progress)?;
        progress.phase(kind.name(), 1);
        flood.run(args, &server, names, memory, own.as_ref(), report)?;
        progress.done();
    }
    // A server that stands still cannot be asked; that it does has been found by then.
    if report.failures.is_empty() {
        let differences = probe.differences()?;
        if differences > 0 {
            report.fail(Failure::Differences(differences));
        }
    }
    if let Some(server) = own {
        let asked = Instant::now();
        match server.stop() {
            Ok(()) => report.took("stopped", Some(asked.elapsed())),
            Err(error) => report.fail(Failure::NoStop(error.to_string())),
        }
    }
    Ok(())
}

impl Flood {
    fn prepare(
        kind: Kind,
        args: &FloodArgs,
        server: &Server,
        probe: &Probe,
        names: &Names,
        progress: &mut Progress,
    ) -> Result<Self, StressError> {
        Ok(match kind {
            Kind::Registrations => {
                Self::Registrations(Registrations::prepare(args, server.target, probe, names)?)
            }
            Kind::Receivers => Self::Receivers(Receivers::prepare(args, server, names)?),
            Kind::Groups => Self::Groups(Groups::prepare(args, server, names, progress)?),
            Kind::LogPipe => Self::LogPipe(LogPipe::prepare(args, server.target, names, progress)?),
        })
    }

    fn kind(&self) -> Kind {
        match self {
            Self::Registrations(_) => Kind::Registrations,
            Self::Receivers(_) => Kind::Receivers,
            Self::Groups(_) => Kind::Groups,
            Self::LogPipe(_) => Kind::LogPipe,
        }
    }

    /// Lets the flood come beside bystanders, and puts down what both have seen.
    fn run(
        mut self,
        args: &FloodArgs,
        server: &Server,
        names: &Names,
        memory: Memory,
        own: Option<&ManagedServer>,
        report: &mut Report,
    ) -> Result<(), StressError> {
        let name = self.kind().name();
        let live = Names(format!("{}live-", names.0));
        let mut pool = ClientPool::new(server.target, TALKERS + VISITORS)?;
        let ids = login::log_all_in(&mut pool, &live, &mut Progress::new(true))?;
        let kicks = Probe::open(&server.data, &live.0)?;
        let timeline = Timeline::default();
        let (measured, (took, before, peak)) = run_beside(&mut pool, &ids, &live, &timeline, kicks, || {
            thread::sleep(ALONE);
            let began = *timeline.lost.get_or_init(Instant::now);
            let (before, peak) = memory.peak_during(|| {
                self.send(args)?;
                timeline.offline.get_or_init(Instant::now);
                thread::sleep(ALONE);
                Ok(())
            })?;
            let end = *timeline.offline.get_or_init(Instant::now);
            Ok((end.saturating_duration_since(began), before, peak))
        })?;
        (0..pool.size()).for_each(|who| pool.close(who, CloseMode::Fin));

        report.took(format!("{name}_flood"), Some(took));
        report.count(format!("{name}_memory_before_kib"), before / 1024);
        report.count(format!("{name}_memory_peak_kib"), peak / 1024);
        let grown = peak.saturating_sub(before);
        if grown > args.memory {
            report.fail(Failure::Grew { what: name, grown, bound: args.memory });
        }
        self.judge(args, server, names, own, report)?;
        let bounds = Bounds { chat: Some(args.bound), login: Some(args.bound), kick: Some(args.bound) };
        measured.judge(&format!("{name}_"), PHASES, bounds, report);
        Ok(())
    }

    /// The flood itself: returns when all of it is done.
    fn send(&mut self, args: &FloodArgs) -> Result<(), StressError> {
        match self {
            Self::Registrations(flood) => flood.send(args),
            Self::Receivers(flood) => {
                flood.send(args);
                Ok(())
            }
            Self::Groups(flood) => flood.send(args),
            Self::LogPipe(flood) => flood.send(args),
        }
    }

    /// Whether its own work was done right.
    fn judge(
        self,
        args: &FloodArgs,
        server: &Server,
        names: &Names,
        own: Option<&ManagedServer>,
        report: &mut Report,
    ) -> Result<(), StressError> {
        match self {
            Self::Registrations(flood) => flood.judge(args, report),
            Self::Receivers(flood) => flood.judge(report),
            Self::Groups(flood) => return flood.judge(args, server, names, report),
            Self::LogPipe(flood) => return flood.judge(own, report),
        }
        Ok(())
    }
}
