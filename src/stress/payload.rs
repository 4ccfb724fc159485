//! The text of a chat in a scenario: its serial and when it was sent. Plain text, without a clock.

use std::fmt::Write as _;
use std::time::Duration;

/// `SERIAL MICROSECONDS`, filled up to `size` bytes.
pub(super) fn write_payload(msg: &mut String, serial: u64, sent: Duration, size: usize) {
    msg.clear();
    let _ = write!(msg, "{serial} {} ", sent.as_micros());
    while msg.len() < size {
        msg.push('x');
    }
}

/// The serial and the time of a chat, if it is one of ours.
pub(super) fn read_payload(msg: &str) -> Option<(u64, Duration)> {
    let mut words = msg.split(' ');
    let serial = words.next()?.parse().ok()?;
    let sent = words.next()?.parse().ok()?;
    Some((serial, Duration::from_micros(sent)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_is_read_back_and_has_the_size_asked_for() {
        let mut msg = String::new();
        write_payload(&mut msg, 12, Duration::from_micros(345), 64);
        assert_eq!(msg.len(), 64);
        assert_eq!(read_payload(&msg), Some((12, Duration::from_micros(345))));
        write_payload(&mut msg, 1, Duration::ZERO, 0);
        assert_eq!(read_payload(&msg), Some((1, Duration::ZERO)));
        assert_eq!(read_payload("hello"), None);
    }
}
