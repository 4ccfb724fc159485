//! Linger: a chat and presence server that gets disconnection right.

pub mod channel;
pub mod ident;
pub mod service;
pub mod stress;
pub mod worker;
