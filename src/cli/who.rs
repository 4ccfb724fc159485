//! `linger who`: the users online.

use super::table::{age, local_time, render};
use super::{Failure, Reach};
use linger_server::admin::protocol::{AdminRequest, UserRow, Users};

pub(super) const EXAMPLES: &str = "\
Examples:
  linger who
  linger who --data /var/lib/linger --json";

pub(super) fn run(reach: &Reach) -> Result<(), Failure> {
    let users: Users = reach.ask(&AdminRequest::Who)?;
    reach.show(&users, table)
}

fn table(answer: &Users) -> String {
    let row = |user: &UserRow| {
        [
            user.id.to_string(),
            user.name.clone(),
            format!("#{}", user.channel),
            user.peer.clone(),
            local_time(user.since_ms),
            age(user.idle_ms),
        ]
    };
    render(["id", "name", "channel", "peer", "since", "idle"], answer.users.iter().map(row))
}
