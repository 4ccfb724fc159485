//! `vanish`: everybody is online, then everybody is gone at once.
//!
//! Runs in one thread. Bad when anybody stays online, a departure is missing or double, an id or an fd leaks, or
//! one who only closed half is never let go.

use std::time::Instant;

use super::VanishArgs;
use super::aftermath::{self, Before};
use super::fault::{Failure, StressError};
use super::fleet::{Fleet, Leave, News, What};
use super::login::{self, Names};
use super::progress::Progress;
use super::report::Report;
use super::view::View;
use super::ways::ways;

pub(super) fn run(
    args: &VanishArgs,
    view: &View,
    names: &Names,
    progress: &mut Progress,
    report: &mut Report,
) -> Result<(), StressError> {
    let clients = args.common.clients(1000);
    let mut fleet = Fleet::new(args.common.target, clients)?;
    let mark = view.mark()?;
    let began = Instant::now();
    login::log_all_in(&mut fleet, names, progress)?;
    report.count("clients", clients as u64);
    report.rate("logins", clients as u64, began.elapsed());
    let before = Before::look(view, clients, report)?;

    let ways = ways(args.how, clients, args.common.seed);
    let vanishing = Instant::now();
    for (who, way) in ways.iter().enumerate() {
        fleet.leave(who, *way);
    }
    report.took("all_left_within", Some(vanishing.elapsed()));
    let left = Instant::now();

    let mut news = Vec::new();
    progress.phase("offline", clients as u64);
    aftermath::all_offline(&mut fleet, &mut news, view, left, (mark, clients as u64), report)?;
    progress.done();
    progress.phase("released", clients as u64);
    aftermath::all_released(&mut fleet, &mut news, view, left, &before, report)?;
    progress.done();
    aftermath::history(view, mark, report)?;

    let half_closed = ways.iter().filter(|way| **way == Leave::HalfClose).count();
    let ended = news.iter().filter(|News { what, .. }| matches!(what, What::Ended(None))).count();
    if ended < half_closed {
        report.fail(Failure::NoEnd(half_closed - ended));
    }
    Ok(())
}
