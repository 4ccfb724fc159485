//! Sending everyone away. A drain has a pace and a deadline; an orderly stop by signal is a drain that is due at once.
//!
//! Owned by main. It takes the step for each channel as a kick does, and never waits for anybody: each turn sends
//! away those who are due.
//!
//! ```text
//!   began ──── paced ────▶ hurry ──── goodbyes arrive ────▶ close ──── fds close ────▶ give up
//! ```
//! Each phase ends early when nobody is left in it. A stop begins at `hurry`.

use super::state::MainLoop;
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
pub(super) struct Shutdown {
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
    asker: Option<Receiver<()>>,
}

impl Shutdown {
    /// A stop that is due at once.
    fn at_once(now_us: u64, arrive_us: u64, workers: usize) -> Self {
        Shutdown {
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
            asker: None,
        }
    }

    /// A drain of that many channels. The last goodbyes of its time are left to arrive as in a stop.
    fn paced(now_us: u64, arrive_us: u64, workers: usize, channels: usize, ask: DrainAsk) -> Self {
        let DrainAsk { limit, rate, told, .. } = ask;
        let limit_us = limit.as_micros() as u64;
        let needed_ms = channels as u64 * 1000 / u64::from(rate.get());
        Shutdown {
            reason: Reason::ServerDrain,
            pace: Some(rate),
            hurry_us: now_us + limit_us.saturating_sub(arrive_us),
            close_us: now_us + limit_us,
            comeback_ms: needed_ms.min(limit_us / 1000).max(COMEBACK_MIN_MS),
            asker: Some(told),
            ..Shutdown::at_once(now_us, arrive_us, workers)
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
    fn parting(&self, channel: ChannelId, left: usize, now_us: u64) -> CloseInfo {
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

    /// True exactly while an asker has not heard that the drain began.
    fn is_awaited(&self) -> bool {
        self.asker.as_ref().is_some_and(|asker| asker.try_recv() != Err(TryRecvError::Disconnected))
    }
}

impl<St: Storage, S: Send + 'static> MainLoop<St, S> {
    /// True exactly when an orderly stop or a drain is over.
    pub fn is_finished(&self) -> bool {
        let Some(stop) = &self.stop else { return false };
        let all_closed = self.around.table.taken() == 0;
        let all_told = self.endings.is_empty()
            && self.is_settled()
            && self.batch.later_until_us().is_none()
            && self.fan_outs.len() == 0;
        let all_written = all_told || self.lost;
        let done = stop.listening == 0 && all_closed && all_written && !stop.is_awaited();
        done || self.stop_limit_us() == Some(0)
    }

    /// True exactly when a stop or drain has begun.
    pub(crate) fn is_stopping(&self) -> bool {
        self.stop.is_some()
    }

    /// How long a stop or drain that has begun may still take, in microseconds.
    pub fn stop_limit_us(&self) -> Option<u64> {
        let stop = self.stop.as_ref()?;
        Some((stop.hurry_us + GIVE_UP_US).max(stop.close_us).saturating_sub(self.now.mono_us))
    }

    /// A signal: begins an orderly stop, or makes one of a drain.
    pub(super) fn stop_by_signal(&mut self) {
        let (now_us, arrive_us) = (self.now.mono_us, self.policy.stop_drain_us);
        tracing::info!(channels = self.around.table.present(), "stopping: everyone is sent away");
        match &mut self.stop {
            Some(stop) => stop.hasten(now_us, arrive_us),
            None => self.begin_stop(Shutdown::at_once(now_us, arrive_us, self.around.outlet.workers())),
        }
    }

    /// The database is lost. Whoever asks for what must be stored gets errno 19 until everybody has gone.
    pub(super) fn stop_without_database(&mut self) {
        self.lost = true;
        self.stop_by_signal();
    }

    /// The admin's drain. Refused while one is running.
    pub(super) fn begin_drain(&mut self, ask: DrainAsk) {
        let channels = self.around.table.present();
        let begins = self.stop.is_none();
        // Whoever asked may have given up; the drain begins all the same.
        let _ = ask.reply.send(begins.then_some(channels));
        if begins {
            tracing::info!(channels, rate = ask.rate, limit = ?ask.limit, "draining");
            let workers = self.around.outlet.workers();
            self.begin_stop(Shutdown::paced(
                self.now.mono_us,
                self.policy.stop_drain_us,
                workers,
                channels,
                ask,
            ));
        }
    }

    fn begin_stop(&mut self, stop: Shutdown) {
        self.stop = Some(stop);
        self.mark_time();
        for worker in 0..self.around.outlet.workers() {
            self.around.outlet.post(worker, &mut vec![WorkerCommand::CloseListeners], &mut Vec::new());
        }
    }

    /// A worker accepts nobody any more.
    pub(super) fn stopped_listening(&mut self) {
        if let Some(stop) = &mut self.stop {
            stop.listening = stop.listening.saturating_sub(1);
        }
    }

    /// Nobody new comes online during a stop: a login is answered by the goodbye, before its turn. False when there
    /// is no stop.
    pub(crate) fn turn_away(&mut self, channel: ChannelId) -> bool {
        let Some(stop) = &mut self.stop else { return false };
        let parting = stop.parting(channel, self.around.table.present(), self.now.mono_us);
        stop.sent += u64::from(self.around.kicker.kick_saying(channel, parting));
        true
    }

    /// Sends away who is due. When every client is gone, or at the end of the time, closes what is left.
    pub(super) fn stop_further(&mut self) {
        let Some(stop) = &mut self.stop else { return };
        let (table, now_us) = (&self.around.table, self.now.mono_us);
        let mut due = stop.due(now_us);
        while due > 0
            && let Some(channel) = stop.next(table)
        {
            if self.around.kicker.kick_saying(channel, stop.parting(channel, table.present(), now_us)) {
                due -= 1;
                stop.sent += 1;
            }
        }
        if now_us >= stop.progress_us {
            stop.progress_us = now_us + PROGRESS_US;
            tracing::info!(sent = stop.sent, left = table.present(), "still sending everyone away");
        }
        let all_gone = stop.listening == 0 && table.connected() == 0;
        stop.closing |= all_gone || now_us >= stop.close_us;
        if stop.closing {
            // Whoever left after the closing began is among them.
            self.lingering.end_every_grace();
        }
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

    fn paced(channels: usize, limit_s: u64, rate: u32) -> Shutdown {
        let (reply, _) = crossbeam_channel::bounded(1);
        let (_, told) = crossbeam_channel::bounded(0);
        let rate = NonZeroU32::new(rate).unwrap();
        let ask = DrainAsk { limit: Duration::from_secs(limit_s), rate, reply, told };
        Shutdown::paced(0, ARRIVE_US, 1, channels, ask)
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
        assert_eq!(stop.parting(channel(1), 5, SECOND_US).retry_after_ms, None);
        let mut late = paced(10_000, 3, 1);
        late.hasten(2 * SECOND_US, ARRIVE_US);
        assert_eq!((late.hurry_us, late.close_us), (SECOND_US, 3 * SECOND_US));
    }

    #[test]
    fn those_who_are_told_come_back_after_the_drain_at_about_the_pace_at_which_they_left() {
        let stop = paced(10_000, 120, 500);
        let of = |slot| stop.parting(channel(slot), 10_000, 0).retry_after_ms.unwrap();
        let mut seconds = [0; 20];
        for slot in 0..10_000 {
            let after_ms = of(slot);
            assert!((20_000..=40_000).contains(&after_ms), "{after_ms}");
            seconds[(after_ms as usize - 20_000) / 1000 % 20] += 1;
        }
        assert!(seconds.iter().all(|count| (350..650).contains(count)), "{seconds:?}");
        let hurried = paced(10_000, 10, 1).parting(channel(1), 10_000, 9 * SECOND_US).retry_after_ms.unwrap();
        assert!(hurried <= 10_000, "never longer than the drain was meant to be: {hurried}");
    }
}
