//! Time as an argument: whoever acts reads the clock once a turn, whoever decides is told.

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
}

impl Clock {
    /// A clock whose monotonic side starts now, at 1 so that 0 can stand for "never".
    pub fn start() -> Self {
        Clock { started: Instant::now() }
    }

    /// The present moment.
    pub fn now(&self) -> Now {
        let unix_ms = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as i64);
        Now { mono_us: self.started.elapsed().as_micros() as u64 + 1, unix_ms }
    }
}

/// The server's local time as chats carry it: `YYYY-MM-DD HH:MM:SS`.
pub fn local_time(unix_ms: i64) -> String {
    let at = jiff::Timestamp::from_millisecond(unix_ms).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
    at.to_zoned(jiff::tz::TimeZone::system()).strftime("%Y-%m-%d %H:%M:%S").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn local_time_has_the_shape_that_clients_expect() {
        let text = local_time(1_790_000_000_000);
        assert_eq!(text.len(), "2026-11-20 12:00:00".len());
        assert_eq!((&text[4..5], &text[10..11], &text[13..14]), ("-", " ", ":"));
    }
}
