//! What clients do, and what becomes of the disk.

use super::client_state::CONFIRMATIONS;
use super::oracle::{self, To};
use super::scheduler::Simulation;
use super::sim_link::{ClientAct, Received};
use crate::ids::UserId;
use crate::testing::builders::HASH;
use crate::testing::memory::Fault;

/// Connections that one user has open at once.
const LINKS_MAX: usize = 3;
/// One login in so many goes by a token that was used before.
const SPENT_TOKENS: usize = 12;
/// For how long a sender repeats a chat: the server remembers it a little longer.
const REPEAT_US: u64 = 8 * 60 * 1_000_000;

impl Simulation {
    /// The network brings some bytes of one connection to the server.
    pub(super) fn network_carries(&mut self) {
        let waiting: Vec<usize> = self
            .links_that(|link| !link.dead && !link.silent && (!link.outgoing.is_empty() || link.end_follows));
        let Some(number) = self.rng.pick(&waiting) else { return };
        let all = self.links[number].outgoing.len();
        let bytes = if self.rng.one_in(3) { 1 + self.rng.below(all.max(1)) } else { all };
        self.tell(|| format!("{bytes} of {all} bytes of #{number} arrive"));
        self.links[number].carry(bytes);
    }

    pub(super) fn links_that(&self, wanted: impl Fn(&super::sim_link::SimLink) -> bool) -> Vec<usize> {
        self.active.iter().copied().filter(|number| wanted(&self.links[*number])).collect()
    }

    /// One client reads some of what there is.
    pub(super) fn somebody_reads(&mut self) {
        let waiting: Vec<usize> =
            self.links_that(|link| !link.dead && !link.silent && !link.stalled && link.unread_bytes() > 0);
        let Some(number) = self.rng.pick(&waiting) else { return };
        let all = self.links[number].unread_bytes();
        let bytes = if self.rng.one_in(3) { self.rng.between(1, all + 1) } else { all };
        self.reads(number, bytes);
    }

