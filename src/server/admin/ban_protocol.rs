//! What the admin socket is asked and answers about bans.

use super::target::{Target, TargetError, bounded};
use crate::config::duration;
use crate::message::event::BanName;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// The shortest ban.
const BAN_MIN: Duration = Duration::from_secs(1);

/// The longest ban: ten years.
const BAN_MAX: Duration = Duration::from_hours(10 * 365 * 24);

/// How long a ban lasts, from one second to ten years. On the wire in milliseconds.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(try_from = "u64", into = "u64")]
pub struct BanLength(Duration);

/// A text or number that is no length of a ban.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("a ban lasts from 1s to 3650d, such as 10m or 720h")]
pub struct BanLengthError;

/// Whose bans are meant.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct BanTarget(pub(super) Target);

/// Why a text names no ban.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum BanTargetError {
    /// It is no target at all.
    #[error(transparent)]
    Target(#[from] TargetError),
    /// A target of another kind.
    #[error("{0} names no ban; expected a user, ip:ADDR[/LEN] or all")]
    Kind(Target),
}

/// Whose bans are to be lifted.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Unban {
    /// Every ban that one of them names is lifted.
    #[serde(deserialize_with = "bounded")]
    pub targets: Vec<BanTarget>,
}

/// Answer to `bans`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct BanList {
    /// All bans: users by number, then addresses.
    pub bans: Vec<BanRow>,
}

/// Answer to `unban`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Unbanned {
    /// The bans that were lifted; empty when nothing matched.
    pub unbanned: Vec<BanRow>,
}

/// A ban, of a user or of addresses.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct BanRow {
    /// The user's number.
    pub user: Option<i64>,
    /// The user's name.
    pub name: Option<String>,
    /// The address or addresses, such as `10.0.0.0/8`.
    pub address: Option<String>,
    /// When it is over, in Unix milliseconds.
    pub until_ms: i64,
    /// What the administrator said.
    pub reason: Option<String>,
}

/// Whom a target names by itself; none where it only names channels.
pub(super) fn name_of(target: &Target) -> Option<BanName> {
    Some(match target {
        Target::User(user) => BanName::Id(*user),
        Target::Name(name) => BanName::Name(name.clone()),
        Target::Addr(block) => BanName::Block(*block),
        Target::All => BanName::All,
        Target::Channel(..) | Target::Idle(_) => return None,
    })
}

impl BanLength {
    pub(super) fn ms(self) -> u64 {
        self.0.as_millis() as u64
    }
}

impl TryFrom<Duration> for BanLength {
    type Error = BanLengthError;

    fn try_from(length: Duration) -> Result<BanLength, BanLengthError> {
        if (BAN_MIN..=BAN_MAX).contains(&length) { Ok(BanLength(length)) } else { Err(BanLengthError) }
    }
}

impl TryFrom<u64> for BanLength {
    type Error = BanLengthError;

    fn try_from(ms: u64) -> Result<BanLength, BanLengthError> {
        Duration::from_millis(ms).try_into()
    }
}

impl FromStr for BanLength {
    type Err = BanLengthError;

    fn from_str(text: &str) -> Result<BanLength, BanLengthError> {
        duration(text).ok_or(BanLengthError)?.try_into()
    }
}

impl FromStr for BanTarget {
    type Err = BanTargetError;

    fn from_str(text: &str) -> Result<BanTarget, BanTargetError> {
        let target = Target::parse(text)?;
        if name_of(&target).is_none() { Err(BanTargetError::Kind(target)) } else { Ok(BanTarget(target)) }
    }
}

impl TryFrom<String> for BanTarget {
    type Error = BanTargetError;

    fn try_from(text: String) -> Result<BanTarget, BanTargetError> {
        text.parse()
    }
}

impl fmt::Display for BanTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ban_lasts_from_a_second_to_ten_years() {
        for (text, ms) in
            [("1s", 1_000), ("10m", 600_000), ("720h", 2_592_000_000), ("3650d", 315_360_000_000)]
        {
            assert_eq!(text.parse(), Ok(BanLength(Duration::from_millis(ms))), "{text}");
        }
        for text in ["0s", "999ms", "3651d", "-1h", "for ever", "10", ""] {
            assert_eq!(text.parse::<BanLength>(), Err(BanLengthError), "{text:?}");
        }
        assert!(BanLength::try_from(u64::MAX).is_err());
    }

    #[test]
    fn only_who_can_be_banned_can_be_unbanned() {
        for text in ["13", "@13", "alice", "ip:10.0.0.0/8", "all"] {
            assert_eq!(text.parse::<BanTarget>().unwrap().to_string(), text);
        }
        for text in ["#7.3", "idle:10m"] {
            assert!(matches!(text.parse::<BanTarget>(), Err(BanTargetError::Kind(_))), "{text}");
        }
        assert!(matches!("ip:x".parse::<BanTarget>(), Err(BanTargetError::Target(_))));
    }
}
