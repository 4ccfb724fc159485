//! What clients do, and what becomes of the disk.

use super::chance::Chance;
use super::hearing::CONFIRMATIONS;
use super::line::{Deed, Heard};
use super::shadow::{self, To};
use super::world::World;
use crate::ids::UserId;
use crate::testing::memory::Fault;
use crate::testing::words::HASH;
use std::fmt::Write as _;

/// Connections that one user has open at once.
const LINES_MAX: usize = 3;
/// One login in so many goes by a token that was used before.
const SPENT_TOKENS: usize = 12;
/// For how long a sender repeats a chat: the server remembers it a little longer.
const REPEAT_US: u64 = 8 * 60 * 1_000_000;

/// A user, as their device knows them.
#[derive(Debug)]
pub(super) struct UserState {
    /// What the client asks for at login.
    caps: String,
    pings: bool,
    pub(super) watches: bool,
    token: Option<String>,
    /// The latest one that it has logged in by.
    spent: Option<String>,
    pub(super) logins: usize,
}

impl UserState {
    pub(super) fn new(chance: &mut Chance, confirms: bool) -> Self {
        let mut caps = if confirms { "\"ack\"".to_owned() } else { "\"none\"".to_owned() };
        let pings = chance.one_in(2);
        let watches = chance.one_in(2);
        for (has, cap) in [(pings, "ping"), (watches, "presence"), (chance.one_in(2), "resume")] {
            if has {
                write!(caps, ",\"{cap}\"").expect("a string takes everything");
            }
        }
        UserState { caps, pings, watches, token: None, spent: None, logins: 0 }
    }
}

impl World {
    /// The network brings some bytes of one connection to the server.
    pub(super) fn network_carries(&mut self) {
        let waiting: Vec<usize> = self
            .lines_that(|line| !line.dead && !line.silent && (!line.outgoing.is_empty() || line.end_follows));
        let Some(number) = self.chance.pick(&waiting) else { return };
        let all = self.lines[number].outgoing.len();
        let bytes = if self.chance.one_in(3) { 1 + self.chance.below(all.max(1)) } else { all };
        self.tell(|| format!("{bytes} of {all} bytes of #{number} arrive"));
        self.lines[number].carry(bytes);
    }

    pub(super) fn lines_that(&self, wanted: impl Fn(&super::line::Line) -> bool) -> Vec<usize> {
        self.active.iter().copied().filter(|number| wanted(&self.lines[*number])).collect()
    }

    /// One client reads some of what there is.
    pub(super) fn somebody_reads(&mut self) {
        let waiting: Vec<usize> =
            self.lines_that(|line| !line.dead && !line.silent && !line.stalled && line.unread_bytes() > 0);
        let Some(number) = self.chance.pick(&waiting) else { return };
        let all = self.lines[number].unread_bytes();
        let bytes = if self.chance.one_in(3) { self.chance.between(1, all + 1) } else { all };
        self.reads(number, bytes);
    }

