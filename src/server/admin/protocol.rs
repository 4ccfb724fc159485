//! What is said on the control socket: one JSON object a line in, one a line out.
//!
//! Plain data, used by both ends. Every key is in the contract; adding one is fine, renaming one is not.

use std::fmt;
use std::num::NonZeroU32;
use std::str::FromStr;
use std::time::Duration;

use serde::de::{DeserializeOwned, MapAccess, Visitor};
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Number;

use super::ban_protocol::{BanLength, Unban};
use super::departures::Why;
use super::target::{Target, bounded};
use crate::config::{duration, duration_text};

/// Bytes that a request may have, its line end not counted.
pub const MAX_ASK_BYTES: usize = 1 << 20;

/// Bytes that the reason of a kick may have, so that every goodbye fits into a small buffer.
pub const MAX_REASON_BYTES: usize = 512;

/// The longest time that a drain may have.
pub const MAX_DRAIN: Duration = Duration::from_hours(1);

/// A request.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(tag = "cmd", rename_all = "lowercase")]
pub enum AdminRequest {
    /// Takes channels offline; answered by [`Kicked`].
    Kick(Kick),
    /// Users online; answered by [`Users`].
    Who,
    /// Every channel; answered by [`Channels`].
    Channels,
    /// The offline queue; answered by [`QueueState`].
    Queue,
    /// Counters and gauges; answered by [`Stats`].
    Stats,
    /// How users left; answered by [`super::departures::Departures`].
    Why(Why),
    /// Empties the server and ends it; answered by [`Draining`] as soon as it has begun.
    Drain(Drain),
    /// Who may not log in; answered by [`super::ban_protocol::BanList`].
    Bans,
    /// Lifts bans; answered by [`super::ban_protocol::Unbanned`].
    Unban(Unban),
}

/// What to kick, and how.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Kick {
    /// Every channel that one of them names is kicked.
    #[serde(deserialize_with = "bounded")]
    pub targets: Vec<Target>,
    /// Told to the client.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<KickReason>,
    /// True exactly when the answer shall wait for the users' offline state to be committed.
    #[serde(default, skip_serializing_if = "is_false")]
    pub wait: bool,
    /// How long the users and addresses that are meant may not log in again.
    #[serde(default, rename = "ban_ms", skip_serializing_if = "Option::is_none")]
    pub ban: Option<BanLength>,
}

/// How to drain.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Drain {
    /// When the server has to be empty.
    #[serde(default)]
    pub for_ms: DrainTime,
    /// Channels that leave in a second.
    #[serde(default = "default_drain_rate")]
    pub rate: NonZeroU32,
}

/// How long a drain may take: at most [`MAX_DRAIN`]. Milliseconds in JSON, a text such as `2m` for people.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(try_from = "u64", into = "u64")]
pub struct DrainTime(Duration);

/// What a kicked client is told: one line of at most [`MAX_REASON_BYTES`], without control characters, since the
/// line protocol sends it as it is.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct KickReason(String);

/// Why a line is no request.
#[derive(Debug, thiserror::Error)]
pub enum AdminRequestError {
    /// A command that this server does not have.
    #[error("unknown cmd {0:?}")]
    Command(String),
    /// Not a JSON object, or its fields are not those of the command.
    #[error("not a request: {0}")]
    Form(#[from] serde_json::Error),
}

/// Why a text is no reason for a kick.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum KickReasonError {
    /// Longer than [`MAX_REASON_BYTES`].
    #[error("a reason has at most {MAX_REASON_BYTES} bytes")]
    TooLong,
    /// It has a line end or another control character.
    #[error("a reason is one line, without control characters")]
    ControlCharacter,
}

/// A time that no drain may have.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("expected a duration of at most {}, such as 2m", duration_text(MAX_DRAIN))]
pub struct DrainTimeError;

/// Why a line is no answer.
#[derive(Debug, thiserror::Error)]
pub enum AnswerError {
    /// The server could not do it, and says why.
    #[error("{0}")]
    Failure(String),
    /// Not the JSON object that was expected.
    #[error("an answer that makes no sense: {0}")]
    Form(#[from] serde_json::Error),
}

/// Answer to `kick`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Kicked {
    /// What went offline; empty when nothing matched.
    pub kicked: Vec<KickedRow>,
}

/// A channel, or a user without one, that a kick took offline. Times count from the kick.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct KickedRow {
    /// The channel; none for a user who was marked online without one, and for a ban of who is not here.
    pub channel: Option<String>,
    /// Who was logged in.
    pub user: Option<i64>,
    /// The user's name.
    pub name: Option<String>,
    /// When the goodbye was in the kernel, in microseconds; none if it is not known.
    pub told_us: Option<u64>,
    /// When the server had ended its side, in microseconds; none if it is not known.
    pub shutdown_us: Option<u64>,
    /// When the offline state was committed, in microseconds; none if it is not known.
    pub offline_us: Option<u64>,
    /// The addresses that were banned, where no channel came from there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
}

