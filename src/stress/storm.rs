//! `storm`: a crowd is lost at once while pairs chat, and visitors log in and are kicked.
//!
//! Three threads: this one plays those who stay, a second the crowd, a third asks for kicks. Bad when anybody is left
//! online, anything leaks, a chat is lost, a visitor is refused or told nothing, or the pairs' chats take too long. A
//! chat's clock runs from when it was due, so that a pause of the sender counts too.

mod crowd;
mod kicker;
mod live;
mod timeline;

use std::sync::mpsc;
use std::thread;
use std::time::Instant;

use super::StormArgs;
use super::aftermath::{self, Before};
use super::fault::{Failure, StressError};
use super::fleet::{Fleet, Leave, raise_fd_limit};
use super::login::{self, Names};
use super::progress::Progress;
use super::report::Report;
use super::view::View;
use super::ways::ways;
use crowd::Crowd;
use kicker::Kicker;
use live::{Live, Seen};
use timeline::{Phase, Timeline};

/// Those who log in and are kicked, again and again.
const VISITORS: usize = 4;

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
    let (order, orders) = mpsc::channel();
    let (told, answers) = mpsc::channel();
    let crowd = Crowd {
        fleet: &mut crowd_fleet,
        ids: &crowd_ids,
        ways: ways(args.how, size, args.common.seed),
        seconds: args.seconds,
        view: View::open(&args.common.data, &crowd_names.0)?,
        timeline: &timeline,
    };
    let kicker = Kicker { view: View::open(&args.common.data, &live_names.0)?, orders, told };
    let live = Live::new(&mut fleet, &ids, talkers, &live_names, &timeline, (order, answers));
    progress.phase("storm, seconds", args.seconds);
    let (seen, lost) = thread::scope(|scope| {
        let crowd = scope.spawn(move || crowd.run());
        scope.spawn(move || kicker.run());
        let seen = live.run();
        // Where those who stay cannot go on, the crowd is not waited for longer than it has to finish by itself.
        let lost = crowd.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        Ok::<_, StressError>((seen?, lost?))
    })?;
    progress.done();
    report.took("all_lost_within", Some(lost.within));
    report.took("all_offline_in_database", lost.offline);
    report.took("all_closed", lost.closed);
    let sessions = (size + staying) as u64 + seen.logins;
    judge(seen, args, report);

    (0..staying).for_each(|who| fleet.leave(who, Leave::Fin));
    let left = Instant::now();
    let mut news = Vec::new();
    aftermath::all_offline(&mut crowd_fleet, &mut news, view, left, (mark, sessions), report)?;
    aftermath::all_released(&mut crowd_fleet, &mut news, view, left, &before, report)?;
    aftermath::history(view, mark, report)
}

/// Puts down what those who stay have seen, and what was wrong with it.
fn judge(seen: Seen, args: &StormArgs, report: &mut Report) {
    let bound_us = args.bound.as_micros() as u64;
    for (phase, figures) in Phase::ALL.into_iter().zip(seen.phases) {
        let [chat, seq_chat, seq_answer, login, goodbye, kick] = phase.keys();
        for (key, latencies) in [(chat, &figures.chat), (seq_chat, &figures.seq_chat)] {
            if let Some(p99_us) = latencies.p99_us().filter(|us| phase != Phase::Before && *us > bound_us) {
                report.fail(Failure::Slow { what: key, p99_us, bound_us });
            }
        }
        for (key, latencies) in [
            (chat, figures.chat),
            (seq_chat, figures.seq_chat),
            (seq_answer, figures.seq_answer),
            (login, figures.login),
            (goodbye, figures.goodbye),
            (kick, figures.kick),
        ] {
            report.latencies(key, latencies);
        }
    }
    report.count("chats", seen.received);
    if seen.sent > seen.received {
        report.fail(Failure::Lost(seen.sent - seen.received));
    }
    if seen.reordered > 0 {
        report.fail(Failure::Reordered(seen.reordered));
    }
    if seen.unanswered > 0 {
        report.fail(Failure::ChatsUnanswered(seen.unanswered));
    }
    if seen.errors > 0 {
        report.fail(Failure::Errors { count: seen.errors, example: seen.example.clone() });
    } else if seen.received == 0 {
        report.fail(Failure::Nothing);
    }
    if seen.touched > 0 {
        report.fail(Failure::Bystanders(seen.touched));
    }
    if seen.refused > 0 {
        report.fail(Failure::Refused { count: seen.refused, example: seen.example });
    }
    for (count, failure) in [
        (seen.not_kicked, Failure::NotKicked as fn(usize) -> Failure),
        (seen.told_nothing, Failure::ToldNothing),
        (seen.online_after_wait, Failure::OnlineAfterWait),
        (seen.no_end, Failure::NoEnd),
        (seen.no_answer, Failure::NoAnswer),
    ] {
        if count > 0 {
            report.fail(failure(count));
        }
    }
}
