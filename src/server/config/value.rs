//! What the value of a setting may be: each kind reads a text and says in words what it would have taken.
//!
//! Plain functions, owned by nobody. A kind never falls back to another value: what it cannot read is refused.

use std::ffi::OsStr;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use jiff::fmt::friendly::{Spacing, SpanPrinter};
use jiff::{SignedDuration, Span, SpanRelativeTo};

use super::{Argon2Cost, Keepalive};
use crate::auth::login_limiter::AddressLimit;
use crate::auth::password::{HASH_MEMORY_MAX_KIB, HASH_PASSES_MAX, LANE_MEMORY_KIB};

/// Addresses that one setting may list.
const MAX_ADDRESSES: usize = 16;

/// Reads a duration as people write it (`250ms`, `5s`, `1h30m`); none if it is not one, or negative.
pub fn duration(text: &str) -> Option<Duration> {
    let span: Span = text.parse().ok()?;
    let length = span.to_duration(SpanRelativeTo::days_are_24_hours()).ok()?;
    Duration::try_from(length).ok()
}

/// Writes a duration so that [`duration`] reads it back.
pub fn duration_text(length: Duration) -> String {
    let printer = SpanPrinter::new().spacing(Spacing::None);
    printer.duration_to_string(&SignedDuration::try_from(length).unwrap_or(SignedDuration::MAX))
}

/// A kind of value.
pub(super) trait ValueParser {
    /// What it becomes.
    type Value;
    /// True exactly when the setting may be given several times, or as an array.
    fn is_list(&self) -> bool {
        false
    }
    /// The value, or none if `text` is not of this kind.
    fn parse(&self, text: &str) -> Option<Self::Value>;
    /// The same of what the system hands in, which need not be text.
    fn parse_os(&self, text: &OsStr) -> Option<Self::Value> {
        self.parse(text.to_str()?)
    }
    /// The value of the default's text, which may mean something else than the same text in a setting.
    fn parse_default(&self, text: &OsStr) -> Option<Self::Value> {
        self.parse_os(text)
    }
    /// What is allowed, to go after "expected".
    fn allowed(&self) -> String;
}

/// A path; it need not exist.
pub(super) struct Directory;

impl ValueParser for Directory {
    type Value = PathBuf;

    fn parse(&self, text: &str) -> Option<PathBuf> {
        self.parse_os(text.as_ref())
    }

    /// A path is bytes.
    fn parse_os(&self, text: &OsStr) -> Option<PathBuf> {
        (!text.is_empty() && !text.as_encoded_bytes().contains(&0)).then(|| PathBuf::from(text))
    }

    fn allowed(&self) -> String {
        "a directory".into()
    }
}

/// An address with a port. A host name becomes one address, IPv4 where it has both.
pub(super) struct Address;

impl ValueParser for Address {
    type Value = SocketAddr;

    fn parse(&self, text: &str) -> Option<SocketAddr> {
        if let Ok(address) = text.parse() {
            return Some(address);
        }
        let (host, _) = text.rsplit_once(':')?;
        if host.is_empty() {
            return None;
        }
        let found: Vec<SocketAddr> = text.to_socket_addrs().ok()?.collect();
        found.iter().find(|address| address.is_ipv4()).or(found.first()).copied()
    }

    fn allowed(&self) -> String {
        "HOST:PORT, such as 127.0.0.1:6000 or [::1]:6000".into()
    }
}

/// One or more addresses, with commas between.
pub(super) struct Addresses;

impl ValueParser for Addresses {
    type Value = Vec<SocketAddr>;

    fn is_list(&self) -> bool {
        true
    }

    fn parse(&self, text: &str) -> Option<Vec<SocketAddr>> {
        let all: Option<Vec<_>> = text.split(',').map(|one| Address.parse(one.trim())).collect();
        all.filter(|all| all.len() <= MAX_ADDRESSES)
    }

    fn allowed(&self) -> String {
        format!("up to {MAX_ADDRESSES} times {}", Address.allowed())
    }
}

/// A whole number in a range, both ends allowed.
pub(super) struct Count(pub(super) usize, pub(super) usize);

impl ValueParser for Count {
    type Value = usize;

    fn parse(&self, text: &str) -> Option<usize> {
        text.parse().ok().filter(|n| (self.0..=self.1).contains(n))
    }

    fn allowed(&self) -> String {
        format!("a whole number from {} to {}", self.0, self.1)
    }
}

