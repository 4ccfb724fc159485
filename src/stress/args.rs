//! The options of scenarios: those of all, and those of each but `chaos` and `flood`. Plain data.

use std::net::{SocketAddr, ToSocketAddrs};
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use jiff::{Span, SpanRelativeTo};

/// The longest prefix, in bytes: with the scenario and a number it stays below the 64 characters of a name.
const MAX_PREFIX_BYTES: usize = 32;

/// What every scenario takes.
#[derive(Clone, Debug, clap::Args)]
pub struct Common {
    /// Where the server speaks JSON.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:6000", value_parser = resolve)]
    pub target: SocketAddr,

    /// The server's data directory.
    #[arg(long, value_name = "DIR", env = "LINGER_DATA", default_value = "linger-data")]
    pub data: PathBuf,

    /// How many clients [default: storm 10000, vanish and kick 1000, relay and keep 100, flood 64, churn 50, chaos 16].
    #[arg(long, value_name = "N")]
    pub clients: Option<NonZeroUsize>,

    /// What the names of the users made for this begin with; they are kept and used again.
    #[arg(long, value_name = "WORD", default_value = "stress", value_parser = word)]
    pub prefix: String,

    /// The same seed makes the same choices.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub seed: u64,

    /// Print one JSON document instead of a table; nothing when the verdict is bad.
    #[arg(long)]
    pub json: bool,
}

/// Options of `vanish`.
#[derive(Clone, Debug, clap::Args)]
pub struct VanishArgs {
    #[command(flatten)]
    #[expect(missing_docs, reason = "clap would show it as the help of the scenario")]
    pub common: Common,

    /// How clients go: an ordinary close, a reset, a half close, or all of them.
    #[arg(long, value_enum, default_value_t = How::Mix)]
    pub how: How,
}

/// Options of `churn`.
#[derive(Clone, Debug, clap::Args)]
pub struct ChurnArgs {
    #[command(flatten)]
    #[expect(missing_docs, reason = "clap would show it as the help of the scenario")]
    pub common: Common,

    /// For how long.
    #[arg(long, value_name = "S", default_value_t = 10)]
    pub seconds: u64,

    /// How clients go; `half` closes like `fin` here.
    #[arg(long, value_enum, default_value_t = How::Mix)]
    pub how: How,
}

/// Options of `kick`.
#[derive(Clone, Debug, clap::Args)]
pub struct KickArgs {
    #[command(flatten)]
    #[expect(missing_docs, reason = "clap would show it as the help of the scenario")]
    pub common: Common,

    /// How many are kicked by one request.
    #[arg(long, value_name = "N", default_value = "1")]
    pub bulk: NonZeroUsize,
}

/// Options of `relay`.
#[derive(Clone, Debug, clap::Args)]
pub struct RelayArgs {
    #[command(flatten)]
    #[expect(missing_docs, reason = "clap would show it as the help of the scenario")]
    pub common: Common,

    /// For how long.
    #[arg(long, value_name = "S", default_value_t = 10)]
    pub seconds: u64,

    /// Chats under way in each direction of a pair.
    #[arg(long, value_name = "W", default_value = "1")]
    pub window: NonZeroUsize,

    /// Bytes of a chat's text.
    #[arg(long, value_name = "BYTES", default_value_t = 64)]
    pub size: usize,
}

/// Options of `keep`.
#[derive(Clone, Debug, clap::Args)]
pub struct KeepArgs {
    #[command(flatten)]
    #[expect(missing_docs, reason = "clap would show it as the help of the scenario")]
    pub common: Common,

    /// For how long.
    #[arg(long, value_name = "S", default_value_t = 10)]
    pub seconds: u64,

    /// Chats of each sender without an answer.
    #[arg(long, value_name = "W", default_value = "1")]
    pub window: NonZeroUsize,

    /// Bytes of a chat's text.
    #[arg(long, value_name = "BYTES", default_value_t = 64)]
    pub size: usize,
}

/// Options of `storm`.
#[derive(Clone, Debug, clap::Args)]
pub struct StormArgs {
    #[command(flatten)]
    #[expect(missing_docs, reason = "clap would show it as the help of the scenario")]
    pub common: Common,

    /// How the crowd goes.
    #[arg(long, value_enum, default_value_t = How::Rst)]
    pub how: How,

    /// Pairs who chat meanwhile; every second one asks for answers.
    #[arg(long, value_name = "N", default_value = "4")]
    pub pairs: NonZeroUsize,

    /// For how long they do so before the storm, to compare.
    #[arg(long, value_name = "S", default_value_t = 3)]
    pub seconds: u64,

    /// What 99 of 100 of their chats must stay within.
    #[arg(long, value_name = "DURATION", default_value = "50ms", value_parser = bound)]
    pub bound: Duration,
}

/// How clients go.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub enum How {
    /// An ordinary close.
    Fin,
    /// A reset.
    Rst,
    /// The client ends its own side and waits for the server to end the other.
    Half,
    /// Each by chance.
    Mix,
}

impl Common {
    pub(super) fn clients(&self, default: usize) -> usize {
        self.clients.map_or(default, NonZeroUsize::get)
    }
}

pub(super) fn resolve(text: &str) -> Result<SocketAddr, String> {
    let mut found = text.to_socket_addrs().map_err(|error| error.to_string())?;
    found.next().ok_or_else(|| "no such host".to_owned())
}

pub(super) fn bound(text: &str) -> Result<Duration, String> {
    let span = text.parse::<Span>().and_then(|span| span.to_duration(SpanRelativeTo::days_are_24_hours()));
    let length = span.ok().and_then(|length| Duration::try_from(length).ok());
    length.ok_or_else(|| "a duration, such as 50ms".to_owned())
}

pub(super) fn bytes(text: &str) -> Result<u64, String> {
    text.parse::<bytesize::ByteSize>()
        .map(|size| size.as_u64())
        .map_err(|_| "a size, such as 64MiB".to_owned())
}

pub(super) fn word(text: &str) -> Result<String, String> {
    let is_word = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_');
    if text.is_empty() || text.len() > MAX_PREFIX_BYTES || !is_word {
        return Err(format!("1 to {MAX_PREFIX_BYTES} letters, digits, '-' or '_'"));
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_keeps_names_within_what_a_server_accepts() {
        assert!(word("night-run_2").is_ok());
        for bad in ["", "a b", "a\n", "ä", &"x".repeat(MAX_PREFIX_BYTES + 1)] {
            assert!(word(bad).is_err(), "{bad:?}");
        }
    }
}
