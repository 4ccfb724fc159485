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
//! | `requests` | bytes to requests, requests to where they belong |
//! | `letters` | what each letter in the mailbox means |
//! | `leaving` | the step, the farewell, the settlement |
//! | `connection`, `outbuf` | one channel, and its unsent output |
//! | `mailbox`, `wheel` | what others say, and time limits |
//! | `listener`, `socket`, `watch` | the kernel's side |

mod connection;
pub mod core;
mod leaving;
mod letters;
pub mod listener;
pub mod mailbox;
pub mod outbuf;
mod requests;
pub mod run;
pub mod socket;
#[cfg(test)]
mod tests;
pub mod watch;
pub mod wheel;

pub use self::core::{Core, Limits, Shared};
pub use mailbox::{Mailbox, Mailboxes, Wake};
