//! Flags, environment and file become one validated [`Config`].
//!
//! Runs once, before any thread starts. Each setting is declared in one place, `settings!` below, from which
//! come the flag with its help, the environment variable and the key in the file; so they cannot drift apart.
//! It never touches the environment itself: the caller hands in a way to look a variable up.

use crate::auth::login_limiter::AddressLimit;
use crate::main_loop::shutdown::MAX_STOP_DRAIN;
use file::File;
use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{fmt, io};
use tracing::level_filters::LevelFilter;
use value::{
    Address, Addresses, Argon2, Bytes, Choice, Count, CountOrCores, Directory, KeepaliveTimes, Length,
    OrWord, UnlessLoopback, ValueParser,
};

mod file;
mod flags;
mod rules;
mod value;

pub use crate::store::sqlite::Durability;

pub use flags::Flags;
pub use value::{duration, duration_text};

/// The environment variable beside `--config`.
pub const CONFIG_ENV: &str = "LINGER_CONFIG";
/// The largest grace: what is offline holds its fd no longer than that.
pub const MAX_GRACE: Duration = Duration::from_hours(1);
/// The longest time that friends are not told of a user who has gone.
const MAX_PRESENCE_DELAY: Duration = Duration::from_hours(1);
/// The longest write timeout and TCP user timeout.
const MAX_WRITE_TIMEOUT: Duration = Duration::from_mins(10);
/// The longest TCP user timeout that the kernel takes: it counts milliseconds in a signed number of 32 bits.
const USER_TIMEOUT_MAX: Duration = Duration::from_millis(i32::MAX as u64);
/// The longest ping interval and timeout.
const MAX_PING: Duration = Duration::from_hours(1);
/// The most failed logins a minute.
const MAX_FAILURES: usize = 1_000_000;
/// The most new users an hour of one address.
const MAX_REGISTRATIONS: usize = 1_000_000;
/// The most requests a second.
const MAX_RATE: usize = 1_000_000;
/// The most messages in a box.
const MAX_BOX_MESSAGES: usize = 1_000_000;
const MAX_ACK_WINDOW: usize = 4096;
/// A box's own limits, in bytes.
const BOX_BYTES: Bytes = Bytes(1 << 10, 1 << 30);
const BOX_TOTAL: Bytes = Bytes(1 << 10, 1 << 44);
/// How long a message or a departure may be kept, at least and at most (ten years).
const AGES: Length = Length(Duration::from_secs(1), Duration::from_hours(10 * 365 * 24));
/// The most departures in the history: main counts them every minute, which must not hold it up.
const MAX_HISTORY_ROWS: usize = 1_000_000;
/// The shortest timeout that a client can be given.
const MIN_TIMEOUT: Duration = Duration::from_millis(1);
/// The longest time that a channel may stay without a login.
const MAX_LOGIN_TIMEOUT: Duration = Duration::from_hours(24);
/// The longest silence; for longer ones there is `off`.
const MAX_IDLE: Duration = Duration::from_hours(30 * 24);
/// Poll threads at most.
const MAX_WORKERS: usize = 256;
/// Channels at most.
const MAX_CHANNELS: usize = 10_000_000;
/// The most friends or groups that a user may be allowed.
const MAX_LISTED: usize = 1_000_000;
/// The frame limit's own limits, in bytes.
const FRAME_LIMITS: Bytes = Bytes(256, 16 << 20);
/// The output limit's own limits, in bytes.
const OUT_LIMITS: Bytes = Bytes(1 << 10, 1 << 30);

/// What happens when a user who is online logs in again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Duplicate {
    /// The old channel is sent away.
    Takeover,
    /// The new login is refused.
    Reject,
}

/// When the kernel gives up a connection whose other end is silent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Keepalive {
    /// Silence after which it asks.
    pub idle: Duration,
    /// How often it asks then.
    pub interval: Duration,
    /// How often in vain.
    pub probes: u32,
}

/// How logs look.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LogFormat {
    /// Lines for people.
    Text,
    /// One JSON object a line.
    Json,
}

/// What a new password hash costs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Argon2Cost {
    /// Memory, in KiB.
    pub memory_kib: u32,
    /// Passes over the memory.
    pub passes: u32,
    /// Lanes that may be computed side by side.
    pub lanes: u32,
}

