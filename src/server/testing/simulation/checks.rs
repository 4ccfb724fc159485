//! What is looked at after every step, at rest, and at the end.

use super::line::Deed;
use super::world::{NAMES, World};
use crate::channel::{Reason, Stage};
use crate::ids::UserId;
use crate::store::DepartureRow;
use crate::testing::commons::BOX_MESSAGES;
use crate::testing::memory::{Departed, Standing};
use crate::testing::words::SECOND_US;

/// Messages that a box may hold beyond its bound: those that were accepted before it was full.
const BEYOND_MAX: usize = 200;
/// Entries that may wait for main.
const QUEUE_MAX: usize = 2000;
/// How late a worker may look at the login clock, in milliseconds.
const LATE_LOOK_MS: i64 = 1000;
/// Looks at every connection until all that was said is taken, and answered.
const ROUNDS_OF_READING: usize = 20;
/// Looks into a box until it is empty.
const LOOKS_MAX: usize = 400;

impl World {
    /// After every step.
    pub(super) fn check_invariants(&mut self) {
        let commons = &self.server.bench.commons;
        let (accepted, present) = (self.accepted(), commons.table.present() as u64);
        assert_eq!(accepted, commons.metrics.departures.value() + present, "every channel departs once");
        assert!(commons.queue.len() < QUEUE_MAX, "main's queue is bounded");
        assert!(commons.table.taken() <= NAMES);
        for number in &self.active {
            let line = &self.lines[*number];
            let Some(channel) = line.channel else { continue };
            assert!(
                line.is_sent_away || !line.is_ended_by_the_server(),
                "{channel} is ended without a goodbye"
            );
            match self.stage(channel) {
                Stage::Free => assert!(line.client.is_closed(), "{channel} is free and its fd is open"),
                Stage::Connected | Stage::LoggedIn(_) => {
                    assert!(!line.client.is_closed(), "{channel} is there and its fd is closed");
                }
                Stage::Offline => {}
            }
        }
        if self.is_quiet() {
            self.check_states();
        }
    }

    /// Nothing is under way: who is online has a live channel, and who has one is online.
    fn check_states(&self) {
        let table = &self.server.bench.commons.table;
        let mut live: Vec<UserId> = table
            .occupants()
            .filter(|channel| matches!(table.stage(*channel), Stage::LoggedIn(_)))
            .filter_map(|channel| table.user(channel))
            .collect();
        live.sort_unstable();
        let standing = self.server.disk.standing();
        let online: Vec<UserId> =
            standing.iter().filter(|user| user.row.online).map(|user| user.row.id).collect();
        assert_eq!(online, live, "the rows say who is online, the table who has a live channel");
    }

    /// After every commit: each session that began has ended once, or goes on.
    pub(super) fn check_rows(&mut self) {
        let now_us = self.at_us();
        for Standing { row, tally, kept, kept_at_most } in self.server.disk.standing() {
            self.sight.note(&row, tally.latest, now_us);
            let takes_nothing = !row.online && kept >= BOX_MESSAGES as usize;
            self.shadow.note_box(row.id, takes_nothing, now_us);
            let name = &row.name;
            assert_eq!(
                tally.begun,
                tally.ended + u64::from(row.online),
                "{name}: every session has one row of the history, in the transaction in which it ends"
            );
            if kept_at_most >= BOX_MESSAGES as usize {
                self.shadow.overfull.insert(row.id);
            }
            assert!(kept_at_most <= BOX_MESSAGES as usize + BEYOND_MAX, "the box of {name} is bounded");
        }
        for (number, Departed { row, .. }) in self.server.disk.departures_above(self.last_row) {
            self.last_row = number;
            self.tell(|| format!("  history: {} of {} is over: {}", text(&row), row.name, row.reason.word()));
            assert!(self.is_plausible(&row), "{row:?} has no cause");
        }
    }

    fn is_plausible(&self, row: &DepartureRow) -> bool {
        let Some(channel) = &row.channel else { return row.reason == Reason::ServerCrash };
        let Some(line) = self.names.get(channel).map(|number| &self.lines[*number]) else { return false };
        let did = |deed| line.deeds.contains(&deed);
        match row.reason {
            Reason::ClientQuit => did(Deed::LoggedOut) || did(Deed::LoggedInAgain),
            Reason::PeerClosed => did(Deed::Ended),
            Reason::PeerReset => did(Deed::Reset),
            Reason::NetworkTimeout => did(Deed::TimedOut),
            Reason::KeepaliveTimeout => did(Deed::Pinged),
            Reason::MalformedFrame => did(Deed::Garbage),
            Reason::Kicked => did(Deed::Kicked),
            Reason::AuthFailed => did(Deed::LoggedInAgain),
            Reason::Replaced => self.people.get(&row.user).is_some_and(|person| person.logins > 1),
            // The kernel has little room for each.
            Reason::SlowConsumer => true,
            // The login came when its time was over already, and main granted it before the worker had looked.
            Reason::LoginTimeout => {
                let soon = row.since_ms.is_some_and(|since_ms| since_ms + LATE_LOOK_MS >= row.at_ms);
                soon || self.clock_has_jumped
            }
            _ => false,
        }
    }

