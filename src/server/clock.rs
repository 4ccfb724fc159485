//! Time as an argument: a thread reads the clock once a turn, and hands the time to the functions that decide.
//!
//! | clock | for |
//! |---|---|
//! | boot clock ([`Now::mono_us`]) | every duration while the server runs; it counts while the machine sleeps |
//! | wall clock ([`Now::unix_ms`]) | what people are shown, such as the `time` of a chat and the history's `at` |
//! | trusted time ([`TrustedClock`]) | how old what is stored is: messages, bans, tokens, accepted chats, the history |
//!
//! The wall clock can be set to any time, or begin in 1970, so nothing is judged by it while the server runs.

#[cfg(any(test, fuzzing))]
use crate::sync::{AtomicI64, AtomicU64, Ordering};
use rustix::time::{ClockId, clock_gettime};
use std::cell::RefCell;
use std::time::{SystemTime, UNIX_EPOCH};

/// A moment, on both clocks.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Now {
    /// Microseconds since the server started; never goes back, and goes on while the machine sleeps.
    pub mono_us: u64,
    /// Unix milliseconds; may jump when somebody sets the clock, so nothing is ever timed with it.
    pub unix_ms: i64,
}

/// Reads both clocks. Cheap to copy; every thread has its own.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    /// On the boot clock, in microseconds.
    started_us: u64,
    #[cfg(any(test, fuzzing))]
    by_hand: Option<&'static ByHand>,
}

impl Clock {
    /// A clock whose monotonic side starts now, at 1 so that 0 can stand for "never".
    pub fn start() -> Self {
        Clock {
            started_us: boot_us(),
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
        Now { mono_us: boot_us().saturating_sub(self.started_us) + 1, unix_ms }
    }
}

/// Microseconds since the machine was started.
fn boot_us() -> u64 {
    let since = clock_gettime(ClockId::Boottime);
    since.tv_sec as u64 * 1_000_000 + since.tv_nsec as u64 / 1000
}

/// How long a stop may have been for the wall clock to be believed about it, in milliseconds (7 days). A longer one counts as
/// none: what is stored gets no older by it.
pub const STOP_MAX_MS: i64 = 7 * 24 * 3600 * 1000;
/// Unix milliseconds past which no time of the database is believed: the year 10000.
const UNIX_MAX_MS: i64 = 253_402_300_800_000;

/// What a run of the server leaves to the next of the time at which it stopped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TimeMark {
    /// The trusted time, in milliseconds.
    pub trusted_ms: i64,
    /// The wall clock then, in Unix milliseconds.
    pub wall_ms: i64,
}

/// The time by which the age of what is stored is judged. All times in the database but `departure.at` are of this clock.
///
/// While the server runs it is the boot clock, so it never goes back and never jumps, whatever becomes of the wall clock.
/// From one run to the next it goes on from the last mark in the database, by as much as the wall clock has gone on since;
/// by nothing where that is less than nothing or more than [`STOP_MAX_MS`]. It begins as the wall clock does, and is the same
/// while that is right. A wall clock that was behind the last mark at the start, as one that begins in 1970 is, and is set
/// right later, is believed then.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct TrustedClock {
    /// The trusted time when the server started, in milliseconds.
    began_ms: i64,
    /// The wall clock's time in the last mark, while nobody knows yet how long ago that was.
    unknown_since_ms: Option<i64>,
}

impl TrustedClock {
    /// Begins where the last run has ended, if there was one. `wall_ms` is the wall clock at the start.
    pub fn start(mark: Option<TimeMark>, wall_ms: i64) -> TrustedClock {
        let is_time = |ms: i64| (0..UNIX_MAX_MS).contains(&ms);
        let mark = mark.filter(|mark| is_time(mark.trusted_ms) && is_time(mark.wall_ms));
        let Some(TimeMark { trusted_ms, wall_ms: left_ms }) = mark else {
            return TrustedClock { began_ms: wall_ms, unknown_since_ms: None };
        };
        let began = TrustedClock { began_ms: trusted_ms, unknown_since_ms: Some(left_ms) };
        began.corrected(wall_ms)
    }

    /// The trusted time, in milliseconds.
    pub fn now_ms(&self, now: Now) -> i64 {
        self.began_ms.saturating_add(run_ms(now))
    }

    /// Looks whether the wall clock has been set right, and answers the mark to store.
    pub fn mark(&mut self, now: Now) -> TimeMark {
        *self = self.corrected(now.unix_ms.saturating_sub(run_ms(now)));
        let known_ms =
            self.unknown_since_ms.map_or(now.unix_ms, |left_ms| left_ms.saturating_add(run_ms(now)));
        TimeMark { trusted_ms: self.now_ms(now), wall_ms: known_ms }
    }

    /// What a time of this clock is on the wall clock, for people. Both are taken for the same within a second.
    pub fn shown_ms(&self, trusted_ms: i64, now: Now) -> i64 {
        let ahead_ms = now.unix_ms.saturating_sub(self.now_ms(now));
        if ahead_ms.abs() < 1000 { trusted_ms } else { trusted_ms.saturating_add(ahead_ms) }
    }

    /// The same once the wall clock is not behind the last mark any more. `wall_ms` is what it makes of the start.
    fn corrected(self, wall_ms: i64) -> TrustedClock {
        let Some(stop_ms) = self.unknown_since_ms.map(|left_ms| wall_ms.saturating_sub(left_ms)) else {
            return self;
        };
        match stop_ms {
            ..0 => self,
            0..=STOP_MAX_MS => TrustedClock { began_ms: self.began_ms + stop_ms, unknown_since_ms: None },
            _ => TrustedClock { unknown_since_ms: None, ..self },
        }
    }
}