    pub(super) fn reads(&mut self, number: usize, bytes: u64) {
        self.tell(|| format!("#{number} reads {bytes} bytes"));
        for heard in self.lines[number].take(bytes) {
            match heard {
                Heard::Welcome { user, token, kept, .. } => {
                    let line = &mut self.lines[number];
                    (line.known, line.logging_in) = (Some(user), false);
                    if let Some(person) = self.people.get_mut(&user) {
                        person.token = token.or(person.token.take());
                    }
                    for chat in kept.iter().filter(|chat| chat.mid.is_some()) {
                        self.shadow.read(user, chat);
                    }
                }
                Heard::Refused => self.lines[number].logging_in = false,
                Heard::Chat(chat) => {
                    if let Some(user) = self.lines[number].known.filter(|_| chat.mid.is_some()) {
                        self.shadow.read(user, &chat);
                    }
                }
                Heard::Ping if self.lines[number].can_speak() => self.lines[number].say(r#"{"msgid":23}"#),
                _ => {}
            }
        }
    }

    /// A client does one thing.
    pub(super) fn somebody_acts(&mut self) {
        let users = self.users.clone();
        let Some(user) = self.chance.pick(&users) else { return };
        self.forget_old_lines();
        let open = self.lines_that(|line| line.owner == user && !line.dead && !line.closed);
        let wants_another = open.len() < LINES_MAX && self.chance.one_in(25);
        let Some(number) = self.chance.pick(&open).filter(|_| !wants_another) else {
            if open.is_empty() || wants_another {
                let room = 300 + self.chance.below(6000);
                self.connect(user, room);
            }
            return;
        };
        let line = &self.lines[number];
        if line.client.sees_the_end() && line.unread_bytes() == line.torn().len() as u64 && line.can_speak() {
            self.lines[number].end_follows = true;
            return;
        }
        if !line.can_speak() {
            return;
        }
        if line.known.is_none() && !line.logging_in {
            return self.logs_in(number, user);
        }
        //             chat again group confirm friend ping login logout end reset silent stall garbage
        let weights = [300, 60, 150, 120, 10, 10, 8, 10, 8, 8, 3, 8, 1];
        match self.chance.weighted(&weights) {
            0 => self.chats(number),
            1 => self.repeats(number),
            2 => self.chats_to_group(number),
            3 => self.confirms(number),
            4 => {
                let friend = self.chance.pick(&users).expect("there are users");
                self.lines[number].say(&format!(r#"{{"msgid":7,"friendid":{friend}}}"#));
            }
            5 => self.lines[number].say(r#"{"msgid":22}"#),
            6 => {
                let whose = if self.chance.one_in(3) { self.chance.pick(&users) } else { None };
                self.logs_in(number, whose.unwrap_or(user));
            }
            7 => {
                self.logs_out(number);
                // In one breath, before the server has heard of either.
                if self.chance.one_in(2) {
                    self.logs_in(number, user);
                }
            }
            8 => {
                self.tell(|| format!("#{number} ends its side"));
                self.lines[number].end_follows = true;
            }
            9 => self.resets(number),
            10 => {
                self.tell(|| format!("#{number} falls silent"));
                self.lines[number].silent = true;
            }
            11 => {
                let stalled = !self.lines[number].stalled;
                let word = if stalled { "stops" } else { "goes on" };
                self.tell(|| format!("#{number} {word} reading"));
                self.lines[number].stalled = stalled;
            }
            _ => {
                self.lines[number].deeds.insert(Deed::Garbage);
                self.lines[number].say("]");
            }
        }
    }

    fn forget_old_lines(&mut self) {
        let lines = &mut self.lines;
        self.active.retain(|number| {
            let line = &mut lines[*number];
            if line.closed && (line.stalled || line.silent || line.unread_bytes() <= line.torn().len() as u64)
            {
                line.dead = true;
            }
            !(line.dead && line.closed)
        });
    }

    /// Logs in on a connection, by token where there is one.
    pub(super) fn logs_in(&mut self, number: usize, user: UserId) {
        if self.lines[number].logging_in {
            return;
        }
        let wants_token = self.chance.one_in(2);
        // Somebody who has listened, or a client that has lost its memory.
        let tries_spent = self.chance.one_in(SPENT_TOKENS) && !self.is_ending;
        let Some(person) = self.people.get_mut(&user) else { return };
        person.logins += 1;
        let (caps, pings) = (&person.caps, person.pings);
        // The client keeps its token: it cannot know whether a login that was never answered has used it up.
        let kept = person.token.clone().filter(|_| wants_token);
        let spent = person.spent.clone().filter(|_| tries_spent);
        let token = spent.or(kept);
        let proof = match &token {
            Some(token) => format!(r#""token":"{token}""#),
            None => format!(r#""id":{user},"password":"{HASH}""#),
        };
        let request = format!(r#"{{"msgid":1,{proof},"caps":[{caps}]}}"#);
        if token.is_some() && token == person.token {
            person.spent = person.token.take();
        }
        let asked_us = self.at_us();
        let line = &mut self.lines[number];
        if line.has_logged_in {
            line.deeds.insert(Deed::LoggedInAgain);
        }
        if pings {
            line.deeds.insert(Deed::Pinged);
        }
        line.has_logged_in = true;
        line.logging_in = true;
        line.asked_for = Some(user);
        line.asked_us = asked_us;
        let by = if token.is_some() { "token" } else { "password" };
        line.asked.push_back(token);
        line.say(&request);
        self.tell(|| format!("#{number} logs in as {user} by {by}"));
    }

    fn logs_out(&mut self, number: usize) {
        let line = &mut self.lines[number];
        if line.logging_in || line.known.is_none() {
            return;
        }
        line.deeds.insert(Deed::LoggedOut);
        line.known = None;
        line.say(r#"{"msgid":3}"#);
        self.tell(|| format!("#{number} logs out"));
    }

    pub(super) fn resets(&mut self, number: usize) {
        self.tell(|| format!("#{number} resets"));
        self.lines[number].deeds.insert(Deed::Reset);
        if self.chance.one_in(2) {
            self.lines[number].client.reset_at_once();
        } else {
            self.lines[number].client.reset();
        }
        self.note_death(number);
    }

    /// Who certainly speaks on a connection.
    fn speaker(&self, number: usize) -> Option<UserId> {
        let line = &self.lines[number];
        line.known.filter(|_| !line.logging_in)
    }

    fn chats(&mut self, number: usize) {
        let Some(from) = self.speaker(number) else { return };
        let users = self.users.clone();
        let to = self.chance.pick(&users).expect("there are users");
        let at_us = self.at_us();
        let n = self.shadow.said(from, To::One(to), number, at_us);
        let has_seq = self.chance.one_in(2);
        let seq = if has_seq { format!(r#","seq":{n}"#) } else { String::new() };
        let text = shadow::text(n);
        let request = format!(r#"{{"msgid":6,"toid":{to},"msg":"{text}","time":"now"{seq}}}"#);
        self.lines[number].say(&request);
        self.shadow.messages[n].has_seq = has_seq;
        self.shadow.messages[n].request = has_seq.then_some(request);
        self.tell(|| {
            format!("#{number}: {from} says {text} to {to}{}", if has_seq { " with seq" } else { "" })
        });
    }

    /// A sender who was not answered, or was refused, says the same again.
    fn repeats(&mut self, number: usize) {
        let Some(from) = self.speaker(number) else { return };
        let since_us = self.at_us().saturating_sub(REPEAT_US);
        let recent = self.shadow.messages.iter().enumerate().rev().take(60);
        let open: Vec<usize> = recent
            .filter(|(_, m)| m.from == from && m.request.is_some() && !m.is_promised && m.sent_us > since_us)
            .map(|(n, _)| n)
            .collect();
        let Some(n) = self.chance.pick(&open) else { return };
        let request = self.shadow.messages[n].request.clone().expect("it was looked for");
        self.lines[number].say(&request);
        self.shadow.repeated(n, number);
        self.tell(|| format!("#{number}: {from} says m{n} again"));
    }

    fn chats_to_group(&mut self, number: usize) {
        let Some(from) = self.speaker(number).filter(|from| self.members().contains(from)) else { return };
        let others = self.members().iter().copied().filter(|member| *member != from).collect();
        let at_us = self.at_us();
        let n = self.shadow.said(from, To::Group(others), number, at_us);
        let (group, text) = (self.group, shadow::text(n));
        let has_seq = self.chance.one_in(2);
        let seq = if has_seq { format!(r#","seq":{n}"#) } else { String::new() };
        let request = format!(r#"{{"msgid":10,"groupid":{group},"msg":"{text}","time":"now"{seq}}}"#);
        self.lines[number].say(&request);
        self.shadow.messages[n].has_seq = has_seq;
        self.shadow.messages[n].request = has_seq.then_some(request);
        self.tell(|| format!("#{number}: {from} says {text} to the group"));
    }

    pub(super) fn confirms(&mut self, number: usize) {
        let Some(user) = self.speaker(number).filter(|user| self.shadow.confirming.contains(user)) else {
            return;
        };
        let upto = self.shadow.highest_read(user);
        let has_seq = self.chance.one_in(2);
        let seq = if has_seq {
            self.confirmations.push((user, upto));
            format!(r#","seq":{}"#, CONFIRMATIONS + self.confirmations.len() as i64 - 1)
        } else {
            String::new()
        };
        self.lines[number].say(&format!(r#"{{"msgid":24,"mid":{upto}{seq}}}"#));
        self.tell(|| format!("#{number}: {user} confirms all up to {upto}"));
    }

    /// The disk begins to fail, fills up, or is well again.
    pub(super) fn store_changes(&mut self) {
        let disk = self.server.disk.clone();
        match self.chance.below(8) {
            0 => {
                self.tell(|| "the disk is full".into());
                disk.set_full(true);
            }
            1..=4 => {
                let faults = [Fault::Begin, Fault::Read, Fault::Write, Fault::Commit];
                let fault = self.chance.pick(&faults).expect("there are faults");
                let good = self.chance.below(12);
                self.tell(|| format!("after {good} good ones, a {fault:?} will fail"));
                disk.fail_after(good, fault);
            }
            _ => {
                self.tell(|| "the disk is well".into());
                disk.set_full(false);
            }
        }
    }
}
