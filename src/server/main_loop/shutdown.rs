//! Sending everyone away. A drain has a pace and a deadline; an orderly stop by signal is a drain that is due at once.
//!
//! Owned by main. It takes the step for each channel as a kick does, and never waits for anybody: each turn sends
//! away those who are due.
//!
//! ```text
//!   began ──── paced ────▶ hurry ──── goodbyes arrive ────▶ close ──── fds close ────▶ give up
//! ```
//! Each phase ends early when nobody is left in it. A stop begins at `hurry`.

use super::context::Context;
use crate::channel::{ChannelId, ChannelTable, Reason, Stage};
use crate::message::command::WorkerCommand;
use crate::message::disconnect::CloseInfo;
use crate::message::event::DrainAsk;
use crate::store::Storage;
use crossbeam_channel::{Receiver, TryRecvError};
use std::collections::VecDeque;
use std::num::NonZeroU32;
use std::time::Duration;

/// How often main looks who is due and who has gone, in microseconds.
pub(super) const LOOK_US: u64 = 10_000;
/// Channels that one turn sends away at most.
const KICKS_MAX: usize = 4096;
/// What a stop does if it cannot finish, in microseconds from the hurry on; below the 10 s of the contract.
const GIVE_UP_US: u64 = 8_000_000;
/// How often a drain says in the log how far it is, in microseconds.
const PROGRESS_US: u64 = 5_000_000;
/// Clients of a drain come back over this time at least, in milliseconds.
const COMEBACK_MIN_MS: u64 = 5_000;
const _: () = assert!(MAX_STOP_DRAIN.as_micros() as u64 <= GIVE_UP_US);

/// How far the sending away is. Times are on the monotonic clock, in microseconds.
#[derive(Debug)]
struct Course {
    reason: Reason,
    /// Channels that leave in a second; none where everyone leaves at once.
    pace: Option<NonZeroU32>,
    began_us: u64,
    /// From here on the pace does not count any more.
    hurry_us: u64,
    /// From here on every fd is closed, whatever its grace.
    close_us: u64,
    /// Over which time those who were told come back, in milliseconds.
    comeback_ms: u64,
    /// Workers that may still accept somebody.
    listening: usize,
    /// True exactly when every fd is being closed, whatever its grace.
    closing: bool,
    /// Channels that this has sent away.
    sent: u64,
    /// Channels that were there at the latest look around and have not been reached.
    ahead: VecDeque<ChannelId>,
    progress_us: u64,
    /// Disconnected when whoever asked for the drain has heard that it began.
    awaiting: Option<Receiver<()>>,
}

impl Course {
    /// A stop that is due at once.
    fn at_once(now_us: u64, arrive_us: u64, workers: usize) -> Self {
        Course {
            reason: Reason::ServerShutdown,
            pace: None,
            began_us: now_us,
            hurry_us: now_us,
            close_us: now_us + arrive_us,
            comeback_ms: 0,
            listening: workers,
            closing: false,
            sent: 0,
            ahead: VecDeque::new(),
            progress_us: now_us + PROGRESS_US,
            awaiting: None,
        }
    }

    /// A drain of that many channels. The last goodbyes of its time are left to arrive as in a stop.
    fn paced(now_us: u64, arrive_us: u64, workers: usize, channels: usize, ask: DrainAsk) -> Self {
        let DrainAsk { limit, rate, told, .. } = ask;
        let limit_us = limit.as_micros() as u64;
        let needed_ms = channels as u64 * 1000 / u64::from(rate.get());
        Course {
            reason: Reason::ServerDrain,
            pace: Some(rate),
            hurry_us: now_us + limit_us.saturating_sub(arrive_us),
            close_us: now_us + limit_us,
            comeback_ms: needed_ms.min(limit_us / 1000).max(COMEBACK_MIN_MS),
            awaiting: Some(told),
            ..Course::at_once(now_us, arrive_us, workers)
        }
    }

    /// A signal: whoever is left goes as in a stop. It never comes later for that.
    fn hasten(&mut self, now_us: u64, arrive_us: u64) {
        self.reason = Reason::ServerShutdown;
        self.pace = None;
        self.hurry_us = self.hurry_us.min(now_us);
        self.close_us = self.close_us.min(now_us + arrive_us);
    }

    /// How many are due by now.
    fn due(&self, now_us: u64) -> usize {
        let Some(pace) = self.pace.filter(|_| now_us < self.hurry_us) else { return KICKS_MAX };
        let elapsed_us = now_us.saturating_sub(self.began_us);
        let due = 1 + elapsed_us.saturating_mul(pace.get().into()) / 1_000_000;
        due.saturating_sub(self.sent).min(KICKS_MAX as u64) as usize
    }