/// A limit of an address, which holds for loopback only where it is set.
pub(super) struct UnlessLoopback(pub(super) Count);

impl ValueParser for UnlessLoopback {
    type Value = AddressLimit;

    fn parse(&self, text: &str) -> Option<AddressLimit> {
        Some(AddressLimit { at_most: self.0.parse(text)?, spares_loopback: false })
    }

    fn parse_default(&self, text: &OsStr) -> Option<AddressLimit> {
        Some(AddressLimit { spares_loopback: true, ..self.parse_os(text)? })
    }

    fn allowed(&self) -> String {
        self.0.allowed()
    }
}

/// A count, or `auto` for as many as the machine has cores.
pub(super) struct CountOrCores(pub(super) Count);

impl ValueParser for CountOrCores {
    type Value = usize;

    fn parse(&self, text: &str) -> Option<usize> {
        if text == "auto" {
            let cores = std::thread::available_parallelism().map_or(1, usize::from);
            return Some(cores.clamp(self.0.0, self.0.1));
        }
        self.0.parse(text)
    }

    fn allowed(&self) -> String {
        format!("{}, or auto", self.0.allowed())
    }
}

/// A number of bytes in a range, both ends allowed.
pub(super) struct Bytes(pub(super) u64, pub(super) u64);

impl ValueParser for Bytes {
    type Value = usize;

    fn parse(&self, text: &str) -> Option<usize> {
        let size = bytesize::ByteSize::from_str(text).ok()?.as_u64();
        usize::try_from(size).ok().filter(|_| (self.0..=self.1).contains(&size))
    }

    fn allowed(&self) -> String {
        format!("a size from {} to {}, such as 64KiB", size_text(self.0), size_text(self.1))
    }
}

/// A duration in a range, both ends allowed.
pub(super) struct Length(pub(super) Duration, pub(super) Duration);

impl ValueParser for Length {
    type Value = Duration;

    fn parse(&self, text: &str) -> Option<Duration> {
        duration(text).filter(|length| (self.0..=self.1).contains(length))
    }

    fn allowed(&self) -> String {
        format!("a duration from {} to {}, such as 5s", duration_text(self.0), duration_text(self.1))
    }
}

