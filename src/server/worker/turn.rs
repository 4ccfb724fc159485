//! A worker's turn: it empties the mailbox first, and at the end writes each channel once and tells the other threads.
//!
//! Between the two the event loop has the ready channels read. Nothing here waits.

use super::input::EOFS_MAX;
use super::state::WorkerState;
use crate::clock::Now;
use crate::message::event::Event;
use crate::net::transport::Transport;
use crate::shrink::Shrink;

impl<T: Transport> WorkerState<T> {
    /// Begins a turn: the time, the mailbox, and ends that have waited.
    pub fn begin(&mut self, now: Now) {
        self.now = now;
        self.eofs = 0;
        let mut ended = std::mem::take(&mut self.reports_due);
        let mut commands = std::mem::take(&mut self.commands);
        self.mailbox.take(&mut commands);
        for command in commands.drain(..) {
            self.handle_command(command);
        }
        for (id, session) in ended.drain(..) {
            self.report_delivery(id, session);
        }
        // What a flood has needed is not kept for the next one.
        commands.shrink();
        self.commands = commands;
        ended.append(&mut self.reports_due);
        ended.shrink();
        self.reports_due = ended;
        for _ in 0..EOFS_MAX {
            let Some(id) = self.deferred_eofs.pop_front() else { break };
            self.take_deferred_eof(id);
        }
        self.deferred_eofs.shrink();
    }

    /// Ends a turn: checks time limits, goes on with input that has waited, writes, and tells the other threads.
    ///
    /// `horizon_us` is the moment up to which everything is read that clients had sent; time limits are judged as of
    /// then. `clock` is read only where there is a departure, to measure the offline queue.
    pub fn finish(&mut self, horizon_us: u64, clock: &dyn Fn() -> Now) {
        self.turn_wheel(horizon_us);
        self.log_suppressed();
        // Other threads may refuse what they are told, and then the refusal is written too.
        while self.has_work() {
            let mut unblocked = std::mem::take(&mut self.unblocked);
            unblocked.drain(..).for_each(|id| self.resume_input(id));
            // The list is kept for its memory; what came meanwhile is on another.
            unblocked.append(&mut self.unblocked);
            unblocked.shrink();
            self.unblocked = unblocked;
            let mut dirty = std::mem::take(&mut self.dirty);
            for id in dirty.drain(..) {
                self.flush(id);
                self.return_buffer(id);
            }
            dirty.append(&mut self.dirty);
            dirty.shrink();
            self.dirty = dirty;
            if self.unblocked.is_empty() && self.dirty.is_empty() {
                self.send_events(clock);
            }
        }
    }

    fn has_work(&self) -> bool {
        !self.unblocked.is_empty()
            || !self.dirty.is_empty()
            || !self.to_main.is_empty()
            || self.to_workers.iter().any(|commands| !commands.is_empty())
    }

    fn turn_wheel(&mut self, horizon_us: u64) {
        let mut due = std::mem::take(&mut self.due);
        self.wheel.turn(horizon_us, &mut due);
        for id in due.drain(..) {
            self.check_time_limits(id, horizon_us);
        }
        due.shrink();
        self.due = due;
    }

    /// Sends main and the other workers what this turn has brought.
    fn send_events(&mut self, clock: &dyn Fn() -> Now) {
        let mut refused = Vec::new();
        for (worker, mail) in self.to_workers.iter_mut().enumerate().filter(|(_, mail)| !mail.is_empty()) {
            self.handles.worker_sender.post(worker, mail, &mut refused);
            mail.shrink();
        }
        if !refused.is_empty() {
            // What comes back goes before what its sender has asked of main since.
            let asked = std::mem::take(&mut self.to_main);
            for command in refused {
                self.redirect(command);
            }
            self.to_main.extend(asked);
        }
        let mut queued_us = None;
        for entry in &mut self.to_main {
            if let Event::Departure(departure) = entry {
                departure.queued_us = *queued_us.get_or_insert_with(|| clock().mono_us);
            }
        }
        let mut refused = Vec::new();
        self.handles.queue.push_all(&mut self.to_main, &mut refused);
        self.to_main.shrink();
        for ask in refused {
            self.refuse(&ask);
        }
    }

    /// How long the worker may sleep, in microseconds.
    pub fn timeout_us(&self, now_us: u64) -> Option<u64> {
        let suppressed = self.close_log.due_us().map(|due_us| due_us.saturating_sub(now_us));
        [self.wheel.timeout_us(now_us), suppressed].into_iter().flatten().min()
    }

    /// True exactly when there is more to do at once, so that the worker must not sleep: ends that wait, or delivery
    /// reports that are due.
    pub fn has_more(&self) -> bool {
        !self.deferred_eofs.is_empty() || !self.reports_due.is_empty()
    }
}
