//! `linger kick`: takes channels offline now.

use clap::Args;

use super::table::{micros, shown};
use super::{Failure, Reach};
use linger_server::admin::ban_protocol::BanLength;
use linger_server::admin::protocol::{AdminRequest, Kick as KickAsk, KickReason, Kicked, KickedRow};
use linger_server::admin::target::Target;

const EXAMPLES: &str = "\
Targets:
  13               the user with that id
  alice, @alice    the user with that name; @ where it reads like another form
  '#7.3'           that channel, as `linger channels` names it
  ip:10.0.0.0/8    every channel from these addresses
  idle:10m         every channel without input for that long
  all              every channel

Examples:
  linger kick alice --reason spam
  linger kick 13 '#7.3' --wait --json
  linger kick idle:1h
  linger kick ip:10.0.0.0/8 --ban 10m

Exit code 3 when nothing matched.";

#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Kick {
    /// Users, channels or addresses; see below.
    #[arg(required = true, value_name = "TARGET")]
    targets: Vec<Target>,
    /// Sent to the client: one line of at most 512 bytes.
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    reason: Option<KickReason>,
    /// Return when the users' offline state is committed, at most 10 s later.
    #[arg(long)]
    wait: bool,
    /// Keep the users, or with ip: the addresses, from logging in again for that long: 1s to 3650d.
    #[arg(long, value_name = "DURATION")]
    ban: Option<BanLength>,
    #[command(flatten)]
    reach: Reach,
}

pub(super) fn run(args: Kick) -> Result<(), Failure> {
    let Kick { targets, reason, wait, ban, reach } = args;
    let aimed_at = targets.iter().map(Target::to_string).collect::<Vec<_>>().join(" ");
    let kicked: Kicked = reach.ask(&AdminRequest::Kick(KickAsk { targets, reason, wait, ban }))?;
    if kicked.kicked.is_empty() {
        return reach.show_nothing(&kicked, format!("nothing matched {aimed_at}"));
    }
    reach.show(&kicked, |kicked| kicked.kicked.iter().map(line).collect())
}

/// Says in one line who went, and how fast as far as that is known.
fn line(row: &KickedRow) -> String {
    let channel =
        row.channel.as_deref().map_or("no channel".into(), |channel| format!("#{}", shown(channel)));
    let user = match (row.user, &row.name) {
        (Some(user), Some(name)) => format!("user {user} {}", shown(name)),
        (Some(user), None) => format!("user {user}"),
        _ => row.address.as_deref().map_or_else(|| "nobody logged in".into(), shown),
    };
    let stages = [("told", row.told_us), ("shut down", row.shutdown_us), ("offline", row.offline_us)];
    let known = stages.into_iter().filter_map(|(stage, us)| Some(format!("{stage} after {}", micros(us?))));
    [channel, user].into_iter().chain(known).collect::<Vec<_>>().join("  ") + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_who_went_and_how_fast() {
        let row = KickedRow {
            channel: Some("7.3".into()),
            user: Some(13),
            name: Some("zhang san".into()),
            told_us: Some(60),
            shutdown_us: None,
            offline_us: Some(1_900),
            address: None,
        };
        assert_eq!(line(&row), "#7.3  user 13 zhang san  told after 60us  offline after 1.9ms\n");
        let ghost = KickedRow { channel: None, told_us: None, offline_us: None, ..row.clone() };
        assert_eq!(line(&ghost), "no channel  user 13 zhang san\n");
        let stranger = KickedRow { user: None, name: None, told_us: None, offline_us: None, ..row };
        assert_eq!(line(&stranger), "#7.3  nobody logged in\n");
        let block = KickedRow { address: Some("10.0.0.0/8".into()), ..KickedRow::new(None, None, None) };
        assert_eq!(line(&block), "no channel  10.0.0.0/8\n");
    }
}