impl KickedRow {
    /// A row without times.
    pub fn new(channel: Option<String>, user: Option<i64>, name: Option<String>) -> Self {
        KickedRow { channel, user, name, told_us: None, shutdown_us: None, offline_us: None, address: None }
    }
}

/// Answer to `who`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Users {
    /// The users online.
    pub users: Vec<UserRow>,
}

/// A user who is online.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct UserRow {
    /// The user's number.
    pub id: i64,
    /// The user's name.
    pub name: String,
    /// The channel, such as `7.3`.
    pub channel: String,
    /// The other end's address.
    pub peer: String,
    /// The login, in Unix milliseconds.
    pub since_ms: i64,
    /// Since the latest input, in milliseconds.
    pub idle_ms: u64,
}

/// Answer to `channels`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Channels {
    /// Every channel whose fd is open.
    pub channels: Vec<ChannelRow>,
}

/// A channel.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ChannelRow {
    /// Its name, such as `7.3`.
    pub channel: String,
    /// How far it is in its life.
    pub state: ChannelState,
    /// The worker that owns it, counted from 0.
    pub worker: u32,
    /// Who is logged in.
    pub user: Option<i64>,
    /// The user's name.
    pub name: Option<String>,
    /// The other end's address.
    pub peer: String,
    /// Bytes read from it.
    pub bytes_in: u64,
    /// Bytes written to it.
    pub bytes_out: u64,
    /// Bytes of output that the kernel has not yet taken.
    pub queued: u64,
    /// Since it was accepted, in milliseconds.
    pub age_ms: u64,
    /// Since the latest input, in milliseconds.
    pub idle_ms: u64,
}

/// How far a channel is in its life.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ChannelState {
    /// Nobody has logged in yet.
    New,
    /// Somebody is logged in.
    Live,
    /// It is offline, and its fd waits for the end of the grace.
    Lingering,
}

/// Answer to `queue`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct QueueState {
    /// Entries that wait for main.
    pub depth: u64,
    /// How long the oldest of them has waited, in milliseconds; 0 when there is none.
    pub oldest_ms: u64,
    /// Channels that are offline and whose fd is not yet closed.
    pub lingering: u64,
    /// Entries taken since the start.
    pub drained: u64,
}

/// Answer to `drain`: it has begun.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Draining {
    /// Channels that are being sent away.
    pub channels: u64,
}

/// Answer to `stats`: one flat object, in the server's order.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Stats(pub Vec<(String, Number)>);

impl AdminRequest {
    /// Reads a request line.
    ///
    /// # Errors
    /// When it is not a request; [`failure_line`] tells the client.
    pub fn parse(line: &[u8]) -> Result<AdminRequest, AdminRequestError> {
        #[derive(Deserialize)]
        struct Head {
            cmd: String,
        }
        const COMMANDS: [&str; 9] =
            ["kick", "who", "channels", "queue", "stats", "why", "drain", "bans", "unban"];
        let Head { cmd } = serde_json::from_slice(line)?;
        if !COMMANDS.contains(&cmd.as_str()) {
            return Err(AdminRequestError::Command(cmd));
        }
        Ok(serde_json::from_slice(line)?)
    }

    /// The request line, with its line end.
    ///
    /// # Errors
    /// When JSON cannot say it.
    pub fn to_line(&self) -> Result<Vec<u8>, serde_json::Error> {
        let mut line = serde_json::to_vec(self)?;
        line.push(b'\n');
        Ok(line)
    }
}

/// `ok` and the answer's own keys.
#[derive(Serialize)]
struct Answer<'a, T> {
    ok: bool,
    #[serde(flatten)]
    body: &'a T,
}

/// The answer line for what went well, with its line end.
///
/// # Errors
/// When JSON cannot say it.
pub fn answer_line<T: Serialize>(body: &T) -> Result<Vec<u8>, serde_json::Error> {
    let mut line = serde_json::to_vec(&Answer { ok: true, body })?;
    line.push(b'\n');
    Ok(line)
}

/// The answer line for a failure, with its line end.
pub fn failure_line(error: &str) -> Vec<u8> {
    let error = serde_json::Value::from(error);
    format!("{{\"ok\":false,\"error\":{error}}}\n").into_bytes()
}

/// Reads an answer line. Keys that are not known are left out, so that a newer server may send more.
///
/// # Errors
/// When the server reports a failure, or the line is not such an answer.
pub fn parse_answer<T: DeserializeOwned>(line: &[u8]) -> Result<T, AnswerError> {
    #[derive(Deserialize)]
    struct Head {
        ok: bool,
        error: Option<String>,
    }
    let head: Head = serde_json::from_slice(line)?;
    if head.ok {
        Ok(serde_json::from_slice(line)?)
    } else {
        Err(AnswerError::Failure(head.error.unwrap_or_else(|| "the server gave no reason".into())))
    }
}

