//! What `linger stress flood` is told. Plain data.

use std::net::SocketAddr;
use std::time::Duration;

use crate::args::{Common, bound, bytes, resolve};

/// Options of `flood`.
#[derive(Clone, Debug, clap::Args)]
pub struct FloodArgs {
    #[command(flatten)]
    #[expect(missing_docs, reason = "clap would show it as the help of the scenario")]
    pub common: Common,

    /// Which floods come, in this order [default: all that can: receivers need --line, log-pipe needs COMMAND].
    #[arg(long, value_enum, value_name = "KIND", value_delimiter = ',')]
    pub kinds: Vec<Kind>,

    /// Where the server speaks lines.
    #[arg(long, value_name = "ADDR", value_parser = resolve)]
    pub line: Option<SocketAddr>,

    /// Registrations, each on a connection that is reset at once; --clients of them at a time.
    #[arg(long, value_name = "N", default_value_t = 6_000)]
    pub registrations: usize,

    /// Lines to the same receiver thousands of times, and as many to thousands of different ones.
    #[arg(long, value_name = "N", default_value_t = 4)]
    pub lines: usize,

    /// Absent members of the group that gets large chats.
    #[arg(long, value_name = "N", default_value_t = 1_000)]
    pub members: usize,

    /// Large chats to it.
    #[arg(long, value_name = "N", default_value_t = 64)]
    pub chats: usize,

    /// Bytes of such a chat's text.
    #[arg(long, value_name = "BYTES", default_value_t = 60_000)]
    pub size: usize,

    /// Absent members of the group that gets small chats.
    #[arg(long, value_name = "N", default_value_t = 5_000)]
    pub many_members: usize,

    /// Small chats to it.
    #[arg(long, value_name = "N", default_value_t = 200)]
    pub small_chats: usize,

    /// Has the members come back at the end and take what was kept for them.
    #[arg(long)]
    pub take: bool,

    /// Logins, each with lines of the log that nobody reads.
    #[arg(long, value_name = "N", default_value_t = 3_000)]
    pub logins: usize,

    /// What 99 of 100 of the bystanders' chats, logins and kicks must stay within.
    #[arg(long, value_name = "DURATION", default_value = "100ms", value_parser = bound)]
    pub bound: Duration,

    /// What the first login of somebody else must stay within during the registrations.
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = bound)]
    pub first_login: Duration,

    /// What the server's memory may grow by during a flood.
    #[arg(long, value_name = "BYTES", default_value = "64MiB", value_parser = bytes)]
    pub memory: u64,

    /// Starts this server, with a pipe for its stderr that nobody reads, and stops it at the end; --target, --data
    /// and --line come from its ready line.
    #[arg(last = true, value_name = "COMMAND")]
    pub serve: Vec<String>,
}

/// A flood.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub enum Kind {
    /// Registrations whose connections are reset at once.
    Registrations,
    /// Lines to thousands of receivers.
    Receivers,
    /// Chats to groups of absent members.
    Groups,
    /// Log lines that nobody reads.
    LogPipe,
}

impl Kind {
    /// How the report names it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Kind::Registrations => "registrations",
            Kind::Receivers => "receivers",
            Kind::Groups => "groups",
            Kind::LogPipe => "log_pipe",
        }
    }
}

impl FloodArgs {
    /// The floods that come, of a server that speaks lines or not, and whose stderr is in our hands or not.
    pub(super) fn kinds(&self, lines: bool, own: bool) -> Vec<Kind> {
        if !self.kinds.is_empty() {
            return self.kinds.clone();
        }
        let mut kinds = vec![Kind::Registrations, Kind::Receivers, Kind::Groups, Kind::LogPipe];
        kinds.retain(|kind| match kind {
            Kind::Receivers => lines,
            Kind::LogPipe => own,
            Kind::Registrations | Kind::Groups => true,
        });
        kinds
    }
}
