//! A channel: one connection's name, its one atomic step from live to offline, and why it was taken.

pub mod reason;

pub use reason::{Advice, Initiator, Reason};
