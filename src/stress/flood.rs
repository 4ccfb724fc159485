//! `flood`: requests that cost much are sent at once, while bystanders must not notice.
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

use super::bystanders::timeline::Timeline;
use super::bystanders::{Bounds, VISITORS, beside};
use super::fault::{Failure, StressError};
use super::fleet::{Fleet, Leave};
use super::login::{self, Names};
use super::own_server::{OwnServer, Ready};
use super::progress::Progress;
use super::report::Report;
use super::view::View;
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
struct Place {
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
    let mut own = (!args.serve.is_empty()).then(|| OwnServer::start_unread(&args.serve)).transpose()?;
    let place = match &mut own {
        Some(server) => {
            let Ready { target, data, line } = server.wait_until_ready()?;
            Place { target, data, line }
        }
        None => Place { target: args.common.target, data: args.common.data.clone(), line: args.line },
    };
    let view = View::open(&place.data, &names.0)?;
    let memory = Memory::of(&view.control())?;
    let kinds = args.kinds(place.line.is_some(), own.is_some());
    if kinds.is_empty() {
        report.fail(Failure::Nothing);
    }
    for kind in kinds {
        let flood = Flood::prepare(kind, args, &place, &view, names, progress)?;
        progress.phase(kind.name(), 1);
        flood.run(args, &place, names, memory, own.as_ref(), report)?;
        progress.done();
    }
    // A server that stands still cannot be asked; that it does has been found by then.
    if report.failures.is_empty() {
        let differences = view.differences()?;
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
        place: &Place,
        view: &View,
        names: &Names,
        progress: &mut Progress,
    ) -> Result<Self, StressError> {
        Ok(match kind {
            Kind::Registrations => {
                Self::Registrations(Registrations::prepare(args, place.target, view, names)?)
            }
            Kind::Receivers => Self::Receivers(Receivers::prepare(args, place, names)?),
            Kind::Groups => Self::Groups(Groups::prepare(args, place, names, progress)?),
            Kind::LogPipe => Self::LogPipe(LogPipe::prepare(args, place.target, names, progress)?),
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
        place: &Place,
        names: &Names,
        memory: Memory,
        own: Option<&OwnServer>,
        report: &mut Report,
    ) -> Result<(), StressError> {
        let name = self.kind().name();
        let live = Names(format!("{}live-", names.0));
        let mut fleet = Fleet::new(place.target, TALKERS + VISITORS)?;
        let ids = login::log_all_in(&mut fleet, &live, &mut Progress::new(true))?;
        let kicks = View::open(&place.data, &live.0)?;
        let timeline = Timeline::default();
        let (seen, (took, before, peak)) = beside(&mut fleet, &ids, &live, &timeline, kicks, || {
            thread::sleep(ALONE);
            let began = *timeline.lost.get_or_init(Instant::now);
            let (before, peak) = memory.peak_during(|| {
                self.flow(args)?;
                timeline.offline.get_or_init(Instant::now);
                thread::sleep(ALONE);
                Ok(())
            })?;
            let end = *timeline.offline.get_or_init(Instant::now);
            Ok((end.saturating_duration_since(began), before, peak))
        })?;
        (0..fleet.size()).for_each(|who| fleet.leave(who, Leave::Fin));

        report.took(format!("{name}_flood"), Some(took));
        report.count(format!("{name}_memory_before_kib"), before / 1024);
        report.count(format!("{name}_memory_peak_kib"), peak / 1024);
        let grown = peak.saturating_sub(before);
        if grown > args.memory {
            report.fail(Failure::Grew { what: name, grown, bound: args.memory });
        }
        self.judge(args, place, names, own, report)?;
        let bounds = Bounds { chat: Some(args.bound), login: Some(args.bound), kick: Some(args.bound) };
        seen.judge(&format!("{name}_"), PHASES, bounds, report);
        Ok(())
    }

    /// The flood itself: returns when all of it is done.
    fn flow(&mut self, args: &FloodArgs) -> Result<(), StressError> {
        match self {
            Self::Registrations(flood) => flood.flow(args),
            Self::Receivers(flood) => {
                flood.flow(args);
                Ok(())
            }
            Self::Groups(flood) => flood.flow(args),
            Self::LogPipe(flood) => flood.flow(args),
        }
    }

    /// Whether its own work was done right.
    fn judge(
        self,
        args: &FloodArgs,
        place: &Place,
        names: &Names,
        own: Option<&OwnServer>,
        report: &mut Report,
    ) -> Result<(), StressError> {
        match self {
            Self::Registrations(flood) => flood.judge(args, report),
            Self::Receivers(flood) => flood.judge(report),
            Self::Groups(flood) => return flood.judge(args, place, names, report),
            Self::LogPipe(flood) => return flood.judge(own, report),
        }
        Ok(())
    }
}