/// Why there is no [`Config`]. Every message is one line that names the setting and where it came from.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("{}: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The file is not TOML.
    #[error("{}, line {line}: {message}", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
        /// What the parser says.
        message: String,
    },
    /// The file has a key that means nothing.
    #[error("{}: unknown key {key:?}; the nearest known one is {nearest:?}", path.display())]
    UnknownKey {
        /// The file.
        path: PathBuf,
        /// The key.
        key: String,
        /// The known key that is most like it.
        nearest: &'static str,
    },
    /// The file has a key twice, once with `-` and once with `_`.
    #[error("{}: {key:?} is there twice", path.display())]
    KeyTwice {
        /// The file.
        path: PathBuf,
        /// The key.
        key: &'static str,
    },
    /// A value that is not allowed.
    #[error("{origin}: {value:?} is not allowed; expected {allowed}")]
    Value {
        /// The setting and where its value came from.
        origin: Origin,
        /// The value.
        value: String,
        /// What would have been allowed.
        allowed: String,
    },
    /// Two settings that cannot work together.
    #[error("--{} {} and --{} {} cannot work together: {change}", .keys[0], .values[0], .keys[1], .values[1])]
    Pair {
        /// Their keys.
        keys: [&'static str; 2],
        /// Their values.
        values: [String; 2],
        /// Why, and what to change.
        change: &'static str,
    },
}

/// A setting, and where its value came from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Origin {
    /// The setting's key.
    pub key: &'static str,
    /// Where the value came from.
    pub place: Place,
}

/// A place that settings come from, the strongest first.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Place {
    /// The command line.
    Flag,
    /// The environment.
    Environment,
    /// That file.
    File(PathBuf),
    /// It is not set.
    Default,
}

/// A setting as far as it is the same for every value: what the flag, the variable and the key share.
struct Setting {
    /// The flag without its dashes, also the key in the file.
    key: &'static str,
    /// How the help names the value.
    value_name: &'static str,
    /// The value where it is not set.
    default: &'static str,
    /// What the help says.
    help: &'static str,
    /// True exactly when it may be given several times.
    is_list: fn() -> bool,
    /// What is allowed, to go after "expected".
    allowed: fn() -> String,
}