    /// What a channel is told while `left` are there. Those of a drain come back when it is over, spread out, so that
    /// the next start is not met by everyone at once.
    fn close_info(&self, channel: ChannelId, left: usize, now_us: u64) -> CloseInfo {
        let retry_after_ms = self.pace.map(|pace| {
            let needed_ms = left as u64 * 1000 / u64::from(pace.get());
            let rest_ms = needed_ms.min(self.hurry_us.saturating_sub(now_us) / 1000);
            rest_ms + scatter(channel, now_us) % (self.comeback_ms + 1)
        });
        CloseInfo { retry_after_ms, ..CloseInfo::new(self.reason) }
    }

    fn next(&mut self, table: &ChannelTable) -> Option<ChannelId> {
        if self.ahead.is_empty() && table.present() > 0 {
            // Whoever was accepted since the look before is found now.
            let present = |id: &ChannelId| matches!(table.stage(*id), Stage::Connected | Stage::LoggedIn(_));
            self.ahead.extend(table.occupants().filter(present));
        }
        self.ahead.pop_front()
    }

    /// True exactly while whoever asked for it has not heard that the drain began.
    fn is_awaited(&self) -> bool {
        self.awaiting.as_ref().is_some_and(|awaiting| awaiting.try_recv() != Err(TryRecvError::Disconnected))
    }
}

/// An orderly stop or a drain, once one has begun.
#[derive(Debug, Default)]
pub(super) struct Shutdown {
    course: Option<Course>,
    /// True exactly when the database is lost: nothing can be written any more, so nothing waits for it.
    lost: bool,
}

impl Shutdown {
    /// True exactly when a stop or drain has begun.
    pub(super) fn has_begun(&self) -> bool {
        self.course.is_some()
    }

    /// True exactly when the database is lost.
    pub(super) fn is_database_lost(&self) -> bool {
        self.lost
    }

    /// True exactly when a stop or drain is over, where `all_written` says whether all is written that has to be.
    pub(super) fn is_finished(
        &self,
        cx: &Context<impl Storage, impl Send + 'static>,
        all_written: bool,
    ) -> bool {
        let Some(course) = &self.course else { return false };
        let all_closed = cx.handles.table.taken() == 0;
        let done = course.listening == 0 && all_closed && (all_written || self.lost) && !course.is_awaited();
        done || self.limit_us(cx.now.mono_us) == Some(0)
    }

    /// How long a stop or drain that has begun may still take, in microseconds.
    pub(super) fn limit_us(&self, now_us: u64) -> Option<u64> {
        let course = self.course.as_ref()?;
        Some((course.hurry_us + GIVE_UP_US).max(course.close_us).saturating_sub(now_us))
    }

    /// A signal: begins an orderly stop, or makes one of a drain.
    pub(super) fn stop(&mut self, cx: &mut Context<impl Storage, impl Send + 'static>) {
        let (now_us, arrive_us) = (cx.now.mono_us, cx.policy.stop_drain_us);
        tracing::info!(channels = cx.handles.table.present(), "stopping: everyone is sent away");
        match &mut self.course {
            Some(course) => course.hasten(now_us, arrive_us),
            None => self.begin(cx, Course::at_once(now_us, arrive_us, cx.handles.worker_sender.workers())),
        }
    }

    /// The database is lost. Whoever asks for what must be stored gets errno 19 until everybody has gone.
    pub(super) fn stop_without_database(&mut self, cx: &mut Context<impl Storage, impl Send + 'static>) {
        self.lost = true;
        self.stop(cx);
    }

    /// The admin's drain. Refused while one is running.
    pub(super) fn drain(&mut self, cx: &mut Context<impl Storage, impl Send + 'static>, ask: DrainAsk) {
        let channels = cx.handles.table.present();
        let begins = self.course.is_none();
        // Whoever asked may have given up; the drain begins all the same.
        let _ = ask.reply.send(begins.then_some(channels));
        if begins {
            tracing::info!(channels, rate = ask.rate, limit = ?ask.limit, "draining");
            let (workers, arrive_us) = (cx.handles.worker_sender.workers(), cx.policy.stop_drain_us);
            self.begin(cx, Course::paced(cx.now.mono_us, arrive_us, workers, channels, ask));
        }
    }

    fn begin(&mut self, cx: &mut Context<impl Storage, impl Send + 'static>, course: Course) {
        self.course = Some(course);
        cx.mark_time();
        for worker in 0..cx.handles.worker_sender.workers() {
            cx.handles.worker_sender.post(worker, &mut vec![WorkerCommand::CloseListeners], &mut Vec::new());
        }
    }

    /// A worker accepts nobody any more.
    pub(super) fn stopped_listening(&mut self) {
        if let Some(course) = &mut self.course {
            course.listening = course.listening.saturating_sub(1);
        }
    }

