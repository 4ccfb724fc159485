//! Chats to groups whose members are absent: each is kept once for every member.
//!
//! The first of the members are in a group that gets large chats, all of them in one that gets small ones. The groups
//! are made once, and used again by later runs. Every chat has a `seq`, so its answer says that all copies are on disk.

use std::time::{Duration, Instant};

use super::super::client::{self, Heard};
use super::super::fault::{Failure, StressError};
use super::super::fleet::{Fleet, Leave, News, What};
use super::super::login::{self, Names, told};
use super::super::progress::Progress;
use super::super::report::Report;
use super::super::seed::first_seq;
use super::super::view::View;
use super::Place;
use super::args::FloodArgs;

/// Without any answer for so long there is no point in waiting on.
const STUCK_AFTER: Duration = Duration::from_secs(if cfg!(test) { 5 } else { 60 });

/// How long members may take to be offline, and to take what was kept for them.
const AWAY_WITHIN: Duration = Duration::from_secs(if cfg!(test) { 5 } else { 60 });

/// Members who take what was kept for them at the same time.
const TAKING: usize = 64;

/// A turn's longest wait.
const TURN: Duration = Duration::from_millis(5);

/// A group, and what is to come to it.
struct Group {
    key: &'static str,
    id: i64,
    members: Vec<i64>,
    chats: usize,
    text: String,
    answered: usize,
    took: Duration,
    kept_before: u64,
}

pub(super) struct Groups {
    fleet: Fleet,
    view: View,
    chatted: [Group; 2],
    errors: u64,
    example: String,
}

impl Groups {
    pub(super) fn prepare(
        args: &FloodArgs,
        place: &Place,
        names: &Names,
        progress: &mut Progress,
    ) -> Result<Self, StressError> {
        let view = View::open(&place.data, &names.0)?;
        let sender = Names(format!("{}sender-", names.0));
        let members = Names(format!("{}member-", names.0));
        let mut fleet = Fleet::new(place.target, 1)?;
        let own = login::log_all_in(&mut fleet, &sender, &mut Progress::new(true))?[0];
        let wanted = [("large_chats", args.members), ("small_chats", args.many_members)];
        let mut ids = Vec::new();
        for (what, size) in wanted {
            let name = format!("{}{what}-{size}", names.0);
            if view.group(&name)?.is_none() {
                request(&mut fleet, 0, &client::create_group(&name, first_seq()))?;
            }
            let Some(id) = view.group(&name)? else {
                return Err(StressError::Server(format!("it has made no group {name}")));
            };
            if view.members(id)?.len() <= size {
                join(place, &members, id, size, &view, progress)?;
            }
            ids.push((id, view.members(id)?));
        }
        let mut ids = ids.into_iter();
        let mut group = |key, chats, bytes| {
            let (id, mut members) = ids.next().expect("two groups were made");
            members.retain(|member| *member != own);
            let kept_before = view.kept(&members)?;
            let text = "x".repeat(bytes);
            Ok(Group { key, id, members, chats, text, answered: 0, took: Duration::ZERO, kept_before })
        };
        let chatted =
            [group("large_chats", args.chats, args.size)?, group("small_chats", args.small_chats, 64)?];
        Ok(Self { fleet, view, chatted, errors: 0, example: String::new() })
    }

    pub(super) fn flow(&mut self, _: &FloodArgs) -> Result<(), StressError> {
        let mut news = Vec::new();
        for group in &mut self.chatted {
            let (began, mut last) = (Instant::now(), Instant::now());
            let first = first_seq();
            for at in 0..group.chats {
                self.fleet.send(0, &client::group_chat(group.id, &group.text, first + at as u64));
            }
            let mut missing = group.chats;
            while missing > 0 && last.elapsed() < STUCK_AFTER {
                self.fleet.turn(TURN, &mut news)?;
                for News { at, what, .. } in news.drain(..) {
                    last = at;
                    match what {
                        What::Heard(Heard::Done { .. }) => {
                            group.answered += 1;
                            missing -= 1;
                        }
                        What::Connected | What::Heard(Heard::Other) => {}
                        other => {
                            self.errors += 1;
                            self.example = told(&other);
                            missing = if matches!(other, What::Ended(_)) { 0 } else { missing - 1 };
                        }
                    }
                }
            }
            group.took = began.elapsed();
        }
        Ok(())
    }