impl KickReason {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for KickReason {
    type Error = KickReasonError;

    fn try_from(text: String) -> Result<KickReason, KickReasonError> {
        if text.len() > MAX_REASON_BYTES {
            Err(KickReasonError::TooLong)
        } else if text.chars().any(char::is_control) {
            Err(KickReasonError::ControlCharacter)
        } else {
            Ok(KickReason(text))
        }
    }
}

impl FromStr for KickReason {
    type Err = KickReasonError;

    fn from_str(text: &str) -> Result<KickReason, KickReasonError> {
        text.to_owned().try_into()
    }
}

impl From<KickReason> for String {
    fn from(reason: KickReason) -> String {
        reason.0
    }
}

impl DrainTime {
    /// The time.
    pub fn length(self) -> Duration {
        self.0
    }
}

impl Default for DrainTime {
    fn default() -> DrainTime {
        DrainTime(Duration::from_mins(2))
    }
}

impl TryFrom<u64> for DrainTime {
    type Error = DrainTimeError;

    fn try_from(ms: u64) -> Result<DrainTime, DrainTimeError> {
        let length = Duration::from_millis(ms);
        if length <= MAX_DRAIN { Ok(DrainTime(length)) } else { Err(DrainTimeError) }
    }
}

impl FromStr for DrainTime {
    type Err = DrainTimeError;

    fn from_str(text: &str) -> Result<DrainTime, DrainTimeError> {
        let length = duration(text).filter(|length| *length <= MAX_DRAIN);
        length.map(DrainTime).ok_or(DrainTimeError)
    }
}

impl From<DrainTime> for u64 {
    fn from(time: DrainTime) -> u64 {
        time.0.as_millis() as u64
    }
}

impl fmt::Display for DrainTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&duration_text(self.0))
    }
}

/// Channels that leave in a second unless the admin says otherwise.
pub const fn default_drain_rate() -> NonZeroU32 {
    NonZeroU32::MIN.saturating_add(499)
}

impl Serialize for Stats {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (key, value) in &self.0 {
            map.serialize_entry(key, value)?;
        }
        map.end()
    }
}

impl<'de> Deserialize<'de> for Stats {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Stats, D::Error> {
        struct InOrder;

        impl<'de> Visitor<'de> for InOrder {
            type Value = Stats;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of numbers")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Stats, A::Error> {
                let mut stats = Stats::default();
                while let Some(key) = map.next_key::<String>()? {
                    if key == "ok" {
                        map.next_value::<bool>()?;
                    } else {
                        stats.0.push((key, map.next_value()?));
                    }
                }
                Ok(stats)
            }
        }

        deserializer.deserialize_map(InOrder)
    }
}

/// Serde asks with a reference.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_false(value: &bool) -> bool {
    !value
}

#[cfg(test)]
mod tests {
    use super::super::target::TARGETS_MAX;
    use super::*;
    use crate::ids::UserId;

    fn kick(targets: Vec<Target>, reason: Option<&str>, wait: bool) -> AdminRequest {
        AdminRequest::Kick(Kick {
            targets,
            reason: reason.map(|text| text.parse().unwrap()),
            wait,
            ban: None,
        })
    }

    fn written(ask: &AdminRequest) -> String {
        String::from_utf8(ask.to_line().unwrap()).unwrap()
    }

    #[test]
    fn the_contracts_example_is_written_and_read_byte_by_byte() {
        let ask = kick(vec![Target::User(UserId(13))], Some("spam"), true);
        let line = "{\"cmd\":\"kick\",\"targets\":[\"13\"],\"reason\":\"spam\",\"wait\":true}\n";
        assert_eq!(written(&ask), line);
        assert_eq!(AdminRequest::parse(line.as_bytes()).unwrap(), ask);

        let line = "{\"ok\":true,\"kicked\":[{\"channel\":\"7.3\",\"user\":13,\"name\":\"zhang san\",\
            \"told_us\":60,\"shutdown_us\":85,\"offline_us\":900}]}\n";
        let answer: Kicked = parse_answer(line.as_bytes()).unwrap();
        assert_eq!(answer.kicked[0].name.as_deref(), Some("zhang san"));
        assert_eq!(String::from_utf8(answer_line(&answer).unwrap()).unwrap(), line);
    }

