//! Main: the thread that drains the offline queue, decides who is online, and writes the database.
//!
//! [`turn`] takes one event after the other and ends a turn with its transaction. [`state`] names the parts that main is
//! made of. A part owns what it knows, works with the [`context`], and calls no other part; what concerns several of them
//! stands in the file that is called after it.
//!
//! | built on | files |
//! |---|---|
//! | plain data | `session_map`, `users`, `ack_window`, `latency`, `watchdog`, `refills`, `poison_write`, `transaction` |
//! | `context`, `replies` | `lingering`, `open_departures`, `bans`, `lists`, `group_cache`, `presence`, `dedup`, `fan_out`, `retention`, `shutdown`, `resume_token` |
//! | `state` | `offline_box`, then `ack_delivery`, `delivery`, `handover`, then `group_chat`, `chat_request`, `friends_groups`, `disconnect`, `fd_close`, `takeover`, `session_start`, `registration`, `login`, `reconcile`, `admin_requests`, `after_commit` |
//! | all of them | `turn` |

mod ack_delivery;
pub mod ack_window;
mod admin_requests;
mod after_commit;
pub mod bans;
mod chat_request;
pub mod context;
pub mod dedup;
mod delivery;
mod disconnect;
mod fan_out;
mod fd_close;
mod friends_groups;
mod group_cache;
mod group_chat;
mod handover;
pub mod latency;
mod lingering;
pub(crate) mod lists;
mod login;
mod offline_box;
mod open_departures;
mod poison_write;
pub mod presence;
pub mod reconcile;
mod refills;
mod registration;
mod replies;
pub mod resume_token;
mod retention;
mod session_map;
mod session_start;
pub mod shutdown;
pub mod state;
mod takeover;
pub(crate) mod transaction;
pub mod turn;
pub(crate) mod users;
pub mod watchdog;

#[cfg(test)]
mod tests;
