//! `linger stats`: counters and gauges.

use super::table::render;
use super::{Failure, Reach};
use linger_server::admin::protocol::{AdminRequest, Stats};

pub(super) const EXAMPLES: &str = "\
Examples:
  linger stats
  linger stats --json";

pub(super) fn run(reach: &Reach) -> Result<(), Failure> {
    let stats: Stats = reach.ask(&AdminRequest::Stats)?;
    reach.show(&stats, table)
}

fn table(stats: &Stats) -> String {
    render(["name", "value"], stats.0.iter().map(|(name, value)| [name.clone(), value.to_string()]))
}
