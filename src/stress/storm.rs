//! `storm`: a crowd is lost at once while pairs chat, and visitors log in and are kicked.
//!
//! Three threads: this one plays those who stay, a second the crowd, a third asks for kicks. Bad when anybody is left
//! online, anything leaks, a chat is lost, a visitor is refused or told nothing, or the pairs' chats take too long. A
//! chat's clock runs from when it was due, so that a pause of the sender counts too.

mod crowd;

use std::time::Instant;

use super::StormArgs;
use super::aftermath::{self, Before};
use super::bystanders::timeline::Timeline;
use super::bystanders::{Bounds, VISITORS, beside};
use super::fault::StressError;
use super::fleet::{Fleet, Leave, raise_fd_limit};
use super::login::{self, Names};
use super::progress::Progress;
use super::report::Report;
use super::view::View;
use super::ways::ways;
use crowd::Crowd;

pub(super) fn run(
    args: &StormArgs,
    view: &View,
    names: &Names,
    progress: &mut Progress,
    report: &mut Report,
) -> Result<(), StressError> {
    let (size, talkers) = (args.common.clients(10_000), 2 * args.pairs.get());
    let staying = talkers + VISITORS;
    raise_fd_limit(size + staying)?;
    let mut crowd_fleet = Fleet::new(args.common.target, size)?;
    let mut fleet = Fleet::new(args.common.target, staying)?;
    let (crowd_names, live_names) = (Names(format!("{}crowd-", names.0)), Names(format!("{}live-", names.0)));
    let mark = view.mark()?;
    let began = Instant::now();
    let crowd_ids = login::log_all_in(&mut crowd_fleet, &crowd_names, progress)?;
    let ids = login::log_all_in(&mut fleet, &live_names, progress)?;
    report.count("crowd", size as u64);
    report.count("pairs", args.pairs.get() as u64);
    report.rate("logins", (size + staying) as u64, began.elapsed());
    let before = Before::look(view, size + staying, report)?;

    let timeline = Timeline::default();
    let crowd = Crowd {
        fleet: &mut crowd_fleet,
        ids: &crowd_ids,
        ways: ways(args.how, size, args.common.seed),
        seconds: args.seconds,
        view: View::open(&args.common.data, &crowd_names.0)?,
        timeline: &timeline,
    };
    let kicks = View::open(&args.common.data, &live_names.0)?;
    progress.phase("storm, seconds", args.seconds);
    let (seen, lost) = beside(&mut fleet, &ids, &live_names, &timeline, kicks, || crowd.run())?;
    progress.done();
    report.took("all_lost_within", Some(lost.within));
    report.took("all_offline_in_database", lost.offline);
    report.took("all_closed", lost.closed);
    let sessions = (size + staying) as u64 + seen.logins;
    let bounds = Bounds { chat: Some(args.bound), ..Bounds::default() };
    seen.judge("", ["before", "storm", "release"], bounds, report);

    (0..staying).for_each(|who| fleet.leave(who, Leave::Fin));
    let left = Instant::now();
    let mut news = Vec::new();
    aftermath::all_offline(&mut crowd_fleet, &mut news, view, left, (mark, sessions), report)?;
    aftermath::all_released(&mut crowd_fleet, &mut news, view, left, &before, report)?;
    aftermath::history(view, mark, report)
}
