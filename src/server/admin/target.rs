//! What an admin command is aimed at: `13`, `alice`, `@alice`, `#7.3`, `ip:10.0.0.0/8`, `idle:10m`, `all`.
//!
//! Plain values. A target only says what is meant; the server finds out whether anything matches.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};

use crate::config::{duration, duration_text};
use crate::ids::UserId;
use crate::ip_block::AddrBlock;

/// The most targets of one command. Some of them make the server look at every channel.
pub const TARGETS_MAX: usize = 1_000;

/// Reads the targets of a command.
pub(super) fn bounded<'a, T: Deserialize<'a>, D: Deserializer<'a>>(from: D) -> Result<Vec<T>, D::Error> {
    let targets = Vec::deserialize(from)?;
    if targets.len() > TARGETS_MAX {
        return Err(D::Error::custom(format_args!("a command has at most {TARGETS_MAX} targets")));
    }
    Ok(targets)
}

/// What a command is aimed at.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Target {
    /// The user with that number.
    User(UserId),
    /// The user with that name, byte by byte; never empty.
    Name(String),
    /// A channel: its slot and its generation.
    Channel(u32, u32),
    /// Every channel from these addresses.
    Addr(AddrBlock),
    /// Every channel without input for at least that long.
    Idle(Duration),
    /// Every channel.
    All,
}

/// Why a text is no target.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum TargetError {
    /// Nothing at all.
    #[error("an empty target")]
    Empty,
    /// All digits, but not a number that a user can have.
    #[error("{0} is too large for a user id")]
    User(String),
    /// `#` without slot and generation.
    #[error("{0:?} is no channel; expected a form such as #7.3")]
    Channel(String),
    /// `ip:` without an address.
    #[error("{0:?} is no address; expected a form such as ip:10.0.0.7 or ip:10.0.0.0/8")]
    Addr(String),
    /// `idle:` without a duration.
    #[error("{0:?} is no duration; expected a form such as idle:10m")]
    Idle(String),
}

impl Target {
    /// Reads a target. Every text that has none of the special forms is a name.
    ///
    /// # Errors
    /// When it starts like a special form and does not go on like it, or is empty.
    pub fn parse(text: &str) -> Result<Target, TargetError> {
        if let Some(name) = text.strip_prefix('@') {
            return if name.is_empty() { Err(TargetError::Empty) } else { Ok(Target::Name(name.into())) };
        }
        if let Some(channel) = text.strip_prefix('#') {
            return parse_channel(channel).ok_or_else(|| TargetError::Channel(text.into()));
        }
        if let Some(block) = text.strip_prefix("ip:") {
            return block.parse().map(Target::Addr).map_err(|_| TargetError::Addr(text.into()));
        }
        if let Some(length) = text.strip_prefix("idle:") {
            return duration(length).map(Target::Idle).ok_or_else(|| TargetError::Idle(text.into()));
        }
        match text {
            "" => Err(TargetError::Empty),
            "all" => Ok(Target::All),
            digits if all_digits(digits) => match digits.parse() {
                Ok(id) => Ok(Target::User(UserId(id))),
                Err(_) => Err(TargetError::User(digits.into())),
            },
            name => Ok(Target::Name(name.into())),
        }
    }
}

fn parse_channel(text: &str) -> Option<Target> {
    let (slot, generation) = text.split_once('.')?;
    // `parse` alone would also take a sign.
    if !all_digits(slot) || !all_digits(generation) {
        return None;
    }
    Some(Target::Channel(slot.parse().ok()?, generation.parse().ok()?))
}

fn all_digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

impl FromStr for Target {
    type Err = TargetError;

    fn from_str(text: &str) -> Result<Target, TargetError> {
        Target::parse(text)
    }
}

impl fmt::Display for Target {
    /// Writes what [`Target::parse`] reads as the same target.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Target::User(id) => id.fmt(f),
            Target::Name(name) if Target::parse(name) == Ok(self.clone()) => f.write_str(name),
            Target::Name(name) => write!(f, "@{name}"),
            Target::Channel(slot, generation) => write!(f, "#{slot}.{generation}"),
            Target::Addr(block) => write!(f, "ip:{block}"),
            Target::Idle(length) => write!(f, "idle:{}", duration_text(*length)),
            Target::All => f.write_str("all"),
        }
    }
}

impl TryFrom<String> for Target {
    type Error = TargetError;

    fn try_from(text: String) -> Result<Target, TargetError> {
        Target::parse(&text)
    }
}

impl From<Target> for String {
    fn from(target: Target) -> String {
        target.to_string()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn name(text: &str) -> Target {
        Target::Name(text.into())
    }

    fn block(ip: &str, len: u8) -> AddrBlock {
        AddrBlock::new(ip.parse().unwrap(), len).unwrap()
    }

    #[test]
    fn each_form_is_read_as_the_contract_says() {
        let cases = [
            ("13", Target::User(UserId(13))),
            ("0013", Target::User(UserId(13))),
            ("alice", name("alice")),
            ("@alice", name("alice")),
            ("@13", name("13")),
            ("@all", name("all")),
            ("@@x", name("@x")),
            ("zhang san", name("zhang san")),
            ("-5", name("-5")),
            ("All", name("All")),
            ("#7.3", Target::Channel(7, 3)),
            ("ip:10.0.0.7", Target::Addr(block("10.0.0.7", 32))),
            ("ip:10.9.9.9/8", Target::Addr(block("10.0.0.0", 8))),
            ("ip:::1", Target::Addr(block("::", 64))),
            ("ip:2001:db8::1", Target::Addr(block("2001:db8::", 64))),
            ("ip:2001:db8::1/128", Target::Addr(block("2001:db8::1", 128))),
            ("ip:2001:db8::/32", Target::Addr(block("2001:db8::", 32))),
            ("ip:::ffff:10.0.0.7", Target::Addr(block("10.0.0.7", 32))),
            ("idle:10m", Target::Idle(Duration::from_mins(10))),
            ("idle:0s", Target::Idle(Duration::ZERO)),
            ("all", Target::All),
        ];
        for (text, target) in cases {
            assert_eq!(Target::parse(text), Ok(target), "{text}");
        }
    }

    #[test]
    fn a_form_that_is_begun_and_not_finished_is_refused() {
        let refused = [
            "",
            "@",
            "#",
            "#x",
            "#7",
            "#7.",
            "#.3",
            "#+7.3",
            "#7.3.1",
            "#7.4294967296",
            "ip:",
            "ip:foo",
            "ip:10.0.0.7/33",
            "ip:10.0.0.7/",
            "ip:10.0.0.7/+8",
            "ip:::1/129",
            "ip:10.0.0.7:80",
            "idle:",
            "idle:5",
            "idle:-5s",
            "9223372036854775808",
        ];
        for text in refused {
            assert!(Target::parse(text).is_err(), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back_as_the_same(text in "\\PC{0,12}|[@#]?(ip:|idle:|all)?[0-9a-f.:/]{0,9}s?") {
            if let Ok(target) = Target::parse(&text) {
                prop_assert_eq!(Target::parse(&target.to_string()), Ok(target));
            }
        }
    }
}