/// For how long the server runs, in milliseconds.
fn run_ms(now: Now) -> i64 {
    (now.mono_us / 1000) as i64
}

/// A clock of a test: it stands still until it is moved, so that the test decides when things happen.
#[cfg(any(test, fuzzing))]
#[derive(Debug)]
pub(crate) struct ByHand {
    mono_us: AtomicU64,
    /// Unix milliseconds at the start.
    started_ms: i64,
    /// By how much the wall clock is wrong, in milliseconds.
    wrong_ms: AtomicI64,
}

#[cfg(any(test, fuzzing))]
impl ByHand {
    fn now(&self) -> Now {
        let mono_us = self.mono_us.load(Ordering::Relaxed);
        let wrong_ms = self.wrong_ms.load(Ordering::Relaxed);
        Now { mono_us, unix_ms: self.started_ms + (mono_us / 1000) as i64 + wrong_ms }
    }
}

#[cfg(any(test, fuzzing))]
impl Clock {
    /// A clock that [`Clock::advance`] moves, all copies of it together. It begins before the first epoch of the wall clock,
    /// so that epochs are small numbers.
    pub(crate) fn by_hand() -> Self {
        Clock::by_hand_from(1_500_000_000_000)
    }

    /// The same for a server that starts at that Unix time, in milliseconds.
    pub(crate) fn by_hand_from(started_ms: i64) -> Self {
        // Copies of a clock have no owner; a test can spare the eight bytes.
        let hand = ByHand { mono_us: AtomicU64::new(1), started_ms, wrong_ms: AtomicI64::new(0) };
        let hand = Box::leak(Box::new(hand));
        Clock { by_hand: Some(hand), ..Clock::start() }
    }

    /// Moves a clock by hand.
    pub(crate) fn advance(&self, us: u64) {
        let hand = self.by_hand.expect("only a clock of a test can be moved");
        hand.mono_us.fetch_add(us, Ordering::Relaxed);
    }

    /// Somebody sets the wall clock, by so much. Nothing else moves.
    pub(crate) fn set_wall_by(&self, ms: i64) {
        let hand = self.by_hand.expect("only a clock of a test can be set");
        hand.wrong_ms.fetch_add(ms, Ordering::Relaxed);
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

    const DAY_MS: i64 = 24 * 3600 * 1000;
    const LEFT: TimeMark = TimeMark { trusted_ms: 1_700_000_000_000, wall_ms: 1_700_000_001_000 };

    /// `run_ms` into a run, while the wall clock says that.
    fn at(run_ms: i64, unix_ms: i64) -> Now {
        Now { mono_us: run_ms as u64 * 1000, unix_ms }
    }

    #[test]
    fn trusted_time_is_the_wall_clock_at_first_and_the_boot_clock_from_then_on() {
        let mut clock = TrustedClock::start(None, 5_000);
        for (run_ms, unix_ms) in [(0, 5_000), (10, 5_010), (20, 99 * DAY_MS), (30, -99 * DAY_MS)] {
            assert_eq!(clock.now_ms(at(run_ms, unix_ms)), 5_000 + run_ms);
            assert_eq!(clock.mark(at(run_ms, unix_ms)).trusted_ms, 5_000 + run_ms);
        }
    }

    #[test]
    fn a_stop_counts_as_the_wall_clock_says_unless_that_cannot_be() {
        for (stop_ms, counts) in [
            (0, 0),
            (60_000, 60_000),
            (STOP_MAX_MS, STOP_MAX_MS),
            (STOP_MAX_MS + 1, 0),
            (99 * 365 * DAY_MS, 0),
            (-1, 0),
            (-LEFT.wall_ms, 0),
            (i64::MIN, 0),
        ] {
            let wall_ms = LEFT.wall_ms.saturating_add(stop_ms);
            let clock = TrustedClock::start(Some(LEFT), wall_ms);
            assert_eq!(clock.now_ms(at(0, wall_ms)), LEFT.trusted_ms + counts, "{stop_ms}");
        }
    }

    #[test]
    fn a_clock_that_begins_in_1970_is_believed_once_it_is_set_right_and_never_again() {
        let mut clock = TrustedClock::start(Some(LEFT), 0);
        let early = clock.mark(at(1_000, 1_000));
        assert_eq!(early, TimeMark { trusted_ms: LEFT.trusted_ms + 1_000, wall_ms: LEFT.wall_ms + 1_000 });
        let set_right = at(5_000, LEFT.wall_ms + 65_000);
        assert_eq!(clock.mark(set_right).trusted_ms, LEFT.trusted_ms + 65_000, "the stop was a minute long");
        assert_eq!(clock.mark(at(6_000, LEFT.wall_ms + DAY_MS)).trusted_ms, LEFT.trusted_ms + 66_000);
    }

    #[test]
    fn times_that_others_have_spoilt_begin_with_the_wall_clock() {
        for wild in [i64::MIN, -1, UNIX_MAX_MS, i64::MAX] {
            for mark in [TimeMark { trusted_ms: wild, ..LEFT }, TimeMark { wall_ms: wild, ..LEFT }] {
                assert_eq!(TrustedClock::start(Some(mark), 7).now_ms(at(0, 7)), 7);
            }
        }
    }

    #[test]
    fn people_are_shown_the_wall_clocks_time() {
        let clock = TrustedClock::start(None, 5_000);
        assert_eq!(clock.shown_ms(8_000, at(10, 5_012)), 8_000, "it is the same clock");
        assert_eq!(clock.shown_ms(8_000, at(10, 5_010 + DAY_MS)), 8_000 + DAY_MS);
    }

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