macro_rules! settings {
    ($($(#[doc = $doc:literal])*
       $key:literal $field:ident: $type:ty = $kind:expr, $value_name:literal, $default:literal;)*) => {
        /// How the server shall run. Whoever holds one knows that every value is within its bounds.
        #[derive(Clone, PartialEq, Eq, Debug)]
        pub struct Config { $($(#[doc = $doc])* pub $field: $type,)* }

        const SETTINGS: &[Setting] = &[$(Setting {
            key: $key,
            value_name: $value_name,
            default: $default,
            help: concat!($($doc,)*),
            is_list: || $kind.is_list(),
            allowed: || $kind.allowed(),
        },)*];

        #[cfg(test)]
        const FIELDS: &[&str] = &[$(stringify!($field),)*];

        impl Config {
            /// Asks `given` for the text of each setting in turn and reads it.
            fn build(
                given: impl Fn(&'static str, &'static str) -> Result<Given, ConfigError>,
            ) -> Result<Config, ConfigError> {
                Ok(Config { $($field: given($key, $default)?.parse(&$kind)?,)* })
            }
        }
    };
}

settings! {
    /// Directory that holds linger.db and control.sock; created with mode 0700.
    "data" data: PathBuf = Directory, "DIR", "linger-data";
    /// Address for the JSON protocol; may be repeated; port 0 picks a free port.
    "listen" listen: Vec<SocketAddr> = Addresses, "ADDR", "127.0.0.1:6000";
    /// Address for the line protocol.
    "line" line: Option<SocketAddr> = OrWord(Address, "off"), "ADDR", "off";
    /// Poll threads; auto means one for each core.
    "workers" workers: usize = CountOrCores(Count(1, MAX_WORKERS)), "N", "auto";
    /// From a channel going offline to its file descriptor being closed.
    "grace" grace: Duration = Length(Duration::ZERO, MAX_GRACE), "DURATION", "5s";
    /// A login for a user who is online: the old channel leaves (takeover), or the login gets errno 2 (reject).
    "duplicate" duplicate: Duplicate =
        Choice(&[("takeover", Duplicate::Takeover), ("reject", Duplicate::Reject)]), "POLICY", "takeover";
    /// What is synced to disk: every commit (full), or only checkpoints (normal).
    "durability" durability: Durability =
        Choice(&[("full", Durability::Full), ("normal", Durability::Normal)]), "LEVEL", "full";
    /// Channels at most; further ones get the goodbye `server_full`; auto means as the limit of open files allows.
    "max-channels" max_channels: Option<usize> = OrWord(Count(1, MAX_CHANNELS), "auto"), "N", "auto";
    /// Largest JSON object or line that a client may send; before a login 8KiB at most.
    "max-frame" max_frame: usize = FRAME_LIMITS, "BYTES", "64KiB";
    /// Unsent output at which a slow reader is sent away.
    "out-limit" out_limit: usize = OUT_LIMITS, "BYTES", "1MiB";
    /// How long a channel may stay with nobody logged in; a registration begins it anew; 10s at most while more than
    /// half of all places are taken.
    "login-timeout" login_timeout: Duration = Length(MIN_TIMEOUT, MAX_LOGIN_TIMEOUT), "DURATION", "5m";
    /// How long a channel may stay without input.
    "idle" idle: Option<Duration> = OrWord(Length(MIN_TIMEOUT, MAX_IDLE), "off"), "DURATION", "off";
    /// How long a reader may take nothing of what waits for it; then `slow_consumer`.
    "write-timeout" write_timeout: Duration = Length(MIN_TIMEOUT, MAX_WRITE_TIMEOUT), "DURATION", "10s";
    /// How often a client with the ping cap is pinged, answered or not.
    "ping-interval" ping_interval: Duration = Length(MIN_TIMEOUT, MAX_PING), "DURATION", "25s";
    /// How long such a client may be silent after the first ping that it did not answer; then `keepalive_timeout`.
    "ping-timeout" ping_timeout: Duration = Length(MIN_TIMEOUT, MAX_PING), "DURATION", "8s";
    /// TCP keepalive: silence, interval, probes before the kernel gives a connection up; then `network_timeout`.
    "keepalive" keepalive: Keepalive = KeepaliveTimes, "T,T,N", "60s,10s,3";
    /// How long sent data may stay unacknowledged; longer than --write-timeout; then `network_timeout`.
    "user-timeout" user_timeout: Duration = Length(MIN_TIMEOUT, MAX_WRITE_TIMEOUT), "DURATION", "30s";
    /// Failed logins a minute of one address for one user, by number or by name; then errno 17; loopback is exempt.
    "login-failures" login_failures: usize = Count(1, MAX_FAILURES), "N", "10";
    /// Failed logins a minute of one address altogether; then errno 17; loopback is exempt.
    "address-failures" address_failures: usize = Count(1, MAX_FAILURES), "N", "100";
    /// Channels of one address, those that linger too; then `ip_limit`; loopback is exempt.
    "address-channels" address_channels: usize = Count(1, MAX_CHANNELS), "N", "64";
    /// New users an hour from one address, guests too; then errno 17; loopback is exempt unless this is given.
    "address-registrations" address_registrations: AddressLimit =
        UnlessLoopback(Count(1, MAX_REGISTRATIONS)), "N", "30";
    /// Requests a second that a channel may make, with bursts of twice as many; then errno 17.
    "request-rate" request_rate: Option<usize> = OrWord(Count(1, MAX_RATE), "off"), "N", "off";
    /// Groups that one user may be in; then errno 20; existing memberships stay.
    "groups-max" groups_max: usize = Count(1, MAX_LISTED), "N", "1000";
    /// Friends that one user may have; then errno 20; existing ones stay.
    "friends-max" friends_max: usize = Count(1, MAX_LISTED), "N", "5000";
    /// Messages that a box keeps for a user who is offline.
    "box-messages" box_messages: usize = Count(1, MAX_BOX_MESSAGES), "N", "1000";
    /// Bytes of messages that a box keeps.
    "box-bytes" box_bytes: usize = BOX_BYTES, "BYTES", "16MiB";
    /// Bytes of messages that all boxes keep together; one body for many counts once, each message 32 bytes more.
    "box-total" box_total: usize = BOX_TOTAL, "BYTES", "4GiB";
    /// Messages under way to a client with the ack cap; more wait in the box until it confirms.
    "ack-window" ack_window: usize = Count(1, MAX_ACK_WINDOW), "N", "32";
    /// How long a box keeps a message; older ones go, a few minutes later at most.
    "box-age" box_age: Duration = AGES, "DURATION", "7d";
    /// How long the history of departures is kept.
    "history-age" history_age: Duration = AGES, "DURATION", "7d";
    /// Departures that the history keeps; the oldest go.
    "history-rows" history_rows: usize = Count(1, MAX_HISTORY_ROWS), "N", "100000";
    /// How long friends are not told that a user has gone; back by then, nothing is told.
    "presence-delay" presence_delay: Duration = Length(Duration::ZERO, MAX_PRESENCE_DELAY), "DURATION", "5s";
    /// Cost of new password hashes: memory in KiB, passes, lanes.
    "argon2" argon2: Argon2Cost = Argon2, "M,T,P", "19456,2,1";
    /// How long an orderly stop waits for goodbyes to arrive.
    "stop-drain" stop_drain: Duration = Length(Duration::ZERO, MAX_STOP_DRAIN), "DURATION", "2s";
    /// What is logged, to stderr.
    "log" log: LevelFilter = Choice(LOG_LEVELS), "LEVEL", "info";
    /// How logs look.
    "log-format" log_format: LogFormat =
        Choice(&[("text", LogFormat::Text), ("json", LogFormat::Json)]), "FORMAT", "text";
}

const LOG_LEVELS: &[(&str, LevelFilter)] = &[
    ("off", LevelFilter::OFF),
    ("error", LevelFilter::ERROR),
    ("warn", LevelFilter::WARN),
    ("info", LevelFilter::INFO),
    ("debug", LevelFilter::DEBUG),
    ("trace", LevelFilter::TRACE),
];

impl Config {
    /// Puts the settings together: a flag wins over `env`, that over the file, that over the default.
    /// A variable that is set to nothing counts as not set.
    ///
    /// # Errors
    /// When the file cannot be read or has a key that means nothing, or a value is not allowed.
    pub fn load(flags: &Flags, env: impl Fn(&str) -> Option<OsString>) -> Result<Config, ConfigError> {
        let env = |name: &str| env(name).filter(|value| !value.is_empty());
        let path = flags.config().map(Path::to_path_buf).or_else(|| env(CONFIG_ENV).map(PathBuf::from));
        let file = path.map(File::read).transpose()?;
        Config::combine(flags, env, file.as_ref())
    }

    /// What a file with that text alone makes of the defaults.
    #[cfg(any(test, fuzzing))]
    pub(crate) fn of_file(text: &str) -> Result<Config, ConfigError> {
        let file = File::parse("linger.toml".into(), text)?;
        Config::combine(&Flags::default(), |_| None, Some(&file))
    }

    fn combine(
        flags: &Flags,
        env: impl Fn(&str) -> Option<OsString>,
        file: Option<&File>,
    ) -> Result<Config, ConfigError> {
        let config = Config::build(|key, default| {
            let (place, text) = if let Some(text) = flags.text(key) {
                (Place::Flag, text)
            } else if let Some(text) = env(&env_name(key)) {
                (Place::Environment, text)
            } else if let Some((file, text)) = file.and_then(|file| Some((file, file.text(key)?))) {
                (Place::File(file.path().to_path_buf()), text.into())
            } else {
                (Place::Default, default.into())
            };
            Ok(Given { origin: Origin { key, place }, text })
        })?;
        rules::check(&config)?;
        Ok(config)
    }

    /// The TCP user timeout of a connection to which nothing is sent: as long as all keepalive probes take, for Linux
    /// does not count them where one is set. Never shorter than the usual one, nor longer than the kernel takes.
    pub fn quiet_timeout(&self) -> Duration {
        let Keepalive { idle, interval, probes } = self.keepalive;
        self.user_timeout.max(idle + interval * probes).min(USER_TIMEOUT_MAX)
    }
}

impl ConfigError {
    /// True exactly when what was asked for is wrong, rather than out of reach.
    pub fn is_usage(&self) -> bool {
        !matches!(self, ConfigError::Unreadable { .. })
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Place::Flag => write!(f, "--{}", self.key),
            Place::Environment => {
                write!(f, "{} (from the environment variable {})", self.key, env_name(self.key))
            }
            Place::File(path) => write!(f, "{} (from {})", self.key, path.display()),
            Place::Default => write!(f, "{} (the default)", self.key),
        }
    }
}

/// What was given for a setting.
struct Given {
    origin: Origin,
    text: OsString,
}

impl Given {
    fn parse<K: ValueParser>(self, kind: &K) -> Result<K::Value, ConfigError> {
        let value = match self.origin.place {
            Place::Default => kind.parse_default(&self.text),
            Place::Flag | Place::Environment | Place::File(_) => kind.parse_os(&self.text),
        };
        value.ok_or_else(|| {
            let value = self.text.to_string_lossy().into_owned();
            ConfigError::Value { origin: self.origin, value, allowed: kind.allowed() }
        })
    }
}

/// The environment variable of the setting with that key.
fn env_name(key: &str) -> String {
    format!("LINGER_{}", key.replace('-', "_").to_uppercase())
}

#[cfg(test)]
mod tests;
