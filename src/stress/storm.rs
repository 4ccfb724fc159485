//! `storm`: many clients are lost at once while pairs chat, and visitors log in and are kicked.
//!
//! Three threads: this one runs the steady load, a second the lost clients, a third asks for kicks. Bad when anybody is left
//! online, anything leaks, a chat is lost, a visitor is refused or told nothing, or the pairs' chats take too long. A
//! chat's clock runs from when it was due, so that a pause of the sender counts too.

mod lost_clients;

use std::time::Instant;

use super::StormArgs;
use super::client_pool::{ClientPool, CloseMode, raise_fd_limit};
use super::close_mix::close_modes;
use super::error::StressError;
use super::login::{self, Names};
use super::postconditions::{self, Baseline};
use super::probe::Probe;
use super::progress::Progress;
use super::report::Report;
use super::steady_load::phase::Timeline;
use super::steady_load::{Bounds, VISITORS, run_beside};
use lost_clients::LostClients;

pub(super) fn run(
    args: &StormArgs,
    probe: &Probe,
    names: &Names,
    progress: &mut Progress,
    report: &mut Report,
) -> Result<(), StressError> {
    let (size, talkers) = (args.common.clients(10_000), 2 * args.pairs.get());
    let staying = talkers + VISITORS;
    raise_fd_limit(size + staying)?;
    let mut lost_pool = ClientPool::new(args.common.target, size)?;
    let mut pool = ClientPool::new(args.common.target, staying)?;
    let (lost_names, live_names) = (Names(format!("{}crowd-", names.0)), Names(format!("{}live-", names.0)));
    let mark = probe.mark()?;
    let began = Instant::now();
    let lost_ids = login::log_all_in(&mut lost_pool, &lost_names, progress)?;
    let ids = login::log_all_in(&mut pool, &live_names, progress)?;
    report.count("crowd", size as u64);
    report.count("pairs", args.pairs.get() as u64);
    report.rate("logins", (size + staying) as u64, began.elapsed());
    let before = Baseline::look(probe, size + staying, report)?;

    let timeline = Timeline::default();
    let lost = LostClients {
        pool: &mut lost_pool,
        ids: &lost_ids,
        close_modes: close_modes(args.how, size, args.common.seed),
        seconds: args.seconds,
        probe: Probe::open(&args.common.data, &lost_names.0)?,
        timeline: &timeline,
    };
    let kicks = Probe::open(&args.common.data, &live_names.0)?;
    progress.phase("storm, seconds", args.seconds);
    let (measured, loss) = run_beside(&mut pool, &ids, &live_names, &timeline, kicks, || lost.run())?;
    progress.done();
    report.took("all_lost_within", Some(loss.within));
    report.took("all_offline_in_database", loss.offline);
    report.took("all_closed", loss.closed);
    let sessions = (size + staying) as u64 + measured.logins;
    let bounds = Bounds { chat: Some(args.bound), ..Bounds::default() };
    measured.judge("", ["before", "storm", "release"], bounds, report);

    (0..staying).for_each(|who| pool.close(who, CloseMode::Fin));
    let left = Instant::now();
    let mut events = Vec::new();
    postconditions::wait_until_offline(&mut lost_pool, &mut events, probe, left, (mark, sessions), report)?;
    postconditions::wait_until_released(&mut lost_pool, &mut events, probe, left, &before, report)?;
    postconditions::report_departures(probe, mark, report)
}
