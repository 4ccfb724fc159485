//! `vanish`: everybody is online, then everybody is gone at once.
//!
//! Runs in one thread. Bad when anybody stays online, a departure is missing or double, an id or an fd leaks, or
//! one who only closed half is never let go.

use std::time::Instant;

use super::VanishArgs;
use super::client_pool::{ClientEvent, ClientPool, CloseMode, EventKind};
use super::close_mix::close_modes;
use super::error::{Failure, StressError};
use super::login::{self, Names};
use super::postconditions::{self, Baseline};
use super::probe::Probe;
use super::progress::Progress;
use super::report::Report;

pub(super) fn run(
    args: &VanishArgs,
    probe: &Probe,
    names: &Names,
    progress: &mut Progress,
    report: &mut Report,
) -> Result<(), StressError> {
    let clients = args.common.clients(1000);
    let mut pool = ClientPool::new(args.common.target, clients)?;
    let mark = probe.mark()?;
    let began = Instant::now();
    login::log_all_in(&mut pool, names, progress)?;
    report.count("clients", clients as u64);
    report.rate("logins", clients as u64, began.elapsed());
    let before = Baseline::look(probe, clients, report)?;

    let close_modes = close_modes(args.how, clients, args.common.seed);
    let vanishing = Instant::now();
    for (who, way) in close_modes.iter().enumerate() {
        pool.close(who, *way);
    }
    report.took("all_left_within", Some(vanishing.elapsed()));
    let left = Instant::now();

    let mut events = Vec::new();
    progress.phase("offline", clients as u64);
    postconditions::wait_until_offline(&mut pool, &mut events, probe, left, (mark, clients as u64), report)?;
    progress.done();
    progress.phase("released", clients as u64);
    postconditions::wait_until_released(&mut pool, &mut events, probe, left, &before, report)?;
    progress.done();
    postconditions::report_departures(probe, mark, report)?;

    let half_closed = close_modes.iter().filter(|way| **way == CloseMode::HalfClose).count();
    let ended =
        events.iter().filter(|ClientEvent { kind, .. }| matches!(kind, EventKind::Closed(None))).count();
    if ended < half_closed {
        report.fail(Failure::NoEnd(half_closed - ended));
    }
    Ok(())
}
