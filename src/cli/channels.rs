//! `linger channels`: every channel.

use super::table::{age, or_dash, render};
use super::{Failure, Reach};
use crate::control::message::{Ask, ChannelRow, ChannelState, Channels};

pub(super) const EXAMPLES: &str = "\
States: new (nobody logged in), live, lingering (offline, its file descriptor not yet closed).

Examples:
  linger channels
  linger channels --json";

pub(super) fn run(reach: &Reach) -> Result<(), Failure> {
    let channels: Channels = reach.ask(&Ask::Channels)?;
    reach.show(&channels, table)
}

fn table(answer: &Channels) -> String {
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
