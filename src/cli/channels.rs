//! `linger channels`: every channel, or who left last.

use clap::Args;

use super::table::{age, or_dash, render};
use super::{Failure, Reach, why};
use linger_server::admin::departures::{DepartureTarget, Limit};
use linger_server::admin::protocol::{AdminRequest, ChannelRow, ChannelState, Channels as Answer};

const EXAMPLES: &str = "\
States: new (nobody logged in), live, lingering (offline, its file descriptor not yet closed).
A channel on which nobody ever logged in leaves no departure behind.

Examples:
  linger channels
  linger channels --json
  linger channels --departed --limit 50";

#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Channels {
    /// List the latest departures of all users instead, newest first; `linger why` explains the columns.
    #[arg(long)]
    departed: bool,
    /// How many departures at most.
    #[arg(long, value_name = "N", default_value_t, requires = "departed")]
    limit: Limit,
    #[command(flatten)]
    reach: Reach,
}

pub(super) fn run(args: &Channels) -> Result<(), Failure> {
    if args.departed {
        let departures = why::ask(&args.reach, DepartureTarget::All, args.limit)?;
        return args.reach.show(&departures, why::table);
    }
    let channels: Answer = args.reach.ask(&AdminRequest::Channels)?;
    args.reach.show(&channels, table)
}

fn table(answer: &Answer) -> String {
    let header = ["channel", "state", "worker", "user", "name", "peer", "in", "out", "queued", "age", "idle"];
    render(header, answer.channels.iter().map(row))
}

fn row(channel: &ChannelRow) -> [String; 11] {
    [
        format!("#{}", channel.channel),
        match channel.state {
            ChannelState::New => "new".into(),
            ChannelState::Live => "live".into(),
            ChannelState::Lingering => "lingering".into(),
        },
        channel.worker.to_string(),
        or_dash(channel.user),
        or_dash(channel.name.as_ref()),
        channel.peer.clone(),
        channel.bytes_in.to_string(),
        channel.bytes_out.to_string(),
        channel.queued.to_string(),
        age(channel.age_ms),
        age(channel.idle_ms),
    ]
}
