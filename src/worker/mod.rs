//! Workers: each polls, reads, parses and writes the channels it owns.

pub mod watch;