/// Another kind, or one word that stands for none.
pub(super) struct OrWord<K>(pub(super) K, pub(super) &'static str);

impl<K: ValueParser> ValueParser for OrWord<K> {
    type Value = Option<K::Value>;

    fn parse(&self, text: &str) -> Option<Self::Value> {
        if text == self.1 { Some(None) } else { self.0.parse(text).map(Some) }
    }

    fn allowed(&self) -> String {
        format!("{}, or {}", self.0.allowed(), self.1)
    }
}

/// One of a few words.
pub(super) struct Choice<T: 'static>(pub(super) &'static [(&'static str, T)]);

impl<T: Copy> ValueParser for Choice<T> {
    type Value = T;

    fn parse(&self, text: &str) -> Option<T> {
        self.0.iter().find(|(word, _)| *word == text).map(|(_, value)| *value)
    }

    fn allowed(&self) -> String {
        let words: Vec<_> = self.0.iter().map(|(word, _)| *word).collect();
        match words.split_last() {
            Some((last, rest)) if !rest.is_empty() => format!("{} or {last}", rest.join(", ")),
            _ => words.concat(),
        }
    }
}

/// The cost of a password hash: `M,T,P`.
pub(super) struct Argon2;

impl Argon2 {
    const MAX_LANES: u32 = 16;
}

impl ValueParser for Argon2 {
    type Value = Argon2Cost;

    fn parse(&self, text: &str) -> Option<Argon2Cost> {
        let parts: Option<Vec<u32>> = text.split(',').map(|part| part.trim().parse().ok()).collect();
        let &[memory_kib, passes, lanes] = parts?.as_slice() else { return None };
        let fits = (1..=HASH_PASSES_MAX).contains(&passes)
            && (1..=Self::MAX_LANES).contains(&lanes)
            && (lanes * LANE_MEMORY_KIB..=HASH_MEMORY_MAX_KIB).contains(&memory_kib);
        fits.then_some(Argon2Cost { memory_kib, passes, lanes })
    }

    fn allowed(&self) -> String {
        format!(
            "M,T,P with M from {} per lane to {} KiB, T from 1 to {}, P from 1 to {}",
            LANE_MEMORY_KIB,
            HASH_MEMORY_MAX_KIB,
            HASH_PASSES_MAX,
            Self::MAX_LANES
        )
    }
}

/// A size in the largest unit that leaves no rest.
/// TCP keepalive: `T,T,N`.
pub(super) struct KeepaliveTimes;

impl KeepaliveTimes {
    /// The kernel counts whole seconds, up to this many.
    const MAX_S: u64 = 32_767;
    /// The kernel's bound.
    const MAX_PROBES: u32 = 127;
}

impl ValueParser for KeepaliveTimes {
    type Value = Keepalive;

    fn parse(&self, text: &str) -> Option<Keepalive> {
        let parts: Vec<&str> = text.split(',').map(str::trim).collect();
        let &[idle, interval, probes] = parts.as_slice() else { return None };
        let whole = |text| {
            duration(text).filter(|d| d.subsec_nanos() == 0 && (1..=Self::MAX_S).contains(&d.as_secs()))
        };
        let probes = probes.parse().ok().filter(|probes| (1..=Self::MAX_PROBES).contains(probes))?;
        Some(Keepalive { idle: whole(idle)?, interval: whole(interval)?, probes })
    }

    fn allowed(&self) -> String {
        format!("T,T,N with whole seconds up to {} and N from 1 to {}", Self::MAX_S, Self::MAX_PROBES)
    }
}

pub(super) fn size_text(bytes: u64) -> String {
    for (unit, name) in [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")] {
        if bytes >= unit && bytes.is_multiple_of(unit) {
            return format!("{}{name}", bytes / unit);
        }
    }
    format!("{bytes} bytes")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_people_write_them_and_read_back_as_written() {
        let cases = [
            ("0s", 0),
            ("250ms", 250),
            ("5s", 5_000),
            ("2m", 120_000),
            ("1h", 3_600_000),
            ("1d", 86_400_000),
        ];
        for (text, ms) in cases {
            assert_eq!(duration(text), Some(Duration::from_millis(ms)), "{text}");
        }
        for ms in [0, 1, 999, 60_001, 5_400_000, 90_000_000] {
            let length = Duration::from_millis(ms);
            assert_eq!(duration(&duration_text(length)), Some(length), "{}", duration_text(length));
        }
    }

    #[test]
    fn what_is_no_duration_is_refused() {
        for text in ["", "5", "s", "-5s", "5s ago", "soon", "1mo", "99999999999999999999h"] {
            assert_eq!(duration(text), None, "{text:?}");
        }
        // The longest there is must not panic either.
        duration_text(Duration::MAX);
    }

    #[test]
    fn sizes_take_units_or_plain_bytes_within_the_range() {
        let kind = Bytes(256, 16 << 20);
        assert_eq!(kind.parse("64KiB"), Some(65_536));
        assert_eq!(kind.parse("1MiB"), Some(1 << 20));
        assert_eq!(kind.parse("256"), Some(256));
        for text in ["255", "17MiB", "", "-1", "KiB", "many", "99999999999999999999"] {
            assert_eq!(kind.parse(text), None, "{text:?}");
        }
        assert_eq!(kind.allowed(), "a size from 256 bytes to 16MiB, such as 64KiB");
    }

    #[test]
    fn addresses_are_numbers_or_names_and_may_be_several() {
        let expected: Vec<SocketAddr> = vec!["127.0.0.1:0".parse().unwrap(), "[::1]:6000".parse().unwrap()];
        assert_eq!(Addresses.parse("127.0.0.1:0, [::1]:6000"), Some(expected));
        assert!(Address.parse("localhost:6000").unwrap().ip().is_loopback());
        for text in ["", "6000", ":6000", "127.0.0.1", "127.0.0.1:65536", "127.0.0.1:6000,"] {
            assert_eq!(Addresses.parse(text), None, "{text:?}");
        }
    }

    #[test]
    fn a_password_cost_that_the_algorithm_would_refuse_is_refused_here() {
        let cost = Argon2Cost { memory_kib: 8, passes: 1, lanes: 1 };
        assert_eq!(Argon2.parse("8,1,1"), Some(cost));
        for text in ["7,1,1", "15,1,2", "8,0,1", "8,1,0", "8,1", "8,1,1,1", "", "8,1,4294967295", "x,1,1"] {
            assert_eq!(Argon2.parse(text), None, "{text:?}");
        }
    }
}
