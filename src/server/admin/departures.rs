//! What is said about those who have left: the request `why`, and its answer, one row for each departure.
//!
//! Plain data, used by both ends. The keys of a row are the columns of the table `departure`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::target::{Target, TargetError};
use crate::ids::UserId;
use crate::ip_block::AddrBlock;
use crate::store::sqlite::StoredDeparture;

/// Rows of an answer, where the request does not say.
pub const LIMIT_DEFAULT: u32 = 10;

/// Rows of an answer at most, so that no question makes the server collect the whole history.
pub const LIMIT_MAX: u32 = 10_000;

/// Whose departures, and how many: `{"cmd":"why","target":"13","limit":10}`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Why {
    /// Who left.
    pub target: DepartureTarget,
    /// How many rows at most.
    #[serde(default)]
    pub limit: Limit,
}

/// Those who left: a [`Target`] that still means something afterwards, so not `idle:`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum DepartureTarget {
    /// The user with that number.
    User(UserId),
    /// The user with that name now.
    Name(String),
    /// The user who was on that channel: its slot and its generation.
    Channel(u32, u32),
    /// Whoever came from these addresses.
    Addr(AddrBlock),
    /// Everybody.
    All,
}

/// Rows of an answer: 1 to [`LIMIT_MAX`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u32")]
pub struct Limit(u32);

/// Why a text does not say who left.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum DepartureTargetError {
    /// No target at all.
    #[error(transparent)]
    Target(#[from] TargetError),
    /// `idle:` only means channels that are open.
    #[error("{0} is about channels that are here; name a user, a channel or an address")]
    Idle(String),
}

/// A limit that is none.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{0} is no limit; expected a number from 1 to {LIMIT_MAX}")]
pub struct LimitError(String);

/// Answer to `why`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Departures {
    /// Newest first; empty when nothing matched.
    pub departures: Vec<DepartureRow>,
}

/// The end of a session.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct DepartureRow {
    /// When it was noticed, in Unix milliseconds.
    pub at: i64,
    /// The channel, such as `7.3`; none after a crash.
    pub channel: Option<String>,
    /// Who left.
    pub user: i64,
    /// The user's name then.
    pub name: String,
    /// The other end's address; none after a crash.
    pub peer: Option<String>,
    /// Why: the word of a [`crate::channel::Reason`].
    pub reason: String,
    /// Who brought it about: the word of a [`crate::channel::Initiator`].
    pub initiator: String,
    /// The system's error number, where there was one.
    pub errno: Option<i64>,
    /// From noticed to committed, in microseconds; none until it is known.
    pub offline_us: Option<i64>,
    /// From noticed to the fd closed, in microseconds; none until it is known, or where the channel stayed.
    pub closed_us: Option<i64>,
    /// Messages handed over during the session; none until the account is settled.
    pub delivered: Option<i64>,
    /// Messages that went back to the box; none until the account is settled.
    pub saved: Option<i64>,
    /// Messages that could not be kept; none until the account is settled.
    pub lost: Option<i64>,
    /// When the session began, in Unix milliseconds; none after a crash.
    pub since: Option<i64>,
}

impl Limit {
    /// How many rows.
    pub fn rows(self) -> usize {
        self.0 as usize
    }
}

impl Default for Limit {
    fn default() -> Limit {
        Limit(LIMIT_DEFAULT)
    }
}

impl TryFrom<u32> for Limit {
    type Error = LimitError;

    fn try_from(rows: u32) -> Result<Limit, LimitError> {
        if (1..=LIMIT_MAX).contains(&rows) { Ok(Limit(rows)) } else { Err(LimitError(rows.to_string())) }
    }
}

impl FromStr for Limit {
    type Err = LimitError;

    fn from_str(text: &str) -> Result<Limit, LimitError> {
        text.parse::<u32>().map_err(|_| LimitError(format!("{text:?}")))?.try_into()
    }
}

