//! Workers: each owns its channels, and nobody else touches a live socket.
//!
//! ```text
//!  turn:  wait ─▶ take the mailbox ─▶ read, parse, route ─▶ accept ─▶ timers ─▶ write each dirty channel once
//! ```
//!
//! | file | duty |
//! |---|---|
//! | `event_loop` | the thread: waits in its poller, accepts, gives the state its turns |
//! | `turn` | what a turn does, from the mailbox to what others are told |
//! | `state` | a worker's channels and what all files beside it use: no poller, no clock |
//! | `accept` | how a connection becomes a channel |
//! | `input` | reads a socket, and turns its bytes into requests |
//! | `requests`, `line_input` | what each request does, in either protocol |
//! | `routing` | where a chat goes |
//! | `responses` | what a channel is told, in the words of its protocol |
//! | `output` | writes what waits for a channel to its socket |
//! | `commands` | what each command in the mailbox does |
//! | `presence`, `presence_queue` | events of friends who come and go |
//! | `close` | the step, the goodbye, the delivery report |
//! | `hand_back` | the socket goes back to main |
//! | `close_log` | how many lines the log gets of channels on which nobody logged in |
//! | `connection`, `thin_vec`, `output_buffer` | one channel, its lists that are mostly empty, its unsent output |
//! | `mailbox` | commands from other threads |
//! | `limits`, `timeouts`, `timer_wheel`, `input_horizon` | limits, time limits and as of when they are judged |
//! | `rate_limit`, `ip_limit`, `unauthenticated` | requests a second, channels of one address, channels on which nobody has logged in for long |

mod accept;
mod close;
mod close_log;
mod commands;
mod connection;
pub mod event_loop;
mod hand_back;
mod input;
mod input_horizon;
pub mod ip_limit;
pub mod limits;
mod line_input;
pub mod mailbox;
mod output;
pub mod output_buffer;
mod presence;
mod presence_queue;
mod rate_limit;
mod requests;
mod responses;
mod routing;
pub mod state;
#[cfg(test)]
mod tests;
mod thin_vec;
pub mod timeouts;
pub mod timer_wheel;
mod turn;
pub mod unauthenticated;

pub use crate::worker::state::{Shared, WorkerState};
pub use connection::Codec;
pub use ip_limit::IpLimit;
pub use limits::Limits;
pub use mailbox::{Mailbox, Mailboxes, Wake};
pub use unauthenticated::Unauthenticated;