    pub(super) fn reads(&mut self, number: usize, bytes: u64) {
        self.tell(|| format!("#{number} reads {bytes} bytes"));
        for heard in self.links[number].take(bytes) {
            match heard {
                Received::Welcome { user, token, kept, .. } => {
                    let link = &mut self.links[number];
                    (link.known, link.logging_in) = (Some(user), false);
                    if let Some(person) = self.clients.get_mut(&user) {
                        person.token = token.or(person.token.take());
                    }
                    for chat in kept.iter().filter(|chat| chat.mid.is_some()) {
                        self.oracle.read(user, chat);
                    }
                }
                Received::Refused => self.links[number].logging_in = false,
                Received::Chat(chat) => {
                    if let Some(user) = self.links[number].known.filter(|_| chat.mid.is_some()) {
                        self.oracle.read(user, &chat);
                    }
                }
                Received::Ping if self.links[number].can_speak() => self.links[number].say(r#"{"msgid":23}"#),
                _ => {}
            }
        }
    }

    /// A client does one thing.
    pub(super) fn somebody_acts(&mut self) {
        let users = self.users.clone();
        let Some(user) = self.rng.pick(&users) else { return };
        self.forget_old_links();
        let open = self.links_that(|link| link.owner == user && !link.dead && !link.closed);
        let wants_another = open.len() < LINKS_MAX && self.rng.one_in(25);
        let Some(number) = self.rng.pick(&open).filter(|_| !wants_another) else {
            if open.is_empty() || wants_another {
                let room = 300 + self.rng.below(6000);
                self.connect(user, room);
            }
            return;
        };
        let link = &self.links[number];
        if link.client.sees_the_end()
            && link.unread_bytes() == link.partial().len() as u64
            && link.can_speak()
        {
            self.links[number].end_follows = true;
            return;
        }
        if !link.can_speak() {
            return;
        }
        if link.known.is_none() && !link.logging_in {
            return self.logs_in(number, user);
        }
        //             chat again group confirm friend ping login logout end reset silent stall garbage
        let weights = [300, 60, 150, 120, 10, 10, 8, 10, 8, 8, 3, 8, 1];
        match self.rng.weighted(&weights) {
            0 => self.chats(number),
            1 => self.repeats(number),
            2 => self.chats_to_group(number),
            3 => self.confirms(number),
            4 => {
                let friend = self.rng.pick(&users).expect("there are users");
                self.links[number].say(&format!(r#"{{"msgid":7,"friendid":{friend}}}"#));
            }
            5 => self.links[number].say(r#"{"msgid":22}"#),
            6 => {
                let whose = if self.rng.one_in(3) { self.rng.pick(&users) } else { None };
                self.logs_in(number, whose.unwrap_or(user));
            }
            7 => {
                self.logs_out(number);
                // In one breath, before the server has heard of either.
                if self.rng.one_in(2) {
                    self.logs_in(number, user);
                }
            }
            8 => {
                self.tell(|| format!("#{number} ends its side"));
                self.links[number].end_follows = true;
            }
            9 => self.resets(number),
            10 => {
                self.tell(|| format!("#{number} falls silent"));
                self.links[number].silent = true;
            }
            11 => {
                let stalled = !self.links[number].stalled;
                let word = if stalled { "stops" } else { "goes on" };
                self.tell(|| format!("#{number} {word} reading"));
                self.links[number].stalled = stalled;
            }
            _ => {
                self.links[number].acts.insert(ClientAct::Garbage);
                self.links[number].say("]");
            }
        }
    }

    fn forget_old_links(&mut self) {
        let links = &mut self.links;
        self.active.retain(|number| {
            let link = &mut links[*number];
            if link.closed
                && (link.stalled || link.silent || link.unread_bytes() <= link.partial().len() as u64)
            {
                link.dead = true;
            }
            !(link.dead && link.closed)
        });
    }

    /// Logs in on a connection, by token where there is one.
    pub(super) fn logs_in(&mut self, number: usize, user: UserId) {
        if self.links[number].logging_in {
            return;
        }
        let wants_token = self.rng.one_in(2);
        // Somebody who has listened, or a client that has lost its memory.
        let tries_spent = self.rng.one_in(SPENT_TOKENS) && !self.is_ending;
        let Some(person) = self.clients.get_mut(&user) else { return };
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
        let link = &mut self.links[number];
        if link.has_logged_in {
            link.acts.insert(ClientAct::LoggedInAgain);
        }
        if pings {
            link.acts.insert(ClientAct::Pinged);
        }
        link.has_logged_in = true;
        link.logging_in = true;
        link.asked_for = Some(user);
        link.asked_us = asked_us;
        let by = if token.is_some() { "token" } else { "password" };
        link.asked.push_back(token);
        link.say(&request);
        self.tell(|| format!("#{number} logs in as {user} by {by}"));
    }

    fn logs_out(&mut self, number: usize) {
        let link = &mut self.links[number];
        if link.logging_in || link.known.is_none() {
            return;
        }
        link.acts.insert(ClientAct::LoggedOut);
        link.known = None;
        link.say(r#"{"msgid":3}"#);
        self.tell(|| format!("#{number} logs out"));
    }

    pub(super) fn resets(&mut self, number: usize) {
        self.tell(|| format!("#{number} resets"));
        self.links[number].acts.insert(ClientAct::Reset);
        if self.rng.one_in(2) {
            self.links[number].client.reset_at_once();
        } else {
            self.links[number].client.reset();
        }
        self.note_death(number);
    }

    /// Who certainly speaks on a connection.
    fn speaker(&self, number: usize) -> Option<UserId> {
        let link = &self.links[number];
        link.known.filter(|_| !link.logging_in)
    }

    fn chats(&mut self, number: usize) {
        let Some(from) = self.speaker(number) else { return };
        let users = self.users.clone();
        let to = self.rng.pick(&users).expect("there are users");
        let at_us = self.at_us();
        let n = self.oracle.said(from, To::One(to), number, at_us);
        let has_seq = self.rng.one_in(2);
        let seq = if has_seq { format!(r#","seq":{n}"#) } else { String::new() };
        let text = oracle::text(n);
        let request = format!(r#"{{"msgid":6,"toid":{to},"msg":"{text}","time":"now"{seq}}}"#);
        self.links[number].say(&request);
        self.oracle.messages[n].has_seq = has_seq;
        self.oracle.messages[n].request = has_seq.then_some(request);
        self.tell(|| {
            format!("#{number}: {from} says {text} to {to}{}", if has_seq { " with seq" } else { "" })
        });
    }

    /// A sender who was not answered, or was refused, says the same again.
    fn repeats(&mut self, number: usize) {
        let Some(from) = self.speaker(number) else { return };
        let since_us = self.at_us().saturating_sub(REPEAT_US);
        let recent = self.oracle.messages.iter().enumerate().rev().take(60);
        let open: Vec<usize> = recent
            .filter(|(_, m)| m.from == from && m.request.is_some() && !m.is_promised && m.sent_us > since_us)
            .map(|(n, _)| n)
            .collect();
        let Some(n) = self.rng.pick(&open) else { return };
        let request = self.oracle.messages[n].request.clone().expect("it was looked for");
        self.links[number].say(&request);
        self.oracle.repeated(n, number);
        self.tell(|| format!("#{number}: {from} says m{n} again"));
    }

    fn chats_to_group(&mut self, number: usize) {
        let Some(from) = self.speaker(number).filter(|from| self.members().contains(from)) else { return };
        let others = self.members().iter().copied().filter(|member| *member != from).collect();
        let at_us = self.at_us();
        let n = self.oracle.said(from, To::Group(others), number, at_us);
        let (group, text) = (self.group, oracle::text(n));
        let has_seq = self.rng.one_in(2);
        let seq = if has_seq { format!(r#","seq":{n}"#) } else { String::new() };
        let request = format!(r#"{{"msgid":10,"groupid":{group},"msg":"{text}","time":"now"{seq}}}"#);
        self.links[number].say(&request);
        self.oracle.messages[n].has_seq = has_seq;
        self.oracle.messages[n].request = has_seq.then_some(request);
        self.tell(|| format!("#{number}: {from} says {text} to the group"));
    }

    pub(super) fn confirms(&mut self, number: usize) {
        let Some(user) = self.speaker(number).filter(|user| self.oracle.confirming.contains(user)) else {
            return;
        };
        let upto = self.oracle.highest_read(user);
        let has_seq = self.rng.one_in(2);
        let seq = if has_seq {
            self.confirmations.push((user, upto));
            format!(r#","seq":{}"#, CONFIRMATIONS + self.confirmations.len() as i64 - 1)
        } else {
            String::new()
        };
        self.links[number].say(&format!(r#"{{"msgid":24,"mid":{upto}{seq}}}"#));
        self.tell(|| format!("#{number}: {user} confirms all up to {upto}"));
    }

    /// The disk begins to fail, fills up, or is well again.
    pub(super) fn store_changes(&mut self) {
        let disk = self.server.disk.clone();
        match self.rng.below(8) {
            0 => {
                self.tell(|| "the disk is full".into());
                disk.set_full(true);
            }
            1..=4 => {
                let faults = [Fault::Begin, Fault::Read, Fault::Write, Fault::Commit];
                let fault = self.rng.pick(&faults).expect("there are faults");
                let good = self.rng.below(12);
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