    #[test]
    fn every_command_reads_back_as_the_same() {
        let targets = vec![Target::Name("all".into()), Target::Channel(7, 3), Target::All];
        let drain = AdminRequest::Drain(Drain { for_ms: "30s".parse().unwrap(), rate: default_drain_rate() });
        for ask in [
            AdminRequest::Who,
            AdminRequest::Channels,
            AdminRequest::Queue,
            AdminRequest::Stats,
            drain,
            kick(targets, None, false),
        ] {
            assert_eq!(AdminRequest::parse(written(&ask).as_bytes()).unwrap(), ask);
        }
        assert_eq!(written(&AdminRequest::Who), "{\"cmd\":\"who\"}\n");
        assert_eq!(
            written(&kick(vec![Target::All], None, false)),
            "{\"cmd\":\"kick\",\"targets\":[\"all\"]}\n"
        );
    }

    #[test]
    fn bans_are_asked_for_in_milliseconds_and_lifted_by_target() {
        let targets = vec!["ip:10.0.0.0/8".parse().unwrap()];
        let ask = AdminRequest::Kick(Kick {
            targets,
            reason: None,
            wait: false,
            ban: Some("10m".parse().unwrap()),
        });
        assert_eq!(written(&ask), "{\"cmd\":\"kick\",\"targets\":[\"ip:10.0.0.0/8\"],\"ban_ms\":600000}\n");
        let unban = AdminRequest::Unban(Unban { targets: vec!["alice".parse().unwrap()] });
        assert_eq!(written(&unban), "{\"cmd\":\"unban\",\"targets\":[\"alice\"]}\n");
        assert_eq!(written(&AdminRequest::Bans), "{\"cmd\":\"bans\"}\n");
        for ask in [ask, unban, AdminRequest::Bans] {
            assert_eq!(AdminRequest::parse(written(&ask).as_bytes()).unwrap(), ask);
        }
    }

    #[test]
    fn what_is_no_request_is_told_so_in_words() {
        let error = AdminRequest::parse(b"{\"cmd\":\"dance\"}").unwrap_err();
        assert_eq!(error.to_string(), "unknown cmd \"dance\"");
        let cases = [
            "",
            "[]",
            "{}",
            "{\"cmd\":1}",
            "{\"cmd\":\"kick\"}",
            "{\"cmd\":\"kick\",\"targets\":[\"#x\"]}",
            "{\"cmd\":\"kick\",\"targets\":[\"13\"],\"wiat\":true}",
            "{\"cmd\":\"who\"} {}",
            "{\"cmd\":\"drain\",\"rate\":0}",
            "{\"cmd\":\"drain\",\"for_ms\":3600001}",
            "{\"cmd\":\"drain\",\"for\":\"1s\"}",
            "{\"cmd\":\"kick\",\"targets\":[\"13\"],\"ban_ms\":999}",
            "{\"cmd\":\"unban\",\"targets\":[\"#7.3\"]}",
            "{\"cmd\":\"kick\",\"targets\":[\"13\"],\"reason\":\"a\\nb\"}",
        ];
        for line in cases {
            assert!(
                matches!(AdminRequest::parse(line.as_bytes()), Err(AdminRequestError::Form(_))),
                "{line}"
            );
        }
    }

    #[test]
    fn a_command_has_a_bounded_number_of_targets() {
        for command in ["kick", "unban"] {
            let ask = |targets: usize| {
                let targets = vec!["\"13\""; targets].join(",");
                AdminRequest::parse(format!("{{\"cmd\":\"{command}\",\"targets\":[{targets}]}}").as_bytes())
            };
            assert!(ask(TARGETS_MAX).is_ok());
            let error = ask(TARGETS_MAX + 1).unwrap_err().to_string();
            assert!(error.contains("at most 1000 targets"), "{error}");
        }
    }

    #[test]
    fn stats_keep_their_order_and_stay_flat() {
        let stats = Stats(vec![("zeta".into(), 1.into()), ("alpha".into(), 2.into())]);
        let line = answer_line(&stats).unwrap();
        assert_eq!(line, b"{\"ok\":true,\"zeta\":1,\"alpha\":2}\n");
        assert_eq!(parse_answer::<Stats>(&line).unwrap(), stats);
    }

    #[test]
    fn a_failure_is_told_from_an_answer() {
        let line = failure_line("no \"room\"");
        assert_eq!(line, b"{\"ok\":false,\"error\":\"no \\\"room\\\"\"}\n");
        let error = parse_answer::<Users>(&line).unwrap_err();
        assert_eq!(error.to_string(), "no \"room\"");
        assert!(matches!(parse_answer::<Users>(b"{\"ok\":true}"), Err(AnswerError::Form(_))));
    }

    #[test]
    fn a_reason_is_one_short_line() {
        assert!("x".repeat(MAX_REASON_BYTES).parse::<KickReason>().is_ok());
        assert_eq!("x".repeat(MAX_REASON_BYTES + 1).parse::<KickReason>(), Err(KickReasonError::TooLong));
        assert_eq!("a\rb".parse::<KickReason>(), Err(KickReasonError::ControlCharacter));
    }
}
