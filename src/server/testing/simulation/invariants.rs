//! What is looked at after every step, at rest, and at the end.

use super::scheduler::{NAMES, Simulation};
use super::sim_link::ClientAct;
use crate::channel::{Reason, Stage};
use crate::ids::UserId;
use crate::store::DepartureRow;
use crate::testing::builders::SECOND_US;
use crate::testing::fixtures::BOX_MESSAGES;
use crate::testing::memory::{Departed, Standing};

/// Messages that a box may hold beyond its bound: those that were accepted before it was full.
const BEYOND_MAX: usize = 200;
/// Entries that may wait for main.
const QUEUE_MAX: usize = 2000;
/// How late a worker may look at the login clock, in milliseconds.
const LATE_LOOK_MS: i64 = 1000;
/// Looks at every connection until all that was said is taken, and answered.
const ROUNDS_OF_READING: usize = 20;
/// Looks into a box until it is empty.
const ROUNDS_MAX: usize = 400;

impl Simulation {
    /// After every step.
    pub(super) fn check_invariants(&mut self) {
        let fixtures = &self.server.workers.fixtures;
        let (accepted, present) = (self.accepted(), fixtures.table.present() as u64);
        assert_eq!(accepted, fixtures.metrics.departures.value() + present, "every channel departs once");
        assert!(fixtures.queue.len() < QUEUE_MAX, "main's queue is bounded");
        assert!(fixtures.table.taken() <= NAMES);
        for number in &self.active {
            let link = &self.links[*number];
            let Some(channel) = link.channel else { continue };
            assert!(
                link.is_sent_away || !link.is_ended_by_the_server(),
                "{channel} is ended without a goodbye"
            );
            match self.stage(channel) {
                Stage::Free => assert!(link.client.is_closed(), "{channel} is free and its fd is open"),
                Stage::Connected | Stage::LoggedIn(_) => {
                    assert!(!link.client.is_closed(), "{channel} is there and its fd is closed");
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
        let table = &self.server.workers.fixtures.table;
        let mut run_seed: Vec<UserId> = table
            .occupants()
            .filter(|channel| matches!(table.stage(*channel), Stage::LoggedIn(_)))
            .filter_map(|channel| table.user(channel))
            .collect();
        run_seed.sort_unstable();
        let standing = self.server.disk.standing();
        let online: Vec<UserId> =
            standing.iter().filter(|user| user.row.online).map(|user| user.row.id).collect();
        assert_eq!(online, run_seed, "the rows say who is online, the table who has a live channel");
    }

    /// After every commit: each session that began has ended once, or goes on.
    pub(super) fn check_rows(&mut self) {
        let now_us = self.at_us();
        for Standing { row, tally, kept, kept_at_most } in self.server.disk.standing() {
            self.presence.note(&row, tally.latest, now_us);
            let takes_nothing = !row.online && kept >= BOX_MESSAGES as usize;
            self.oracle.note_box(row.id, takes_nothing, now_us);
            let name = &row.name;
            assert_eq!(
                tally.begun,
                tally.ended + u64::from(row.online),
                "{name}: every session has one row of the history, in the transaction in which it ends"
            );
            if kept_at_most >= BOX_MESSAGES as usize {
                self.oracle.overfull.insert(row.id);
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
        let Some(link) = self.names.get(channel).map(|number| &self.links[*number]) else { return false };
        let did = |deed| link.acts.contains(&deed);
        match row.reason {
            Reason::ClientQuit => did(ClientAct::LoggedOut) || did(ClientAct::LoggedInAgain),
            Reason::PeerClosed => did(ClientAct::Ended),
            Reason::PeerReset => did(ClientAct::Reset),
            Reason::NetworkTimeout => did(ClientAct::TimedOut),
            Reason::KeepaliveTimeout => did(ClientAct::Pinged),
            Reason::MalformedFrame => did(ClientAct::Garbage),
            Reason::Kicked => did(ClientAct::Kicked),
            Reason::AuthFailed => did(ClientAct::LoggedInAgain),
            Reason::Replaced => self.clients.get(&row.user).is_some_and(|person| person.logins > 1),
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
        if self.server.main.is_settled() {
            assert!(self.is_quiet());
            self.check_states();
            self.check_views();
            self.check_accounts();
        }
        let reconciled = self.server.workers.fixtures.metrics.reconciled.value();
        assert_eq!(reconciled, 0, "the reconciler finds nothing");
    }

    /// The history says of every session that has ended in this run when that was committed, once nothing waits to be
    /// written with the next commit.
    fn check_accounts(&self) {
        if self.server.main.cx.transaction.later_until_us().is_some() {
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
        for link in self.active.iter().map(|number| &self.links[*number]) {
            let is_live =
                link.channel.is_some_and(|channel| matches!(self.stage(channel), Stage::LoggedIn(_)));
            let Some(watcher) = link.user.filter(|_| is_live && link.client.has_room()) else { continue };
            if self.clients.get(&watcher).is_some_and(|person| person.watches) {
                self.presence.is_traced(&link.view, watcher, now_us);
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
            if !self.links[number].dead {
                self.resets(number);
            }
        }
        self.listening.iter_mut().for_each(std::collections::VecDeque::clear);
        self.let_grace_pass();
        for user in self.users.clone() {
            self.take_everything(user);
        }
        self.let_grace_pass();
        self.oracle.is_kept();
        if self.trouble == 0 {
            self.oracle.is_complete();
        }
        for (number, complaints) in witnesses {
            self.oracle.is_complete_but_for(number, complaints);
        }
        for link in self.active.iter().map(|number| &self.links[*number]) {
            assert!(link.channel.is_none() || link.client.is_closed(), "every fd is closed after the grace");
        }
        assert_eq!(self.server.main.left_over(), [], "nothing is left of those who have gone");
        self.server.check_invariants();
    }

    /// Connections of this run of the server on which everything was taken, and what went wrong was said: those that
    /// are still there when everybody has taken everything, and those that the client has ended in order. With how many
    /// chats were not taken.
    fn witnesses(&mut self) -> Vec<(usize, usize)> {
        // What lies in front of somebody who has fallen silent is neither handed over nor kept.
        for number in self.links_that(|link| !link.dead && link.silent) {
            self.resets(number);
        }
        for _ in 0..ROUNDS_OF_READING {
            for number in self.links_that(|link| !link.dead && !link.silent) {
                self.links[number].carry(usize::MAX);
                self.reads(number, u64::MAX);
            }
            self.rest();
        }
        let all = self.links.iter().enumerate();
        let witnesses = all.filter(|(_, link)| {
            let is_here = !link.dead && !link.silent && link.outgoing.is_empty();
            let is_taken = link.channel.is_some() && !link.is_sent_away && link.partial().is_empty();
            let is_present = link
                .channel
                .is_some_and(|channel| matches!(self.stage(channel), Stage::Connected | Stage::LoggedIn(_)));
            is_taken && (is_here && is_present || link.has_ended_in_order())
        });
        witnesses.map(|(number, link)| (number, link.complaints)).collect()
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
        for _ in 0..ROUNDS_MAX {
            self.links[number].carry(usize::MAX);
            self.rest();
            self.reads(number, u64::MAX);
            if self.links[number].known.is_none() && !self.links[number].logging_in {
                // A token that was used up.
                self.logs_in(number, user);
                continue;
            }
            self.confirms(number);
            self.links[number].carry(usize::MAX);
            self.rest();
            if self.links[number].unread_bytes() == 0 && self.server.disk.texts(user).is_empty() {
                self.links[number].end_follows = true;
                self.links[number].carry(usize::MAX);
                return;
            }
        }
        panic!("the box of {user} is never empty");
    }
}

fn text(row: &DepartureRow) -> String {
    row.channel.map_or_else(|| "a session".into(), |channel| channel.to_string())
}
