//! Timers of one worker: a wheel of coarse ticks, one entry a channel.
//!
//! Owned by one worker. An entry only says when to check a channel; the channel's own deadlines decide. So a deadline
//! that moves on costs nothing, and a stale id is ignored.

use crate::channel::ChannelId;
use std::num::NonZeroU32;

/// The length of a tick in microseconds. A deadline is noticed up to this much late.
const TICK_US: u64 = 50_000;
/// Slots of the wheel; a channel whose deadline is further off is checked once in a turn of the wheel (51 s).
const SLOTS: usize = 1024;

/// When a channel will be checked: the end of a tick, counted from the start of the monotonic clock. 32 bits last for
/// six years.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Tick(NonZeroU32);

impl Tick {
    fn at(tick: u64) -> Self {
        Tick(NonZeroU32::new(u32::try_from(tick).unwrap_or(u32::MAX)).unwrap_or(NonZeroU32::MIN))
    }

    /// The moment in microseconds.
    pub fn us(self) -> u64 {
        u64::from(self.0.get()) * TICK_US
    }
}

/// A timer wheel.
#[derive(Debug)]
pub struct TimerWheel {
    slots: Vec<Vec<ChannelId>>,
    /// Every tick before this one is done.
    next: u64,
    entries: usize,
    /// No entry lies before this tick.
    earliest: u64,
}

impl TimerWheel {
    /// An empty wheel.
    pub fn new(now_us: u64) -> Self {
        let next = now_us / TICK_US;
        TimerWheel { slots: vec![Vec::new(); SLOTS], next, entries: 0, earliest: u64::MAX }
    }

    /// Has a channel checked when `at_us` has passed, or sooner; returns when.
    pub fn arm(&mut self, channel: ChannelId, at_us: u64) -> Tick {
        let furthest = self.next + SLOTS as u64 - 1;
        let tick = (at_us / TICK_US + 1).clamp(self.next, furthest);
        self.slots[tick as usize % SLOTS].push(channel);
        self.entries += 1;
        self.earliest = self.earliest.min(tick);
        Tick::at(tick)
    }

    /// Moves the channels to be checked now into `due`.
    pub fn turn(&mut self, now_us: u64, due: &mut Vec<ChannelId>) {
        let now = now_us / TICK_US;
        if now < self.earliest {
            self.next = self.next.max(now);
            return;
        }
        // One pass over all slots is enough, however long the worker slept.
        let last = now.min(self.next + SLOTS as u64 - 1);
        for tick in self.next..=last {
            let slot = &mut self.slots[tick as usize % SLOTS];
            self.entries -= slot.len();
            due.append(slot);
            slot.shrink_to(64);
        }
        self.next = now + 1;
        self.earliest = self.first_entry();
    }

    /// How long until the next check, in microseconds.
    pub fn timeout_us(&self, now_us: u64) -> Option<u64> {
        (self.entries > 0).then(|| (self.earliest * TICK_US).saturating_sub(now_us))
    }

    fn first_entry(&self) -> u64 {
        if self.entries == 0 {
            return u64::MAX;
        }
        (self.next..self.next + SLOTS as u64)
            .find(|tick| !self.slots[*tick as usize % SLOTS].is_empty())
            .unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHANNEL: ChannelId = ChannelId { slot: 1, generation: 1 };
    const SECOND_US: u64 = 1_000_000;

    fn due(wheel: &mut TimerWheel, now_us: u64) -> usize {
        let mut due = Vec::new();
        wheel.turn(now_us, &mut due);
        due.len()
    }

    #[test]
    fn a_channel_is_looked_at_once_and_not_before_its_time() {
        let mut wheel = TimerWheel::new(SECOND_US);
        wheel.arm(CHANNEL, 3 * SECOND_US);
        assert_eq!(due(&mut wheel, 3 * SECOND_US - TICK_US), 0);
        assert_eq!(due(&mut wheel, 3 * SECOND_US + TICK_US), 1);
        assert_eq!(due(&mut wheel, 4 * SECOND_US), 0);
        assert_eq!(wheel.timeout_us(4 * SECOND_US), None);
    }

    #[test]
    fn the_timeout_leads_to_the_next_look() {
        let mut wheel = TimerWheel::new(0);
        wheel.arm(CHANNEL, 2 * SECOND_US);
        let timeout = wheel.timeout_us(SECOND_US).unwrap();
        assert_eq!(due(&mut wheel, SECOND_US + timeout), 1);
    }

    #[test]
    fn a_far_deadline_is_looked_at_within_a_turn_of_the_wheel() {
        let mut wheel = TimerWheel::new(0);
        wheel.arm(CHANNEL, 3600 * SECOND_US);
        assert_eq!(due(&mut wheel, SLOTS as u64 * TICK_US), 1);
    }

    #[test]
    fn a_long_sleep_loses_nothing() {
        let mut wheel = TimerWheel::new(0);
        wheel.arm(CHANNEL, SECOND_US);
        wheel.arm(CHANNEL, 40 * SECOND_US);
        assert_eq!(due(&mut wheel, 10_000 * SECOND_US), 2);
        wheel.arm(CHANNEL, 10_001 * SECOND_US);
        assert_eq!(due(&mut wheel, 10_002 * SECOND_US), 1);
    }
}
