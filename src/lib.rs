//! Linger: a chat and presence server that gets disconnection right.

pub mod channel;
pub mod cli;
pub mod clock;
pub mod config;
pub mod control;
pub mod ident;
pub mod metrics;
pub mod offline;
pub mod protocol;
pub mod server;
pub mod service;
pub mod store;
pub mod stress;
pub mod sync;
pub mod worker;
