//! A turn of main: events are taken off the queue one by one, then their transaction is committed and what hangs on it done.
//!
//! Runs on the main thread, which drains the offline queue, decides who is online, writes the database, frees channel ids
//! and closes clients' fds. It never reads or writes a live socket, and never waits for anything but its queue and its own
//! commits.

use super::shutdown::LOOK_US;
use super::state::{Followup, MainLoop};
use super::transaction::{AfterCommit, RETRY_US};
use crate::clock::Now;
use crate::message::command::WorkerCommand;
use crate::message::event::Event;
use crate::message::request::Ask;
use crate::store::Storage;
use std::time::Duration;

/// How long a turn collects events at most, in microseconds.
pub const BATCH_US: u64 = 5_000;
/// How long main rests after a turn in which it has taken many ends and nothing else, unless a request comes or
/// [`BATCH_MAX`](crate::offline_queue::queue::BATCH_MAX) entries wait. In a storm of lost clients more of them share a
/// commit; each is offline that much later.
pub const COALESCE_DELAY: Duration = Duration::from_millis(4);
/// Entries of ends in a turn from which on they are many. The reports of a few ends, and the logins that may wait for
/// them, have no rest to wait for.
const MANY_ENDS: usize = 16;

/// How long main rests after a turn in which it has taken so many entries, of which some may be pressing
/// ([`Event::is_pressing`]).
pub fn rest_after(taken: usize, presses: bool) -> Duration {
    if taken >= MANY_ENDS && !presses { COALESCE_DELAY } else { Duration::ZERO }
}

