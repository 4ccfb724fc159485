//! Bans on the control socket: what is said of them, and how control has main put and lift them.
//!
//! The messages are plain data, used by both ends. The rest runs on the threads of the control socket; main decides.

use std::collections::HashSet;
use std::fmt;
use std::str::FromStr;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender};
use serde::{Deserialize, Serialize};

use super::server::{ANSWER_MAX, ControlServer, Refusal, silent};
use super::target::{Target, TargetError, bounded};
use crate::admin::protocol::KickReason;
use crate::config::duration;
use crate::ids::UserId;
use crate::message::disconnect::Parting;
use crate::message::event::{BanAsk, BanFault, BanName};
use crate::message::event::{ControlAsk, Entry};
use crate::store::{Ban, Banned};
use crate::sync::Arc;

/// The shortest ban.
const BAN_MIN: Duration = Duration::from_secs(1);
/// The longest ban: ten years.
const BAN_MAX: Duration = Duration::from_hours(10 * 365 * 24);
/// Bans that one entry of main's queue asks for, so that many of them do not keep main from others.
const BANS_PER_ASK: usize = 256;

/// How long a ban lasts, from one second to ten years. On the wire in milliseconds.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(try_from = "u64", into = "u64")]
pub struct BanLength(Duration);

/// Why something is no length of a ban.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("a ban lasts from 1s to 3650d, such as 10m or 720h")]
pub struct BanLengthError;

/// Whose bans are meant.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct BanTarget(Target);

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
    /// Whatever one of them names is lifted.
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

/// Bans that main has been asked for.
pub(super) struct BansUnderWay {
    length: BanLength,
    reason: Option<Arc<str>>,
    asked: usize,
    reply: Sender<Result<Vec<Ban>, BanFault>>,
    answers: Receiver<Result<Vec<Ban>, BanFault>>,
}

impl BansUnderWay {
    pub(super) fn new(length: BanLength, reason: Option<&KickReason>) -> Self {
        let (reply, answers) = crossbeam_channel::unbounded();
        let reason = reason.map(|reason| reason.as_str().into());
        BansUnderWay { length, reason, asked: 0, reply, answers }
    }

    /// What those hear who are sent away for it.
    pub(super) fn parting(&self) -> Parting {
        Parting::banned(self.length.ms(), self.reason.as_deref())
    }
}

impl<S: Send + 'static> ControlServer<S> {
    /// Has main ban somebody. To be called before their channels are sent away: who logs in again then comes behind
    /// it in main's queue.
    pub(super) fn ask_for_bans(&self, bans: &mut BansUnderWay, names: &[BanName]) {
        for names in names.chunks(BANS_PER_ASK) {
            bans.asked += 1;
            self.queue.push(Entry::Control(ControlAsk::Ban(BanAsk {
                names: names.to_vec(),
                length_ms: bans.length.ms(),
                reason: bans.reason.clone(),
                reply: bans.reply.clone(),
            })));
        }
    }

    /// Waits until all that main was asked for is committed; answers whom it has banned, each once.
    pub(super) fn await_bans(bans: &BansUnderWay) -> Result<Vec<Ban>, Refusal> {
        let deadline = Instant::now() + ANSWER_MAX;
        let mut put = Vec::new();
        for _ in 0..bans.asked {
            put.extend(bans.answers.recv_deadline(deadline).map_err(|_| silent("main"))??);
        }
        let mut seen = HashSet::new();
        put.retain(|ban: &Ban| seen.insert(ban.banned));
        Ok(put)
    }

    pub(super) fn bans(&self) -> Result<BanList, Refusal> {
        let (reply, answer) = crossbeam_channel::bounded(1);
        self.queue.push(Entry::Control(ControlAsk::Bans(reply)));
        let bans = answer.recv_timeout(ANSWER_MAX).map_err(|_| silent("main"))?;
        Ok(BanList { bans: rows(bans) })
    }

    pub(super) fn unban(&self, unban: &Unban) -> Result<Unbanned, Refusal> {
        let (reply, answer) = crossbeam_channel::bounded(1);
        let names = unban.targets.iter().filter_map(|target| name_of(&target.0)).collect();
        self.queue.push(Entry::Control(ControlAsk::Unban { names, reply }));
        let bans = answer.recv_timeout(ANSWER_MAX).map_err(|_| silent("main"))??;
        Ok(Unbanned { unbanned: rows(bans) })
    }
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

