//! Linger: a chat and presence server that gets disconnection right.

pub mod channel;
pub mod cli;
pub mod config;
pub mod control;
pub mod ident;
pub mod protocol;
pub mod service;
pub mod store;
