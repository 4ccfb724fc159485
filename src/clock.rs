//! Time as an argument: whoever acts reads the clock once a turn, whoever decides is told.

#[cfg(any(test, fuzzing))]
use crate::sync::{AtomicU64, Ordering};
use std::cell::RefCell;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// A moment, on both clocks.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Now {
    /// Microseconds since the server started; never goes back.
    pub mono_us: u64,
    /// Unix milliseconds; may jump when somebody sets the clock, so nothing is ever timed with it.
    pub unix_ms: i64,
}

/// Reads both clocks. Cheap to copy; every thread has its own.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    started: Instant,
    #[cfg(any(test, fuzzing))]
    by_hand: Option<&'static ByHand>,
}

impl Clock {
    /// A clock whose monotonic side starts now, at 1 so that 0 can stand for "never".
    pub fn start() -> Self {
        Clock {
            started: Instant::now(),
            #[cfg(any(test, fuzzing))]
            by_hand: None,
        }
    }

    /// The present moment.
    pub fn now(&self) -> Now {
        #[cfg(any(test, fuzzing))]
        if let Some(hand) = self.by_hand {
            return hand.now();
        }
        let unix_ms = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as i64);
        Now { mono_us: self.started.elapsed().as_micros() as u64 + 1, unix_ms }
    }
}

/// A clock of a test: it stands still until it is moved, so that the test decides when things happen.
#[cfg(any(test, fuzzing))]
#[derive(Debug)]
pub(crate) struct ByHand {
    mono_us: AtomicU64,
    /// Unix milliseconds at the start.
    started_ms: i64,
}

#[cfg(any(test, fuzzing))]
impl ByHand {
    fn now(&self) -> Now {
        let mono_us = self.mono_us.load(Ordering::Relaxed);
        Now { mono_us, unix_ms: self.started_ms + (mono_us / 1000) as i64 }
    }
}

#[cfg(any(test, fuzzing))]
impl Clock {
    /// A clock that [`Clock::advance`] moves, all copies of it together.
    pub(crate) fn by_hand() -> Self {
        Clock::by_hand_from(1_700_000_000_000)
    }

    /// The same for a server that starts at that Unix time, in milliseconds.
    pub(crate) fn by_hand_from(started_ms: i64) -> Self {
        // Copies of a clock have no owner; a test can spare the eight bytes.
        let hand = Box::leak(Box::new(ByHand { mono_us: AtomicU64::new(1), started_ms }));
        Clock { by_hand: Some(hand), ..Clock::start() }
    }

    /// Moves a clock by hand.
    pub(crate) fn advance(&self, us: u64) {
        let hand = self.by_hand.expect("only a clock of a test can be moved");
        hand.mono_us.fetch_add(us, Ordering::Relaxed);
    }
}

thread_local! {
    /// The latest second that was asked for, and its text: most chats of a turn are of the same second, and looking
    /// up the time zone costs more than all else that is done for a chat.
    static LATEST: RefCell<(i64, String)> = const { RefCell::new((i64::MIN, String::new())) };
}

/// The server's local time as chats carry it: `YYYY-MM-DD HH:MM:SS`.
pub fn local_time(unix_ms: i64) -> String {
    let second = unix_ms.div_euclid(1000);
    LATEST.with_borrow_mut(|(latest, text)| {
        if *latest != second {
            let at = jiff::Timestamp::from_second(second).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
            *text = at.to_zoned(jiff::tz::TimeZone::system()).strftime("%Y-%m-%d %H:%M:%S").to_string();
            *latest = second;
        }
        text.clone()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_second_has_its_own_text_in_whatever_order_they_are_asked_for() {
        let texts: Vec<String> = [1_000, 1_999, 2_000, 1_000].into_iter().map(local_time).collect();
        assert_eq!((&texts[0], &texts[0]), (&texts[1], &texts[3]));
        assert_ne!(texts[0], texts[2]);
    }

    #[test]
    fn local_time_has_the_shape_that_clients_expect() {
        let text = local_time(1_790_000_000_000);
        assert_eq!(text.len(), "2026-11-20 12:00:00".len());
        assert_eq!((&text[4..5], &text[10..11], &text[13..14]), ("-", " ", ":"));
    }
}