/// Users by number, then addresses.
fn rows(mut bans: Vec<Ban>) -> Vec<BanRow> {
    bans.sort_by_cached_key(|ban| match ban.banned {
        Banned::User(UserId(user)) => (0, user, String::new()),
        Banned::Block(block) => (1, 0, block.to_string()),
    });
    bans.iter()
        .map(|ban| BanRow {
            user: if let Banned::User(user) = ban.banned { Some(user.0) } else { None },
            name: ban.name.as_deref().map(Into::into),
            address: if let Banned::Block(block) = ban.banned { Some(block.to_string()) } else { None },
            until_ms: ban.until_ms,
            reason: ban.reason.as_deref().map(Into::into),
        })
        .collect()
}

impl BanLength {
    fn ms(self) -> u64 {
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

impl From<BanLength> for u64 {
    fn from(length: BanLength) -> u64 {
        length.ms()
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

impl From<BanTarget> for String {
    fn from(target: BanTarget) -> String {
        target.to_string()
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
    use crate::admin::history_pool::Archive;
    use crate::admin::protocol::Kick;
    use crate::channel::{Reason, Stage};
    use crate::logs::Logs;
    use crate::store::sqlite::{Durability, History, SqliteStore};
    use crate::testing::desk::Desk;
    use crate::testing::letterbox::Letterbox;
    use crate::testing::wire::Fd;

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

    #[test]
    fn rows_come_in_one_order() {
        let ban = |banned| Ban { banned, name: None, until_ms: 1, reason: None };
        let block = |text: &str| ban(Banned::Block(text.parse().unwrap()));
        let bans = vec![
            block("10.0.0.9"),
            ban(Banned::User(UserId(20))),
            block("10.0.0.0/8"),
            ban(Banned::User(UserId(3))),
        ];
        let order: Vec<_> = rows(bans).into_iter().map(|row| (row.user, row.address)).collect();
        let address = |text: &str| (None, Some(text.to_owned()));
        assert_eq!(order, [(Some(3), None), (Some(20), None), address("10.0.0.0/8"), address("10.0.0.9")]);
    }
    /// The control socket's side of a made-up server. The history is empty; nobody asks for it.
    fn control(desk: &Desk) -> ControlServer<Fd> {
        let directory = tempfile::tempdir().unwrap();
        SqliteStore::open(directory.path(), Durability::Normal, 0).unwrap();
        ControlServer {
            table: Arc::clone(&desk.commons.table),
            registry: Arc::clone(&desk.commons.registry),
            queue: Arc::clone(&desk.commons.queue),
            outlet: Arc::<Letterbox>::clone(&desk.letters),
            kicker: desk.kicker.clone(),
            metrics: Arc::clone(&desk.commons.metrics),
            archive: Archive::new(History::open(directory.path()).unwrap()),
            clock: desk.commons.clock,
            logs: Logs::start().unwrap(),
            facts: Vec::new(),
        }
    }

    #[test]
    fn whoever_logs_in_between_the_kick_and_the_ban_is_sent_away_too() {
        let mut desk = Desk::new();
        let (alice, bob) = (desk.user("alice"), desk.online("bob"));
        let control = control(&desk);
        let ban = Some(BanLength::try_from(10_000).unwrap());
        let kick = Kick { targets: vec![Target::User(alice)], reason: None, wait: false, ban };
        let (channel, kicked) = std::thread::scope(|scope| {
            let kicked = scope.spawn(|| control.kick(&kick).unwrap().kicked);
            // It has asked for the ban, has looked for her in vain, and has asked whether she is a ghost.
            let end = Instant::now() + ANSWER_MAX;
            while desk.commons.queue.len() < 2 {
                assert!(Instant::now() < end, "control asks main");
                std::thread::yield_now();
            }
            // Her login was in main's queue before all that.
            let channel = desk.connect();
            desk.log_in(alice, channel);
            desk.take_queued();
            desk.finish();
            (channel, kicked.join().unwrap())
        });
        let rows: Vec<_> = kicked.iter().map(|row| (row.channel.clone(), row.user)).collect();
        assert_eq!(rows, [(Some(channel.to_string()), Some(alice.0))]);
        desk.finish_all();
        assert_eq!(desk.commons.table.stage(channel), Stage::Offline);
        assert_eq!(desk.commons.metrics.left.value(Reason::Banned), 1);
        assert!(desk.commons.table.is_live(bob.channel, bob.session), "nobody else is meant");
        let again = desk.connect();
        desk.log_in(alice, again);
        desk.finish_all();
        assert_eq!(desk.commons.table.stage(again), Stage::Open, "she is kept out from now on");
    }
}
