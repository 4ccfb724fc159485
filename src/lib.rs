//! Linger: a chat and presence server that gets disconnection right.

pub mod channel;
pub mod ident;
pub mod protocol;
pub mod service;
pub mod store;
