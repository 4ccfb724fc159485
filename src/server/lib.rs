//! The server of Linger, which gets disconnection right.
//!
//! The README tells how to run it. This page is for whoever reads or changes the code.
//!
//! `ARCHITECTURE.md` has the threads and what each may do, the invariants, the folders and which of them uses which, and the
//! walks of a departure and of a chat. Its map in short, each module using only those above it:
//!
//! | module | duty |
//! |---|---|
//! | [`channel`] | names with generations, the one step, the table of all channels, reasons |
//! | [`protocol`] | bytes to requests and answers to bytes; no I/O |
//! | [`store`] | what is asked of a store, and its rows; [`store::sqlite`] is the only place that knows SQLite |
//! | [`message`] | what threads tell each other, as plain values |
//! | [`offline_queue`] | main's one queue, and what ends a channel from any thread |
//! | [`registry`] | who is online, for everybody to read |
//! | [`auth`] | the threads that hash passwords, and how often somebody may try |
//! | [`main_loop`] | main: who is online, what is delivered, what is written |
//! | [`config`] | flags, environment and file to one valid configuration |
//! | [`net`] | sockets and the poller that watches them |
//! | [`worker`] | the poll loop: listeners, buffers, mailboxes |
//! | [`admin`] | the admin socket, both ends |
//! | `process` | data directory, fds, signals, service manager |
//! | [`server`] | composition: from a configuration to running threads and back |
//!
//! How all of it is tested, and how to run that, is in `docs/testing.md`; what its words mean, in `docs/lexicon.md`.

pub mod admin;
pub mod auth;
pub mod channel;
pub mod clock;
pub mod config;
pub mod escape;
pub mod handles;
pub mod ids;
pub mod ip_block;
pub mod logs;
pub mod main_loop;
pub mod message;
pub mod metrics;
pub mod net;
pub mod offline_queue;
mod process;
pub mod protocol;
pub mod registry;
pub mod server;
mod shrink;
pub mod store;
pub mod sync;
#[cfg(any(test, fuzzing))]
#[allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#[cfg_attr(fuzzing, allow(dead_code, reason = "fuzzing runs the properties alone"))]
mod testing;
pub mod worker;

/// Checks the properties of a fuzz target for one input. Panics where one does not hold.
#[cfg(fuzzing)]
#[doc(hidden)]
pub fn fuzz(target: &str, input: &[u8]) {
    testing::properties::check(target, input);
}
