//! Main: the thread that drains the offline queue, decides who is online, and writes the database.
//!
//! [`state`] has main's state, takes one event after the other, and ends a turn with a transaction. What it does with an
//! event stands in the file that is called after it.

pub mod ack_window;
pub mod bans;
pub mod dedup;
pub(crate) mod delivery;
mod disconnect;
pub(crate) mod fan_out;
pub(crate) mod friends_groups;
pub mod latency;
mod lingering;
pub(crate) mod lists;
mod login;
mod poison_write;
pub mod presence;
pub mod reconcile;
pub mod resume_token;
mod retention;
pub(crate) mod session_map;
pub mod shutdown;
pub mod state;
pub(crate) mod transaction;
pub(crate) mod users;
mod watchers;

#[cfg(test)]
mod tests;