impl From<Limit> for u32 {
    fn from(limit: Limit) -> u32 {
        limit.0
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl TryFrom<Target> for DepartureTarget {
    type Error = DepartureTargetError;

    fn try_from(target: Target) -> Result<DepartureTarget, DepartureTargetError> {
        Ok(match target {
            Target::User(user) => DepartureTarget::User(user),
            Target::Name(name) => DepartureTarget::Name(name),
            Target::Channel(slot, generation) => DepartureTarget::Channel(slot, generation),
            Target::Addr(block) => DepartureTarget::Addr(block),
            Target::All => DepartureTarget::All,
            Target::Idle(_) => return Err(DepartureTargetError::Idle(target.to_string())),
        })
    }
}

impl From<DepartureTarget> for Target {
    fn from(leaver: DepartureTarget) -> Target {
        match leaver {
            DepartureTarget::User(user) => Target::User(user),
            DepartureTarget::Name(name) => Target::Name(name),
            DepartureTarget::Channel(slot, generation) => Target::Channel(slot, generation),
            DepartureTarget::Addr(block) => Target::Addr(block),
            DepartureTarget::All => Target::All,
        }
    }
}

impl FromStr for DepartureTarget {
    type Err = DepartureTargetError;

    fn from_str(text: &str) -> Result<DepartureTarget, DepartureTargetError> {
        Target::parse(text)?.try_into()
    }
}

impl TryFrom<String> for DepartureTarget {
    type Error = DepartureTargetError;

    fn try_from(text: String) -> Result<DepartureTarget, DepartureTargetError> {
        text.parse()
    }
}

impl From<DepartureTarget> for String {
    fn from(leaver: DepartureTarget) -> String {
        Target::from(leaver).to_string()
    }
}

impl From<StoredDeparture> for DepartureRow {
    fn from(stored: StoredDeparture) -> DepartureRow {
        DepartureRow {
            at: stored.at_ms,
            channel: stored.channel,
            user: stored.user.0,
            name: stored.name,
            peer: stored.peer,
            reason: stored.reason,
            initiator: stored.initiator,
            errno: stored.errno,
            offline_us: stored.offline_us,
            closed_us: stored.closed_us,
            delivered: stored.delivered,
            saved: stored.saved,
            lost: stored.lost,
            since: stored.since_ms,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::protocol::AdminRequest;

    fn read(line: &str) -> Option<Why> {
        match AdminRequest::parse(line.as_bytes()) {
            Ok(AdminRequest::Why(why)) => Some(why),
            _ => None,
        }
    }

    #[test]
    fn a_request_is_written_as_documented_and_its_limit_may_be_left_out() {
        let why = Why { target: DepartureTarget::User(UserId(13)), limit: Limit::default() };
        let line = AdminRequest::Why(why.clone()).to_line().unwrap();
        assert_eq!(line, b"{\"cmd\":\"why\",\"target\":\"13\",\"limit\":10}\n");
        assert_eq!(read("{\"cmd\":\"why\",\"target\":\"13\"}"), Some(why));
    }

    #[test]
    fn every_target_but_silence_may_have_left() {
        for text in ["13", "alice", "@13", "#7.3", "ip:10.0.0.0/8", "all"] {
            let leaver: DepartureTarget = text.parse().unwrap();
            assert_eq!(String::from(leaver.clone()), text);
            assert_eq!(read(&format!("{{\"cmd\":\"why\",\"target\":\"{text}\"}}")).unwrap().target, leaver);
        }
        assert_eq!("idle:10m".parse::<DepartureTarget>(), Err(DepartureTargetError::Idle("idle:10m".into())));
    }

    #[test]
    fn what_is_no_such_request_is_refused() {
        let refused = [
            "{\"cmd\":\"why\"}",
            "{\"cmd\":\"why\",\"targets\":[\"13\"]}",
            "{\"cmd\":\"why\",\"target\":13}",
            "{\"cmd\":\"why\",\"target\":\"\"}",
            "{\"cmd\":\"why\",\"target\":\"idle:10m\"}",
            "{\"cmd\":\"why\",\"target\":\"13\",\"limit\":0}",
            "{\"cmd\":\"why\",\"target\":\"13\",\"limit\":10001}",
            "{\"cmd\":\"why\",\"target\":\"13\",\"limit\":-1}",
            "{\"cmd\":\"why\",\"target\":\"13\",\"wait\":true}",
        ];
        for line in refused {
            assert_eq!(read(line), None, "{line}");
        }
    }

    #[test]
    fn a_limit_is_a_number_within_bounds() {
        assert_eq!("10000".parse::<Limit>().map(Limit::rows), Ok(10_000));
        for text in ["0", "10001", "", "-1", "ten", "99999999999"] {
            assert!(text.parse::<Limit>().is_err(), "{text:?}");
        }
    }
}