impl<St: Storage, S: Send + 'static> MainLoop<St, S> {
    /// Takes one event.
    pub fn take(&mut self, event: Event<S>, now: Now) {
        self.cx.now = now;
        match event {
            Event::Departure(departure) => self.depart(&departure),
            Event::DeliveryReport(report) => self.settle(report),
            Event::HandBack { channel, socket, partial } => self.close_fd(channel, socket, partial),
            Event::Ask(ask) => self.answer(ask),
            Event::TakenOver { user, channel, session, upto } => {
                self.taken_over(user, (channel, session), upto);
            }
            Event::Confirmed { user, channel, session } => self.confirmed(user, (channel, session)),
            // A copy is in the kernel: its sender is answered when that is stored, or cannot be.
            Event::Handed { tracker } => self.cx.count_off(Some(tracker)),
            Event::Probed { channel, user } => self.looked_at(user, channel),
            Event::Audited { worker, held } => self.audited(worker, &held),
            Event::Short { worker } => self.short.push(worker),
            Event::Control(ask) => self.control(ask),
            Event::Stop => self.shutdown.stop(&mut self.cx),
            Event::DatabaseLost => self.shutdown.stop_without_database(&mut self.cx),
            Event::Quiet => self.shutdown.stopped_listening(),
        }
        self.follow_up();
    }

    /// Does what a request asks, unless it has to wait for an earlier one of the same user.
    fn answer(&mut self, ask: Ask) {
        let ask = match ask.user() {
            Some(user) => self.wait_in_line(user, ask),
            None => Some(ask),
        };
        let Some(ask) = ask else { return };
        match ask {
            Ask::Login(login) => self.log_in(*login),
            Ask::Resume(resume) => self.resume(resume),
            Ask::Guest { reply_to, peer, name } => self.log_in_guest(reply_to, peer, &name),
            Ask::Register { reply_to, peer, name, password } => {
                self.register(&reply_to, peer, &name, &password);
            }
            Ask::RefuseNewcomer { reply_to, peer } => self.refuse_newcomer(&reply_to, peer),
            Ask::Chat(message) => self.chat(&message),
            Ask::AddFriend { reply_to, user, friend } => self.add_friend(&reply_to, user, friend),
            Ask::CreateGroup { reply_to, user, name, desc } => {
                self.create_group(&reply_to, user, &name, &desc);
            }
            Ask::JoinGroup { reply_to, user, group } => self.join_group(&reply_to, user, group),
            Ask::Fence { reply_to } => self.cx.grant(&reply_to, None),
        }
    }

    /// Does what an event has left for other parts to do.
    fn follow_up(&mut self) {
        while let Some(followup) = self.followups.pop_front() {
            match followup {
                Followup::Release(user) => self.release(user),
                Followup::Probed(user) => self.probed(user),
                Followup::Request(ask) => self.answer(ask),
            }
        }
    }

    /// Ends a turn: commits, does what hangs on the commit, closes what is due. `clock` is read after the commit.
    pub fn finish(&mut self, clock: &dyn Fn() -> Now) {
        self.stages.end_turn();
        self.go_on_handing_out();
        if let Some(expired) = self.retention.look(&mut self.cx) {
            self.users.note_expiry(expired);
            self.bans.remove_expired(&mut self.cx);
        }
        self.dedup.expire(&mut self.cx);
        self.cx.handles.attempts.tidy(self.cx.now.mono_us);
        self.lingering.end_graces(&mut self.cx);
        self.end_shortage();

        let outcome = self.cx.transaction.finish(self.cx.now.mono_us);
        self.cx.handles.metrics.writes_set_aside.add(u64::from(outcome.set_aside));
        self.cx.now = clock();
        let failure = outcome.committed.and_then(|result| {
            let metrics = &self.cx.handles.metrics;
            (if result.is_ok() { &metrics.commits } else { &metrics.commit_failures }).add(1);
            result.err()
        });
        // Nothing to commit is nothing that has failed.
        let committed = failure.is_none();
        if let Some(error) = &failure {
            tracing::error!(%error, "a transaction failed; what was asked is refused, ends are tried again");
            self.users.invalidate();
            self.group_cache.forget_all();
            self.lists.clear();
        }
        self.retention.end_turn(&self.cx, committed);
        if committed {
            self.note_committed();
        } else {
            self.forget_ends(&outcome.effects);
        }
        let loaded = self.users.take_loaded();
        self.carry_out(outcome.effects, failure.as_ref());
        self.follow_up();
        if !committed {
            self.users.evict(&loaded);
        }
        self.end_parts(committed);
        self.follow_up();
        if committed {
            self.refill();
            self.follow_up();
        }

        if !self.cx.transaction.is_in_debt() {
            self.users.tidy(self.cx.handles.registry.len());
        }
        self.lists.tidy(self.cx.now.mono_us);
        self.presence.tell_watchers(&self.cx, &self.users, self.shutdown.has_begun());
        if self.shutdown.go_on(&self.cx) {
            // Whoever left after the closing began is among them.
            self.lingering.end_every_grace();
        }
        self.reconcile();
        self.follow_up();
    }

    /// The last look, when the server has stopped in order and the workers have ended: what is found wrong is put right.
    pub fn look_last(&mut self, clock: &dyn Fn() -> Now) {
        if self.shutdown.is_database_lost() || !self.is_settled() || self.cx.handles.table.taken() > 0 {
            return;
        }
        self.cx.now = clock();
        self.compare_all();
        self.finish(clock);
    }

    /// How long main may sleep, in microseconds.
    pub fn timeout_us(&self) -> Option<u64> {
        let now_us = self.cx.now.mono_us;
        let until = |at_us: u64| at_us.saturating_sub(now_us);
        let transaction = &self.cx.transaction;
        if transaction.is_under_way() {
            return Some(0);
        }
        let grace = self.lingering.next_us().map(until);
        let retry = (transaction.is_in_debt() || self.refills.len() > 0).then_some(RETRY_US);
        let later = transaction.later_until_us().map(until);
        let stop = self.shutdown.has_begun().then_some(LOOK_US);
        let expiry = self.retention.due_us().min(self.dedup.due_us()).min(self.reconciler.due_us());
        let presence = self.presence.timeout_us(now_us);
        let fan_out = self.fan_outs.timeout_us();
        [grace, retry, later, stop, presence, fan_out, Some(until(expiry))].into_iter().flatten().min()
    }

    /// True exactly when the transaction has so many writes that it should end before another event is taken: the
    /// messages that a slow reader left unsent are one event.
    pub fn is_full(&self) -> bool {
        self.cx.transaction.is_full()
    }

    /// True exactly when an orderly stop or a drain is over.
    pub fn is_finished(&self) -> bool {
        let all_written = self.open_departures.is_empty()
            && self.is_settled()
            && self.cx.transaction.later_until_us().is_none()
            && self.fan_outs.len() == 0;
        self.shutdown.is_finished(&self.cx, all_written)
    }

    /// How long a stop or drain that has begun may still take, in microseconds.
    pub fn stop_limit_us(&self) -> Option<u64> {
        self.shutdown.limit_us(self.cx.now.mono_us)
    }

    /// Lets workers accept again once there is room. Told too early, a worker and main would go on asking each other.
    fn end_shortage(&mut self) {
        let table = &self.cx.handles.table;
        if table.taken() < table.capacity() {
            for worker in std::mem::take(&mut self.short) {
                self.cx.then(AfterCommit::Post { worker, command: WorkerCommand::Accept });
            }
        }
    }
}
