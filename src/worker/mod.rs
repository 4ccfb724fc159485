//! Workers: each owns its channels, and nobody else touches a live socket.
//!
//! ```text
//!  turn:  wait ─▶ take the mailbox ─▶ read, parse, route ─▶ accept ─▶ timers ─▶ write each dirty channel once
//! ```
//!
//! | file | duty |
//! |---|---|
//! | `run` | the thread: waits on its poller, gives the core its turns |
//! | `core` | what a turn consists of: plain data, no poller, no clock |
//! | `arrival` | how a connection becomes a channel |
//! | `requests`, `lines` | bytes to requests, in either protocol |
//! | `routing` | where a chat goes |
//! | `words` | what a channel is told, in the words of its protocol |
//! | `letters` | what each letter in the mailbox means |
//! | `news` | events of friends who come and go |
//! | `leaving` | the step, the farewell, the settlement |
//! | `strangers` | what the log says of those who never logged in |
//! | `connection`, `seldom`, `outbuf` | one channel, what it seldom has, and its unsent output |
//! | `mailbox` | what others say |
//! | `limits`, `wheel`, `hearing`, `addresses`, `waiting` | time limits and as of when they are judged, request rates, channels of one address, who waits long with nobody logged in |
//! | `listener`, `socket`, `poller`, `watch` | the kernel's side |

pub mod addresses;
mod arrival;
mod connection;
pub mod core;
mod hearing;
mod leaving;
mod letters;
pub mod limits;
mod lines;
pub mod listener;
pub mod mailbox;
mod news;
pub mod outbuf;
pub mod poller;
mod requests;
mod routing;
pub mod run;
mod seldom;
pub mod socket;
mod strangers;
#[cfg(test)]
mod tests;
pub mod waiting;
pub mod watch;
pub mod wheel;
mod words;

pub use self::core::{Core, Shared};
pub use addresses::Addresses;
pub use connection::Codec;
pub use limits::Limits;
pub use mailbox::{Mailbox, Mailboxes, Wake};
pub use waiting::Waiting;
