//! What Linger promises, tried from outside: the real binary, and the library as other programs would use it.
//!
//! Each module is one part of what is promised, each test a sentence of it: `cargo test --test it -- --list` reads as a list.
//! All are one binary, so that the library is linked once. [`common`] has the vocabulary.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod ack;
mod admin;
mod bans;
mod chaos;
mod chat_pipe;
mod chat_terminal;
mod cli;
mod clocks;
mod common;
mod disconnect;
mod docs;
mod drain;
mod errors;
mod faults;
mod flood;
mod framing;
mod json_protocol;
mod layers;
mod lifecycle;
mod limits;
mod line;
mod line_chat;
mod line_disconnect;
mod line_slow;
mod lists;
mod lost;
mod mutations;
mod names;
#[cfg(feature = "namespaces")]
mod network;
mod outside;
mod presence;
mod protocol;
mod reasons;
mod reconcile;
mod resume;
mod store;
#[cfg(feature = "faults")]
mod syscall_faults;
mod why;
