//! Chats to groups whose members are absent: each is kept once for every member.
//!
//! The first of the members are in a group that gets large chats, all of them in one that gets small ones. The groups
//! are made once, and used again by later runs. Every chat has a `seq`, so its answer says that all copies are on disk.

use std::time::{Duration, Instant};

use super::super::client::{self, ServerMessage};
use super::super::client_pool::{ClientEvent, ClientPool, CloseMode, EventKind};
use super::super::error::{Failure, StressError};
use super::super::login::{self, Names, told};
use super::super::probe::Probe;
use super::super::progress::Progress;
use super::super::report::Report;
use super::super::rng::first_seq;
use super::Server;
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
    pool: ClientPool,
    probe: Probe,
    chatted: [Group; 2],
    errors: u64,
    example: String,
}

impl Groups {
    pub(super) fn prepare(
        args: &FloodArgs,
        server: &Server,
        names: &Names,
        progress: &mut Progress,
    ) -> Result<Self, StressError> {
        let probe = Probe::open(&server.data, &names.0)?;
        let sender = Names(format!("{}sender-", names.0));
        let members = Names(format!("{}member-", names.0));
        let mut pool = ClientPool::new(server.target, 1)?;
        let own = login::log_all_in(&mut pool, &sender, &mut Progress::new(true))?[0];
        let wanted = [("large_chats", args.members), ("small_chats", args.many_members)];
        let mut ids = Vec::new();
        for (what, size) in wanted {
            let name = format!("{}{what}-{size}", names.0);
            if probe.group(&name)?.is_none() {
                request(&mut pool, 0, &client::create_group(&name, first_seq()))?;
            }
            let Some(id) = probe.group(&name)? else {
                return Err(StressError::Server(format!("it has made no group {name}")));
            };
            if probe.members(id)?.len() <= size {
                join(server, &members, id, size, &probe, progress)?;
            }
            ids.push((id, probe.members(id)?));
        }
        let mut ids = ids.into_iter();
        let mut group = |key, chats, bytes| {
            let (id, mut members) = ids.next().expect("two groups were made");
            members.retain(|member| *member != own);
            let kept_before = probe.kept(&members)?;
            let text = "x".repeat(bytes);
            Ok(Group { key, id, members, chats, text, answered: 0, took: Duration::ZERO, kept_before })
        };
        let chatted =
            [group("large_chats", args.chats, args.size)?, group("small_chats", args.small_chats, 64)?];
        Ok(Self { pool, probe, chatted, errors: 0, example: String::new() })
    }

    pub(super) fn send(&mut self, _: &FloodArgs) -> Result<(), StressError> {
        let mut events = Vec::new();
        for group in &mut self.chatted {
            let (began, mut last) = (Instant::now(), Instant::now());
            let first = first_seq();
            for at in 0..group.chats {
                self.pool.send(0, &client::group_chat(group.id, &group.text, first + at as u64));
            }
            let mut missing = group.chats;
            while missing > 0 && last.elapsed() < STUCK_AFTER {
                self.pool.turn(TURN, &mut events)?;
                for ClientEvent { at, kind, .. } in events.drain(..) {
                    last = at;
                    match kind {
                        EventKind::Message(ServerMessage::Done { .. }) => {
                            group.answered += 1;
                            missing -= 1;
                        }
                        EventKind::Connected | EventKind::Message(ServerMessage::Other) => {}
                        other => {
                            self.errors += 1;
                            self.example = told(&other);
                            missing = if matches!(other, EventKind::Closed(_)) { 0 } else { missing - 1 };
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
        server: &Server,
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
        let kept = (self.probe.kept(everybody)? + self.probe.kept(&absent)?).saturating_sub(before);
        let answered = self.chatted.iter().map(|group| (group.answered * group.members.len()) as u64).sum();
        report.count("copies_kept", kept);
        if kept < answered {
            report.fail(Failure::NotKept { answered, kept });
        }
        if self.errors > 0 {
            report.fail(Failure::Errors { count: self.errors, example: self.example });
        }
        self.pool.close(0, CloseMode::Fin);
        if args.take {
            take(server, &Names(format!("{}member-", names.0)), args, &self.probe)?;
        }
        Ok(())
    }
}

/// Asks with `seq`, and waits for the answer; an error is one.
fn request(pool: &mut ClientPool, who: usize, request: &str) -> Result<(), StressError> {
    let asked = Instant::now();
    let mut events = Vec::new();
    pool.send(who, request);
    while asked.elapsed() < STUCK_AFTER {
        pool.turn(TURN, &mut events)?;
        for one in events.drain(..) {
            match one.kind {
                EventKind::Message(ServerMessage::Done { .. } | ServerMessage::Error { .. }) => {
                    return Ok(());
                }
                EventKind::Closed(_) => return Err(StressError::Stuck(0, 1, asked.elapsed())),
                _ => {}
            }
        }
    }
    Err(StressError::Stuck(0, 1, STUCK_AFTER))
}

/// Has that many members join, and leave the server again.
fn join(
    server: &Server,
    members: &Names,
    group: i64,
    size: usize,
    probe: &Probe,
    progress: &mut Progress,
) -> Result<(), StressError> {
    let mut pool = ClientPool::new(server.target, size)?;
    let mark = probe.mark()?;
    login::log_all_in(&mut pool, members, progress)?;
    let seq = first_seq();
    (0..size).for_each(|who| pool.send(who, &client::join_group(group, seq)));
    let (mut joined, mut events, mut last) = (0, Vec::new(), Instant::now());
    while joined < size && last.elapsed() < STUCK_AFTER {
        pool.turn(TURN, &mut events)?;
        for one in events.drain(..) {
            // A member already is told an error.
            if matches!(
                one.kind,
                EventKind::Message(ServerMessage::Done { .. } | ServerMessage::Error { .. })
            ) {
                (joined, last) = (joined + 1, one.at);
            }
        }
    }
    (0..size).for_each(|who| pool.close(who, CloseMode::Fin));
    let left = Instant::now();
    while probe.settled_after(mark)? < size && left.elapsed() < AWAY_WITHIN {
        pool.turn(TURN, &mut events)?;
    }
    Ok(())
}

/// Has the members log in, some at a time, and stay until nothing is kept for them.
fn take(server: &Server, members: &Names, args: &FloodArgs, probe: &Probe) -> Result<(), StressError> {
    let size = args.members.max(args.many_members);
    for first in (0..size).step_by(TAKING) {
        let here: Vec<_> = (first..size.min(first + TAKING)).collect();
        let mut pool = ClientPool::new(server.target, here.len())?;
        let mut ids = Vec::new();
        let mut events = Vec::new();
        for (who, member) in here.iter().enumerate() {
            pool.connect(who)?;
            pool.send(who, &client::login(&members.name(*member)));
        }
        let began = Instant::now();
        while began.elapsed() < AWAY_WITHIN && (ids.len() < here.len() || probe.kept(&ids)? > 0) {
            pool.turn(TURN, &mut events)?;
            for one in events.drain(..) {
                if let EventKind::Message(ServerMessage::LoggedIn { id, .. }) = one.kind {
                    ids.push(id);
                }
            }
        }
        (0..pool.size()).for_each(|who| pool.close(who, CloseMode::Fin));
    }
    Ok(())
}
