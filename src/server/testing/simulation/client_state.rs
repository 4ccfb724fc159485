//! What a client of the simulation knows, and how it numbers what it sends. Plain data.

use super::rng::Rng;
use std::fmt::Write as _;

/// The `seq` of the first confirmation; those of chats are below.
pub(super) const CONFIRMATIONS: i64 = 1_000_000_000;

/// A user, as their device knows them.
#[derive(Debug)]
pub(super) struct UserState {
    /// What the client asks for at login.
    pub(super) caps: String,
    pub(super) pings: bool,
    pub(super) watches: bool,
    pub(super) token: Option<String>,
    /// The latest one that it has logged in by.
    pub(super) spent: Option<String>,
    pub(super) logins: usize,
}

impl UserState {
    pub(super) fn new(rng: &mut Rng, confirms: bool) -> Self {
        let mut caps = if confirms { "\"ack\"".to_owned() } else { "\"none\"".to_owned() };
        let pings = rng.one_in(2);
        let watches = rng.one_in(2);
        for (has, cap) in [(pings, "ping"), (watches, "presence"), (rng.one_in(2), "resume")] {
            if has {
                write!(caps, ",\"{cap}\"").expect("a string takes everything");
            }
        }
        UserState { caps, pings, watches, token: None, spent: None, logins: 0 }
    }
}
