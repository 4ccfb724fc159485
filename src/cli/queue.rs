//! `linger queue`: the offline queue.

use super::table::{age, render};
use super::{Failure, Reach};
use linger_server::admin::protocol::{AdminRequest, QueueState};

pub(super) const EXAMPLES: &str = "\
depth      departures that wait for the main thread
oldest     how long the first of them has waited
lingering  channels that are offline, their file descriptor not yet closed
drained    departures taken since the start

Examples:
  linger queue
  linger queue --json";

pub(super) fn run(reach: &Reach) -> Result<(), Failure> {
    let queue: QueueState = reach.ask(&AdminRequest::Queue)?;
    reach.show(&queue, table)
}

fn table(queue: &QueueState) -> String {
    let row = [
        queue.depth.to_string(),
        age(queue.oldest_ms),
        queue.lingering.to_string(),
        queue.drained.to_string(),
    ];
    render(["depth", "oldest", "lingering", "drained"], [row])
}
