//! `linger bans` and `linger unban`: who may not log in.

use clap::Args;

use super::table::{local_time, or_dash, render};
use super::{Failure, Reach};
use linger_server::admin::ban_protocol::{BanList, BanRow, BanTarget, Unban as UnbanAsk, Unbanned};
use linger_server::admin::protocol::AdminRequest;

pub(super) const EXAMPLES: &str = "\
`linger kick TARGET... --ban DURATION` bans, `linger unban TARGET...` lifts a ban.

Examples:
  linger bans
  linger bans --json";

const UNBAN_EXAMPLES: &str = "\
Targets:
  13, alice, @alice  a user
  ip:10.0.0.0/8      these addresses, as `linger bans` names them
  all                everybody

Examples:
  linger unban alice
  linger unban ip:10.0.0.0/8 --json

Exit code 3 when nothing matched.";

#[derive(Args)]
#[command(after_help = UNBAN_EXAMPLES)]
pub(super) struct Unban {
    /// Users or addresses; see below.
    #[arg(required = true, value_name = "TARGET")]
    targets: Vec<BanTarget>,
    #[command(flatten)]
    reach: Reach,
}

pub(super) fn run(reach: &Reach) -> Result<(), Failure> {
    let list: BanList = reach.ask(&AdminRequest::Bans)?;
    reach.show(&list, |list| table(&list.bans))
}

pub(super) fn unban(args: Unban) -> Result<(), Failure> {
    let Unban { targets, reach } = args;
    let aimed_at = targets.iter().map(BanTarget::to_string).collect::<Vec<_>>().join(" ");
    let lifted: Unbanned = reach.ask(&AdminRequest::Unban(UnbanAsk { targets }))?;
    if lifted.unbanned.is_empty() {
        return reach.show_nothing(&lifted, format!("no ban matched {aimed_at}"));
    }
    reach.show(&lifted, |lifted| table(&lifted.unbanned))
}

fn table(bans: &[BanRow]) -> String {
    let row = |ban: &BanRow| {
        [
            or_dash(ban.user),
            or_dash(ban.name.as_ref()),
            or_dash(ban.address.as_ref()),
            local_time(ban.until_ms),
            or_dash(ban.reason.as_ref()),
        ]
    };
    render(["user", "name", "address", "until", "reason"], bans.iter().map(row))
}