    /// Everybody rests.
    pub(super) fn check_at_rest(&mut self) {
        if self.server.drain.is_settled() {
            assert!(self.is_quiet());
            self.check_states();
            self.check_views();
            self.check_accounts();
        }
        let reconciled = self.server.bench.commons.metrics.reconciled.value();
        assert_eq!(reconciled, 0, "the reconciler finds nothing");
    }

    /// The history says of every session that has ended in this run when that was committed, once nothing waits to be
    /// written with the next commit.
    fn check_accounts(&self) {
        if self.server.drain.cx.transaction.later_until_us().is_some() {
            return;
        }
        for (_, Departed { row, completion }) in self.server.disk.departures_above(self.last_row_before) {
            let known = completion.is_some_and(|known| known.offline_us.is_some());
            assert!(known, "the history of {} at {} ms is never completed", text(&row), row.at_ms);
        }
    }

    /// Whoever takes what they are told knows how their friends are.
    fn check_views(&self) {
        let now_us = self.at_us();
        for line in self.active.iter().map(|number| &self.lines[*number]) {
            let is_live =
                line.channel.is_some_and(|channel| matches!(self.stage(channel), Stage::LoggedIn(_)));
            let Some(watcher) = line.user.filter(|_| is_live && line.client.has_room()) else { continue };
            if self.people.get(&watcher).is_some_and(|person| person.watches) {
                self.sight.is_told(&line.view, watcher, now_us);
            }
        }
    }

    /// The end: the disk is well, everybody comes once more, takes everything, and goes.
    pub(super) fn end(&mut self) {
        self.tell(|| "the end begins: the disk is well, everybody goes".into());
        self.is_ending = true;
        self.server.disk.heal();
        let witnesses = self.witnesses();
        for number in self.active.clone() {
            if !self.lines[number].dead {
                self.resets(number);
            }
        }
        self.listening.iter_mut().for_each(std::collections::VecDeque::clear);
        self.let_grace_pass();
        for user in self.users.clone() {
            self.take_everything(user);
        }
        self.let_grace_pass();
        self.shadow.is_kept();
        if self.trouble == 0 {
            self.shadow.is_complete();
        }
        for (number, complaints) in witnesses {
            self.shadow.is_complete_but_for(number, complaints);
        }
        for line in self.active.iter().map(|number| &self.lines[*number]) {
            assert!(line.channel.is_none() || line.client.is_closed(), "every fd is closed after the grace");
        }
        assert_eq!(self.server.drain.left_over(), [], "nothing is left of those who have gone");
        self.server.check_invariants();
    }

    /// Connections of this run of the server on which everything was taken, and what went wrong was said: those that
    /// are still there when everybody has taken everything, and those that the client has ended in order. With how many
    /// chats were not taken.
    fn witnesses(&mut self) -> Vec<(usize, usize)> {
        // What lies in front of somebody who has fallen silent is neither handed over nor kept.
        for number in self.lines_that(|line| !line.dead && line.silent) {
            self.resets(number);
        }
        for _ in 0..ROUNDS_OF_READING {
            for number in self.lines_that(|line| !line.dead && !line.silent) {
                self.lines[number].carry(usize::MAX);
                self.reads(number, u64::MAX);
            }
            self.rest();
        }
        let all = self.lines.iter().enumerate();
        let witnesses = all.filter(|(_, line)| {
            let is_here = !line.dead && !line.silent && line.outgoing.is_empty();
            let is_taken = line.channel.is_some() && !line.is_sent_away && line.torn().is_empty();
            let is_present = line
                .channel
                .is_some_and(|channel| matches!(self.stage(channel), Stage::Connected | Stage::LoggedIn(_)));
            is_taken && (is_here && is_present || line.has_ended_in_order())
        });
        witnesses.map(|(number, line)| (number, line.complaints)).collect()
    }

    fn let_grace_pass(&mut self) {
        for _ in 0..3 {
            self.rest();
            self.pass(6 * SECOND_US);
            self.rest();
        }
    }

    fn take_everything(&mut self, user: UserId) {
        let number = self.connect(user, usize::MAX);
        self.rest();
        self.logs_in(number, user);
        for _ in 0..LOOKS_MAX {
            self.lines[number].carry(usize::MAX);
            self.rest();
            self.reads(number, u64::MAX);
            if self.lines[number].known.is_none() && !self.lines[number].logging_in {
                // A token that was used up.
                self.logs_in(number, user);
                continue;
            }
            self.confirms(number);
            self.lines[number].carry(usize::MAX);
            self.rest();
            if self.lines[number].unread_bytes() == 0 && self.server.disk.texts(user).is_empty() {
                self.lines[number].end_follows = true;
                self.lines[number].carry(usize::MAX);
                return;
            }
        }
        panic!("the box of {user} is never empty");
    }
}

fn text(row: &DepartureRow) -> String {
    row.channel.map_or_else(|| "a session".into(), |channel| channel.to_string())
}