    pub(super) fn judge(
        mut self,
        args: &FloodArgs,
        place: &Place,
        names: &Names,
        report: &mut Report,
    ) -> Result<(), StressError> {
        for group in &self.chatted {
            let copies = (group.answered * group.members.len()) as u64;
            report.count(group.key, group.answered as u64);
            report.count(format!("{}_copies", group.key), copies);
            report.took(format!("{}_stored", group.key), Some(group.took));
            if self.errors == 0 && group.answered < group.chats {
                report.fail(Failure::ChatsUnanswered((group.chats - group.answered) as u64));
            }
        }
        // Every member of the smaller group may be one of the larger.
        let everybody = &self.chatted[1].members;
        let absent: Vec<_> =
            self.chatted[0].members.iter().filter(|member| !everybody.contains(member)).copied().collect();
        let before: u64 =
            self.chatted[1].kept_before + if absent.is_empty() { 0 } else { self.chatted[0].kept_before };
        let kept = (self.view.kept(everybody)? + self.view.kept(&absent)?).saturating_sub(before);
        let answered = self.chatted.iter().map(|group| (group.answered * group.members.len()) as u64).sum();
        report.count("copies_kept", kept);
        if kept < answered {
            report.fail(Failure::NotKept { answered, kept });
        }
        if self.errors > 0 {
            report.fail(Failure::Errors { count: self.errors, example: self.example });
        }
        self.fleet.leave(0, Leave::Fin);
        if args.take {
            take(place, &Names(format!("{}member-", names.0)), args, &self.view)?;
        }
        Ok(())
    }
}

/// Asks with `seq`, and waits for the answer; an error is one.
fn request(fleet: &mut Fleet, who: usize, request: &str) -> Result<(), StressError> {
    let asked = Instant::now();
    let mut news = Vec::new();
    fleet.send(who, request);
    while asked.elapsed() < STUCK_AFTER {
        fleet.turn(TURN, &mut news)?;
        for one in news.drain(..) {
            match one.what {
                What::Heard(Heard::Done { .. } | Heard::Error { .. }) => return Ok(()),
                What::Ended(_) => return Err(StressError::Stuck(0, 1, asked.elapsed())),
                _ => {}
            }
        }
    }
    Err(StressError::Stuck(0, 1, STUCK_AFTER))
}

/// Has that many members join, and leave the server again.
fn join(
    place: &Place,
    members: &Names,
    group: i64,
    size: usize,
    view: &View,
    progress: &mut Progress,
) -> Result<(), StressError> {
    let mut fleet = Fleet::new(place.target, size)?;
    let mark = view.mark()?;
    login::log_all_in(&mut fleet, members, progress)?;
    let seq = first_seq();
    (0..size).for_each(|who| fleet.send(who, &client::join_group(group, seq)));
    let (mut joined, mut news, mut last) = (0, Vec::new(), Instant::now());
    while joined < size && last.elapsed() < STUCK_AFTER {
        fleet.turn(TURN, &mut news)?;
        for one in news.drain(..) {
            // A member already is told an error.
            if matches!(one.what, What::Heard(Heard::Done { .. } | Heard::Error { .. })) {
                (joined, last) = (joined + 1, one.at);
            }
        }
    }
    (0..size).for_each(|who| fleet.leave(who, Leave::Fin));
    let left = Instant::now();
    while view.settled_after(mark)? < size && left.elapsed() < AWAY_WITHIN {
        fleet.turn(TURN, &mut news)?;
    }
    Ok(())
}

/// Has the members log in, some at a time, and stay until nothing is kept for them.
fn take(place: &Place, members: &Names, args: &FloodArgs, view: &View) -> Result<(), StressError> {
    let size = args.members.max(args.many_members);
    for first in (0..size).step_by(TAKING) {
        let here: Vec<_> = (first..size.min(first + TAKING)).collect();
        let mut fleet = Fleet::new(place.target, here.len())?;
        let mut ids = Vec::new();
        let mut news = Vec::new();
        for (who, member) in here.iter().enumerate() {
            fleet.connect(who)?;
            fleet.send(who, &client::login(&members.name(*member)));
        }
        let began = Instant::now();
        while began.elapsed() < AWAY_WITHIN && (ids.len() < here.len() || view.kept(&ids)? > 0) {
            fleet.turn(TURN, &mut news)?;
            for one in news.drain(..) {
                if let What::Heard(Heard::LoggedIn { id, .. }) = one.what {
                    ids.push(id);
                }
            }
        }
        (0..fleet.size()).for_each(|who| fleet.leave(who, Leave::Fin));
    }
    Ok(())
}
