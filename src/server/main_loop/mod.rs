//! Main: the thread that drains the offline queue, decides who is online, and writes the database.
//!
//! [`turn`] takes one event after the other and ends a turn with its transaction. [`state`] names the parts that main is
//! made of. A part owns what it knows, works with the [`context`], and changes no other part; what concerns several of
//! them stands in the file that is called after it. Each file uses only files of its own row and of those above it.
//!
//! | built on | files |
//! |---|---|
//! | nothing here | `session_map`, `ack_window`, `latency`, `watchdog`, `refills`, `poison_write`, `transaction` |
//! | `transaction` | `context`, `replies` |
//! | `context` | `users`, `lingering`, `open_departures`, `bans`, `lists`, `group_cache`, `presence` (which reads `users`), `dedup`, `fan_out`, `retention`, `shutdown`, `resume_token` |
//! | the parts | `state` |
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
