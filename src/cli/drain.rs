//! `linger drain`: begins to empty the server, which ends when it is empty.

use std::num::NonZeroU32;

use clap::Args;

use super::{Failure, Reach};
use linger_server::admin::protocol::{
    AdminRequest, Drain as DrainAsk, DrainTime, Draining, default_drain_rate,
};

const EXAMPLES: &str = "\
The server accepts nobody any more. Each client gets a goodbye `server_drain` with the time after
which it should come back; these times are spread out. A login during the drain gets the goodbye
at once. When --for is nearly over, whoever is left is sent away at once, and the goodbyes have
--stop-drain to arrive. When everybody has gone, or at the end of --for, the server ends with
exit code 0.

The command returns as soon as the drain has begun. Watch it with `linger queue` or in the
server's log. A signal makes it an orderly stop. A second drain is refused.

Examples:
  linger drain
  linger drain --for 30s --rate 100";

#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Drain {
    /// How long it may take: at most 1h.
    #[arg(long = "for", value_name = "DURATION", default_value_t)]
    limit: DrainTime,
    /// Channels that are sent away in a second.
    #[arg(long, value_name = "N", default_value_t = default_drain_rate())]
    rate: NonZeroU32,
    #[command(flatten)]
    reach: Reach,
}

pub(super) fn run(args: &Drain) -> Result<(), Failure> {
    let Drain { limit, rate, reach } = args;
    let begun: Draining = reach.ask(&AdminRequest::Drain(DrainAsk { for_ms: *limit, rate: *rate }))?;
    reach.show(&begun, |begun| {
        format!("draining {} channels, {rate} in a second, in {limit} at most\n", begun.channels)
    })
}
