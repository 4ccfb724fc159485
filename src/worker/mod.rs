//! Workers: each owns its channels, and nobody else touches a live socket.
//!
//! ```text
//!  turn:  wait ─▶ take the mailbox ─▶ read, parse, route ─▶ accept ─▶ timers ─▶ write each dirty channel once
//! ```
//!
//! | file | duty |
//! |---|---|
//! | `run` | the thread: waits on its poller, gives the core its turns |
//! | `state` | what a turn consists of: plain data, no poller, no clock |
//! | `accept` | how a connection becomes a channel |
//! | `input`, `line_input` | bytes to requests, in either protocol |
//! | `routing` | where a chat goes |
//! | `responses` | what a channel is told, in the words of its protocol |
//! | `commands` | what each letter in the mailbox means |
//! | `presence_queue` | events of friends who come and go |
//! | `close` | the step, the farewell, the settlement |
//! | `close_log` | what the log says of those who never logged in |
//! | `connection`, `seldom`, `output_buffer` | one channel, what it seldom has, and its unsent output |
//! | `mailbox` | what others say |
//! | `timeouts`, `timer_wheel`, `input_horizon`, `ip_limit`, `waiting` | time limits and as of when they are judged, request rates, channels of one address, who waits long with nobody logged in |
//! | `listener`, `socket` | the kernel's side, beside [`crate::net`] |

mod accept;
mod close;
mod close_log;
mod commands;
mod connection;
pub mod event_loop;
mod input;
mod input_horizon;
pub mod ip_limit;
pub mod limits;
mod line_input;
pub mod mailbox;
pub mod output_buffer;
mod presence;
mod presence_queue;
mod rate_limit;
mod responses;
mod routing;
pub mod state;
#[cfg(test)]
mod tests;
mod thin_vec;
pub mod timeouts;
pub mod timer_wheel;
pub mod unauthenticated;

pub use crate::worker::state::{Shared, WorkerState};
pub use connection::Codec;
pub use ip_limit::IpLimit;
pub use limits::Limits;
pub use mailbox::{Mailbox, Mailboxes, Wake};
pub use unauthenticated::Unauthenticated;