    /// Nobody new comes online during a stop: a login is answered by the goodbye, before its turn. False when there
    /// is no stop.
    pub(super) fn turn_away(
        &mut self,
        cx: &Context<impl Storage, impl Send + 'static>,
        channel: ChannelId,
    ) -> bool {
        let Some(course) = &mut self.course else { return false };
        let close_info = course.close_info(channel, cx.handles.table.present(), cx.now.mono_us);
        course.sent += u64::from(cx.handles.kicker.kick_saying(channel, close_info));
        true
    }

    /// Sends away who is due. True exactly when every fd is to be closed, whatever its grace: every client is gone, or the
    /// time is over.
    pub(super) fn go_on(&mut self, cx: &Context<impl Storage, impl Send + 'static>) -> bool {
        let Some(course) = &mut self.course else { return false };
        let (table, now_us) = (&cx.handles.table, cx.now.mono_us);
        let mut due = course.due(now_us);
        while due > 0
            && let Some(channel) = course.next(table)
        {
            if cx.handles.kicker.kick_saying(channel, course.close_info(channel, table.present(), now_us)) {
                due -= 1;
                course.sent += 1;
            }
        }
        if now_us >= course.progress_us {
            course.progress_us = now_us + PROGRESS_US;
            tracing::info!(sent = course.sent, left = table.present(), "still sending everyone away");
        }
        let all_gone = course.listening == 0 && table.connected() == 0;
        course.closing |= all_gone || now_us >= course.close_us;
        course.closing
    }
}

/// Spreads channels evenly (splitmix64). No secret hangs on it, so the time is seed enough.
fn scatter(channel: ChannelId, now_us: u64) -> u64 {
    let seed = u64::from(channel.slot) << 32 | u64::from(channel.generation);
    let mut z = (seed ^ now_us.rotate_left(32)).wrapping_add(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// The longest drain at a stop: the whole stop takes at most 10 s.
pub const MAX_STOP_DRAIN: Duration = Duration::from_secs(8);

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const SECOND_US: u64 = 1_000_000;
    const ARRIVE_US: u64 = 2 * SECOND_US;

    fn paced(channels: usize, limit_s: u64, rate: u32) -> Course {
        let (reply, _) = crossbeam_channel::bounded(1);
        let (_, told) = crossbeam_channel::bounded(0);
        let rate = NonZeroU32::new(rate).unwrap();
        let ask = DrainAsk { limit: Duration::from_secs(limit_s), rate, reply, told };
        Course::paced(0, ARRIVE_US, 1, channels, ask)
    }

    fn channel(slot: u32) -> ChannelId {
        ChannelId { slot, generation: 1 }
    }

    #[test]
    fn a_drain_keeps_its_pace_until_it_is_time_to_hurry() {
        let mut stop = paced(10_000, 12, 100);
        assert_eq!(stop.due(0), 1, "somebody goes at once");
        assert_eq!(stop.due(SECOND_US), 101);
        stop.sent = 101;
        assert_eq!(stop.due(SECOND_US), 0);
        assert_eq!(stop.due(SECOND_US + 20_000), 2);
        assert_eq!(stop.due(10 * SECOND_US), KICKS_MAX, "the last goodbyes still have time to arrive");
    }

    #[test]
    fn a_drain_shorter_than_the_goodbyes_take_hurries_from_the_start() {
        assert_eq!(paced(10_000, 1, 1).due(0), KICKS_MAX);
    }

    #[test]
    fn a_signal_makes_a_drain_due_at_once_and_never_later() {
        let mut stop = paced(10_000, 3600, 1);
        stop.hasten(SECOND_US, ARRIVE_US);
        assert_eq!((stop.due(SECOND_US), stop.close_us), (KICKS_MAX, SECOND_US + ARRIVE_US));
        assert_eq!(stop.close_info(channel(1), 5, SECOND_US).retry_after_ms, None);
        let mut late = paced(10_000, 3, 1);
        late.hasten(2 * SECOND_US, ARRIVE_US);
        assert_eq!((late.hurry_us, late.close_us), (SECOND_US, 3 * SECOND_US));
    }

    #[test]
    fn those_who_are_told_come_back_after_the_drain_at_about_the_pace_at_which_they_left() {
        let stop = paced(10_000, 120, 500);
        let of = |slot| stop.close_info(channel(slot), 10_000, 0).retry_after_ms.unwrap();
        let mut seconds = [0; 20];
        for slot in 0..10_000 {
            let after_ms = of(slot);
            assert!((20_000..=40_000).contains(&after_ms), "{after_ms}");
            seconds[(after_ms as usize - 20_000) / 1000 % 20] += 1;
        }
        assert!(seconds.iter().all(|count| (350..650).contains(count)), "{seconds:?}");
        let hurried =
            paced(10_000, 10, 1).close_info(channel(1), 10_000, 9 * SECOND_US).retry_after_ms.unwrap();
        assert!(hurried <= 10_000, "never longer than the drain was meant to be: {hurried}");
    }
}
